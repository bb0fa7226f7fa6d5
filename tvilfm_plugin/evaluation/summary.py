"""Mean and spread over trials, and the rows of a result table that they make."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.evaluation.mer import Trial
from tvilfm_plugin.evaluation.ranking import RankMetrics

COLUMNS = ("R-1", "R-5", "R-10", "R-20", "mAP", "mINP")
"""The metrics of a result table."""
CONFIDENCE = 0.95
"""Coverage of every interval."""


class Summary(NamedTuple):
    """Mean over n trials, sample standard deviation, and the Student-t interval [low, high] of the mean (95 %).

    One trial has no spread: `sd`, `low` and `high` are then NaN.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Mean, deviation and confidence of (T,) trials: gallery draws, text seeds or training seeds, not mixed."""
    from scipy import stats

    trials = finite("trials", values)
    mean, n = float(trials.mean()), len(trials)
    if n == 1:
        return Summary(mean, np.nan, 1, np.nan, np.nan)
    sd = float(trials.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / np.sqrt(n)
    return Summary(mean, sd, n, float(mean - half), float(mean + half))


def finite(kind: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values as float64; raises where there are none or some are not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"Expected a non-empty list of finite {kind}, got {array.tolist()}.")
    return array


def per_draw(of_seeds: Sequence[Sequence[Trial]]) -> list[RankMetrics]:
    """Metrics of every gallery draw, averaged over the text seeds: the spread over draws is not that over texts."""
    draws = zip(*([trial.metrics for trial in trials] for trials in of_seeds), strict=True)
    columns = (zip(*seeds, strict=True) for seeds in draws)
    return [RankMetrics(np.mean(cmc, axis=0), float(np.mean(aps)), float(np.mean(inps))) for cmc, aps, inps in columns]


def percent(of_seeds: Sequence[Sequence[Trial]]) -> dict[str, float]:
    """Means over text seeds and draws, in percent."""
    columns = zip(*map(in_columns, per_draw(of_seeds)), strict=True)
    return {name: float(np.mean(values)) for name, values in zip(COLUMNS, columns, strict=True)}


def in_columns(metrics: RankMetrics) -> list[float]:
    """The values of `COLUMNS`, in percent."""
    return [100 * value for value in (*(metrics.rank(k) for k in (1, 5, 10, 20)), metrics.mAP, metrics.mINP)]


def row_arrays(label: str, of_seeds: Sequence[Sequence[Trial]]) -> dict[str, np.ndarray]:
    """Per-query values of every trial, (text seeds, draws, Q), and the best gallery images of the first draw, (Q, top)."""
    stack = lambda name: np.array([[getattr(t.per_query, name) for t in trials] for trials in of_seeds])
    first = of_seeds[0][0]
    assert first.top is not None and first.similarity is not None
    return {
        f"{label}/ap": stack("ap"),
        f"{label}/inp": stack("inp"),
        f"{label}/first_match_rank": stack("first_match_rank").astype(np.int32),
        f"{label}/top": first.top.astype(np.int32),
        f"{label}/top_similarity": first.similarity.astype(np.float32),
    }

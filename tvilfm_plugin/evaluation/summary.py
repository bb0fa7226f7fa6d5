"""Mean and spread over trials."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
    """Mean over n trials, sample standard deviation, and the Student-t confidence interval [low, high] of the mean.

    One trial has no spread: `sd`, `low` and `high` are then NaN.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float


def summarise(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Summary:
    """Mean, deviation and confidence over trials (gallery draws, text seeds or training seeds: not mixed).

    Args:
        values: (T,) one number per trial.
        confidence: coverage of the Student-t interval.
    """
    from scipy import stats

    trials = finite("trials", values)
    check_confidence(confidence)
    mean, n = float(trials.mean()), len(trials)
    if n == 1:
        return Summary(mean, np.nan, 1, np.nan, np.nan)
    sd = float(trials.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / np.sqrt(n)
    return Summary(mean, sd, n, float(mean - half), float(mean + half))


def finite(kind: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values as float64; raises where there are none or some are not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"Expected a non-empty list of finite {kind}, got {array.tolist()}.")
    return array


def check_confidence(confidence: float) -> None:
    """Raise unless it is a coverage between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a coverage between 0 and 1, got {confidence}.")

"""Confidence intervals of a result table: what its numbers say about other people than those who were filmed."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.statistics import Interval, identity_bootstrap
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import found_within, per_query_values
from tvilfm_plugin.evaluation.summary import Summary, summarise

METRICS = ("R-1", "mAP")


class RowIntervals(NamedTuple):
    """A row of the result table.

    Attributes:
        label, source: the row and its text source.
        intervals: metric -> mean and interval over identities, as fractions.
        draws, text_seeds: of the mAP in percent, over one source of variation each while the other is averaged.
    """

    label: str
    source: str
    intervals: dict[str, Interval]
    draws: Summary
    text_seeds: Summary


def row_intervals(
    stored: StoredEvaluation,
    folder: Path,
    resamples: int = 10_000,
    seed: int = 0,
    progress: Callable[[Collection[str]], Iterable[str]] = iter,
) -> list[RowIntervals]:
    """95 % intervals of every row, by bootstrap over identities, from the per-query values that lie in its `folder`."""
    found = []
    for label in progress(stored.cards):
        card, intervals = stored.cards[label], {}
        values = {metric: per_query_values(folder, label, metric) for metric in METRICS}
        for metric, trials in values.items():
            intervals[metric] = identity_bootstrap(query_means(trials), stored.query.pids, resamples=resamples, seed=seed)
        means = 100 * np.nanmean(values["mAP"], axis=2)
        found.append(
            RowIntervals(label, card.text_source, intervals, summarise(means.mean(axis=0)), summarise(means.mean(axis=1)))
        )
    return found


def query_means(values: np.ndarray) -> np.ndarray:
    """(..., text seeds, draws, Q) -> (Q,): a query's draws and texts are not independent facts about people.

    They are averaged, where they count, before anything is resampled; NaN for a query that counts in none.
    """
    trials = values.reshape(-1, values.shape[-1])
    counts = np.isfinite(trials).any(axis=0)
    mean = np.full(trials.shape[1], np.nan)
    mean[counts] = np.nanmean(trials[:, counts], axis=0)
    return mean


def cmc_intervals(
    first_match_rank: np.ndarray, pids: np.ndarray, length: int, resamples: int = 10_000, seed: int = 0
) -> list[Interval]:
    """R-1 to R-`length` with 95 % intervals by bootstrap over identities, the same resamples at every rank.

    Args:
        first_match_rank: (text seeds, draws, Q), 0 for a query that does not count.
        pids: (Q,) the query's identity.
    """
    means = (query_means(found_within(first_match_rank, k)) for k in range(1, length + 1))
    return [identity_bootstrap(mean, pids, resamples=resamples, seed=seed) for mean in means]


def intervals_table(rows: list[RowIntervals]) -> str:
    """A Markdown table in percent."""
    cells = [["row", "text source", *(f"{metric} [95 % interval]" for metric in METRICS)]]
    cells[0] += ["mAP over draws", "mAP over text seeds"]
    for row in rows:
        cells.append([row.label, row.source, *(row.intervals[metric].in_percent() for metric in METRICS)])
        cells[-1] += [_deviation(row.draws), _deviation(row.text_seeds)]
    people = rows[0].intervals[METRICS[0]].n
    note = (
        f"- Percentile bootstrap over the {people} query identities: how far the numbers could move with other people, for "
        "these weights. `tvilfm results compare` compares rows or runs: their intervals overlap more than their "
        "difference varies."
    )
    return "\n".join([*aligned(cells, names=2), "", note])


def _deviation(summary: Summary) -> str:
    return f"± {summary.sd:.2f} (n={summary.n})" if summary.n > 1 else "(n=1)"

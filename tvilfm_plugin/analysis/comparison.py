"""Two systems on the same queries: how large their difference is, and whether it would hold for other people.

The unit of the test is the identity: queries of one person resemble each other. Gallery draws, text seeds and training
seeds are three more sources of variation; each is reported by itself and none is mistaken for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from tvilfm_plugin.analysis.intervals import query_means
from tvilfm_plugin.analysis.statistics import PairedTest, holm, paired_randomisation, per_identity
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError, per_query_values
from tvilfm_plugin.evaluation.summary import CONFIDENCE, Summary, summarise

# Two trainings of one system differ in these, and systems that are compared may.
FREE_COLUMNS = ("seed", "weights_sha256", "version")


class ProtocolMismatch(ValueError):
    """Numbers that were measured by different protocols cannot be compared."""


class Measured(NamedTuple):
    """One row of the result table of one training run.

    Attributes:
        name: of the run, for messages.
        card: how it was measured.
        values: (text seeds, draws, Q) as fractions; NaN for a query that does not count.
        pids: (Q,) identity of every query.
        queries: image of every query, by the end of its path: data sets lie in different places.
        galleries: images of every gallery draw, likewise.
    """

    name: str
    card: ProtocolCard
    values: np.ndarray
    pids: np.ndarray
    queries: tuple[str, ...]
    galleries: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Spread:
    """Mean and deviation over one source of variation at a time, in percent: the other two are averaged first."""

    draws: Summary
    text_seeds: Summary
    training_seeds: Summary

    @property
    def mean(self) -> float:
        return self.training_seeds.mean


class Comparison(NamedTuple):
    """Second system minus first, for one row and one metric.

    Attributes:
        row: what was compared.
        metric: "mAP", "mINP" or "R-K".
        first, second: the two systems, in percent.
        test: the paired test over identities; differences as fractions.
        effect: Cohen's d of the paired differences: their mean over identities divided by their standard deviation.
        better, worse: share of the identities for which the second system is better or worse.
        seed_difference: Welch's t interval of the difference over training seeds, in percent; NaN with a single seed.
        seed_p: its two-sided p-value.
    """

    row: str
    metric: str
    first: Spread
    second: Spread
    test: PairedTest
    effect: float
    better: float
    worse: float
    seed_difference: tuple[float, float]
    seed_p: float


class RowName(NamedTuple):
    """A row of the result table, whatever its label: the label leaves a run's first text source out."""

    setting: str
    query: str
    source: str

    def __str__(self) -> str:
        return f"{self.setting}/{self.query}" + ("" if self.source == NO_TEXT else f" ({self.source})")


def rows(stored: StoredEvaluation) -> dict[RowName, str]:
    """Row -> label of a stored evaluation."""
    return {
        RowName(card.setting, stored.query_type(label).name, card.text_source): label for label, card in stored.cards.items()
    }


def matching_rows(
    first: Sequence[StoredEvaluation], second: Sequence[StoredEvaluation], query: str
) -> list[tuple[RowName, RowName]]:
    """Rows that all runs of either side have.

    Args:
        first, second: the training seeds of the two systems.
        query: a query type, e.g. "ensemble": in every setting and with every text source; "TYPE@SOURCE": with that source
            only; "all": every type. "TYPE_A:TYPE_B" compares two types, with the same text source, or without one where a
            type has none.
    """
    a, b = (sorted(set.intersection(*(set(rows(one)) for one in side))) for side in (first, second))
    wanted_a, wanted_b = (query.split(":") * 2)[:2]
    pairs = [
        (one, other)
        for one in a
        for other in b
        if one.setting == other.setting
        and (one.source == other.source or (":" in query and NO_TEXT in (one.source, other.source)))
        and (one.query == other.query or ":" in query)
        and _is_wanted(one, wanted_a)
        and _is_wanted(other, wanted_b)
    ]
    if not pairs:
        raise NotStoredError(
            f"No row {query!r} is in all runs. The first side has {', '.join(map(str, a)) or 'none in common'}; the second "
            f"{', '.join(map(str, b)) or 'none in common'}."
        )
    return pairs


def _is_wanted(row: RowName, wanted: str) -> bool:
    name, _, source = wanted.partition("@")
    return name in ("all", row.query) and source in ("", row.source)


def measured(stored: StoredEvaluation, folder: Path, label: str, metric: str, name: str) -> Measured:
    """A row of a stored evaluation."""
    card = stored.card(label)
    images = _image_names(stored.gallery_paths)
    galleries = tuple(tuple(images[i] for i in drawn) for drawn in stored.draws[card.setting])
    values = per_query_values(folder, label, metric)
    return Measured(name, card, values, stored.query.pids, _image_names(stored.query_paths), galleries)


def _image_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Camera, person and file: the part of a path that does not depend on where a data set lies."""
    return tuple("/".join(PurePath(path).parts[-3:]) for path in paths)


def differing_columns(cards: Sequence[ProtocolCard], free: Sequence[str] = FREE_COLUMNS) -> dict[str, list[Any]]:
    """Columns in which cards differ, with the different values in order of appearance."""
    tables = [card.to_dict() for card in cards]
    found: dict[str, list[Any]] = {}
    for column in tables[0]:
        values = [table[column] for table in tables]
        if column == "data_sha256":
            values = _of_one_kind(cards)
        if column not in free and any(value != values[0] for value in values):
            found[column] = [value for i, value in enumerate(values) if value not in values[:i]]
    return found


def _of_one_kind(cards: Sequence[ProtocolCard]) -> list[str]:
    """Hashes that have to be equal: of the rows with text, whose captions count, or of those without; older cards have none."""
    kinds = [[c.data_sha256 for c in cards if c.data_sha256 and (c.text_source == NO_TEXT) is bare] for bare in (True, False)]
    return next((hashes for hashes in kinds if len(set(hashes)) > 1), [""])


def check_comparable(runs: Sequence[Measured], despite: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Refuse to compare what was measured differently.

    Args:
        runs: all runs of both systems.
        despite: card columns that may differ all the same.

    Returns:
        The tolerated columns that do differ, with their values.
    """
    cards = [run.card for run in runs]
    known = list(cards[0].to_dict())
    if unknown := [column for column in despite if column not in known]:
        raise ValueError(f"A protocol card has no column {', '.join(unknown)}; it has {', '.join(known)}.")
    differing = differing_columns(cards)
    refused = {column: values for column, values in differing.items() if column not in despite}
    if refused:
        listed = "; ".join(f"{column} is {' or '.join(map(repr, values))}" for column, values in refused.items())
        raise ProtocolMismatch(
            f"{', '.join(dict.fromkeys(run.name for run in runs))} were measured by different protocols: {listed}. Evaluate "
            f"them alike, or name the column to compare them despite it (--despite {' '.join(refused)})."
        )
    for run in runs[1:]:
        _check_same_trials(runs[0], run)
    return differing


def check_seeds(runs: Sequence[Measured]) -> None:
    """The runs of one system have to be different trainings, or their spread means nothing."""
    for i, one in enumerate(runs):
        for other in runs[:i]:
            if one.card.weights_sha256 and one.card.weights_sha256 == other.card.weights_sha256:
                raise ValueError(f"{other.name} and {one.name} hold the same weights: they are one training, not two.")


def spread(runs: Sequence[Measured]) -> Spread:
    """Mean and deviation of one system over gallery draws, over text seeds and over training seeds.

    Args:
        runs: one per training seed.
    """
    # (training seeds, text seeds, draws): queries are averaged as the metric does.
    means = 100 * np.array([np.nanmean(run.values, axis=2) for run in runs])
    return Spread(*(summarise(means.mean(axis=others)) for others in ((0, 1), (0, 2), (1, 2))))


def compare(first: Sequence[Measured], second: Sequence[Measured], row: str, metric: str, **test: Any) -> Comparison:
    """Second system minus first.

    Args:
        first, second: the training seeds of either system; see `check_comparable`.
        row, metric: for the result.
        test: `resamples` and `seed` of `paired_randomisation`.
    """
    a, b = _per_query(first), _per_query(second)
    pids = first[0].pids
    paired = paired_randomisation(a, b, pids, **test)
    differences = identity_means(b - a, pids)
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else np.nan
    low, high, p_value = _welch(first, second)
    return Comparison(
        row, metric, spread(first), spread(second), paired,
        effect=paired.difference / deviation if deviation > 0 else np.nan,
        better=float(np.mean(differences > 0)),
        worse=float(np.mean(differences < 0)),
        seed_difference=(low, high),
        seed_p=p_value,
    )  # fmt: skip


def identity_means(values: np.ndarray, pids: np.ndarray) -> np.ndarray:
    """(I,) mean of the finite values of each identity, identities ascending."""
    total, count = per_identity(values, pids)
    return total / count


def comparison_table(comparisons: Sequence[Comparison], names: tuple[str, str], differing: Mapping[str, Sequence[Any]]) -> str:
    """A Markdown table of all comparisons with Holm's correction over them, and how to read it.

    Args:
        names: of the two systems.
        differing: card columns that differ although they decide about a number.
    """
    corrected = holm([c.test.p_value for c in comparisons])
    seeds_known = [c.seed_p for c in comparisons if not np.isnan(c.seed_p)]
    seed_corrected = iter(holm(seeds_known)) if seeds_known else iter(())
    cells = [["row", "metric", "A", "B", "B - A", "95 % interval", "d", "better/worse", "p", "p (Holm)"]]
    cells[0] += ["p (seeds, Holm)"] if seeds_known else []
    for c, p_holm in zip(comparisons, corrected, strict=True):
        t = c.test
        cells.append(
            [c.row, c.metric, f"{c.first.mean:.2f}", f"{c.second.mean:.2f}", f"{100 * t.difference:+.2f}",
             f"[{100 * t.low:+.2f}, {100 * t.high:+.2f}]", f"{c.effect:+.2f}", f"{100 * c.better:.0f}/{100 * c.worse:.0f} %",
             _p(t.p_value), _p(p_holm) + ("" if p_holm > 0.05 else " *")]
        )  # fmt: skip
        if seeds_known:
            cells[-1].append("—" if np.isnan(c.seed_p) else _p(float(next(seed_corrected))))
    first, second = names
    parts = [f"A = {first}\nB = {second}\n", *aligned(cells, names=2), "", *_spread_lines(comparisons)]
    c = comparisons[0]
    others = "p (seeds) says, Welch's t test over training seeds." if seeds_known else "several seeds per side would say."
    parts += [
        "",
        f"- B - A, its interval, d and p treat the {c.test.n} identities as the sample (mean over a person's queries first, so "
        "the difference may deviate a little from that of the means over queries); * marks p (Holm) <= 0.05 over the "
        f"{len(comparisons)} compared rows. d is the mean difference of a person divided by its standard deviation.",
        f"- They hold for these trainings: whether another training would repeat the difference is what {others}",
    ]
    for column, values in differing.items():
        parts.append(f"- WARNING: the protocol differs in {column}: {' or '.join(map(repr, values))}.")
    return "\n".join(parts)


def _spread_lines(comparisons: Sequence[Comparison]) -> list[str]:
    cells = [["row", "metric", "system", "over gallery draws", "over text seeds", "over training seeds"]]
    for c in comparisons:
        for name, system in (("A", c.first), ("B", c.second)):
            sources = (system.draws, system.text_seeds, system.training_seeds)
            cells.append([c.row, c.metric, name, *(_mean_sd(summary) for summary in sources)])
    return aligned(cells, names=3)


def _mean_sd(summary: Summary) -> str:
    return f"{summary.mean:.2f} ± {summary.sd:.2f} (n={summary.n})" if summary.n > 1 else f"{summary.mean:.2f} (n=1)"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def _per_query(runs: Sequence[Measured]) -> np.ndarray:
    """(Q,) mean over training seeds, text seeds and draws; a query counts where any draw has a match for it."""
    return query_means(np.array([run.values for run in runs]))


def _welch(first: Sequence[Measured], second: Sequence[Measured]) -> tuple[float, float, float]:
    """95 % interval in percent and p-value of the difference over training seeds."""
    from scipy import stats

    if len(first) < 2 or len(second) < 2:
        return np.nan, np.nan, np.nan
    a, b = ([100 * np.nanmean(run.values, axis=2).mean() for run in runs] for runs in (first, second))
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return np.nan, np.nan, np.nan
    result = stats.ttest_ind(b, a, equal_var=False)
    interval = result.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(result.pvalue)


def _check_same_trials(one: Measured, other: Measured) -> None:
    """Equal cards promise equal trials; unequal ones would silently compare different people."""
    same = one.queries == other.queries and one.galleries == other.galleries and np.array_equal(one.pids, other.pids)
    if not same or one.values.shape[1:] != other.values.shape[1:]:
        raise ProtocolMismatch(
            f"{one.name} and {other.name} have equal protocol cards, but their queries or gallery draws differ "
            f"({len(one.queries)} and {len(other.queries)} queries). Evaluate both on the same data."
        )

"""Two systems, each by the output folders of its trainings: every row that both have, compared."""

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tvilfm_plugin.analysis import comparison
from tvilfm_plugin.analysis.comparison import measured, rows
from tvilfm_plugin.evaluation.stored import StoredEvaluation

Side = Mapping[Path, Mapping[str, Path]]
"""Output folder of a training -> name of a data set -> its stored evaluation."""


def find_runs(pattern: str) -> list[Path]:
    """Run folders of a comma-separated list of folders or globs."""
    found = [Path(name) for part in pattern.split(",") for name in (sorted(glob.glob(part)) or [part])]
    return list(dict.fromkeys(found))


def compare_runs(
    a: Side,
    b: Side,
    load: Callable[[Path], StoredEvaluation],
    *,
    queries: Sequence[str] = ("ensemble",),
    metrics: Sequence[str] = ("mAP",),
    despite: Sequence[str] = (),
    resamples: int = 10_000,
    seed: int = 0,
) -> str:
    """The report on two systems.

    Args:
        queries: TYPE, TYPE@SOURCE, TYPE_A:TYPE_B, or "all".
        despite: columns of the protocol card that may differ.

    Raises:
        ProtocolMismatch: they were measured differently.
        ValueError: they were evaluated on different data sets.
    """
    common = set.intersection(*(set(folders) for side in (a, b) for folders in side.values()))
    if not common:
        raise ValueError("The runs were evaluated on different data sets: nothing to compare.")
    comparisons: list[comparison.Comparison] = []
    differing: dict[str, list[object]] = {}
    for name in sorted(common):
        loaded = [[(folders[name], load(folders[name])) for folders in side.values()] for side in (a, b)]
        first, second = ([one for _, one in side] for side in loaded)
        pairs = [pair for query in queries for pair in comparison.matching_rows(first, second, query)]
        for pair, metric in ((pair, metric) for pair in pairs for metric in metrics):
            sides = [
                [measured(one, folder, rows(one)[row], metric, str(folder.parents[1])) for folder, one in side]
                for side, row in zip(loaded, pair, strict=True)
            ]
            for side in sides:
                comparison.check_seeds(side)
            differing |= comparison.check_comparable([*sides[0], *sides[1]], despite)
            label = str(pair[1]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"
            label = label if len(common) == 1 else f"{name}: {label}"
            comparisons.append(comparison.compare(sides[0], sides[1], label, metric, resamples=resamples, seed=seed))
    names = (", ".join(map(str, a)), ", ".join(map(str, b)))
    return comparison.comparison_table(comparisons, names, differing)

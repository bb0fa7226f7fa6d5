"""The rows of a table re-ranked, from stored evaluations: numbers of their own, marked RR, and what a query costs.

All kinds but "gallery-only" look at all queries at once. Nothing is tuned: every kind has fast-reid's default numbers.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.comparison import rows
from tvilfm_plugin.analysis.table_rows import METRICS, Table
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.evaluation.reranking import GALLERY_ONLY
from tvilfm_plugin.evaluation.stored import MakeDistance, StoredEvaluation
from tvilfm_plugin.evaluation.summary import percent

NUMBERS = {"k1": 20, "k2": 6, "lambda": 0.3}


class Reranked(NamedTuple):
    """One row with one kind: metric -> percent (mean over all trials), gain over none, milliseconds per query and draw."""

    name: str
    setting: str
    query: str
    source: str
    kind: str
    means: dict[str, float]
    gain: dict[str, float]
    milliseconds: float


def rerank_rows(
    table: Table,
    found: Mapping[str, Mapping[int, Sequence[Path]]],
    load: Callable[[Path], StoredEvaluation],
    make_distance: MakeDistance,
    kinds: Sequence[str],
    only: Sequence[str] = (),
) -> list[Reranked]:
    """Every row of a table with every kind.

    Args:
        found: run name -> training seed -> stored evaluations.
        make_distance: {"rerank": its kind and numbers} -> what re-ranks.
        kinds: of TEST.RERANK.KIND.
        only: row names; empty: all.
    """
    made = []
    for row in (row for row in table.rows if not only or row.name in only):
        evaluations = [load(folder) for folders in found.get(row.run, {}).values() for folder in folders]
        if not evaluations:
            continue
        # RegDB's splits are settings of their own; the table has one line for all of them.
        sources = dict.fromkeys(name.source for name in rows(evaluations[0]) if name.query == row.query)
        for source, kind in itertools.product(sources, kinds):
            made += _one(row.name, evaluations, row.query, source, kind, make_distance)
    return made


def _one(
    name: str, evaluations: Sequence[StoredEvaluation], query: str, source: str, kind: str, make_distance: MakeDistance
) -> list[Reranked]:
    distance = make_distance({"rerank": {**NUMBERS, "kind": kind}})
    by_setting: dict[str, list[tuple[StoredEvaluation, str]]] = {}
    for stored in evaluations:
        for label_name, label in rows(stored).items():
            if (label_name.query, label_name.source) == (query, source):
                setting = "trials" if label_name.setting.startswith("trial") else label_name.setting
                by_setting.setdefault(setting, []).append((stored, label))
    made = []
    for setting, labels in by_setting.items():
        values, gains, cost = [], [], []
        for stored, label in labels:
            began = time.perf_counter()
            trials = stored.evaluate(label, distance=distance)
            count = sum(len(draws) for draws in trials) * len(stored.query.pids)
            cost.append(1000 * (time.perf_counter() - began) / count)
            after = percent(trials)
            values.append([after[metric] for metric in METRICS])
            gains.append([after[metric] - stored.results[f"{label}/{metric}"] for metric in METRICS])
        means, gain = (dict(zip(METRICS, np.mean(one, axis=0).tolist(), strict=True)) for one in (values, gains))
        made.append(Reranked(name, setting, query, source, kind, means, gain, float(np.mean(cost))))
    return made


def as_markdown(made: Sequence[Reranked]) -> str:
    """The rows and what must be said of them."""
    header = ["row", "query", "text source", "setting", "kind", *METRICS, *(f"{m} gain" for m in METRICS), "ms per query"]
    body = [
        [f"{one.name} (RR)", one.query, one.source, one.setting, one.kind, *(f"{one.means[m]:.2f}" for m in METRICS),
         *(f"{one.gain[m]:+.2f}" for m in METRICS), f"{one.milliseconds:.1f}"]
        for one in made
    ]  # fmt: skip
    notes = [
        f"- RR: k1 {NUMBERS['k1']}, k2 {NUMBERS['k2']}, lambda {NUMBERS['lambda']:g} (fast-reid's defaults) for every row; "
        "nothing is tuned.",
        f"- Every kind but {GALLERY_ONLY} re-ranks a query by the other queries of the test set, which no search has.",
    ]
    return "\n".join(["## RR: re-ranked", "", *aligned([header, *body], names=5), "", *notes]) + "\n"

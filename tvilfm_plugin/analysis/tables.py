"""The papers' tables from stored evaluations: our numbers beside the published ones, every row with its text source.

Training seeds, text seeds and gallery draws (on RegDB: splits) are averaged, but their deviations are kept apart; what was
measured by different protocols is never averaged.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tvilfm_plugin.analysis import comparison
from tvilfm_plugin.analysis.comparison import Comparison, Measured, ProtocolMismatch, differing_columns, measured, rows
from tvilfm_plugin.analysis.published import TRIALS
from tvilfm_plugin.analysis.table_rows import IMAGES, METRICS, RUNS, STAGE1, TABLES, Line, Result, Row, Run, Table
from tvilfm_plugin.analysis.table_text import as_csv, latex, markdown
from tvilfm_plugin.evaluation.report import NO_TEXT, ORACLE
from tvilfm_plugin.evaluation.stored import StoredEvaluation

# What people script against stands in this module.
__all__ = ["RUNS", "STAGE1", "TABLES", "Line", "Result", "Row", "Run", "Table", "as_csv", "collect", "latex", "markdown"]

# What stands beside an oracle row: the first that answers the same query.
BESIDE = ("witness", "human", "self")

Evaluations = Mapping[str, Mapping[int, Sequence[Path]]]
"""Run name -> training seed -> stored evaluations, one per trial (RegDB's splits; one elsewhere)."""
Load = Callable[[Path], StoredEvaluation]


def collect(
    table: Table,
    dataset: str,
    found: Evaluations,
    load: Load,
    *,
    only: Sequence[str] = (),
    expected: Sequence[int] = (),
    resamples: int = 10_000,
) -> Result:
    """Read the stored evaluations of a table.

    Args:
        found: what there is. A run or a seed that is missing leaves a note.
        only: row names; empty: all.
        expected: training seeds that there should be.
    """
    load = functools.cache(load)
    lines, notes = [], []
    for row in (row for row in table.rows if not only or row.name in only):
        seeds = found.get(row.run, {})
        missing = [str(seed) for seed in expected if not seeds.get(seed)]
        if missing:
            notes.append(f"MISSING: {row.name}, training seed {', '.join(missing)}.")
        if any(seeds.values()):
            lines += _lines_of(row, {seed: folders for seed, folders in seeds.items() if folders}, load, notes)
    steps = _steps(lines, notes, resamples)
    notes += _across_rows(lines)
    return Result(table=table, dataset=dataset, lines=tuple(lines), steps=tuple(steps), notes=tuple(notes), resamples=resamples)


def _lines_of(row: Row, seeds: Mapping[int, Sequence[Path]], load: Load, notes: list[str]) -> list[Line]:
    first = load(next(iter(seeds.values()))[0])
    several = any(len(folders) > 1 for folders in seeds.values())
    settings = list(dict.fromkeys(name.setting for name in rows(first)))
    lines = []
    for setting in settings:
        answers = [name for name in rows(first) if name.setting == setting]
        wanted = _queries(row, answers)
        if not wanted:
            known = ", ".join(sorted({name.query for name in answers}))
            notes.append(f"MISSING: {row.name} reads the {row.query} query; {setting} has {known}.")
        for query, source, note in wanted:
            measurements = {
                seed: [_measure(row, load, folder, None if several else setting, query, source) for folder in folders]
                for seed, folders in seeds.items()
            }
            lines += _alike(row, TRIALS if setting.startswith("trial") else setting, query, source, measurements, note)
    return lines


def _queries(row: Row, answers: Sequence[comparison.RowName]) -> list[tuple[str, str, str]]:
    """(query type, text source, note) of the lines of a row: the paper's source, and one that is no oracle."""
    sources = [name.source for name in answers if name.query == row.query]
    if row.query == IMAGES:
        return [(IMAGES, NO_TEXT, "")] if sources else []
    beside = next((source for source in BESIDE if source in sources), None)
    chosen = [(row.query, source, "") for source in (ORACLE, beside) if source in sources]
    if beside is None and any(name.query == IMAGES for name in answers):
        note = "no text source but the oracle answers this query, so the images alone stand beside it"
        if any(name.source == "self" for name in answers):
            note = "source self answers no fused query (Eq. 7 gives the infrared feature): the images alone stand beside it"
        chosen.append((IMAGES, NO_TEXT, note))
    return chosen if sources else []


def _measure(row: Row, load: Load, folder: Path, setting: str | None, query: str, source: str) -> dict[str, Measured]:
    """Metric -> measurement of one trial; its only setting where there are several trials (RegDB's splits)."""
    stored = load(folder)
    labels = [
        label
        for name, label in rows(stored).items()
        if (name.query, name.source) == (query, source) and setting in (None, name.setting)
    ]
    if len(labels) != 1:
        raise ProtocolMismatch(
            f"{folder} has {len(labels)} rows for {query} ({source}) in {setting or 'its only setting'}, expected one: the "
            f"runs of {row.name} were evaluated differently. Evaluate them with the same TEST and DATASETS keys."
        )
    return {metric: measured(stored, folder, labels[0], metric, str(folder.parents[1])) for metric in METRICS}


def _alike(
    row: Row, setting: str, query: str, source: str, seeds: Mapping[int, list[dict[str, Measured]]], note: str
) -> list[Line]:
    """One line per protocol: seeds that were measured differently are not averaged."""
    free = ("seed", "weights_sha256", "version", *(("setting",) if setting == TRIALS else ()))
    for seed, trials in seeds.items():
        if differing := differing_columns([one[METRICS[0]].card for one in trials], free):
            raise ProtocolMismatch(f"{row.name}, seed {seed}: trials differ in {', '.join(differing)} and are not averaged.")
    groups: list[list[int]] = []
    card = lambda seed: seeds[seed][0][METRICS[0]].card
    for seed in seeds:
        for group in groups:
            if not differing_columns([card(group[0]), card(seed)], free) and len(seeds[group[0]]) == len(seeds[seed]):
                group.append(seed)
                break
        else:
            groups.append([seed])
    differing = differing_columns([card(group[0]) for group in groups], free)
    lines = []
    for group in groups:
        apart = ", ".join(f"{column} {card(group[0]).to_dict()[column]!r}" for column in differing)
        if len(groups) > 1 and not apart:
            apart = f"{len(seeds[group[0]])} trials"
        of_metric = {metric: [[one[metric] for one in seeds[seed]] for seed in group] for metric in METRICS}
        comparison.check_seeds([of_seed[0] for of_seed in of_metric[METRICS[0]]])
        lines.append(
            Line(
                row=row, setting=setting, query=query, source=source, seeds=tuple(group), trials=of_metric,
                apart=apart, note=note,
            )  # fmt: skip
        )
    return lines


def _steps(lines: Sequence[Line], notes: list[str], resamples: int) -> list[Comparison]:
    """Every row against the row it is a step from, in every setting, with the same text source or against the images."""
    steps = []
    for line in lines:
        for before in lines:
            if before.row.name != line.row.previous or before.setting != line.setting:
                continue
            if NO_TEXT not in (line.source, before.source) and line.source != before.source:
                continue
            if line.query == IMAGES != line.row.query or before.query == IMAGES != before.row.query:
                continue  # stands in for a query that has no text of its own
            name = f"{line.setting}: {before.row.name} -> {line.row.name} ({line.source})"
            # Whether a query has a text may be what is compared.
            despite = ("text_source", "text_seeds", "note") if before.source != line.source else ()
            for metric in ("R-1", "mAP"):
                first, second = ([_pooled(trials) for trials in one.trials[metric]] for one in (before, line))
                try:
                    comparison.check_comparable([*first, *second], despite)
                except ProtocolMismatch as error:
                    notes.append(f"NOT TESTED: {name}. {error}")
                    break
                steps.append(comparison.compare(first, second, name, metric, resamples=resamples))
    return steps


def _pooled(trials: Sequence[Measured]) -> Measured:
    """RegDB's splits as one measurement: a person who is tested in several of them is still one person."""
    if len(trials) == 1:
        return trials[0]
    first = trials[0]
    card = {**first.card.to_dict(), "setting": TRIALS, "draws": len(trials), "weights_sha256": ""}
    return Measured(
        first.name,
        type(first.card)(**card),
        np.concatenate([one.values for one in trials], axis=2),
        np.concatenate([one.pids for one in trials]),
        tuple(query for one in trials for query in one.queries),
        tuple(gallery for one in trials for gallery in one.galleries),
    )


def _across_rows(lines: Sequence[Line]) -> list[str]:
    """Columns in which whole rows differ, beyond those that the rows are about."""
    notes = []
    for setting in dict.fromkeys(line.setting for line in lines):
        some = [line for line in lines if line.setting == setting]
        free = ("seed", "weights_sha256", "version", "text_source", "text_seeds", "setting", "note")
        cards = [line.trials[METRICS[0]][0][0].card for line in some]
        for column, values in differing_columns(cards, free).items():
            notes.append(f"WARNING: in {setting}, rows differ in {column}: {' or '.join(map(repr, values))}.")
    return notes

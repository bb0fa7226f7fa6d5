"""The papers' tables from stored evaluations: our numbers beside the published ones, every row with its text source.

A row is a value: which run it reads, which query type, and which row it is a step from. Training seeds, text seeds and
gallery draws (on RegDB: splits) are averaged, but their deviations are kept apart; what was measured by different
protocols is never averaged.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tvilfm_plugin.analysis.comparison import (
    Comparison,
    Measured,
    ProtocolMismatch,
    RowName,
    check_comparable,
    check_seeds,
    compare,
    differing_columns,
    measured,
    rows,
)
from tvilfm_plugin.analysis.published import TRIALS, published, published_draws
from tvilfm_plugin.analysis.statistics import holm
from tvilfm_plugin.evaluation.report import NO_TEXT, ORACLE, aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.summary import Summary, summarise

METRICS = ("R-1", "mAP", "mINP")
# What stands beside an oracle row: the first that answers the same query.
BESIDE = ("witness", "human", "self")
IMAGES = "infrared"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        name: of its folder.
        overrides: `KEY, VALUE, ...` that make it what it is.
        start: name of the run of the same seed whose weights it starts from; "" = none.
        scratch: whether it has stage 1's schedule, learning rate and pre-trained weights instead.
        config: its file below `projects`, where that is not the data set's of TVI-LFM; {} stands for the data set.
    """

    name: str
    overrides: tuple[str, ...] = ()
    start: str = "stage1"
    scratch: bool = False
    config: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Args:
        name: as it is printed.
        run: a name in `RUNS`.
        query: the query type, e.g. "fusion".
        published: its name in published.json; "" = the paper has no such number.
        previous: name of the row that it is tested against.
    """

    name: str
    run: str
    query: str
    published: str = ""
    previous: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a title; `datasets` that the table is about."""

    title: str
    rows: tuple[Row, ...]
    datasets: tuple[str, ...]


_NO_REPHRASE = ("INPUT.REPHRASE_PROB", "0.0")
_NO_IAEL = ("MODEL.MIP.IAEL_WEIGHT", "0.")
_NO_IPG = ("MODEL.MIP.INSTANCE_PROMPTS", "0")
_MIP = "MIP/configs/{}.yml"
STAGE1 = Run(name="stage1", start="")
RUNS = {
    run.name: run
    for run in (
        STAGE1,
        Run(name="b", overrides=("TVILFM.FUSION", "Add", "TVILFM.JOINT", "False", *_NO_REPHRASE)),
        Run(name="sff", overrides=("TVILFM.JOINT", "False", *_NO_REPHRASE)),
        Run(name="sff_mjl", overrides=_NO_REPHRASE),
        Run(name="full"),
        Run(name="scratch", overrides=("TVILFM.FROM_SCRATCH", "True"), start="", scratch=True),
        # MIP's parts, all of them with the same blocks before the branches.
        Run(name="mip_baseline", overrides=("MODEL.MIP.MODALITY_PROMPTS", "0", *_NO_IPG), start="", config=_MIP),
        Run(name="mip_mpl", overrides=_NO_IPG, start="", config=_MIP),
        Run(name="mip_generator", overrides=_NO_IAEL, start="", config=_MIP),
        Run(name="mip_fusion", overrides=(*_NO_IAEL, "MODEL.MIP.INSTANCE_TYPE", "fusion"), start="", config=_MIP),
        Run(name="mip_all", start="", config=_MIP),
        Run(name="mip_text", start="mip_all", config="TVILFM/configs/{}_mip.yml"),
    )
}

_BACKBONE = Row(name="VI-ReID backbone, I->R", run="stage1", query=IMAGES, published="backbone")
_AGAINST = (_BACKBONE, Row(name="TVI-LFM, I+T->R", run="full", query="ensemble", published="tvilfm", previous=_BACKBONE.name))
TABLES = {
    "table1": Table(
        title="Table 1: ablation",
        rows=(
            Row(name="B", run="b", query="fusion", published="b"),
            Row(name="+SFF", run="sff", query="fusion", published="sff", previous="B"),
            Row(name="+SFF+MJL", run="sff_mjl", query="fusion", published="sff_mjl", previous="+SFF"),
            Row(name="+SFF+MJL+LLM", run="full", query="fusion", published="sff_mjl_llm", previous="+SFF+MJL"),
            Row(name="+SFF+MJL+MER", run="sff_mjl", query="ensemble", published="sff_mjl_mer", previous="+SFF+MJL"),
            Row(name="all", run="full", query="ensemble", published="tvilfm", previous="+SFF+MJL+LLM"),
        ),
        datasets=("sysu", "regdb", "llcm", "synthetic"),
    ),
    "table2": Table(title="Table 2: comparison on SYSU-MM01", rows=_AGAINST, datasets=("sysu", "synthetic")),
    "table3": Table(title="Table 3: comparison on RegDB and LLCM", rows=_AGAINST, datasets=("regdb", "llcm", "synthetic")),
    "table5": Table(
        title="Table 5: incremental against from scratch (without MER)",
        rows=(
            Row(name="from scratch, I->R", run="scratch", query=IMAGES, published="scratch_images"),
            Row(name="from scratch, I+T->R", run="scratch", query="fusion", published="scratch"),
            Row(name="incremental, I->R", run="stage1", query=IMAGES, published="backbone", previous="from scratch, I->R"),
            Row(
                name="incremental, I+T->R", run="full", query="fusion", published="sff_mjl_llm", previous="from scratch, I+T->R"
            ),
        ),
        datasets=("sysu", "regdb", "llcm", "synthetic"),
    ),
    "mip": Table(
        title="MIP: its parts at equal depth, and text beside it",
        rows=(
            Row(name="prompt-free baseline", run="mip_baseline", query=IMAGES),
            Row(name="MPL", run="mip_mpl", query=IMAGES, previous="prompt-free baseline"),
            Row(name="MPL + IPG, generator", run="mip_generator", query=IMAGES, previous="MPL"),
            Row(name="MPL + IPG, fusion", run="mip_fusion", query=IMAGES, previous="MPL"),
            Row(name="all (generator, IAEL)", run="mip_all", query=IMAGES, previous="MPL + IPG, generator"),
            Row(name="all + text", run="mip_text", query="ensemble", previous="all (generator, IAEL)"),
        ),
        datasets=("sysu", "synthetic"),
    ),
}

Evaluations = Mapping[str, Mapping[int, Sequence[Path]]]
"""Run name -> training seed -> stored evaluations, one per trial (RegDB's splits; one elsewhere)."""
Load = Callable[[Path], StoredEvaluation]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of one setting with one text source: what was measured by one and the same protocol.

    Attributes:
        seeds: training seeds.
        trials: metric -> [training seed][trial].
        apart: what makes it another protocol than its siblings; empty where all seeds were measured alike.
        note: printed below the table.
    """

    row: Row
    setting: str
    query: str
    source: str
    seeds: tuple[int, ...]
    trials: Mapping[str, Sequence[Sequence[Measured]]]
    apart: str = ""
    note: str = ""

    def values(self, metric: str) -> np.ndarray:
        """(training seeds, text seeds, draws) in percent; RegDB's splits are its draws."""
        of_seed = lambda trials: np.hstack([np.nanmean(one.values, axis=2) for one in trials])
        return 100 * np.array([of_seed(trials) for trials in self.trials[metric]])

    def over(self, what: str, metric: str) -> Summary:
        """Mean and deviation over "training seeds", "text seeds" or "draws": the other two are averaged first."""
        axis = ("training seeds", "text seeds", "draws").index(what)
        return summarise(self.values(metric).mean(axis=tuple(i for i in range(3) if i != axis)))

    def paper(self, dataset: str) -> dict[str, float]:
        """The paper's numbers, if it has some for this row: its text is the oracle's."""
        same = self.row.published and self.query == self.row.query and self.source in (ORACLE, NO_TEXT)
        return published(dataset, self.setting, self.row.published) if same else {}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that a table prints."""

    table: Table
    dataset: str
    lines: tuple[Line, ...]
    steps: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    resamples: int = field(default=10_000)


# --- reading ----------------------------------------------------------------------------------------------------------


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
        dataset: for the published numbers.
        found: what there is. A run or a seed that is missing leaves a note.
        load: reads a stored evaluation.
        only: row names; empty: all.
        expected: training seeds that there should be.
        resamples: of the paired tests.
    """
    load = _remembering(load)
    lines, notes = [], []
    for row in (row for row in table.rows if not only or row.name in only):
        seeds = found.get(row.run, {})
        missing = [str(seed) for seed in expected if not seeds.get(seed)]
        if missing:
            notes.append(f"MISSING: {row.name}, training seed {', '.join(missing)}.")
        if any(seeds.values()):
            lines += _lines_of(row, {seed: folders for seed, folders in seeds.items() if folders}, load, notes)
    steps = _steps(table, lines, notes, resamples)
    notes += _across_rows(lines)
    return Result(
        table=table, dataset=dataset, lines=tuple(lines), steps=tuple(steps), notes=tuple(notes), resamples=resamples
    )


def _remembering(load: Load) -> Load:
    kept: dict[Path, StoredEvaluation] = {}

    def once(folder: Path) -> StoredEvaluation:
        if folder not in kept:
            kept[folder] = load(folder)
        return kept[folder]

    return once


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
            lines += _alike(row, TRIALS if _is_trial(setting) else setting, query, source, measurements, note)
    return lines


def _is_trial(setting: str) -> bool:
    return setting.startswith("trial")


def _queries(row: Row, answers: Sequence[RowName]) -> list[tuple[str, str, str]]:
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


def _measure(
    row: Row, load: Load, folder: Path, setting: str | None, query: str, source: str
) -> dict[str, Measured]:
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
        check_seeds([of_seed[0] for of_seed in of_metric[METRICS[0]]])
        lines.append(
            Line(
                row=row, setting=setting, query=query, source=source, seeds=tuple(group), trials=of_metric,
                apart=apart, note=note,
            )  # fmt: skip
        )
    return lines


# --- statistics -------------------------------------------------------------------------------------------------------


def _steps(table: Table, lines: Sequence[Line], notes: list[str], resamples: int) -> list[Comparison]:
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
                    check_comparable([*first, *second], despite)
                except ProtocolMismatch as error:
                    notes.append(f"NOT TESTED: {name}. {error}")
                    break
                steps.append(compare(first, second, name, metric, resamples=resamples))
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


# --- printing ---------------------------------------------------------------------------------------------------------


def markdown(result: Result) -> str:
    """The table, the deviations, the paired tests and the notes."""
    parts = [f"# {result.table.title}, {result.dataset}"]
    for setting in dict.fromkeys(line.setting for line in result.lines):
        lines = [line for line in result.lines if line.setting == setting]
        parts += [f"## {setting}", "\n".join(aligned(_numbers(result.dataset, lines), names=4))]
        parts += ["Deviations, each source of variation by itself:", "\n".join(aligned(_deviations(lines), names=4))]
    if result.steps:
        parts += ["## Steps", "\n".join(aligned(_tests(result.steps), names=2))]
    parts.append("\n".join(f"- {note}" for note in _notes(result)))
    return "\n\n".join(parts) + "\n"


def _numbers(dataset: str, lines: Sequence[Line]) -> list[list[str]]:
    """Header and cells; the paper's columns only where it has numbers."""
    compared = any(line.paper(dataset) for line in lines)
    header = ["row", "query", "text source", "training seeds"]
    for metric in METRICS:
        header += [metric, "paper", "ours - paper"] if compared else [metric]
    table = [header]
    for line in lines:
        paper = line.paper(dataset)
        cells = [_name(line), line.query, line.source, ", ".join(map(str, line.seeds))]
        for metric in METRICS:
            ours = line.over("training seeds", metric)
            cells.append(_mean_sd(ours))
            if compared:
                known = metric in paper
                cells += [f"{paper[metric]:.2f}", f"{ours.mean - paper[metric]:+.2f}"] if known else ["", ""]
        table.append(cells)
    return table


def _name(line: Line) -> str:
    return f"{line.row.name} [{line.apart}]" if line.apart else line.row.name


def _mean_sd(summary: Summary) -> str:
    return f"{summary.mean:.2f} ± {summary.sd:.2f}" if summary.n > 1 else f"{summary.mean:.2f}"


def _deviations(lines: Sequence[Line]) -> list[list[str]]:
    sources = ("training seeds", "text seeds", "draws")
    draws = "splits" if lines[0].setting == TRIALS else "gallery draws"
    table = [["row", "query", "text source", "metric", "over training seeds", "over text seeds", f"over {draws}"]]
    for line in lines:
        for metric in ("R-1", "mAP"):
            spreads = [line.over(source, metric) for source in sources]
            cells = [f"{one.sd:.2f} (n={one.n})" if one.n > 1 else "— (n=1)" for one in spreads]
            table.append([_name(line), line.query, line.source, metric, *cells])
    return table


def _tests(steps: Sequence[Comparison]) -> list[list[str]]:
    table = [["step", "metric", "difference", "95 % interval", "p", "p (Holm)", "difference over training seeds, 95 %"]]
    for step, corrected in zip(steps, holm([step.test.p_value for step in steps]), strict=True):
        t, seeds = step.test, step.seed_difference
        table.append(
            [step.row, step.metric, f"{100 * t.difference:+.2f}", f"[{100 * t.low:+.2f}, {100 * t.high:+.2f}]",
             f"{t.p_value:.4f}", f"{corrected:.4f}" + (" *" if corrected <= 0.05 else ""),
             "—" if np.isnan(seeds[0]) else f"[{seeds[0]:+.2f}, {seeds[1]:+.2f}]"]
        )  # fmt: skip
    return table


def _notes(result: Result) -> list[str]:
    notes = ["Percent. ± is the deviation over training seeds, each of them the mean over text seeds and draws."]
    if any(line.paper(result.dataset) for line in result.lines):
        notes.append("paper: the published number, whose texts are the oracle's; the paper names no training seeds.")
    else:
        notes.append(f"The paper has no numbers for {result.dataset} here.")
    sources = {line.source for line in result.lines}
    if ORACLE in sources:
        notes.append("Source `oracle` picks the text by the query's true identity, which no deployed system knows.")
    expected = published_draws(result.dataset)
    for setting in dict.fromkeys(line.setting for line in result.lines if line.paper(result.dataset)):
        counts = {line.values("mAP").shape[2] for line in result.lines if line.setting == setting}
        if counts != {expected}:
            notes.append(f"WARNING: {setting} averages {', '.join(map(str, sorted(counts)))} draws, the paper {expected}.")
    if result.steps:
        c = result.steps[0]
        notes.append(
            f"Steps: paired randomisation test over {c.test.n} identities, {result.resamples} resamples; * marks p (Holm) "
            f"<= 0.05 over the {len(result.steps)} tests of this table. They hold for these trainings; whether another "
            "training would repeat a difference is what the last column (Welch's interval over training seeds) says."
        )
    apart = [line for line in result.lines if line.apart]
    if apart:
        notes.append("Rows with [...] are seeds that were measured by different protocols; they are not averaged.")
    notes += dict.fromkeys(f"{line.row.name} ({line.source}): {line.note}." for line in result.lines if line.note)
    cards = {line.trials[METRICS[0]][0][0].card.epoch_rule for line in result.lines}
    notes.append(f"Reported epoch: {', '.join(sorted(cards))}.")
    return [*notes, *result.notes]


def as_csv(result: Result) -> str:
    """One record per line and metric, with everything that the Markdown table says, and the protocol card."""
    file = io.StringIO()
    writer = None
    for line in result.lines:
        paper = line.paper(result.dataset)
        card = {**line.trials[METRICS[0]][0][0].card.to_dict(), "seed": "", "weights_sha256": ""}
        for metric in METRICS:
            spreads = {what: line.over(what, metric) for what in ("training seeds", "text seeds", "draws")}
            mean = spreads["training seeds"].mean
            record = {
                "row": line.row.name, "setting": line.setting, "query": line.query, "text_source": line.source,
                "metric": metric, "mean": mean, "paper": paper.get(metric, ""),
                "difference": mean - paper[metric] if metric in paper else "", "training_seeds": " ".join(map(str, line.seeds)),
            }  # fmt: skip
            for what, spread in spreads.items():
                key = what.replace(" ", "_")
                record |= {f"sd_{key}": spread.sd if spread.n > 1 else "", f"n_{key}": spread.n}
            record |= {f"card_{key}": " ".join(map(str, v)) if isinstance(v, tuple) else v for key, v in card.items()}
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(record), lineterminator="\n")
                writer.writeheader()
            writer.writerow(record)
    return file.getvalue()


def latex(result: Result) -> str:
    """A booktabs table per setting."""
    parts = []
    for setting in dict.fromkeys(line.setting for line in result.lines):
        header, *body = _numbers(result.dataset, [line for line in result.lines if line.setting == setting])
        parts += [
            f"% {result.table.title}, {result.dataset}, {setting}",
            f"\\begin{{tabular}}{{llll{'r' * (len(header) - 4)}}}",
            "\\toprule",
            f"{_cells(header)} \\\\",
            "\\midrule",
            *(f"{_cells(cells)} \\\\" for cells in body),
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    return "\n".join(parts + [f"% {note}" for note in _notes(result)]) + "\n"


def _cells(cells: Sequence[str]) -> str:
    replaced = {"_": "\\_", "%": "\\%", "&": "\\&", "±": "$\\pm$", "->": "$\\to$"}
    for plain, escaped in replaced.items():
        cells = [cell.replace(plain, escaped) for cell in cells]
    return " & ".join(cells)

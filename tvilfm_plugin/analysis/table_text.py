"""A table as Markdown, CSV and LaTeX: our numbers beside the published ones, every row with its text source."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from tvilfm_plugin.analysis.comparison import Comparison
from tvilfm_plugin.analysis.published import TRIALS, elsewhere, published_draws, unlike
from tvilfm_plugin.analysis.statistics import holm
from tvilfm_plugin.analysis.table_rows import METRICS, Line, Result
from tvilfm_plugin.evaluation.report import ORACLE, aligned
from tvilfm_plugin.evaluation.summary import Summary


def markdown(result: Result) -> str:
    """The table, the deviations, the paired tests and the notes."""
    parts = [f"# {result.table.title}, {result.dataset}"]
    for setting in dict.fromkeys(line.setting for line in result.lines):
        lines = [line for line in result.lines if line.setting == setting]
        parts += [f"## {setting}", "\n".join(aligned(_numbers(result.dataset, lines), names=4))]
        if other := elsewhere(result.dataset, setting) if result.table.compares else []:
            parts += ["Published elsewhere, nothing of it measured here:", "\n".join(aligned(_elsewhere(other), names=2))]
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


def _elsewhere(found: Sequence[tuple[str, str, dict[str, float]]]) -> list[list[str]]:
    """Header and cells of published numbers that no row of ours answers."""
    body = [[name, why, *(f"{numbers[m]:.2f}" if m in numbers else "" for m in METRICS)] for name, why, numbers in found]
    return [["method", "source, and what was unlike", *METRICS], *body]


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
    rows = {line.row.name: line.row.published for line in result.lines if line.paper(result.dataset)}
    notes += [f"paper, {name}: {unlike(row)}." for name, row in rows.items() if unlike(row)]
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
    records = []
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
            records.append(record)
    return csv_text(records)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records with the same keys as CSV; "" without any."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    if records:
        writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def latex(result: Result) -> str:
    """A booktabs table per setting."""
    parts = []
    for setting in dict.fromkeys(line.setting for line in result.lines):
        header, *body = _numbers(result.dataset, [line for line in result.lines if line.setting == setting])
        sides = ["left"] * 4 + ["right"] * (len(header) - 4)
        made = tabulate(body, header, tablefmt="latex_booktabs", colalign=sides, disable_numparse=True)
        parts += [f"% {result.table.title}, {result.dataset}, {setting}", made, ""]
    return "\n".join(parts + [f"% {note}" for note in _notes(result)]) + "\n"

"""What our tables are expected to say, cell by cell, and whether a run says it again."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tvilfm_plugin.analysis.table_rows import METRICS, Line, Result
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.files.json import JsonError, read_json
from tvilfm_plugin.files.writing import write_text

EXPECTED = Path(__file__).with_name("expected.json")
"""Tables 1 and 5 of docs/numbers.md, and that of docs/methods.md."""
DEVIATIONS = 3
ROUNDING = 0.01  # of a mean and a deviation with two decimals
FREE = ("seed", "weights_sha256", "data_sha256", "version")  # of a protocol card: another run's are others


def expected_of(file: Path, dataset: str, table: str) -> Mapping[str, Any]:
    """A table as `write_expected` stored it; a `JsonError` where the file knows nothing of it."""
    known = read_json(file)
    if f"{dataset}/{table}" not in known:
        raise JsonError(f"{file} has no {dataset}/{table}, but {', '.join(known)}; --write stores what a run gives.")
    return known[f"{dataset}/{table}"]


def write_expected(file: Path, result: Result, table: str) -> None:
    """Store the mean and deviation over training seeds of every cell, and what all rows' protocols say.

    Raises:
        ValueError: some row has fewer than two training seeds, or is missing: nobody knows how much it varies.
    """
    missing = [note for note in result.notes if note.startswith("MISSING")]
    missing += [f"{line.row.name} has one training seed." for line in result.lines if len(line.seeds) < 2]
    if missing:
        raise ValueError(f"{missing[0]} A cell is checked by its deviation over training seeds: give several, --seeds 0 1 2.")
    cells = {}
    for line in result.lines:
        of_metric = {metric: line.over("training seeds", metric) for metric in METRICS}
        cells[_name(line)] = {metric: [round(one.mean, 2), round(one.sd, 2)] for metric, one in of_metric.items()}
    cards = [_card(line) for line in result.lines]
    protocol = {column: value for column, value in cards[0].items() if all(card[column] == value for card in cards)}
    known = read_json(file) if file.is_file() else {}
    known[f"{result.dataset}/{table}"] = {"seeds": list(result.lines[0].seeds), "protocol": protocol, "rows": cells}
    write_text(file, json.dumps(known, indent=1) + "\n")


def check(result: Result, expected: Mapping[str, Any], only: Collection[str] = ()) -> tuple[str, bool]:
    """Compare a table with what is expected of it; a row passes if each of its cells lies within mean +- 3 deviations.

    Args:
        only: names of rows; empty: all that are expected.

    Returns:
        a Markdown table with PASS or FAIL for every row, and whether all pass.
    """
    measured = {_name(line): line for line in result.lines}
    table = [["setting", "row", "query", "text source", *METRICS, ""]]
    for name, cells in expected["rows"].items():
        if only and name.split(" | ")[1] not in only:
            continue
        line = measured.get(name)
        if line is None:
            table.append([*name.split(" | "), *("" for _ in METRICS), "FAIL: not measured"])
            continue
        card, protocol = _card(line), expected["protocol"]
        unlike = [f"{key} {card.get(key)!r}, not {value!r}" for key, value in protocol.items() if card.get(key) != value]
        verdict = "; ".join(unlike)
        shown = []
        for metric in METRICS:
            ours, (mean, sd) = line.over("training seeds", metric).mean, cells.get(metric, (0.0, float("inf")))
            within = abs(ours - mean) <= DEVIATIONS * sd + ROUNDING
            shown.append(f"{ours:.2f} ({mean:.2f} ± {DEVIATIONS} x {sd:.2f})" if metric in cells else f"{ours:.2f}")
            verdict = verdict or ("" if within else f"{metric} is {ours - mean:+.2f} away")
        table.append([*name.split(" | "), *shown, f"FAIL: {verdict}" if verdict else "PASS"])
    passed = sum(row[-1] == "PASS" for row in table[1:])
    text = [*aligned(table, names=4), "", f"{passed} of {len(table) - 1} rows pass."]
    return "\n".join(text), 0 < passed == len(table) - 1


def _name(line: Line) -> str:
    return " | ".join((line.setting, line.row.name, line.query, line.source))


def _card(line: Line) -> dict[str, Any]:
    card = line.trials[METRICS[0]][0][0].card.to_dict()
    return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items() if key not in FREE}

"""Tables checked cell by cell against stored means and deviations."""

import json
import re
from pathlib import Path

import pytest
from stored_runs import tiny_run

from tvilfm_plugin.analysis.expected import EXPECTED, check, expected_of, write_expected
from tvilfm_plugin.analysis.tables import TABLES, collect
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.files.json import JsonError

pytest.importorskip("fastreid")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for name, noise in (("b", 2.4), ("sff", 1.6)):
            tiny_run(folder / f"{name}{seed}", noise=noise, seed=seed)
    return folder


def result(folder, seeds=(0, 1), swapped=False):
    of = lambda name: {seed: [folder / f"{name}{seed}" / "evaluation" / "TriSYSUMM01"] for seed in seeds}
    runs = {"b": of("sff" if swapped else "b"), "sff": of("sff")}
    only = ["B", "+SFF"]
    return collect(TABLES["table1"], "sysu", runs, StoredEvaluation.load, only=only, expected=seeds, resamples=20)


def test_a_run_is_what_was_stored_of_it_and_another_is_not(folder, tmp_path):
    file = tmp_path / "expected.json"
    write_expected(file, result(folder), "table1")
    expected = expected_of(file, "sysu", "table1")
    line = next(line for line in result(folder).lines if line.row.name == "B" and line.source == "oracle")
    over = line.over("training seeds", "mAP")
    assert expected["rows"]["all | B | fusion | oracle"]["mAP"] == [round(over.mean, 2), round(over.sd, 2)]
    assert expected["protocol"]["draws"] == 3 and "text_source" not in expected["protocol"]

    text, holds = check(result(folder), expected)
    assert holds and text.count("PASS") == len(expected["rows"]) == 4 and "FAIL" not in text
    assert check(result(folder, seeds=(1,)), expected)[1], "one seed lies within three deviations of two"

    text, holds = check(result(folder, swapped=True), expected)
    assert not holds and "2 of 4 rows pass" in text and re.search(r"\| B .* \| FAIL: R-1 is \+\d", text)
    assert check(result(folder, swapped=True), expected, ["+SFF"])[1]
    assert not check(result(folder), expected, ["all"])[1], "nothing was checked"


def test_another_protocol_and_a_missing_row_fail(folder, tmp_path):
    file = tmp_path / "expected.json"
    write_expected(file, result(folder), "table1")
    known = json.loads(file.read_text())
    known["sysu/table1"]["protocol"]["draws"] = 10
    known["sysu/table1"]["rows"]["all | all | ensemble | oracle"] = {"R-1": [80.0, 1.0]}
    text, holds = check(result(folder), known["sysu/table1"])
    assert not holds and text.count("FAIL: draws 3, not 10") == 4 and text.count("FAIL: not measured") == 1


def test_what_cannot_be_checked_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="B has one training seed. A cell is checked by its deviation"):
        write_expected(tmp_path / "expected.json", result(folder, seeds=(0,)), "table1")
    with pytest.raises(JsonError, match="has no sysu/table1, but synthetic/table1, synthetic/table5"):
        expected_of(EXPECTED, "sysu", "table1")


def test_the_command_stores_and_checks(folder, tmp_path, capsys, monkeypatch):
    from tvilfm_plugin.analysis import reproduce
    from tvilfm_plugin.cli.main import main

    monkeypatch.setattr(reproduce, "carry_out", lambda *_: [])
    runs = {name: {seed: [folder / f"{name}{seed}" / "evaluation" / "TriSYSUMM01"] for seed in (0, 1)} for name in ("b", "sff")}
    monkeypatch.setattr(reproduce, "evaluations", lambda *_: runs)
    words = ["reproduce", "table1", "--dataset", "sysu", "--seeds", "0", "1", "--only", "B", "+SFF", "--resamples", "20"]
    words += ["--out-dir", str(tmp_path), "--expected", str(tmp_path / "mine.json")]
    assert main([*words, "--check"]) == 2 and "mine.json" in capsys.readouterr().err
    assert main([*words, "--write"]) == 0 and main([*words, "--check"]) == 0 and "4 of 4 rows pass." in capsys.readouterr().out
    runs["b"] = runs["sff"]
    assert main([*words, "--check"]) == 1 and "2 of 4 rows pass." in capsys.readouterr().out
    assert main([*words, "--check", "--write"]) == 2 and "use one of them" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["table1", "table5"])
def test_the_docs_say_what_is_expected(table):
    """Every cell with a deviation of docs/numbers.md's table stands in the file."""
    number = table.removeprefix("table")
    section = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8").split(f"\n## Table {number}: ")[1].split("\n## ")[0]
    said = set(re.findall(r"(\d+\.\d\d) ± (\d+\.\d\d)", section))
    rows = expected_of(EXPECTED, "synthetic", table)["rows"].values()
    assert len(said) >= 8 and said <= {(f"{mean:.2f}", f"{sd:.2f}") for row in rows for mean, sd in row.values()}

"""TREC files: read back by hand, and by ranx and pytrec_eval where they are installed, they give our numbers."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from stored_runs import tiny_run

from tvilfm_plugin.analysis.trec import falling, write_trec
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.evaluation.protocols import LLCM, REGDB, SYSU
from tvilfm_plugin.evaluation.stored import StoredEvaluation


def read(path: Path) -> dict[str, list[list[str]]]:
    """Query -> the lines below it."""
    found = defaultdict(list)
    for line in path.read_text().splitlines():
        query, *rest = line.split(" ")
        found[query].append(rest)
    return found


def scores_by_hand(run: Path, qrels: Path) -> tuple[float, float]:
    """mAP and the share of queries whose first image is right."""
    listed, right = read(run), {q: {rest[1] for rest in lines} for q, lines in read(qrels).items()}
    assert listed.keys() == right.keys()
    aps, first = [], []
    for query, lines in listed.items():
        lines.sort(key=lambda rest: -float(rest[3]))
        hits = [rest[1] in right[query] for rest in lines]
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        aps.append(sum(n / place for n, place in enumerate(places, start=1)) / len(right[query]))
        first.append(hits[0])
    return float(np.mean(aps)), float(np.mean(first))


@pytest.fixture(scope="module", params=[SYSU, REGDB, LLCM], ids=lambda protocol: protocol.name)
def evaluation(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_run(folder, protocol=request.param)
    return StoredEvaluation.load(folder / "evaluation" / "TriSYSUMM01"), folder


def trials(stored: StoredEvaluation, label: str) -> list:
    return [trial for of_draws in stored.evaluate(label) for trial in of_draws]


@pytest.mark.parametrize("label", ["all/infrared", "all/ensemble"])
def test_the_files_hold_the_ranking(evaluation, tmp_path, label):
    stored, _ = evaluation
    written = list(write_trec(stored, label, tmp_path / "out"))
    assert len(written) == len(trials(stored, label)) == (3 if label == "all/infrared" else 6)
    for files, trial in zip(written, trials(stored, label), strict=True):
        # The last person is in no gallery.
        assert (files.queries, files.left_out) == (44, 4)
        mean, first = scores_by_hand(files.run, files.qrels)
        assert mean == pytest.approx(trial.metrics.mAP, abs=1e-12) and first == pytest.approx(trial.metrics.rank(1), abs=1e-12)


def test_ties_fall_and_nothing_else_moves():
    scores = np.array([[0.5, 0.5, 0.5, 0.25, 0.25, -1.0], [0.5, 0.4, 0.3, 0.2, 0.1, -np.inf]])
    fallen = falling(scores)
    assert fallen.dtype == np.float32 and (np.diff(fallen, axis=1) < 0).all()
    np.testing.assert_allclose(fallen, scores, rtol=3e-7)
    assert np.array_equal(fallen[1], scores[1].astype(np.float32))


def test_the_command(evaluation, tmp_path, capsys):
    _, run = evaluation
    words = ["results", "export", str(run), "--trec", "--rows", "all/text@self", "--out-dir", str(tmp_path)]
    assert main(words) == 0 and "3 runs with their qrels, 44 queries each, 4 without" in capsys.readouterr().out
    assert len(list((tmp_path / "TriSYSUMM01" / "all_text@self").glob("*.run"))) == 3
    assert main([*words[:5], "all/nothing", *words[6:]]) == 2 and "no row 'all/nothing'" in capsys.readouterr().err


def written(stored, folder):
    """The files of every trial of the ensemble, and the trial."""
    return zip(write_trec(stored, "all/ensemble", folder), trials(stored, "all/ensemble"), strict=True)


def test_ranx_gives_the_same_numbers(evaluation, tmp_path):
    ranx = pytest.importorskip("ranx")
    stored, _ = evaluation
    for files, trial in written(stored, tmp_path):
        qrels, run = ranx.Qrels.from_file(str(files.qrels), kind="trec"), ranx.Run.from_file(str(files.run), kind="trec")
        found = ranx.evaluate(qrels, run, ["map", "hit_rate@1", "hit_rate@5"])
        assert found["map"] == pytest.approx(trial.metrics.mAP, abs=1e-9)
        assert found["hit_rate@1"] == pytest.approx(trial.metrics.rank(1), abs=1e-12)
        if not stored.protocol.count_identities:
            assert found["hit_rate@5"] == pytest.approx(trial.metrics.rank(5), abs=1e-12)


def test_pytrec_eval_gives_the_same_numbers(evaluation, tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    stored, _ = evaluation
    for files, trial in written(stored, tmp_path):
        with open(files.qrels) as qrels, open(files.run) as run:
            scorer = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map", "success_1"})
            found = scorer.evaluate(pytrec_eval.parse_run(run)).values()
        assert np.mean([one["map"] for one in found]) == pytest.approx(trial.metrics.mAP, abs=1e-9)
        assert np.mean([one["success_1"] for one in found]) == pytest.approx(trial.metrics.rank(1), abs=1e-12)

"""The robustness tool on a trained run, whose stored evaluation must also give its own numbers back."""

import json
import shutil

import pytest
import torch
from run_scripts import load_tool

from tvilfm_plugin.analysis.verify import verified, verify
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.summary import percent

robustness = load_tool("robustness")


pytest.importorskip("fastreid")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A copy, because the tool writes beside the evaluation."""
    copy = tmp_path_factory.mktemp("robustness") / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("stage1", "events*"))
    return copy


def test_a_trained_run_gives_its_numbers_back_without_the_network(run):
    stored = StoredEvaluation.load(next(run.glob("evaluation/*")))
    for label in stored.cards:
        for metric, value in percent(stored.evaluate(label)).items():
            assert value == stored.results[f"{label}/{metric}"]
    assert verified(verify(stored))


def test_curves_are_measured_and_drawn(run, tiny, capsys):
    with tiny.environment():
        assert robustness.main([str(run), "--shares", "0", "1", "--pictures", "--stakes", "1"]) == 0
    folder = next(run.glob("evaluation/*"))
    described = json.loads((folder / "robustness_all_witness.json").read_text())
    stored = StoredEvaluation.load(folder)
    clean = next(p for p in described["points"] if p["share"] == 0 and p["query"] == "ensemble")
    trials = stored.trials("all", "witness", seeds=[0])["ensemble"][0]
    assert clean["mAP"] == pytest.approx(100 * sum(t.metrics.mAP for t in trials) / len(trials), abs=0.5)
    assert described["card"]["text_source"] == "witness"
    lines = (folder / "robustness_all_witness.csv").read_text().splitlines()
    assert lines[0].startswith("kind,share,query") and len(lines) == 1 + len(described["points"])
    assert (folder / "robustness_all_witness.png").stat().st_size > 10_000
    table = (folder / "robustness_all_witness.md").read_text()
    assert table.strip() in capsys.readouterr().out and "| occluded" in table and (run / "text_trust.json").is_file()


def test_other_weights_than_the_evaluated_ones_are_refused(run, tiny):
    content = torch.load(run / "model_final.pth", map_location="cpu", weights_only=True)
    weights = content["model"]
    content["model"] = weights | {name: 1.1 * value for name, value in weights.items() if name.startswith("text.")}
    torch.save(content, run / "other.pth")
    with tiny.environment(), pytest.raises(ValueError, match="not those of the evaluation"):
        robustness.main([str(run), "--weights", "other.pth", "--shares", "0", "1"])

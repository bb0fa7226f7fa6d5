"""tools/visualize.py: stored evaluations without a network, and MIP's pictures with tiny models of random weights."""

import pytest
import torch
from PIL import Image
from run_scripts import load_tool
from stored_runs import tiny_systems

pytest.importorskip("fastreid")
from mip_models import small_config

from tvilfm_plugin.modeling.mip.mip import MIP

visualize = load_tool("visualize")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run's own stage 1 lies where training puts it."""
    runs = tiny_systems(tmp_path_factory.mktemp("visualize"))
    (runs["full"] / "stage1").symlink_to(runs["stage1"])
    return runs


def systems(runs):
    words = [str(runs["full"]), "--queries", "2", "--people", "5", "--resamples", "100"]
    for name in ("initial", "baseline", "before"):
        words += [f"--{name}", str(runs[name])]
    return words


def test_single_pictures_are_what_the_suffix_says(runs, tmp_path, capsys):
    assert visualize.main(["cmc", *systems(runs), "--out", str(tmp_path / "a.svg")]) == 0
    # The run's types, and the systems: its stage 1 was found beside it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "a_systems.svg"]
    printed = capsys.readouterr().out
    assert f"Picture: {tmp_path / 'a_systems.svg'}" in printed
    for name in ("initial", "backbone", "baseline", "TVI-LFM"):
        assert f"| {name.ljust(8)} |" in printed
    assert visualize.main(["failures", *systems(runs), "--out", str(tmp_path / "f.png"), "--type", "fusion"]) == 0
    with Image.open(tmp_path / "f.png") as image:
        assert image.format == "PNG"
    assert "mean rank" in capsys.readouterr().out
    assert visualize.main(["offsets", *systems(runs), "--name", "mine"]) == 0
    assert (runs["full"] / "evaluation" / "TriSYSUMM01" / "offsets.png").is_file()
    assert "before stage 2" in capsys.readouterr().out


def test_the_report_is_one_file(runs, tmp_path, capsys):
    assert visualize.main(["report", *systems(runs), "--out", str(tmp_path / "new" / "r.html"), "--source", "oracle"]) == 0
    text = (tmp_path / "new" / "r.html").read_text()
    assert text.startswith("<!DOCTYPE html>") and [path.name for path in (tmp_path / "new").iterdir()] == ["r.html"]
    assert "Report: " in capsys.readouterr().out and "TVI-LFM on Tri-SYSU-MM01" in text


@pytest.fixture(scope="module")
def models(tiny):
    """Two tiny models of random weights on the tiny SYSU-MM01 tree: with and without prompts."""
    for name, mip in (("plain", {"MODALITY_PROMPTS": 0, "INSTANCE_PROMPTS": 0}), ("prompted", {})):
        torch.manual_seed(0)
        cfg = small_config(**mip)
        cfg.DATASETS.NAMES = cfg.DATASETS.TESTS = ("TriSYSUMM01",)
        cfg.DATASETS.ROOT = ""
        cfg.TEST.DRAWS = 2
        folder = tiny.folder / f"mip_{name}"
        folder.mkdir()
        (folder / "config.yaml").write_text(cfg.dump())
        torch.save({"model": MIP(cfg).state_dict()}, folder / "model_final.pth")
    return tiny, [str(tiny.folder / f"mip_{name}" / "model_final.pth") for name in ("plain", "prompted")]


def test_mip_is_drawn_from_its_weights(models, tmp_path, monkeypatch):
    tiny, weights = models
    drawn = {}
    build = visualize.build_attention
    monkeypatch.setattr(visualize, "build_attention", lambda *given: drawn.update(given=given) or build(*given))
    with tiny.environment():
        names = ["--names", "baseline", "MPL"]
        out = tmp_path / "attention.png"
        assert visualize.main(["attention", "--weights", *weights, *names, "--people", "2", "--out", str(out)]) == 0
        images, labels, maps, _ = drawn["given"]
        # Person by person: infrared, then visible.
        assert len(images) == 4 and [label.split()[-1] for label in labels] == ["ir", "rgb"] * 2
        assert labels[0].split(",")[0] == labels[1].split(",")[0] != labels[2].split(",")[0]
        assert list(maps) == ["baseline", "MPL"] and maps["MPL"].shape == (4, 10, 5)
        assert out.stat().st_size > 5000
        assert visualize.main(["prompts", "--weights", weights[1], "--out", str(tmp_path / "p.svg")]) == 0
        assert "<svg" in (tmp_path / "p.svg").read_text()
        with pytest.raises(ValueError, match=r"no instance prompts \(MODEL\.MIP\.INSTANCE_PROMPTS 0\)"):
            visualize.main(["prompts", "--weights", *weights])
        with pytest.raises(ValueError, match="2 weights, 2 config files and 1 different names"):
            visualize.main(["prompts", "--weights", *weights, "--names", "same", "same"])


def test_other_models_than_mip_are_refused(trained, tiny):
    with tiny.environment(), pytest.raises(ValueError, match="describes a TVILFM; these pictures are of MIP models"):
        visualize.main(["attention", "--weights", str(trained / "model_final.pth")])

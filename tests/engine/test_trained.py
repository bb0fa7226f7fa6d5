"""A run travels: it works from another folder, in another current folder, without what it was trained from."""

import dataclasses
import os
import shutil

import pytest
import torch
from PIL import Image
from tiny_runs import weights

pytest.importorskip("fastreid")

from tvilfm_plugin.analysis.comparison import differing_columns
from tvilfm_plugin.engine import load_run
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.files.places import local, travelling


def test_a_copied_run_needs_no_other_file(tiny, trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained, tmp_path / "elsewhere" / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "isfile", lambda path, isfile=os.path.isfile: "tower.json" not in str(path) and isfile(path))
    cfg, model = load_run("elsewhere/run", device="cpu")
    assert cfg.OUTPUT_DIR == "elsewhere/run" and cfg.MODEL.TEXT.ARCH.startswith("{") and model.has_text
    assert torch.equal(model.heads.neck.weight, weights(out / "model_final.pth")["heads.neck.weight"])
    with pytest.raises(FileNotFoundError, match="is no run: it has no config.yaml"):
        load_run(tmp_path)
    (out / "model_final.pth").unlink()
    with pytest.raises(FileNotFoundError, match="is not finished.*checkpoints: none"):
        load_run(out)


def test_a_stored_evaluation_finds_its_pictures_below_the_data_sets(tiny, trained, tmp_path, monkeypatch):
    folder = trained / "evaluation" / "TriSYSUMM01"
    stored = (folder / "results.json").read_text()
    assert str(tiny.folder) not in stored
    moved = shutil.copytree(tiny.folder / "data", tmp_path / "moved")
    monkeypatch.setenv("FASTREID_DATASETS", str(moved))
    paths = load_evaluation(folder).query_paths
    assert all(path.startswith(str(moved)) for path in paths) and Image.open(paths[0]).size
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "nowhere"))
    assert not any(os.path.isfile(path) for path in load_evaluation(folder).query_paths)


def test_paths_travel_below_the_data_sets_only(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    assert travelling(str(tmp_path / "data" / "SYSU" / "a.jpg")) == "SYSU/a.jpg"
    assert travelling(str(tmp_path / "database" / "a.jpg")) == str(tmp_path / "database" / "a.jpg")
    assert local("SYSU/a.jpg") == "SYSU/a.jpg"
    (tmp_path / "data" / "SYSU").mkdir(parents=True)
    (tmp_path / "data" / "SYSU" / "a.jpg").touch()
    assert local("SYSU/a.jpg") == str(tmp_path / "data" / "SYSU" / "a.jpg")


def test_missing_pictures_are_grey_tiles(trained, tmp_path, monkeypatch, caplog):
    from tvilfm_plugin.visualization.stored import Ranked

    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    ranked = Ranked.read(trained / "evaluation" / "TriSYSUMM01", "all/ensemble")
    row = ranked.drawn_row(0)
    assert row.image.shape == (128, 64, 3) and all(hit.image.std() == 0 for hit in row.hits)
    assert ranked.row(0).image == ranked.query_paths[0]


def test_a_card_says_that_the_people_are_synthetic_and_which_they_are(tiny, trained, tmp_path, monkeypatch):
    marker = tiny.folder / "data" / "SYSU-MM01" / "synthetic.json"
    marker.write_text("{}")
    words = ("--eval-only", "MODEL.WEIGHTS", trained / "model_final.pth", "TEST.DRAWS", 1, "DATASETS.MODES", "('all',)")
    try:
        tiny("synthetic", *words)
    finally:
        marker.unlink()
    folder = tiny.folder / "synthetic" / "evaluation" / "TriSYSUMM01"
    card, real = (load_evaluation(one).card("all/ensemble") for one in (folder, trained / "evaluation" / "TriSYSUMM01"))
    assert card.dataset == "synthetic (SYSU-MM01's layout)" and real.dataset == "Tri-SYSU-MM01"
    assert "## synthetic (SYSU-MM01's layout), all" in (folder / "table.md").read_text()
    assert len(real.data_sha256) == 64 and real.data_sha256 != load_evaluation(folder).card("all/infrared").data_sha256
    assert {"dataset"} <= set(differing_columns([card, real]))
    other = dataclasses.replace(real, data_sha256="0" * 64)
    assert list(differing_columns([real, other])) == ["data_sha256"]
    assert not differing_columns([real, dataclasses.replace(real, data_sha256="")]), "older cards have none"
    bare = load_evaluation(folder).card("all/infrared")
    assert "data_sha256" not in differing_columns([bare, real]), "captions count where there was text"
    assert "data_sha256" in differing_columns([bare, real, other])

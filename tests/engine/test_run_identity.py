"""The identity of a run: what it holds, who asks for it, and what may differ."""

import json
import os
import shutil

import pytest
from tiny_runs import same, weights

pytest.importorskip("fastreid")

from tvilfm_plugin.config import read_config
from tvilfm_plugin.engine.run import FILES, RunDiffersError, identity, read_run, what_differs
from tvilfm_plugin.files.writing import sha256_of
from tvilfm_plugin.keys.table import KEYS

ONE = ("SOLVER.MAX_EPOCH", 1, "TEST.DRAWS", 1, "DATASETS.MODES", "('all',)")


def config(tiny, out, *words):
    cfg = read_config(tiny.stage1, [*words, "OUTPUT_DIR", str(out)])
    return cfg


def test_a_run_says_how_it_was_made(trained):
    first, second = read_run(trained / "stage1"), read_run(trained)
    assert first["seed"] == second["seed"] == 3 and first["device"] == "cpu" and first["packages"]["torch"]
    assert second["identity"]["inputs"] == {"MODEL.WEIGHTS": sha256_of(trained / "stage1" / "model_final.pth")}
    train = first["identity"]["data"]["train"]
    assert train["images"] > 8 and train["captions"] == "" and second["identity"]["data"]["train"]["captions"]
    assert first["identity"]["config"]["SOLVER.BASE_LR"] == "0.002"
    assert str(trained) not in json.dumps(first["identity"]) + json.dumps(second["identity"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["SEED", 4], "SEED 4 instead of 3"),
        (["SOLVER.BASE_LR", 0.1], "SOLVER.BASE_LR 0.1 instead of 0.002"),
        (["TVILFM.FUSION", "Add"], "TVILFM.FUSION Add instead of SFF"),
        (["TVILFM.JOINT", False], "TVILFM.ROWS baseline instead of MJL"),
        (["SOLVER.OPT", "SGD"], "SOLVER.OPT SGD instead of Adam"),
        (["DATASETS.NAMES", "('TriLLCM',)", "SOLVER.IMS_PER_BATCH", 4], "the training images"),
        (["TVILFM.FROM_SCRATCH", True], "TVILFM.FROM_SCRATCH True instead of False"),
    ],
)
def test_resume_refuses_another_run_by_name(tiny, trained, words, named):
    out = tiny.folder / "other"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(trained, out)
    before = (out / "config.yaml").read_text()
    with pytest.raises(ValueError, match="cannot be resumed, for it was made otherwise") as caught:
        tiny("other", "--resume", *words)
    assert named in str(caught.value)
    folders = {"OUTPUT_DIR", "TVILFM.OVERRIDES"}
    assert [line for line in before.splitlines() if not any(name.split(".")[-1] in line for name in folders)] == [
        line
        for line in (out / "config.yaml").read_text().splitlines()
        if not any(name.split(".")[-1] in line for name in folders)
    ], "the refused values are not stated by the folder"


def test_a_run_is_made_longer(tiny, tmp_path):
    """More epochs, for a finished run and for one that was going to be: the weights of a run that had them from the start."""
    few = ["SOLVER.STEPS", (1,), "TEST.DRAWS", 1, "DATASETS.MODES", "('all',)"]
    tiny("straight", "SOLVER.MAX_EPOCH", 2, *few, config=tiny.stage1)
    tiny("longer", "SOLVER.MAX_EPOCH", 1, *few, config=tiny.stage1)
    cosine = shutil.copytree(tiny.folder / "longer", tiny.folder / "cosine")
    described = json.loads((cosine / "run.json").read_text())
    described["identity"]["config"] |= {"SOLVER.SCHED": "CosineAnnealingLR", "SOLVER.WARMUP_EPOCHS": "-1"}
    (cosine / "run.json").write_text(json.dumps(described))
    few += ["SOLVER.SCHED", "CosineAnnealingLR", "SOLVER.WARMUP_EPOCHS", -1]
    with pytest.raises(ValueError, match="MAX_EPOCH 3 instead of 1 .and all rates of SOLVER.SCHED CosineAnnealingLR"):
        tiny("cosine", "--resume", "SOLVER.MAX_EPOCH", 3, *few, config=tiny.stage1)
    del few[-4:]
    tiny("longer", "--resume", "SOLVER.MAX_EPOCH", 2, *few, config=tiny.stage1)
    one, other = tiny.folder / "straight", tiny.folder / "longer"
    assert same(weights(one / "model_final.pth"), weights(other / "model_final.pth"))
    assert sorted(p.name for p in other.glob("*.pth")) == ["model_final.pth"]
    assert read_run(one)["identity"] == read_run(other)["identity"]
    with pytest.raises(ValueError, match="MAX_EPOCH 1 instead of 2"):
        tiny("longer", "--resume", "SOLVER.MAX_EPOCH", 1, *few, config=tiny.stage1)


def test_what_may_differ_may(tiny, trained):
    with tiny.environment():
        free = ["DATALOADER.NUM_WORKERS", 2, "SOLVER.LOG_PERIOD", 1, "TEST.DRAWS", 1, "DATASETS.TOKEN_CACHE", False]
        assert what_differs(config(tiny, trained / "stage1", *free)) == []
        assert what_differs(config(tiny, trained / "stage1", "SOLVER.GAMMA", 0.2)) == ["SOLVER.GAMMA"]
        assert what_differs(config(tiny, trained / "nowhere")) is None


def test_changed_data_are_named_and_copies_are_not(tiny, trained, tmp_path, monkeypatch):
    with tiny.environment():
        data = shutil.copytree(os.environ["FASTREID_DATASETS"], tmp_path / "data")  # other times
        monkeypatch.setenv("FASTREID_DATASETS", str(data))
        cfg = config(tiny, trained / "stage1")
        count = identity(cfg).data["train"]["images"]
        assert what_differs(cfg) == []
        image = next(path for path in sorted(data.rglob("cam1/0001/*.jpg")))
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 1
        image.write_bytes(content)
        assert what_differs(cfg) == [f"the training images ({count} then, {count} now)"]
        image.unlink()
        assert "the training images" in what_differs(cfg)[0]


def test_a_finished_stage_1_of_other_pictures_is_trained_anew(tiny, trained, tmp_path, monkeypatch):
    out = tiny.folder / "other-data"
    shutil.copytree(trained, out)
    before = weights(out / "stage1" / "model_final.pth")
    data = shutil.copytree(tiny.folder / "data", tmp_path / "data")
    for image in data.rglob("cam1/0001/*.jpg"):
        shutil.copy(next(data.rglob("cam2/0004/*.jpg")), image)
    monkeypatch.setattr(tiny, "folder", tmp_path)
    shutil.copytree(out, tmp_path / "other-data")
    tiny("other-data", *ONE)
    assert not same(weights(tmp_path / "other-data" / "stage1" / "model_final.pth"), before)
    assert "the training images" in (tmp_path / "other-data" / "log.txt").read_text()


def test_every_key_that_names_an_input_file_counts_by_content(tiny, trained, tmp_path):
    """What is trained on is known by the table of keys; two of them are fast-reid's."""
    assert set(FILES) == {
        "MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH", "MODEL.TEXT.WEIGHTS", "MODEL.DUAL_STREAM.WEIGHTS", "INPUT.HUMAN_TEXTS",
    }  # fmt: skip
    named = {key.name for key in KEYS if key.kind == "str" and ("File " in key.meaning or key.name.endswith("WEIGHTS"))}
    assert named <= {key.name for key in KEYS if key.file}
    start = tmp_path / "start.pth"
    shutil.copy(trained / "stage1" / "model_final.pth", start)
    with tiny.environment():
        first = identity(config(tiny, tmp_path / "out", "MODEL.DUAL_STREAM.WEIGHTS", str(start)))
        moved = shutil.copy(start, tmp_path / "moved.pth")
        again = identity(config(tiny, tmp_path / "out", "MODEL.DUAL_STREAM.WEIGHTS", str(moved)))
        start.write_bytes(start.read_bytes() + b"x")
        other = identity(config(tiny, tmp_path / "out", "MODEL.DUAL_STREAM.WEIGHTS", str(start)))
    assert not again.differences(first)
    assert other.differences(first) == ["the file of MODEL.DUAL_STREAM.WEIGHTS"]


def test_a_broken_run_json_is_no_run(tmp_path):
    numbers, parts = {"config": {"SEED": 1}}, {"data": {"train": {}}}
    for content in ("{", "[]", "{}", *(json.dumps({"identity": wrong}) for wrong in (5, numbers, parts))):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunDiffersError, match="run.json cannot be read"):
            read_run(tmp_path)

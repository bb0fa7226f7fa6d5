"""Checkpoints of the authors of six baselines: their names and shapes, files of their form, and what is refused."""

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch
from tiny_runs import ROOT

from tvilfm_plugin.checkpoints.import_released import read_released, reported, shapes_of
from tvilfm_plugin.checkpoints.loading import load_weights, read_checkpoint
from tvilfm_plugin.checkpoints.released_baselines import IGNORED, from_official, official_key
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.config import read_config

RECIPES = inputs.golden("recipes.json")
CONFIGS = {
    "agw": "AGW/configs/sysu_released.yml", "caj": "CAJ/configs/sysu_released.yml", "deen": "DEEN/configs/sysu_released.yml",
    "deen_regdb": "DEEN/configs/regdb.yml", "mmn": "MMN/configs/sysu_released.yml", "ddag": "DDAG/configs/sysu_released.yml",
    "yyds": "YYDS/configs/sysu_released.yml", "yyds_regdb": "YYDS/configs/regdb_released.yml",
    "yyds_v1": "YYDS/configs/sysu_v1.yml",
}  # fmt: skip


def config(name, folder):
    cfg = read_config(ROOT / "projects" / CONFIGS[name])
    cfg.MODEL.DEVICE = "cpu"
    if name.startswith("yyds"):
        transformers = pytest.importorskip("transformers")
        transformers.RobertaConfig(**inputs.ROBERTA).save_pretrained(folder)
        cfg.merge_from_list(["MODEL.TEXT.ARCH", "roberta", "MODEL.TEXT.WEIGHTS", str(folder), "MODEL.YYDS.TEXT", "released"])
    return cfg


def official_names(name):
    """Names and shapes of a file: both stems and trunks as complete ResNets, as their code has them."""
    recipe, trunk = RECIPES[name], RECIPES["trunk"]
    last = int(recipe["trunk"][-1])
    complete = RECIPES["stem"] | trunk | {"fc.weight": [1000, 2048], "fc.bias": [1000]}
    names = dict(recipe["other"])
    yyds = name.startswith("yyds")
    for prefix in recipe["stem_prefix"].values():
        names |= {f"{prefix}{k}": v for k, v in (RECIPES["stem"] if yyds else complete).items()}
    for prefix in (recipe["trunk_prefix"], recipe.get("second_trunk")):
        if prefix:
            names |= {f"{prefix}{k}": v for k, v in complete.items()}
    assert last in (3, 4)
    if yyds:
        ids, pooler = "text_encoder.embeddings.position_ids", "text_encoder.pooler.dense."
        names |= {ids: [1, 40], f"{pooler}weight": [48, 48], f"{pooler}bias": [48]}
    return {k: list(v) for k, v in names.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_name_and_shape_is_accounted_for(name, tmp_path):
    cfg = config(name, tmp_path)
    shapes = shapes_of(cfg, inputs.CLASSES)
    official = {k: torch.empty(v, device="meta") for k, v in official_names(name).items()}
    counted = [k for k in shapes if k.endswith("num_batches_tracked")]
    official |= {key: torch.empty((), device="meta") for key in counters(shapes, name)}
    if name.startswith("yyds"):
        encoder = {official_key(k): v for k, v in shapes.items() if k.startswith("text.encoder.")}
        official |= {k: torch.empty(v, device="meta") for k, v in encoder.items()}
    found = from_official(official, shapes)
    state, report = found.state, reported(found, IGNORED)
    assert report.complete, str(report)
    assert set(state) == set(shapes) and counted
    # DDAG's record and MMN's loss are in no file.
    assert {k for k, theirs in report.mapped.items() if not theirs} == {
        k for k in shapes if k == "others" or k.startswith("projection.")
    }
    assert report.ignored and all(report.ignored.values())


def counters(shapes, name):
    """The reference lists no `num_batches_tracked`; files have them."""
    names = (official_key(k, name.startswith("yyds")) for k in shapes if k.endswith("num_batches_tracked"))
    return [key for key in names if key is not None]


def written(name, folder, cfg):
    """A file as the authors' trainings write it: wrapped, prefixed, with the numbers of its epoch beside it."""
    shapes = official_names(name) | dict.fromkeys(counters(shapes_of(cfg, 1), name), ())
    unused = ("visible_module.visible.layer", "thermal_module.thermal.layer")
    shapes = {k: v for k, v in shapes.items() if not k.startswith(unused)}
    state = {f"module.{k}": torch.from_numpy(np.asarray(inputs.weight(k, tuple(v)))) for k, v in shapes.items()}
    beside = {"cmc": np.linspace(0, 1, 20), "mAP": np.float64(0.5), "mINP": 0.4, "epoch": 17}
    file = folder / "regdb_deen_best.t"
    torch.save({"net": state, **beside}, file)
    return file, state


def test_a_file_through_the_command_and_back(tmp_path, capsys):
    cfg = config("deen_regdb", tmp_path)
    file, official = written("deen_regdb", tmp_path, cfg)
    out = tmp_path / "deen.pth"
    words = ["import", "--method", "deen", "--weights", str(file), "--out", str(out)]
    assert main([*words, "--config-file", str(ROOT / "projects" / CONFIGS["deen_regdb"])]) == 0
    printed = capsys.readouterr().out
    assert "missing: 0" in printed and "unexplained: 0" in printed and "outside the trunk, which nothing runs" in printed
    state, record = read_checkpoint(out)
    assert record.epoch_rule == "best Rank-1 on the test set"
    assert torch.equal(state["heads.bn.weight"], official["module.bottleneck.weight"])
    from fastreid.modeling.meta_arch import build_model

    cfg.MODEL.HEADS.NUM_CLASSES, cfg.MODEL.BACKBONE.PRETRAIN = inputs.CLASSES, False
    model = build_model(cfg)
    assert not load_weights(model, out).kept
    stem = model.visual.backbone.base.conv1["ir"].weight
    assert torch.equal(stem, official["module.thermal_module.thermal.conv1.weight"])


def test_leftovers_and_lacks_are_refused_by_name(tmp_path):
    cfg = config("deen_regdb", tmp_path)
    shapes = shapes_of(cfg, inputs.CLASSES)
    official = {k: torch.empty(v, device="meta") for k, v in official_names("deen_regdb").items()}
    official |= {key: torch.empty((), device="meta") for key in counters(shapes, "deen_regdb")}
    del official["DEE.FC11.weight"]
    official["something.new"] = torch.empty(3, device="meta")
    official["classifier.weight"] = torch.empty(24, 7, device="meta")
    report = reported(from_official(official, shapes), IGNORED)
    assert report.missing == ["visual.backbone.base.dee.branches.0.dilated.0.weight"]
    assert report.unexplained == ["something.new"]
    assert len(report.misshapen) == 1 and "classifier.weight is (24, 7)" in report.misshapen[0]


def test_arrays_beside_weights_are_read_and_code_is_not(tmp_path):
    file = tmp_path / "x.t"
    torch.save({"net": {"a": torch.ones(1)}, "cmc": np.arange(3.0)}, file)
    state, beside = read_released(file)
    assert list(state) == ["a"] and beside == ["cmc"]

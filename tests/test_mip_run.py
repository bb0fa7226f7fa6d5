"""MIP through tools/train_net.py: trained, resumed, evaluated by both protocols, imported, and as TVI-LFM's visual part."""

import numpy as np
import pytest
import torch
from tiny_runs import ROOT, SMALL, rows, same, weights

pytest.importorskip("fastreid")

from fastreid.modeling.meta_arch import build_model
from oracles_modeling import write_tower
from released_names import to_official
from run_scripts import load_tool
from test_epoch_rule import card
from test_resume import pointer, run_until_killed

from tvilfm_plugin.checkpoints.import_released import shapes_of
from tvilfm_plugin.checkpoints.released_mip import as_stage1
from tvilfm_plugin.config import read_config
from tvilfm_plugin.data.datasets import TriSYSUMM01
from tvilfm_plugin.evaluation.protocols import MIP, SYSU

# Width 16 and three parts make the 64 numbers that SMALL says.
SIZE = "WIDTH: 16, DEPTH: 3, HEADS: 2, PATCH: 8, PARTS: 3, MODALITY_PROMPTS: 2, INSTANCE_PROMPTS: 2"
MIP_CONFIG = f"""
_BASE_: {ROOT}/projects/MIP/configs/synthetic.yml
MODEL:
  DEVICE: cpu
  BACKBONE: {{FEAT_DIM: 64, PRETRAIN: False}}
  MIP: {{{SIZE}, DROP_PATH: 0.1, TRIPLET_WEIGHT: 1.0, MSEL_WEIGHT: 0.5, MSEL_EPOCH: 2}}
INPUT: {{SIZE_TRAIN: [48, 24], SIZE_TEST: [48, 24], RESAMPLE_TRAIN: bicubic, RESAMPLE_TEST: bilinear}}
DATALOADER: {{NUM_INSTANCE: 2}}
DATASETS: {{ROOT: ""}}
SOLVER: {{IMS_PER_BATCH: 8, MAX_EPOCH: 2, LOG_PERIOD: 1}}
TEST: {{DRAWS: 2, EVAL_PERIOD: 2, IMS_PER_BATCH: 16}}
"""


@pytest.fixture(scope="module")
def mip(tiny):
    """Config of a tiny MIP, its output folder after two epochs, and what training returned."""
    config = tiny.folder / "mip.yml"
    config.write_text(MIP_CONFIG)
    return config, tiny.folder / "mip", tiny("mip", config=config)


def test_training_takes_mips_batches_rates_and_epochs(mip):
    _, out, results = mip
    lines = [line for line in rows(out) if "total_loss" in line]
    per_epoch = len(lines) // 2
    # MSEL joins in the second epoch, which the model must hear of.
    assert [("loss_msel" in line) for line in lines] == [False] * per_epoch + [True] * per_epoch
    assert all({"loss_identity", "loss_triplet", "loss_iael"} <= line.keys() for line in lines)
    assert card(out, "all/infrared")["rules"] == "SYSU-MM01" and card(out, "all/infrared")["draws"] == 2
    assert results["metric"] == (results["all/infrared/R-1"] + results["all/infrared/mAP"]) / 2
    assert pointer(out) == "model_final.pth"


def test_a_killed_run_continues_exactly(tiny, mip):
    config, out, results = mip
    iterations = sum("total_loss" in line for line in rows(out))
    run_until_killed(tiny, 2, iterations // 2 + 1, "mip_killed", config=config)
    killed = tiny.folder / "mip_killed"
    assert pointer(killed) == "model_0000.pth"
    assert tiny("mip_killed", "--resume", config=config) == results
    assert same(weights(killed / "model_final.pth"), weights(out / "model_final.pth"))


def test_the_authors_protocol_is_named(tiny, mip):
    config, out, _ = mip
    tiny("mip_protocol", "--eval-only", "MODEL.WEIGHTS", out / "model_final.pth", "TEST.PROTOCOL", "mip", config=config)
    named = card(tiny.folder / "mip_protocol", "all/infrared", "TriSYSUMM01-mip")
    assert named["rules"] == "mip" and named["cmc"] == "images" and named["draws"] == 1
    assert named["dataset"] == "Tri-SYSU-MM01 (protocol mip)"

    root = str(tiny.folder / "data")
    one, standard = (TriSYSUMM01(root, draws=3, text=False, verbose=False, protocol=p) for p in ("mip", "standard"))
    assert one.protocol is MIP and standard.protocol is SYSU
    for a, b in zip(one.settings, standard.settings, strict=True):
        (only,) = a.draws
        assert [one.gallery[i] for i in only] == [standard.gallery[i] for i in b.draws[0]]
    with pytest.raises(ValueError, match="TEST.PROTOCOL is 'market'; choices are standard, mip"):
        TriSYSUMM01(root, text=False, verbose=False, protocol="market")


def test_weights_of_the_authors(tiny, mip, capsys):
    """A file with their names -> tools/import_released.py -> --eval-only: the numbers of the run that it came from."""
    config, out, results = mip
    theirs, ours = tiny.folder / "their_mip.pth", tiny.folder / "imported_mip.pth"
    torch.save(to_official(weights(out / "model_final.pth")), theirs)
    words = f"--method mip --weights {theirs} --out {ours} --config-file {config} --dataset sysu --root {tiny.folder / 'data'}"
    assert load_tool("import_released").main(words.split()) == 0
    assert "unexplained: 0" in capsys.readouterr().out
    assert tiny("mip_imported", "--eval-only", "MODEL.WEIGHTS", ours, config=config) == results


@pytest.mark.parametrize("name", ["synthetic_mip", "sysu_mip"])
def test_both_stages_have_the_same_encoder(name):
    cfg = read_config(ROOT / f"projects/TVILFM/configs/{name}.yml")
    first = read_config(cfg.TVILFM.STAGE1)
    cfg.MODEL.TEXT.ARCH = "RN50-quickgelu"
    second, trained = (
        {key: shape for key, shape in shapes_of(c, 7).items() if key.startswith("visual.")} for c in (cfg, first)
    )
    assert second == trained and first.MODEL.BACKBONE.FEAT_DIM == cfg.MODEL.BACKBONE.FEAT_DIM
    for key in ("SIZE_TRAIN", "SIZE_TEST", "RESAMPLE_TRAIN", "RESAMPLE_TEST"):
        assert cfg.INPUT[key] == first.INPUT[key], key
    assert cfg.MODEL.PIXEL_MEAN == first.MODEL.PIXEL_MEAN and cfg.MODEL.PIXEL_STD == first.MODEL.PIXEL_STD
    for key in ("STRIDE", "HEADS", "SHIFT", "GROUPS", "CAMERA_SCALE", "FIRST_CAMERA", "BLOCKS", "QUERY"):
        assert cfg.MODEL.MIP[key] == first.MODEL.MIP[key], key


def test_text_beside_a_frozen_mip(tiny, mip):
    """Stage 1 is MIP, whose encoder stage 2 of TVI-LFM freezes; its five necks and classifiers become one of each."""
    config, trained, _ = mip
    stage2 = tiny.folder / "mip_text.yml"
    small = SMALL.replace("TOWER", str(tiny.config.with_name("tower.json")))
    small = small.replace("  DUAL_STREAM", f"  MIP: {{{SIZE}}}\n  DUAL_STREAM").replace("MAX_EPOCH: 2", "MAX_EPOCH: 1")
    stage2.write_text(f"_BASE_: {ROOT}/projects/TVILFM/configs/synthetic_mip.yml\nTVILFM: {{STAGE1: {config.name}}}\n{small}")
    options = ("DATASETS.ROOT", "", "TEST.EVAL_PERIOD", 1, "TEST.TEXT_SOURCES", "('witness',)", "STAGE1.SOLVER.MAX_EPOCH", 1)
    results = tiny("mip_text", *options, config=stage2)
    assert np.isfinite(results["all/ensemble/mAP"]) and np.isfinite(results["all/infrared/mAP"])
    first, last = (weights(tiny.folder / "mip_text" / name) for name in ("stage1/model_final.pth", "model_final.pth"))
    assert "heads.necks.0.weight" in first and not any(name.startswith("heads.necks") for name in last)
    start = as_stage1(first)
    assert all(torch.equal(last[name], value) for name, value in start.items() if name.startswith("visual."))
    assert not torch.equal(last["heads.classifier.weight"], start["heads.classifier.weight"])
    # Finished MIP weights are recognised as a stage 1 as well.
    again = tiny("mip_text_again", *options, "MODEL.WEIGHTS", trained / "model_final.pth", config=stage2)
    assert again.keys() == results.keys() and not (tiny.folder / "mip_text_again" / "stage1").exists()


def test_a_frozen_mip_sees_every_row_with_its_camera(tmp_path, monkeypatch):
    """Whether it gets all rows at once or a few at a time."""
    cfg = read_config(ROOT / "projects/TVILFM/configs/synthetic_mip.yml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.TEXT.ARCH", write_tower(tmp_path), "MODEL.TEXT.WEIGHTS", ""])
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", False, "MODEL.HEADS.NUM_CLASSES", 3])
    model = build_model(cfg).train()
    cameras = {"rgb_camids": torch.tensor([1, 2, 4, 5]), "ir_camids": torch.tensor([3, 6, 3, 6])}
    image = torch.randint(0, 256, (1, 3, *cfg.INPUT.SIZE_TRAIN), dtype=torch.uint8)
    batch = cameras | {name: image.expand(4, -1, -1, -1) for name in ("rgb", "rgb_aug", "ir")}
    found = []
    for at_once in (3, 16):
        monkeypatch.setattr("tvilfm_plugin.modeling.visual_encoder.ROWS_AT_ONCE", at_once)
        with torch.no_grad():
            found.append(model._visual_rows(batch))
    for modality, vectors in found[0].items():
        assert torch.allclose(vectors, found[1][modality], atol=1e-5)
        assert (vectors[0] - vectors[1]).abs().max() > 1e-4, "the same picture from another camera"

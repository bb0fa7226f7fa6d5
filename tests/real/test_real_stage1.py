"""Stage 1 from ImageNet weights against stage 1 from random ones: trained on synthetic people, tested on real ones."""

import real_parts
from test_real_pedestrians import street

from tvilfm_plugin.cli.main import main
from tvilfm_plugin.retrieval.retriever import Retriever

# 96 people of the synthetic benchmark with four visible and four infrared pictures each; three epochs are 39 steps.
PEOPLE = "--ids 136 --test-ids 40 --images-rgb 4 --images-ir 4 --test-images-rgb 1 --test-images-ir 1"
RECIPE = """MODEL.DEVICE cpu MODEL.BACKBONE.DEPTH 1.0x MODEL.BACKBONE.FEAT_DIM 1280
MODEL.DUAL_STREAM.BASE build_mobilenetv2_backbone MODEL.DUAL_STREAM.STEM ('features.0',) MODEL.DUAL_STREAM.STYLE resnet
INPUT.SIZE_TRAIN (128,64) INPUT.SIZE_TEST (128,64) INPUT.PADDING.SIZE 4 DATASETS.ROOT synthetic DATALOADER.NUM_WORKERS 0 SEED 0
SOLVER.AMP.ENABLED False SOLVER.MAX_EPOCH 3 SOLVER.WARMUP_EPOCHS 0 SOLVER.STEPS (4,) TEST.EVAL_PERIOD 0"""


def test_stage_1_is_better_from_imagenet_than_from_random_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    assert not main(["data", "make", "--layout", "sysu", *PEOPLE.split(), "--out-dir", str(tmp_path / "synthetic")])
    found = {}
    for name, weights in (("ImageNet", real_parts.mobilenetv2()), ("random", "")):
        start = ["MODEL.BACKBONE.PRETRAIN", str(bool(weights)), "MODEL.BACKBONE.PRETRAIN_PATH", str(weights)]
        run = tmp_path / name
        assert not main(["train", "sysu_stage1.yml", "--out-dir", str(run), *RECIPE.split(), *start])
        found[name] = street.rank_1(street.features(Retriever.from_run(run), street.people()))
        print(f"\nstage 1 from {name} weights: R-1 {street.said(found[name])}")
    assert found["ImageNet"].mean > found["random"].mean + 5

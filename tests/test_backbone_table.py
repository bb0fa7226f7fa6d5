"""The table of backbones: what it counts, what it trains, and that it never invents a figure."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("fastreid")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import backbones
from tvilfm_plugin.config import read_config, stage1_config
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder

SMALL = [
    "MODEL.DUAL_STREAM.BASE", "build_small_resnet_backbone",
    "MODEL.BACKBONE.SMALL_WIDTH", 4, "MODEL.BACKBONE.FEAT_DIM", 32,
]  # fmt: skip


def test_multiplications_are_those_of_the_convolutions_that_an_image_passes():
    cfg = read_config(backbones.CONFIGS / "sysu_stage1.yml")
    cfg.merge_from_list([*SMALL, "MODEL.BACKBONE.PRETRAIN", False, "INPUT.SIZE_TRAIN", [64, 32]])
    visual = build_visual_encoder(cfg).eval().requires_grad_(False)
    counted = []

    def count(conv, _, out):
        counted.append(out[0].numel() * conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1])

    for module in visual.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    found = backbones.macs(visual)
    assert found == sum(counted) > 0
    with torch.no_grad():
        counted.clear()
        visual({Modality.IR: torch.zeros(1, 3, 64, 32)})
    assert found == sum(counted), "one stem, whichever"


def test_a_run_trains_the_smallest_variant_in_both_stages(tmp_path):
    words = backbones.command("sysu_shufflenet", tmp_path)
    cfg = read_config(words[words.index("--config-file") + 1], words[words.index("--config-file") + 2 :])
    first = stage1_config(cfg)
    for stage in (cfg, first):
        assert stage.MODEL.DUAL_STREAM.BASE == "build_shufflenetv2_backbone" and stage.MODEL.BACKBONE.DEPTH == "0.5x"
        assert stage.MODEL.PIXEL_STD == [1.0] * 3 and stage.INPUT.SIZE_TRAIN == [64, 32]
    assert (first.SOLVER.MAX_EPOCH, cfg.SOLVER.MAX_EPOCH) == (8, 4)


def test_what_did_not_run_says_so(tmp_path, monkeypatch, capsys):
    assert backbones.scores("sysu_osnet", tmp_path) == ["", "not run", "", ""]
    (tmp_path / "sysu_osnet").mkdir()
    scores = {"all/infrared/R-1": 12.34, "all/ensemble/R-1": 56.78}
    (tmp_path / "sysu_osnet" / "metrics.json").write_text(json.dumps({"iteration": 1}) + "\n" + json.dumps(scores) + "\n")
    (tmp_path / "sysu_osnet" / "seconds.json").write_text("99\n")
    assert backbones.scores("sysu_osnet", tmp_path) == ["0.14", "99", "12.3", "56.8"]
    backbones.train("sysu_osnet", tmp_path)
    assert capsys.readouterr().out == "sysu_osnet: finished\n"
    monkeypatch.setattr(backbones, "command", lambda name, out: [sys.executable, "-c", "raise SystemExit(3)"])
    backbones.train("sysu_vit", tmp_path)
    assert "sysu_vit: FAILED" in capsys.readouterr().out and not (tmp_path / "sysu_vit" / "seconds.json").exists()

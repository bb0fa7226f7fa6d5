"""Published ImageNet weights through the dual stream: a backbone with a config, and one that nobody configured."""

import logging
import sys

import pytest
import real_parts
import torch
from tiny_runs import ROOT

pytest.importorskip("fastreid")

from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.meta_arch import build_model

from tvilfm_plugin.config import read_config
from tvilfm_plugin.files.weights import read_tensors
from tvilfm_plugin.modality import Modality

MODALITIES = ("rgb", "ir")


def model_of(file, *options):
    cfg = read_config(ROOT / "projects" / "TVILFM" / "configs" / file)
    common = ["MODEL.META_ARCHITECTURE", "VIBaseline", "MODEL.DEVICE", "cpu", "MODEL.HEADS.NUM_CLASSES", 4]
    cfg.merge_from_list([*common, *options])
    return build_model(cfg).eval()


def test_mobilenetv2_loads_in_full_and_both_stems_begin_with_it(caplog):
    weights = real_parts.mobilenetv2()
    with caplog.at_level(logging.INFO):
        model = model_of("sysu_mobilenetv2.yml", "MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", str(weights))
    assert "260 of 260 tensors" in caplog.text
    stored, base = torch.load(weights, weights_only=True), model.visual.backbone.base
    for name in MODALITIES:
        assert torch.equal(base.features[0][name][0].weight, stored["features.0.0.weight"])
    assert torch.equal(base.conv[0].weight, stored["features.18.0.weight"]), "the layer that makes the feature"


def test_a_backbone_that_nobody_configured_by_the_documentation(caplog):
    package = real_parts.from_wheel(
        "efficientnet-lite-pytorch", "0.1.0", "efficientnet_lite_pytorch/model.py",
        "30b407fb0d051526eb1e79ce81d28f998373ed23881270c3a3db958c86b597f8",
    )  # fmt: skip
    weights = real_parts.efficientnet_lite0()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package.parents[1]))
        from efficientnet_lite_pytorch import EfficientNet

    class Lite0(EfficientNet):
        def forward(self, images):
            return self.extract_features(images)

    def build_lite0_backbone(cfg):
        """docs/extending/backbone.md: reads MODEL.BACKBONE only, and loads before the stems are copied."""
        model = Lite0.from_name("efficientnet-lite0")
        if cfg.MODEL.BACKBONE.PRETRAIN:
            model.load_state_dict(read_tensors(cfg.MODEL.BACKBONE.PRETRAIN_PATH))
        return model

    BACKBONE_REGISTRY.register(build_lite0_backbone)
    try:
        model = model_of(
            "sysu_stage1.yml", "MODEL.DUAL_STREAM.BASE", "build_lite0_backbone", "MODEL.DUAL_STREAM.STYLE", "resnet",
            "MODEL.DUAL_STREAM.STEM", ("_conv_stem", "_bn0"), "MODEL.BACKBONE.FEAT_DIM", 0,
            "MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", str(weights),
            "INPUT.SIZE_TRAIN", [128, 64], "INPUT.SIZE_TEST", [128, 64],
        )  # fmt: skip
    finally:
        del BACKBONE_REGISTRY._obj_map["build_lite0_backbone"]
        for name in [name for name in sys.modules if name.startswith("efficientnet_lite_pytorch")]:
            del sys.modules[name]
    alone = Lite0.from_name("efficientnet-lite0")
    alone.load_state_dict(read_tensors(weights))
    pixels = torch.randint(0, 256, (2, 3, 128, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        maps = alone.eval().extract_features((pixels - model.visual.pixel_mean) / model.visual.pixel_std)
        for name in MODALITIES:
            assert torch.allclose(model.visual.maps({Modality(name): pixels})[Modality(name)], maps, atol=1e-4), name
    assert model.visual.dim == 1280

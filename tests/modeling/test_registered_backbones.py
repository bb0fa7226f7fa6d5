"""Every backbone that fast-reid registers, as its ready config builds it, in the smallest variant of its family."""

import json
import re

import pytest
import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.meta_arch import build_model
from oracles_modeling import small_batch, write_tower
from tiny_runs import ROOT
from torch import nn

from tvilfm_plugin.config import read_config
from tvilfm_plugin.evaluation.ensemble import unpack
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder

CONFIGS = ROOT / "projects" / "TVILFM" / "configs"
SMALLEST = json.loads((ROOT / "benchmarks" / "backbones.json").read_text())
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.HEADS.NUM_CLASSES", 10, "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32],
    "MODEL.BACKBONE.PRETRAIN", False,
]  # fmt: skip
SIZE = (64, 32)
# Biases in front of a batch normalisation, which subtracts them again: their gradient is rounding.
ZERO = re.compile(r"\.NL_\d\.\d\.W\.0\.bias$|\.layer\d\.\d+\.conv2\.fc1\.bias$")


def config(name, *overrides):
    cfg = read_config(CONFIGS / f"{name}.yml")
    smallest = [word for pair in SMALLEST[name].items() for word in pair]
    cfg.merge_from_list([*smallest, *SMALL, *overrides])
    return cfg


def build(name, architecture, tower):
    torch.manual_seed(0)
    text = ["MODEL.TEXT.ARCH", tower, "MODEL.TEXT.WEIGHTS", ""]
    model = build_model(config(name, "MODEL.META_ARCHITECTURE", architecture, *text))
    for module_name, module in model.named_modules():
        if re.search(r"\.NL_\d\.\d\.W\.1$", module_name):
            nn.init.ones_(module.weight)  # at 0, as it starts, nothing behind it has a gradient
        elif module_name.endswith(".gate.fc1"):
            module.weight.data.abs_()  # OSNet x0.25 has gates of one hidden unit, which a random sign closes
    return model


def batch():
    resized = small_batch()
    for view in ("rgb", "rgb_aug", "ir"):
        resized[view] = nn.functional.interpolate(resized[view].float(), SIZE).to(torch.uint8)
    return resized


def train_one_step(model):
    """One step of Adam; every trainable weight must have felt it, nothing else may."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = model.train()(batch())
    sum(losses.values()).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and torch.equal(before[name], parameter), name
        elif not ZERO.search(name):
            assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name
            assert not torch.equal(before[name], parameter), name
        else:
            assert parameter.grad.isfinite().all(), name
    return before


def test_the_list_is_complete():
    ours = {name for name in BACKBONE_REGISTRY._obj_map if BACKBONE_REGISTRY.get(name).__module__.startswith("tvilfm_plugin")}
    bases = {config(name).MODEL.DUAL_STREAM.BASE for name in SMALLEST}
    assert len(bases - ours) == 11 and bases - ours == set(BACKBONE_REGISTRY._obj_map) - ours
    files = {path.stem for path in CONFIGS.glob("sysu_*.yml") if path.read_text().count("_BASE_: sysu.yml")}
    assert files - {"sysu_mip", "sysu_deen"} == set(SMALLEST) - {"sysu"}


@pytest.mark.parametrize("name", [name for name in SMALLEST if name != "sysu"])
def test_both_stages_take_one_step_and_evaluate(name, tmp_path):
    tower = write_tower(tmp_path)
    stage1 = build(name, "VIBaseline", tower)
    train_one_step(stage1)
    stage2 = build(name, "TVILFM", tower)
    missing, unexpected = stage2.load_state_dict(stage1.state_dict(), strict=False)
    assert not unexpected and {key.split(".")[0] for key in missing} == {"text"}
    before = train_one_step(stage2)
    drifted = {key for key, value in stage2.visual.state_dict().items() if not torch.equal(before[f"visual.{key}"], value)}
    assert not drifted, "frozen means frozen, buffers too"

    model, rows, dim = stage2.eval(), batch(), config(name).MODEL.BACKBONE.FEAT_DIM
    with torch.no_grad():
        raw = model.encode_images(rows["rgb"], Modality.RGB)
        query = model({"images": rows["ir"], "modality": "ir", **{key: rows[key] for key in ("rgb_tokens", "ir_tokens")}})
        one = model.encode_images(rows["rgb"][:1], Modality.RGB)
    assert raw.shape == (4, dim) and raw.isfinite().all()
    assert {m: block.shape for m, block in unpack(query, model.members).items()} == dict.fromkeys(model.members, (4, dim))
    model.visual.backbone._folded = None
    with torch.no_grad():
        plain = model.encode_images(rows["rgb"], Modality.RGB)
    assert torch.allclose(one[0], raw[0], atol=1e-4 * float(raw.abs().max())), "a row depends on its batch"
    assert torch.allclose(plain, raw, atol=1e-4 * float(plain.abs().max())), "folding BN changes the features"
    for modality in (Modality.RGB, Modality.IR):
        stems = [key for key in stage2.visual.state_dict() if f".{modality.value}." in key]
        assert stems, "each modality has a stem of its own"


@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in ("sysu", "sysu_agw")])
def test_a_wrong_stem_lists_the_candidates(name):
    cfg = config(name, "MODEL.DUAL_STREAM.STEM", ("stem_of_another",))
    candidates = [child for child, _ in BACKBONE_REGISTRY.get(cfg.MODEL.DUAL_STREAM.BASE)(cfg).named_children()]
    with pytest.raises(ValueError, match=f"no module 'stem_of_another'; it has {', '.join(candidates)}"):
        build_visual_encoder(cfg)


def test_a_backbone_that_nobody_configured_needs_its_stem_only(tmp_path):
    """FEAT_DIM 0: the width is measured, and neck, classifier and text get it."""
    cfg = read_config(CONFIGS / "sysu.yml")
    stem = ["MODEL.DUAL_STREAM.BASE", "build_shufflenetv2_backbone", "MODEL.DUAL_STREAM.STEM", ("first_conv", "maxpool")]
    cfg.merge_from_list([*SMALL, *stem, "MODEL.BACKBONE.DEPTH", "0.5x", "MODEL.BACKBONE.FEAT_DIM", 0])
    cfg.merge_from_list(["MODEL.TEXT.ARCH", write_tower(tmp_path), "MODEL.TEXT.WEIGHTS", ""])
    model = build_model(cfg)
    assert model.visual.dim == model.text.dim == model.fusion.dim == 1024
    assert model.heads.classifier.weight.shape == (10, 1024)
    visual = build_visual_encoder(cfg)
    assert all(module.training for module in visual.modules()), "measuring leaves no trace"
    assert not visual.backbone.base.conv_last[1].running_mean.any()


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("sysu_shufflenet", lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}}),
        ("sysu_resnext50", lambda state: {"model": {f"module.encoder.{key}": value for key, value in state.items()}}),
        ("sysu_efficientnet", lambda state: {"model_state": state}),
        ("sysu_mobilenetv3", lambda state: state),
    ],
)
def test_pretrained_files_in_the_form_that_each_backbone_reads(name, wrap, tmp_path, caplog):
    cfg = config(name)
    base = BACKBONE_REGISTRY.get(cfg.MODEL.DUAL_STREAM.BASE)(cfg)
    torch.save(wrap(base.state_dict()), tmp_path / "weights.pth")
    with caplog.at_level("INFO"):
        pretrained = ["MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "weights.pth")]
        visual = build_visual_encoder(config(name, *pretrained))
    tensors = [key for key in base.state_dict() if not key.endswith("num_batches_tracked")]
    assert f"{len(tensors)} of {len(tensors)} tensors" in caplog.text
    stem = cfg.MODEL.DUAL_STREAM.STEM[0]
    for key, value in base.get_submodule(stem).state_dict().items():
        for modality in ("rgb", "ir"):
            assert torch.equal(visual.backbone.base.get_submodule(f"{stem}.{modality}").state_dict()[key], value)


def test_repvgg_gives_the_same_features_when_its_branches_are_merged():
    """Deploy form: BN statistics go into one convolution per block. The host leaves stems as they are."""
    torch.manual_seed(0)
    visual = build_visual_encoder(config("sysu_repvgg"))
    for module in visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = {m: torch.randint(0, 256, (2, 3, *SIZE)) for m in (Modality.RGB, Modality.IR)}
    with torch.no_grad():
        before = visual.eval()(images)
        visual.backbone.base.deploy(True)
        merged = visual(images)
        for stem in visual.backbone.base.stage0.values():
            stem.deploy(True)
        all_merged = visual(images)
    assert not any("rbr_" in key for key in visual.state_dict())
    for m, rows in before.items():
        for after in (merged, all_merged):
            assert torch.allclose(after[m], rows, atol=1e-4 * float(rows.abs().max()))

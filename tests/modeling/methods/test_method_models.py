"""Every method's config: one real step moves every weight, and what evaluation keeps ranks as the method says."""

import json

import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from tiny_runs import ROOT, TOWER
from torch import nn

from tvilfm_plugin.checkpoints.loading import read_checkpoint
from tvilfm_plugin.config import read_config
from tvilfm_plugin.data.loaders import _augmentation
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.engine import lr_factor, param_groups
from tvilfm_plugin.evaluation.mer import batch_norm_affine, unit_after
from tvilfm_plugin.files.weights import WeightsError
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.methods.losses import channel_kl
from tvilfm_plugin.modeling.methods.models import DDAG, MMN
from tvilfm_plugin.modeling.registries import choose_losses

METHODS = ("AGW", "CAJ", "DEEN", "MMN", "DDAG", "YYDS")
PATHS = sorted(path for method in METHODS for path in ROOT.glob(f"projects/{method}/configs/*.yml"))
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DUAL_STREAM.BASE", "build_small_resnet_backbone",
    "MODEL.BACKBONE.SMALL_WIDTH", 8, "MODEL.BACKBONE.SMALL_BLOCKS", (1, 1, 1, 1), "MODEL.BACKBONE.FEAT_DIM", 64,
    "MODEL.BACKBONE.WITH_NL", False, "MODEL.HEADS.NUM_CLASSES", 10,
    "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "MODEL.TEXT.ARCH", json.dumps(TOWER), "MODEL.TEXT.WEIGHTS", "",
    "MODEL.DUAL_STREAM.WEIGHTS", "",
]  # fmt: skip
# A bias in front of a norm, one that a softmax or two branches of a sum take away, and the graph's last scores.
ZERO = (
    ".W.0.bias", "encoders.rgb.fc.bias", "encoders.ir.fc.bias", "visual_1.0.bias", "joint.0.bias", "parts.key.bias",
    "parts.value.bias", "graph.out.a", "projection.3.bias",
)  # fmt: skip

JOINT = ("heads.joint_neck.", "heads.classifier.joint.")


def model_of(path):
    cfg = read_config(path, SMALL)
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.modules():  # the attention's norms start at zero, and nothing before them would move
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return cfg, model


def batch_of(cfg, views, people=(1, 1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    shape = (len(people), 3, 64, 32)
    batch = {view: torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for view in views}
    batch |= {f"{view}_ops": torch.tensor([[3, 2, 8, 5, 0]]).repeat(len(people), 1) for view in views}
    tokens = tokenize(["a man with red coat", "a woman with blue and white shoes", "a person", "a man in black trousers"])
    return batch | {"targets": torch.tensor(people), "rgb_tokens": tokens}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_one_step_moves_every_weight(path):
    cfg, model = model_of(path)
    batch = batch_of(cfg, (*model.rgb_views, "ir"))
    if isinstance(model, DDAG):
        model.train()(batch), model.set_epoch(1)
    losses = model.train()(batch)
    assert {name.removeprefix("loss_") for name in losses} == set(cfg.MODEL.LOSSES.NAME)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.endswith(ZERO):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any(), name
    raw = cfg.MODEL.YYDS.JOINT_LOGITS == "raw"
    fixed = ("text.encoder.", *(("projection.",) if isinstance(model, MMN) else ()), *(JOINT if raw else ()))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert all(name.endswith(".bias") or name.startswith(fixed) for name in frozen)
    rates = {group["name"]: group["lr"] for group in param_groups(cfg, model)}
    colour = "visual.backbone.base.colour."
    fast = ("heads.", "text.projection.", *((colour,) if cfg.MODEL.YYDS.COLOUR_LR == "heads" else ()))
    assert {rate for name, rate in rates.items() if name.startswith(fast) and not name.startswith(JOINT)} == {0.1}
    assert {rate for name, rate in rates.items() if not name.startswith(fast) or name.startswith(JOINT)} == {0.01}


@pytest.mark.parametrize("method", METHODS)
def test_stored_rows_rank_as_the_model(method):
    _, model = model_of(ROOT / "projects" / method / "configs" / "sysu.yml")
    model.eval()
    images = torch.randint(0, 256, (3, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        rows = {m: model.encode_images(images, m) for m in (Modality.RGB, Modality.IR)}
        for m, raw in rows.items():
            stored = unit_after(*batch_norm_affine(model.heads.neck))(raw)
            assert torch.allclose(stored, model.embed(raw), atol=1e-6)
            packed = model({"images": images, "modality": m.value})
            assert torch.allclose(packed, stored, atol=1e-6)
        if method in ("DEEN", "MMN", "DDAG", "YYDS"):
            lengths = (torch.cat(list(rows.values())) * (model.heads.neck.weight != 0)).norm(dim=1)
            assert torch.allclose(lengths, lengths[:1], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_mirror_images_in_the_methods_own_form(method):
    """The row of an image and of its mirror image is one row, and of a symmetric image that of the image alone."""
    _, model = model_of(ROOT / "projects" / method / "configs" / "sysu_released.yml")
    model.eval()
    images = torch.randint(0, 256, (2, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    symmetric = torch.cat([images[..., :16], images[..., :16].flip(dims=[3])], dim=3)
    with torch.no_grad():
        for m in (Modality.RGB, Modality.IR):
            row, mirrored = (model.embed(model.encode_mirrored(x, m)) for x in (images, images.flip(dims=[3])))
            assert torch.allclose(row, mirrored, atol=1e-5)
            alone = model.embed(model.encode_images(symmetric, m))
            assert torch.allclose(model.embed(model.encode_mirrored(symmetric, m)), alone, atol=2e-3)


def test_rates_per_epoch():
    cfg, _ = model_of(ROOT / "projects" / "AGW" / "configs" / "sysu.yml")
    solver = cfg.SOLVER
    factors = [lr_factor(e, solver.WARMUP_EPOCHS, solver.WARMUP_FACTOR, tuple(solver.STEPS), solver.GAMMA) for e in range(81)]
    expected = [(e + 1) / 10 for e in range(10)] + [1.0] * 10 + [0.1] * 30 + [0.01] * 31
    assert factors == pytest.approx(expected)


def test_views_of_the_methods():
    agw, caj, deen = (
        _augmentation(model_of(ROOT / "projects" / method / "configs" / "sysu.yml")[0]) for method in ("AGW", "CAJ", "DEEN")
    )
    assert agw.rgb.erase_prob == agw.ir.erase_prob == 0 and agw.ir.channels is None
    assert caj.rgb.erase_prob == caj.ir.erase_prob == 0.5 and caj.ir.channels is not None
    assert deen.rgb.area == deen.ir.area == (0.2, 0.8) and deen.rgb.crop.gray_prob == deen.ir.crop.gray_prob == 0.5


def test_the_graph_joins_in_the_second_epoch():
    _, model = model_of(ROOT / "projects" / "DDAG" / "configs" / "sysu.yml")
    batch = batch_of(None, ("rgb", "ir"))
    first = model.train()(batch)
    assert first["loss_graph_identity"] == 0
    rest = sum(v for name, v in first.items() if name != "loss_graph_identity").item()
    model.set_epoch(0)
    model.set_epoch(1)
    assert model.others.tolist() == pytest.approx([1, 0, 0, rest], rel=1e-5)
    assert model(batch)["loss_graph_identity"] > 0


def test_deen_without_its_trunk_is_refused():
    cfg = read_config(ROOT / "projects" / "DEEN" / "configs" / "sysu.yml", [*SMALL, "MODEL.DUAL_STREAM.TRUNK", "plain"])
    with pytest.raises(ValueError, match="set MODEL.DUAL_STREAM.TRUNK DEEN"):
        build_model(cfg)


def test_cajs_distillation_by_its_name():
    cfg, model = model_of(ROOT / "projects" / "CAJ" / "configs" / "sysu.yml")
    model.losses = choose_losses(("channel_kl",), (1.0,))
    batch = batch_of(cfg, ("rgb", "rgb_aug", "ir"))
    views = model.train()._visual_rows(batch)
    _, logits = model.heads(torch.cat([views[Modality.RGB], views[Modality.IR]]))
    expected = channel_kl(logits[:4], logits[8:])
    assert model(batch)["loss_channel_kl"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_stems_and_trunk_of_the_model_that_comes_with_the_plugin():
    """The synthetic configs start where TVI-LFM's start; a second trunk starts as the first, another base is refused."""
    cfg = read_config(ROOT / "projects" / "YYDS" / "configs" / "synthetic.yml")
    cfg.MODEL.DEVICE, cfg.MODEL.HEADS.NUM_CLASSES = "cpu", 10
    base = build_model(cfg).visual.backbone.base
    given = read_checkpoint("example")[0]
    assert torch.equal(base.conv1["ir"].weight, given["visual.backbone.base.conv1.ir.weight"].float())
    for trunk in (base, base.colour.module):
        name = "layer2.0.conv1.weight"
        assert torch.equal(trunk.get_parameter(name), given[f"visual.backbone.base.{name}"].float())
    with pytest.raises(WeightsError, match="has no dual stream of this base"):
        cfg.MODEL.BACKBONE.SMALL_WIDTH, cfg.MODEL.BACKBONE.FEAT_DIM = 8, 64
        build_model(cfg)

"""MIP as a model of the host: batches, losses by epoch, evaluation, and as the visual part of other models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.modeling import build_model
from mip_models import DETERMINISTIC, deviation, small_config
from torch import nn

from tvilfm_plugin.evaluation.mer import batch_norm_affine, unit_after
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder
from tvilfm_plugin.modeling.mip.encoder import MIPEncoder
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.vi_baseline import VIBaseline

CONFIGS = sorted((Path(__file__).parents[3] / "projects" / "MIP" / "configs").glob("*.yml"))


def batch(seed: int = 0) -> dict[str, Any]:
    """Two identities, two pairs each."""
    draw = torch.Generator().manual_seed(seed)
    pixels = {m: torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=draw) for m in ("ir", "rgb")}
    ops = torch.tensor([[3, 2, 20, 9, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [8, 8, 8, 8, 1]])
    cameras = {"ir_camids": torch.tensor([3, 6, 3, 6]), "rgb_camids": torch.tensor([1, 2, 4, 5])}
    return pixels | cameras | {"ir_ops": ops, "rgb_ops": ops.flip(0), "targets": torch.tensor([1, 1, 4, 4])}


@pytest.fixture(scope="module")
def model() -> MIP:
    torch.manual_seed(0)
    built = build_model(small_config())
    assert isinstance(built, MIP)
    return built


def test_losses_join_by_epoch(model: MIP) -> None:
    model.train()
    for epoch in (0, 8, 9, 40):
        model.set_epoch(epoch)
        losses = model(batch())
        # Epochs count from 1 in the recipe: the tenth has MSEL.
        assert ("loss_msel" in losses) == (epoch >= 9)
        assert set(losses) - {"loss_msel"} == {"loss_identity", "loss_triplet", "loss_iael"}
        assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    model.set_epoch(0)


def test_weights_of_losses() -> None:
    torch.manual_seed(0)
    cfg = small_config(**DETERMINISTIC, MSEL_EPOCH=1)
    full = MIP(cfg)
    data = {k: v for k, v in batch().items() if not k.endswith("ops")}
    reference = full.train()(data)
    for name, key in (("loss_msel", "MSEL_WEIGHT"), ("loss_iael", "IAEL_WEIGHT"), ("loss_triplet", "TRIPLET_WEIGHT")):
        changed = small_config(**DETERMINISTIC, MSEL_EPOCH=1, **{key: 3 * cfg.MODEL.MIP[key]})
        other = MIP(changed)
        other.load_state_dict(full.state_dict())
        assert other.train()(data)[name].item() == pytest.approx(3 * reference[name].item(), rel=1e-5)
    silent = MIP(small_config(MSEL_WEIGHT=0.0, IAEL_WEIGHT=0.0, MSEL_EPOCH=1))
    assert set(silent.train()(batch())) == {"loss_identity", "loss_triplet"}
    assert set(MIP(small_config(TRIPLET_WEIGHT=0.0)).train()(batch())) == {"loss_identity", "loss_iael"}
    assert not any("prompt" in name for name in silent.heads.state_dict())


def test_erasing_acts_on_normalised_images_and_leaves_the_batch() -> None:
    model = MIP(small_config(**DETERMINISTIC)).train()
    data = batch()
    kept = {k: v.clone() for k, v in data.items()}
    torch.manual_seed(5)
    with_ops = model(data)
    torch.manual_seed(5)
    plain = model({k: v for k, v in data.items() if not k.endswith("ops")})
    assert all(torch.equal(data[k], kept[k]) for k in data)
    assert with_ops["loss_triplet"] != plain["loss_triplet"]


def test_one_step_of_the_default_path() -> None:
    """Weight decay 0, random layers on: every trainable weight gets a finite gradient that is not zero."""
    torch.manual_seed(1)
    model = MIP(small_config(MSEL_EPOCH=1, DROP_PATH=0.0)).train()
    # BNNeck and classifier start so small that float32 needs a little help to pass a gradient on.
    sum(model(batch()).values()).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith(("global_branch.norm.bias", "local_branch.reader.norm.bias")):
            assert parameter.grad.abs().max() > 0, name


def test_training_reduces_the_loss() -> None:
    torch.manual_seed(0)
    model = MIP(small_config(PROMPT_SCALE=1.0)).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    values = []
    for _ in range(25):
        total = sum(model(batch()).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert sum(values[-3:]) < 0.6 * sum(values[:3])


def test_autocast() -> None:
    """Under autocast losses are float32 and finite; evaluation leaves autocast."""
    torch.manual_seed(0)
    model = MIP(small_config(MSEL_EPOCH=1, **DETERMINISTIC)).train()
    data = {k: v for k, v in batch().items() if not k.endswith("ops")}
    plain = model(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(data)
    for name, value in mixed.items():
        assert value.dtype is torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.1)
    sum(mixed.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.no_grad():
        exact = model.encode_images(data["ir"], Modality.IR, data["ir_camids"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = model.encode_images(data["ir"], Modality.IR, data["ir_camids"])
    assert again.dtype is torch.float32 and torch.equal(again, exact)


def test_evaluation_interface(model: MIP) -> None:
    model.eval()
    data = batch()
    assert model.has_text is False and model.members == (Modality.IR,)
    with torch.no_grad():
        ir = model.encode_images(data["ir"], Modality.IR, data["ir_camids"])
        rgb = model.encode_images(data["rgb"].float(), Modality.RGB, data["rgb_camids"])
        assert ir.shape == (4, 5 * 32)
        unit = nn.functional.normalize(ir, dim=1)
        assert torch.equal(model.embed(ir), unit)
        # What the evaluator makes of the neck, from stored parts alone.
        scale, shift = batch_norm_affine(model.heads.neck)
        assert torch.equal(unit_after(scale, shift)(ir), unit)
        mixed = {
            "images": torch.stack([data["rgb"][0], data["ir"][0], data["rgb"][1]]),
            "modality": ["rgb", "ir", "rgb"],
            "camids": torch.tensor([1, 3, 2]),
        }
        packed = model(mixed)
    expected = nn.functional.normalize(torch.stack([rgb[0], ir[0], rgb[1]]), dim=1)
    assert deviation(packed, expected) < 1e-5


def test_images_alone(model: MIP) -> None:
    """The stock predictor knows neither modality nor camera: a visible image of an unknown camera."""
    model.eval()
    images = batch()["rgb"]
    with torch.no_grad():
        alone = model({"images": images})
        assert torch.equal(alone, model(images))
        expected = model.embed(model.encode_images(images, Modality.RGB))
    assert deviation(alone, expected) < 1e-6


def test_feature_after_the_necks() -> None:
    torch.manual_seed(0)
    model = MIP(small_config(FEATURE="after")).eval()
    for neck in model.heads.necks:
        neck.running_mean.normal_()
        neck.running_var.uniform_(0.5, 2)
    data = batch()
    with torch.no_grad():
        raw = model.encode_images(data["ir"], Modality.IR, data["ir_camids"])
        vectors = raw.unflatten(1, (5, 32)) * torch.tensor([1, 4, 4, 4, 4]).view(5, 1)
        after = [neck(vectors[:, n]) / (1 if n == 0 else 4) for n, neck in enumerate(model.heads.necks)]
        expected = nn.functional.normalize(torch.cat(after, dim=1), dim=1)
        assert torch.allclose(model.embed(raw), expected, atol=1e-6)
        assert torch.allclose(unit_after(*batch_norm_affine(model.heads.neck))(raw), expected, atol=1e-6)


def test_camera_numbers(model: MIP) -> None:
    model.eval()
    data = batch()
    with torch.no_grad():
        with pytest.raises(ValueError, match=r"\[0, 3\] do not all lie in 1..6"):
            model.encode_images(data["ir"], Modality.IR, torch.tensor([0, 3, 3, 3]))
        one, two = (model.encode_images(data["ir"], Modality.IR, torch.full((4,), c)) for c in (3, 6))
    assert deviation(one, two) > 1e-4
    with pytest.raises(KeyError, match="lacks ir_camids"):
        model.train()({k: v for k, v in data.items() if k != "ir_camids"})
    model.eval()
    single = MIP(small_config(CAMERAS=1)).eval()
    assert single.visual.embedding.camera is None
    single.train()({k: v for k, v in data.items() if "camids" not in k})


def test_as_the_visual_part_of_another_model() -> None:
    """`build_mip_backbone` gives a VisualEncoder: 5 D numbers, its own normalisation, cameras passed on, ops applied."""
    cfg = small_config(**DETERMINISTIC)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FEAT_DIM = "build_mip_backbone", 160
    cfg.MODEL.META_ARCHITECTURE = "VIBaseline"
    cfg.MODEL.HEADS.NAME = "IdentityHead"
    cfg.MODEL.LOSSES.NAME = ("identity", "weighted_triplet")
    encoder = build_visual_encoder(cfg)
    assert isinstance(encoder, MIPEncoder)
    assert encoder.dim == 160 and encoder.image_size == (64, 32)
    assert encoder.pixel_mean.flatten().tolist() == [127.5] * 3
    model = build_model(cfg)
    assert type(model) is VIBaseline
    data = batch()
    pairs = data | {"rgb_aug": data["rgb"].clone(), "rgb_aug_ops": data["rgb_ops"].clone()}
    for name in ("rgb_ops", "rgb_aug_ops", "ir_ops"):
        pairs[name] = pairs[name] * torch.tensor([1, 1, 1, 1, 0])
    losses = model.train()(pairs)
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    model.eval()
    with torch.no_grad():
        images = {Modality.IR: data["ir"], Modality.RGB: data["rgb"][:3]}
        cameras = {Modality.IR: data["ir_camids"], Modality.RGB: data["rgb_camids"][:3]}
        both = model.visual(images, cameras)
        for modality, rows in images.items():
            alone = model.visual({modality: rows}, {modality: cameras[modality]})[modality]
            assert deviation(both[modality], alone) < 1e-5
    with pytest.raises(ValueError, match="infrared and visible images, not text"):
        model.visual({Modality.TEXT: data["ir"]})


@pytest.mark.parametrize(
    ("mip", "message"),
    [
        ({"BLOCKS": 4}, "1 to 3 precede the branches"),
        ({"QUERY": "ones"}, "learned or zeros"),
        ({"INSTANCE_TYPE": "mix"}, "generator or fusion"),
        ({"GENERATOR_INIT": "warm"}, "random or pretrained"),
        ({"IAEL_READER": "max"}, "mean or block"),
        ({"FEATURE": "both"}, "before or after"),
        ({"HEADS": 5}, "cannot be split into 5 heads"),
        ({"STRIDE": 60}, "too few for 4 parts"),
    ],
)
def test_errors(mip: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIP(small_config(**mip))


def test_two_image_sizes_are_refused() -> None:
    cfg = small_config()
    cfg.INPUT.SIZE_TEST = [32, 32]
    with pytest.raises(ValueError, match="must equal INPUT.SIZE_TRAIN"):
        MIP(cfg)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(path: Path) -> None:
    from tvilfm_plugin.config import read_config

    cfg = read_config(path)
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.HEADS.NUM_CLASSES = "cpu", False, 7
    with torch.device("meta"):
        model = MIP(cfg)
    released = path.stem.endswith("_released")
    assert (cfg.TVILFM.PRESET == "released") is released
    assert len(model.visual.blocks) == cfg.MODEL.MIP.DEPTH - (2 if released else 1)
    assert bool(model.heads.prompt_necks) is not released
    assert model.visual.dim == cfg.MODEL.BACKBONE.FEAT_DIM
    if path.stem != "synthetic":
        assert pytest.approx(1e-5) == cfg.SOLVER.ETA_MIN_LR / cfg.SOLVER.BASE_LR

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles_modeling import small_batch, small_model

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.registries import choose_losses
from tvilfm_plugin.modeling.vi_baseline import VIBaseline, rows_by_modality


def test_a_step_reaches_every_parameter():
    model = small_model().train()
    losses = model(small_batch())
    assert set(losses) == {"loss_identity", "loss_weighted_triplet"} and all(v.ndim == 0 for v in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().max() > 1e-6, name


def test_rows_are_visible_twice_then_infrared():
    model, batch = small_model().eval(), small_batch()
    rows, copies = model._training_rows(batch)
    blocks = rows.chunk(copies)
    with torch.no_grad():
        for block, view, m in zip(blocks, ("rgb", "rgb_aug", "ir"), (Modality.RGB, Modality.RGB, Modality.IR), strict=True):
            alone = model.visual({m: batch[view]}, ops={m: batch[f"{view}_ops"]})[m]
            assert torch.allclose(block, alone, rtol=1e-4, atol=1e-5)


def test_the_trunk_runs_once_a_step():
    model = small_model().train()
    rows = []
    model.visual.backbone.base.layer1.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    model(small_batch())
    assert rows == [12]


def test_draws_are_optional_but_not_by_halves():
    model, batch = small_model().train(), small_batch()
    plain = {k: v for k, v in batch.items() if not k.endswith("_ops")}
    assert model(plain)["loss_identity"] > 0
    with pytest.raises(KeyError, match="rgb_ops.*but not rgb_aug_ops"):
        model(plain | {"rgb_ops": batch["rgb_ops"]})


def test_a_batch_of_something_else_is_refused():
    model = small_model().train()
    with pytest.raises(KeyError, match="lacks rgb, rgb_aug, ir, targets"):
        model({"images": small_batch()["rgb"]})
    with pytest.raises(KeyError, match="PairedDataset"):
        model(small_batch()["rgb"])


@torch.no_grad()
def test_evaluation_gives_unit_embeddings():
    model, batch = small_model().eval(), small_batch()
    rgb, ir = batch["rgb"], batch["ir"]
    visible = model({"images": rgb, "modality": ["rgb"] * 4, "camids": torch.arange(4)})
    assert torch.equal(visible, model(rgb)) and torch.equal(visible, model({"images": rgb}))
    assert torch.equal(visible, model({"images": rgb.float(), "modality": Modality.RGB}))
    assert torch.allclose(visible.norm(dim=1), torch.ones(4)) and visible.dtype is torch.float32
    raw = model.encode_images(ir, Modality.IR)
    assert torch.allclose(model({"images": ir, "modality": "ir"}), model.embed(raw))
    assert torch.equal(model.embed(raw), F.normalize(model.heads.neck(raw)))


@torch.no_grad()
def test_a_mixed_batch_keeps_its_order():
    """The stock loader runs from the queries into the gallery in the middle of a batch."""
    model, batch = small_model().eval(), small_batch()
    mixed = torch.stack([batch["ir"][0], batch["rgb"][1], batch["ir"][2]])
    out = model({"images": mixed, "modality": ["ir", "rgb", "ir"]})
    infrared, visible = (model({"images": mixed, "modality": m}) for m in ("ir", "rgb"))
    assert torch.allclose(out, torch.stack([infrared[0], visible[1], infrared[2]]), atol=1e-6)
    assert not torch.allclose(infrared, visible, atol=1e-2)


def test_modalities_of_rows():
    assert rows_by_modality("ir", 2) == {Modality.IR: slice(None)}
    assert rows_by_modality(["rgb", "rgb"], 2) == {Modality.RGB: slice(None)}
    assert {m: rows.tolist() for m, rows in rows_by_modality(["rgb", "ir", "rgb"], 3).items()} == {
        Modality.RGB: [0, 2],
        Modality.IR: [1],
    }
    with pytest.raises(ValueError, match="1 modalities for 2 images"):
        rows_by_modality(["rgb"], 2)
    with pytest.raises(ValueError, match="thermal"):
        rows_by_modality("thermal", 2)


@torch.no_grad()
def test_evaluation_ignores_autocast():
    model, images = small_model().eval(), small_batch()["rgb"]
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(images), expected)
        assert model.encode_images(images, Modality.RGB).dtype is torch.float32


def test_training_under_autocast_is_finite():
    model = small_model().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(small_batch())
    assert all(v.dtype is torch.float32 and v.isfinite() for v in losses.values())


def test_built_from_values_and_copied():
    model = small_model()
    assert VIBaseline.members == (Modality.IR,) and not VIBaseline.has_text
    other = VIBaseline(visual=model.visual, heads=model.heads, losses=choose_losses(("identity",)))
    assert set(other.train()(small_batch())) == {"loss_identity"}
    twin = copy.deepcopy(model).eval()
    assert torch.equal(twin(small_batch()["ir"]), model.eval()(small_batch()["ir"]))


def test_checkpoint_keys_are_readable():
    keys = set(small_model().state_dict())
    assert {
        "visual.backbone.base.conv1.rgb.weight",
        "visual.backbone.base.bn1.ir.running_var",
        "visual.backbone.base.layer4.0.conv2.weight",
        "visual.pool.p",
        "heads.neck.bias",
        "heads.classifier.weight",
    } <= keys
    assert {key.split(".")[0] for key in keys} == {"visual", "heads"}

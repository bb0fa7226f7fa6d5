import copy

import pytest
import torch
import torch.nn.functional as F
from oracles_modeling import adam_first_step, small_batch, small_model, stage2_losses_by_hand, write_tower

from tvilfm_plugin.evaluation.ensemble import unpack
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.tvilfm import TVILFM


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("tower"))


def loud(model):
    """Text features as large as visual ones: a random tower's would hardly show."""
    with torch.no_grad():
        model.text.text_projection.mul_(2)
        for parameter in model.text.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def tvilfm(tower, *overrides):
    return loud(small_model("TVILFM", tower, *overrides))


def step(model, batch):
    model.train()
    losses = model(batch)
    sum(losses.values()).backward()
    return losses


def test_a_step_with_frozen_bn_equals_the_literal_twin(tower):
    model, batch = tvilfm(tower), small_batch()
    leaves = {n: p.detach().clone().double() for n, p in model.state_dict().items() if p.is_floating_point()}
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    for name in trained:
        leaves[name].requires_grad_()
    theirs, buffers = stage2_losses_by_hand(leaves, batch, heads=2)
    sum(theirs.values()).backward()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=5e-4)
    ours = step(model, batch)
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item(), rel=2e-5)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    for name in trained:
        expected = leaves[name].grad
        assert (gradients[name] - expected).abs().max() <= 2e-4 * expected.abs().max(), name
    # The step itself, from our gradients: where they vanish, Adam's first step is the sign of rounding errors.
    expected = {n: adam_first_step(leaves[n].detach(), gradients[n].double(), 1e-3, 5e-4) for n in trained}
    optimizer.step()
    for name, parameter in model.named_parameters():
        after = expected.get(name, leaves[name])
        assert torch.allclose(parameter.double(), after, atol=2e-6), name
    for name, value in buffers.items():
        assert torch.allclose(model.state_dict()[name].double(), value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ("overrides", "zero"),
    [
        ((), ()),
        (("TVILFM.FUSION", "Add"), ()),
        # Both texts get ln_final's bias through the same projection, and SFF takes their difference.
        (("TVILFM.JOINT", False), ("text.ln_final.bias",)),
        (("TVILFM.JOINT", False, "TVILFM.FUSION", "Add"), ()),
        (("TVILFM.FREEZE_BN", False), ()),
        (("TVILFM.FROM_SCRATCH", True), ()),
        (("TVILFM.FROM_SCRATCH", True, "TVILFM.JOINT", False), ("text.ln_final.bias",)),
    ],
)
def test_a_step_reaches_every_parameter_and_nothing_frozen(tower, overrides, zero):
    model = tvilfm(tower, *overrides)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    step(model, small_batch())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and name.startswith("visual."), name
        elif name in zero:
            assert parameter.grad.abs().max() < 1e-5, name
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 1e-5, name
    optimizer.step()
    scratch, drift = "TVILFM.FROM_SCRATCH" in overrides, "TVILFM.FREEZE_BN" in overrides
    for name, value in model.state_dict().items():
        changed = not torch.equal(value, before[name])
        statistic = "running" in name or "num_batches" in name
        if name.startswith("visual.") and not scratch:
            assert changed == (statistic and drift), name
        elif statistic:
            assert changed, name


def test_frozen_stays_frozen_through_train_and_eval(tower):
    model = tvilfm(tower)
    for _ in range(2):
        model.eval()
        model.train()
        assert model.training and model.text.training and model.heads.training
        assert not any(module.training for module in model.visual.modules())
    assert tvilfm(tower, "TVILFM.FREEZE_BN", False).train().visual.training
    assert tvilfm(tower, "TVILFM.FROM_SCRATCH", True).train().visual.training


@pytest.mark.parametrize(
    ("overrides", "blocks"),
    [
        ((), ["rgb", "rgb_aug", "ir", "fusion", "text"]),
        (("TVILFM.JOINT", False), ["rgb", "rgb_aug", "fusion"]),
        (("TVILFM.JOINT", False, "TVILFM.FUSION", "Add"), ["rgb", "rgb_aug", "sum"]),
    ],
)
@pytest.mark.parametrize("at_once", [3, 16])
@torch.no_grad()
def test_rows_of_the_losses(tower, overrides, blocks, at_once, monkeypatch):
    monkeypatch.setattr("tvilfm_plugin.modeling.visual_encoder.ROWS_AT_ONCE", at_once)
    model, batch = tvilfm(tower, *overrides).eval(), small_batch()
    rows, copies = model._training_rows(batch)
    parts = {
        view: model.visual({m: batch[view]}, ops={m: batch[f"{view}_ops"]})[m]
        for view, m in (("rgb", Modality.RGB), ("rgb_aug", Modality.RGB), ("ir", Modality.IR))
    }
    parts["text"] = model.encode_text(batch["rgb_tokens"])
    parts["sum"] = parts["ir"] + parts["text"]
    parts["fusion"] = parts["sum"] - model.encode_text(batch["ir_tokens"])
    assert copies == len(blocks)
    for ours, name in zip(rows.chunk(copies), blocks, strict=True):
        assert torch.allclose(ours, parts[name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize(("fusion", "captions"), [("FilteredAdd", 8), ("Add", 4)])
def test_both_texts_in_one_call(tower, fusion, captions):
    model, batch = tvilfm(tower, "TVILFM.FUSION", fusion).train(), small_batch()
    if fusion == "Add":
        del batch["ir_tokens"]
    rows = []
    model.text.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    model(batch)
    assert rows == [captions]


def test_texts_of_different_length(tower):
    model, batch = tvilfm(tower).eval(), small_batch()
    expected = model(batch | {"images": batch["ir"], "modality": "ir"})
    end = int(model.text.end_of_text(batch["ir_tokens"]).max()) + 1
    trimmed = batch | {"ir_tokens": batch["ir_tokens"][:, :end], "images": batch["ir"], "modality": "ir"}
    assert torch.allclose(model(trimmed), expected, atol=1e-5)


def test_a_data_set_without_captions_is_refused(tower):
    batch = small_batch()
    del batch["rgb_tokens"], batch["ir_tokens"]
    with pytest.raises(KeyError, match="rgb_tokens, ir_tokens.*captions"):
        tvilfm(tower).train()(batch)


@pytest.mark.parametrize("members", [("ir", "text", "fusion"), ("fusion",), ("ir", "text"), ("ir",), ("text", "ir")])
@torch.no_grad()
def test_cosine_of_packed_rows_is_the_ensemble_similarity(tower, members):
    model, batch = tvilfm(tower, "TVILFM.MEMBERS", members).eval(), small_batch()
    gallery = model({"images": batch["rgb"], "modality": "rgb"})
    query = model({"images": batch["ir"], "modality": ["ir"] * 4, **{k: batch[k] for k in ("rgb_tokens", "ir_tokens")}})
    assert query.shape == gallery.shape == (4, 32 * len(members))

    raw = {Modality.IR: model.encode_images(batch["ir"], Modality.IR), Modality.TEXT: model.encode_text(batch["rgb_tokens"])}
    raw[Modality.FUSION] = model.fusion(raw[Modality.IR], raw[Modality.TEXT], model.encode_text(batch["ir_tokens"]))
    rgb = model.embed(model.encode_images(batch["rgb"], Modality.RGB))
    similarity = sum(model.embed(raw[m]) @ rgb.T for m in model.members) / len(members)
    assert torch.allclose(F.normalize(query) @ F.normalize(gallery).T, similarity, atol=1e-5)
    for m, block in unpack(query, model.members).items():
        assert torch.allclose(block, model.embed(raw[m]), atol=1e-5)


@torch.no_grad()
def test_a_query_without_text_is_the_infrared_image_alone(tower):
    model, batch = tvilfm(tower).eval(), small_batch()
    query, gallery = (model({"images": batch[m], "modality": m}) for m in ("ir", "rgb"))
    ir, rgb = (model.embed(model.encode_images(batch[m], Modality(m))) for m in ("ir", "rgb"))
    assert torch.allclose(F.normalize(query) @ F.normalize(gallery).T, ir @ rgb.T, atol=1e-5)
    with pytest.raises(KeyError, match="ir_tokens"):
        model({"images": batch["ir"], "modality": "ir", "rgb_tokens": batch["rgb_tokens"]})


@torch.no_grad()
def test_a_mixed_batch_takes_its_own_texts(tower):
    model, batch = tvilfm(tower).eval(), small_batch()
    texts = {k: batch[k] for k in ("rgb_tokens", "ir_tokens")}
    queries = model({"images": batch["ir"], "modality": "ir", **texts})
    mixed = {"images": torch.cat([batch["rgb"][:2], batch["ir"][2:]]), "modality": ["rgb"] * 2 + ["ir"] * 2, **texts}
    assert torch.allclose(model(mixed)[2:], queries[2:], atol=1e-5)


def test_config_mistakes(tower):
    with pytest.raises(ValueError, match="choose one or more of ir, text, fusion"):
        tvilfm(tower, "TVILFM.MEMBERS", ("rgb",))
    with pytest.raises(KeyError, match="TVILFM.FUSION is 'Mul'"):
        tvilfm(tower, "TVILFM.FUSION", "Mul")
    assert TVILFM.has_text


def test_stage_1_weights_fill_everything_but_the_text(tower):
    stage1 = small_model(seed=5)
    missing, unexpected = tvilfm(tower).load_state_dict(stage1.state_dict(), strict=False)
    assert not unexpected and {key.split(".")[0] for key in missing} == {"text"}

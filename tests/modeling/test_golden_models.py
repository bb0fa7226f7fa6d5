"""The full-size model (ResNet-50, CLIP RN50 text tower) against the authors' numbers, with seeded weights."""

import gc

import golden_inputs as inputs
import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from oracles_modeling import golden, golden_json, load_golden_weights, small_config

from tvilfm_plugin.checkpoints.released_keys import released_key
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.registries import choose_losses
from tvilfm_plugin.modeling.tvilfm import TVILFM
from tvilfm_plugin.modeling.vi_baseline import VIBaseline

RELEASED = (
    "MODEL.DUAL_STREAM.BASE", "build_resnet_backbone", "MODEL.BACKBONE.FEAT_DIM", 2048, "MODEL.HEADS.NUM_CLASSES", 395,
    "TVILFM.FREEZE_BN", False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    yield build_model(small_config("TVILFM", "RN50-quickgelu", *RELEASED))
    gc.collect()


@pytest.fixture(scope="module")
def eval_model(model):
    load_golden_weights(model, "eval")
    return model.eval()


def pixels(seed, *size):
    return torch.from_numpy(inputs.images(seed, *size)[0].transpose(0, 3, 1, 2).copy())


def assert_close(ours, theirs, tolerance=1e-4):
    """Difference relative to the largest value."""
    difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).max()
    assert difference <= tolerance * np.abs(theirs).max(), difference / np.abs(theirs).max()


@pytest.mark.parametrize(("name", "seed"), [("rgb", 701), ("ir", 702)])
@torch.no_grad()
def test_visual_forward(eval_model, name, seed):
    reference = golden("model_forward")
    stages = {}
    base = eval_model.visual.backbone.base
    hooks = [
        module.register_forward_hook(lambda m, i, out, stage=stage: stages.update({stage: out}))
        for stage, module in (("stem", base.maxpool), ("trunk", base.layer4[-1]))
    ]
    raw = eval_model.encode_images(pixels(seed, 3), Modality(name))
    for hook in hooks:
        hook.remove()
    folded = eval_model.encode_images(pixels(seed, 3), Modality(name))  # nobody looks inside any more
    assert_close(folded, reference[f"{name}/pooled"])
    assert_close(eval_model.embed(folded), reference[f"{name}/embedding"])
    assert_close(stages["stem"][:, 0], reference[f"{name}/stem_c0"])
    assert_close(stages["trunk"].mean(dim=(2, 3)), reference[f"{name}/featmap_mean_c"])
    assert_close(stages["trunk"][0, 0], reference[f"{name}/featmap_b0_c0"])
    assert_close(raw, reference[f"{name}/pooled"])
    assert_close(eval_model.embed(raw), reference[f"{name}/embedding"])


@torch.no_grad()
def test_text_forward(eval_model):
    reference = golden("model_forward")
    tokens = golden("tokenizer")
    raw = eval_model.encode_text(torch.from_numpy(tokens["description"]))
    assert_close(raw, reference["text/eot_feat"])
    assert_close(eval_model.embed(raw), reference["text/embedding"], 1e-3)  # the reference is rounded to half precision
    assert_close(eval_model.encode_text(torch.from_numpy(tokens["aug"][:5])), reference["text/aug_eot_feat"])
    text = eval_model.text
    every = text.ln_final(text.features(torch.from_numpy(tokens["description"][:1]))) @ text.text_projection
    assert_close(every[0, :, :8], reference["text/featmap_row0_first8"])


def batch(stage):
    """The pixels that the authors' normalised images came from, under our names."""
    data = inputs.train_batch(stage)
    out = {view: pixels(seed, 4, 96, 48) for view, seed in (("rgb", 711), ("rgb_aug", 712), ("ir", 713))}
    out["targets"] = torch.from_numpy(data["target_rgb"])
    if stage == 2:
        out.update(rgb_tokens=torch.from_numpy(data["text_rgb"]), ir_tokens=torch.from_numpy(data["text_ir"]))
    return out


def test_stage_1_step(model):
    """Losses, gradients, drift of the BN statistics and one Adam update, every tensor by name."""
    reference = golden_json("train_step")["stage1"]
    load_golden_weights(model, "train")
    model.visual.requires_grad_(True)
    stage1 = VIBaseline(visual=model.visual, heads=model.heads, losses=choose_losses(("identity", "weighted_triplet"))).train()
    before = {name: value.clone() for name, value in stage1.state_dict().items()}
    rows, copies = stage1._training_rows(batch(1))
    model.load_state_dict(before, strict=False)
    assert (len(rows), copies) == (12, 3)
    assert_close(rows[:, :4].detach(), reference["loss_input_feats"]["first4_of_each_row"])
    assert_close(rows.norm(dim=1).detach(), reference["loss_input_feats"]["row_norms"])

    losses = stage1(batch(1))
    assert losses["loss_identity"].item() == pytest.approx(reference["losses"]["id_loss"], rel=1e-5)
    assert losses["loss_weighted_triplet"].item() == pytest.approx(reference["losses"]["wrt_loss"], rel=1e-4)
    sum(losses.values()).backward()
    groups = []
    for name, parameter in stage1.named_parameters():
        grad = reference["grads"][released_key(name)]
        assert parameter.grad.norm().item() == pytest.approx(grad["l2"], rel=2e-3), name
        scale = grad["l2"] / parameter.numel() ** 0.5
        assert np.allclose(parameter.grad.flatten()[:4], grad["first4"], rtol=2e-2, atol=2e-2 * scale), name
        lr, decay = reference["lr_wd"][released_key(name)]
        assert lr == pytest.approx(3.5e-4 * (2 if name.startswith("heads.") else 1))
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
    torch.optim.Adam(groups).step()

    seen = 0
    for name, value in stage1.state_dict().items():
        step = reference["after_step"][released_key(name)]
        delta = (value.double() - before[name].double()).flatten()
        assert delta.norm().item() == pytest.approx(step["delta_l2"], rel=2e-3), name
        # A first step of Adam is a sign per element: few elements with a vanishing gradient may fall on the other side.
        flips = max(4, 0.01 * len(delta)) if "running" not in name else 0
        tolerance = 1e-4 * abs(step["delta_mean"]) + 1e-7 + 2 * flips * delta.abs().max().item() / len(delta)
        assert abs(delta.mean().item() - step["delta_mean"]) <= tolerance, name
        seen += 1
    untouched = {key for key, step in reference["after_step"].items() if step["delta_l2"] == 0}
    assert seen + len(untouched) == 481  # the text tower does not move in stage 1


def test_stage_2_step(model):
    """Preset released: weights frozen, BN in train mode. Losses and features, then the drift that comes with it."""
    reference = golden_json("train_step")["stage2"]
    load_golden_weights(model, "train")
    model.visual.requires_grad_(False)
    model.train()
    mean = model.visual.backbone.base.layer4[0].bn1.running_mean.clone()
    with torch.no_grad():
        rows, copies = model._training_rows(batch(2))
        assert not torch.equal(mean, model.visual.backbone.base.layer4[0].bn1.running_mean)
        assert (len(rows), copies) == (20, 5)
        assert_close(rows[:, :4], reference["loss_input_feats"]["first4_of_each_row"])
        assert_close(rows.norm(dim=1), reference["loss_input_feats"]["row_norms"])
        losses = model(batch(2))
    assert losses["loss_identity"].item() == pytest.approx(reference["losses"]["uni_id_loss"], rel=1e-5)
    assert losses["loss_weighted_triplet"].item() == pytest.approx(reference["losses"]["uni_wrt_loss"], rel=1e-4)
    assert isinstance(model, TVILFM)


def test_every_tensor_has_its_released_key(model):
    keys = {entry["key"]: tuple(entry["shape"]) for entry in golden_json("state_dict_keys")["keys"]}
    ours = {released_key(name): tuple(value.shape) for name, value in model.state_dict().items()}
    assert ours == {key: shape for key, shape in keys.items() if key != "logit_scale"}


@pytest.mark.parametrize("stage", ["sysu_stage1", "sysu_stage2", "regdb_stage1", "regdb_stage2"])
def test_parts_that_learning_rates_are_given_to(model, stage):
    """Our names tell apart what the authors' optimiser treats differently: heads, text blocks and their biases, the rest."""
    groups = golden_json("param_groups_lr")[stage]["groups"]
    by_part = {}
    for name, _ in model.named_parameters():
        block = ".resblocks." in name
        part = name.split(".")[0] if not block else f"block{' bias' if name.endswith('bias') else ''}"
        part = "rest" if part in ("visual", "text") else part
        by_part.setdefault(part, set()).add(tuple(groups[released_key(name)]))
    assert set(by_part) == {"heads", "block", "block bias", "rest"}
    assert all(len(values) == 1 for values in by_part.values()), by_part

"""The released configuration at full size against the authors' numbers: tokens, prompts, features, logits, a training step."""

import math
from collections.abc import Iterator

import golden_inputs_mip as inputs
import numpy as np
import pytest
import torch
from mip_models import RELEASED, deviation, golden_model, rows, training_batch
from released_names import to_official
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.mip.encoder import test_feature as joined_feature
from tvilfm_plugin.modeling.mip.mip import MIP

TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def model() -> Iterator[MIP]:
    yield golden_model(**RELEASED).eval()


@pytest.fixture(scope="module")
def seen(model: MIP) -> dict[str, Tensor]:
    """Everything that one evaluation pass computes, and the outputs of blocks 0 and 9 for all tokens."""
    images, labels, camids, _ = rows(inputs.FORWARD)
    kept: dict[str, Tensor] = {}

    def keep_block(name: str):  # type: ignore[no-untyped-def]
        def hook(block: nn.Module, arguments: tuple[Tensor, Tensor], output: Tensor) -> None:
            tokens, context = arguments
            # Prompts' own outputs are never computed by the model: here they are, in the authors' order.
            everything = torch.cat([tokens[:, :1], context, tokens[:, 1:]], dim=1)
            count = context.shape[1]
            kept[name] = type(block).forward(block, everything)
            kept[f"{name}_read"] = torch.cat([output[:, :1], kept[name][:, 1 : 1 + count], output[:, 1:]], dim=1)

        return hook

    visual = model.visual
    hooks = [visual.blocks[n].register_forward_hook(keep_block(f"block{n}")) for n in (0, 9)]
    hooks.append(visual.embedding.register_forward_hook(lambda m, a, out: kept.update(embed=out)))
    with torch.no_grad():
        described = visual.describe(visual.normalise(images), labels, camids)
    for hook in hooks:
        hook.remove()
    kept |= {"ins0": described.prompts[0], "ins5": described.prompts[5], "feats": described.features}
    return kept | {"test_feat": joined_feature(described.features)}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return inputs.golden("model_forward.npz")


@pytest.mark.parametrize(
    ("name", "tokens"), [("embed", inputs.EMBED_TOKENS), ("block0", inputs.BLOCK_TOKENS), ("block9", inputs.BLOCK_TOKENS)]
)
def test_tokens(seen: dict[str, Tensor], golden: dict[str, np.ndarray], name: str, tokens: list[int]) -> None:
    patches = seen[name].shape[1] - 210
    assert seen[name].shape == (4, {"embed": 211}.get(name, 243), 768)
    assert deviation(seen[name][:, tokens, : inputs.CHANNELS], golden[f"a/{name}"]) < TOLERANCE
    assert deviation(seen[name][:, patches:].mean(dim=1), golden[f"a/{name}_patch_mean"]) < TOLERANCE
    assert deviation(seen[name].norm(dim=2), golden[f"a/{name}_token_norm"]) < TOLERANCE


@pytest.mark.parametrize("name", ["block0", "block9"])
def test_leaving_out_what_is_not_read_changes_nothing(seen: dict[str, Tensor], name: str) -> None:
    assert deviation(seen[f"{name}_read"], seen[name]) < TOLERANCE


@pytest.mark.parametrize("name", ["ins0", "ins5"])
def test_instance_prompts(seen: dict[str, Tensor], golden: dict[str, np.ndarray], name: str) -> None:
    assert seen[name].shape == (4, 16, 768)
    assert deviation(seen[name][:, inputs.PROMPT_TOKENS, : inputs.CHANNELS], golden[f"a/{name}"]) < TOLERANCE
    assert deviation(seen[name].mean(dim=1), golden[f"a/{name}_mean"]) < TOLERANCE
    # A query of zeros: one distinct prompt, sixteen times.
    assert torch.equal(seen[name], seen[name][:, :1].expand(-1, 16, -1))


def test_features(seen: dict[str, Tensor], golden: dict[str, np.ndarray]) -> None:
    assert deviation(seen["feats"], golden["a/feats"]) < TOLERANCE
    assert deviation(seen["feats"][:, 1:], golden["a/feats"][:, 1:]) < TOLERANCE
    assert deviation(seen["test_feat"], golden["a/test_feat"]) < TOLERANCE


def test_evaluation_interface(model: MIP, golden: dict[str, np.ndarray]) -> None:
    """Pixels of one modality, as evaluation does it, and a mixed batch through `forward`."""
    images, labels, camids, _ = rows(inputs.FORWARD)
    expected = torch.from_numpy(golden["a/test_feat"])
    with torch.no_grad():
        visible = labels == 1
        raw = model.encode_images(images[visible], Modality.RGB, camids[visible])
        assert raw.shape == (2, 3840)
        assert deviation(raw, expected[visible]) < TOLERANCE
        names = ["ir" if label == 0 else "rgb" for label in labels]
        packed = model({"images": images, "modality": names, "camids": camids})
    assert deviation(packed, nn.functional.normalize(expected, dim=1)) < TOLERANCE


def test_feature_after_the_necks(model: MIP, seen: dict[str, Tensor], golden: dict[str, np.ndarray]) -> None:
    model.heads.feature = "after"
    try:
        neck = model.heads.neck
        scale = neck.weight / torch.sqrt(neck.running_var + neck.eps)
        after = (seen["test_feat"] - neck.running_mean) * scale + neck.bias
    finally:
        model.heads.feature = "before"
    assert deviation(after, golden["a/test_feat_after"]) < TOLERANCE
    assert torch.equal(model.heads.embed(seen["test_feat"]), nn.functional.normalize(seen["test_feat"], dim=1))


def test_logits_and_batch_statistics(model: MIP, seen: dict[str, Tensor], golden: dict[str, np.ndarray]) -> None:
    stored = {name: value.clone() for name, value in model.heads.state_dict().items()}
    model.heads.train()
    try:
        with torch.no_grad():
            logits = torch.stack(model.heads(seen["feats"]))
        mean = torch.stack([neck.running_mean for neck in model.heads.necks])
        variance = torch.stack([neck.running_var for neck in model.heads.necks])
        assert deviation(logits[:, :, inputs.LOGIT_CLASSES], golden["a/train_logits"]) < TOLERANCE
        assert deviation(mean[:, :64], golden["a/train_bn_mean_after"]) < TOLERANCE
        assert deviation(variance[:, :64], golden["a/train_bn_var_after"]) < TOLERANCE
    finally:
        model.heads.eval()
        model.heads.load_state_dict(stored)


def test_training_step(model: MIP) -> None:
    """Losses and the gradient of every parameter. Runs last: it fills gradients."""
    expected = inputs.golden("train_step.json")["a"]
    model.train()
    model.set_epoch(9)
    losses = model(training_batch(inputs.TRAIN))
    model.eval()
    for ours, theirs in (("identity", "id"), ("triplet", "tri"), ("msel", "msel")):
        assert losses[f"loss_{ours}"].item() == pytest.approx(expected["losses"][theirs], rel=1e-5)
    assert set(losses) == {"loss_identity", "loss_triplet", "loss_msel"}
    total = sum(losses.values())
    assert total.item() == pytest.approx(expected["total"], rel=1e-5)
    total.backward()

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    found = to_official({name: parameter.grad for name, parameter in trained.items()})
    with_gradient = {name for name, values in expected["grads"].items() if values is not None}
    # Everything that the released configuration trains, and nothing else.
    assert set(found) == with_gradient
    for name, gradient in found.items():
        values = expected["grads"][name]
        norm = float(gradient.double().norm())
        if name in ("b1.1.bias", "b2.1.bias"):
            # Analytically zero: batch norm and distances ignore a common shift.
            assert norm < 1e-4
            continue
        assert norm == pytest.approx(values["l2"], rel=1e-4), name
        assert float(gradient.double().sum()) == pytest.approx(
            values["sum"], abs=1e-3 * norm * math.sqrt(gradient.numel())
        ), name
        first = np.array(values["first4"])
        assert np.allclose(gradient.flatten()[:4].numpy(), first, rtol=1e-3, atol=1e-4 * norm / math.sqrt(gradient.numel()))
    slices = found["base.deep_prompt_embeddings"].double().flatten(2).norm(dim=2)
    expected_slices = torch.tensor(expected["grads"]["base.deep_prompt_embeddings"]["l2_per_slice"], dtype=torch.float64)
    assert torch.allclose(slices, expected_slices, rtol=1e-4, atol=0)
    cameras = found["base.sie_embed"].double().flatten(1).norm(dim=1)
    expected_cameras = torch.tensor(expected["grads"]["base.sie_embed"]["l2_per_camera"], dtype=torch.float64)
    assert torch.allclose(cameras, expected_cameras, rtol=1e-4, atol=0)

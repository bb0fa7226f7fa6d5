"""The losses of CAJ, DEEN, MMN and YYDS against the authors' numbers and against slow literal twins."""

import math

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch

from tvilfm_plugin.modeling.losses import hard_triplet
from tvilfm_plugin.modeling.methods.losses import centre_pair, channel_kl, orthogonality, squared_difference
from tvilfm_plugin.modeling.methods.text_losses import alignment_kl, colour_phrases, overlap_targets, text_alignment

CASES = list(inputs.LOSS)


def same_identity(pids):
    return (pids[:, None] == pids[None, :]).float()


def values(case, loss, dtype):
    """The tensor that the loss is differentiated by, and the loss of it."""
    blocks = {"hard_triplet": 2, "squared_difference": 3, "cpm": 4, "orthogonal": 6}.get(loss, 2)
    x, pids = inputs.loss_case(case, blocks)
    x = inputs.logits_case(case) if loss == "caj_kl" else x
    x = x.to(dtype)
    if loss.startswith("text_kl"):
        x, other = x.chunk(2)
        pids = pids.chunk(2)[0]
        x = x.clone().requires_grad_()
        return x, alignment_kl(x, x if loss == "text_kl_self" else other, same_identity(pids))
    x.requires_grad_()
    if loss == "cpm":
        return x, centre_pair(*x.chunk(4), pids.chunk(4)[0])
    if loss == "orthogonal":
        _, first, second = x.chunk(3)
        return x, orthogonality(first, second)
    if loss == "caj_kl":
        first, _, last = x.chunk(3)
        return x, channel_kl(first, last)
    return x, {"hard_triplet": hard_triplet, "squared_difference": squared_difference}[loss](x, pids)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "loss", ["hard_triplet", "squared_difference", "cpm", "orthogonal", "caj_kl", "text_kl_labels", "text_kl_self"]
)
def test_reference_numbers(case, loss):
    reference = inputs.golden("losses.npz")
    if f"{case}/{loss}/f32/loss" not in reference:  # kept back: finite, and the same in both precisions
        single, double = (values(case, loss, dtype)[1].item() for dtype in (torch.float32, torch.float64))
        assert single == pytest.approx(double, rel=1e-4)
        return
    _, value = values(case, loss, torch.float32)
    assert value.item() == pytest.approx(float(reference[f"{case}/{loss}/f32/loss"]), rel=2e-6)
    x, value = values(case, loss, torch.float64)
    assert value.item() == pytest.approx(float(reference[f"{case}/{loss}/f64/loss"]), rel=1e-6)
    (grad,) = torch.autograd.grad(value, x)
    expected = reference[f"{case}/{loss}/f64/grad"]
    assert np.abs(grad.numpy() - expected).max() <= 1e-6 * max(np.abs(expected).max(), 1e-3)


def test_overlap_reference():
    reference = inputs.golden("losses.npz")
    x, pids = inputs.loss_case("b_2x3_d16", 2)
    targets = overlap_targets(inputs.COLOURS["a"], torch.tensor(inputs.PIDS))
    assert np.abs(targets.numpy() - reference["overlap_a/matrix"]).max() < 1e-6
    first = x[:4].double().requires_grad_()
    value = alignment_kl(first, x[6:10].double(), targets)
    assert value.item() == pytest.approx(float(reference["overlap_a/text_kl/f64/loss"]), rel=1e-6)
    (grad,) = torch.autograd.grad(value, first)
    expected = reference["overlap_a/text_kl/f64/grad"]
    assert np.abs(grad.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


def test_collapsed_features_are_a_saddle_of_squared_difference():
    x = torch.ones(8, 4, requires_grad=True)
    value = squared_difference(x, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    # WRT's negative weights sum to a little less than 1 and the distances are 1e-6 there: log 2 but for 1e-12.
    assert value.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(value, x)[0].abs().max() < 1e-6


def test_clamp_takes_the_gradient_of_the_hardest_anchors():
    x, pids = inputs.loss_case("d_4x4_far", 3)
    for clamp, moves in ((88.0, False), (None, True)):
        x = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(squared_difference(x, pids, clamp), x)
        assert bool(grad.abs().max() > 0) is moves


def test_centre_pair_twin_and_row_order():
    """A loop over identities; rows in any order."""
    x, pids = inputs.loss_case("a_4x4_d32", 4)
    blocks, pids = [b.double() for b in x.chunk(4)], pids.chunk(4)[0]
    people = sorted(set(pids.tolist()))
    v, i, vk, ik = ([b[pids == p].mean(0) for p in people] for b in blocks)

    def nearest(means, j):
        return min((means[j] - m).norm() for other, m in enumerate(means) if other != j)

    total = 0.0
    for mine, other, own in ((vk, i, v), (ik, v, i)):
        for j in range(len(people)):
            across = (other[j] - mine[j]).norm()
            total += max(0, across - (own[j] - mine[j]).norm() + 0.2)
            total += sum(max(0, across - nearest(means, j) + 0.2) for means in (mine, own)) / 2
    order = torch.randperm(len(pids), generator=torch.Generator().manual_seed(0))
    value = centre_pair(*(b[order] for b in blocks), pids[order])
    assert value.item() == pytest.approx(float(total) / (2 * len(people)))


def test_hard_triplet_twin():
    x, pids = inputs.loss_case("b_2x3_d16", 2)
    x = x.double()
    total = 0.0
    for a in range(len(x)):
        distance = [(x[a] - x[b]).norm().item() for b in range(len(x))]
        total += max(
            0.0,
            max(d for d, p in zip(distance, pids, strict=True) if p == pids[a])
            - min(d for d, p in zip(distance, pids, strict=True) if p != pids[a])
            + 0.3,
        )
    assert hard_triplet(x, pids).item() == pytest.approx(total / len(x), rel=1e-5)


def test_captions_without_colours_are_alike_within_an_identity():
    targets = overlap_targets([[], [], [], ["red"]], torch.tensor([1, 1, 2, 2]))
    assert targets.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(text_alignment(x, x, torch.tensor([1, 1, 2, 2]), targets))


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("a man with gray short sleeves and white gray shorts", ["gray", "white gray"]),
        ("A woman in a dark blue coat, white and red shoes.", ["dark blue", "white and red"]),
        ("a person with a light bag and jeans", []),
        ("black", ["black"]),
    ],
)
def test_colour_phrases(caption, phrases):
    assert colour_phrases(caption) == phrases

import golden_inputs as inputs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.modeling.losses import triplet_loss
from oracles_modeling import golden, identity_by_loops, wrt_by_loops

from tvilfm_plugin.modeling.losses import identity_loss, pairwise_distance, weighted_triplet

WRT = golden("wrt")


def loss_and_grad(function, x, y):
    feats = torch.as_tensor(x).clone().requires_grad_()
    loss = function(feats, torch.as_tensor(y))
    loss.backward()
    return loss.item(), feats.grad


@pytest.mark.parametrize("case", sorted({key.rsplit("/", 2)[0] for key in WRT.files}))
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_golden_values_and_gradients(case, precision):
    name, kind = case.split("/")
    x, y = inputs.wrt_case(name)
    x = x.astype(np.float32 if precision == "f32" else np.float64)
    loss, grad = loss_and_grad(lambda f, p: weighted_triplet(F.normalize(f) if kind == "norm" else f, p), x, y)
    reference, gradient = WRT[f"{case}/{precision}/loss"], WRT[f"{case}/{precision}/grad"]
    if not np.isfinite(reference):  # the authors' form overflows: ours gives what float64 gives
        assert (case, precision) == ("d_big_scale/raw", "f32")
        reference, gradient = WRT[f"{case}/f64/loss"], WRT[f"{case}/f64/grad"]
    assert loss == pytest.approx(float(reference), rel=2e-6 if precision == "f32" else 1e-12)
    assert np.abs(grad.numpy() - gradient).max() <= (2e-5 if precision == "f32" else 1e-7) * np.abs(gradient).max()


@pytest.mark.parametrize("name", inputs.WRT_CASES)
def test_equals_the_host_where_that_is_finite(name):
    x, y = inputs.wrt_case(name)
    host = lambda f, p: triplet_loss(f, p, margin=0, norm_feat=False, hard_mining=False)
    gap = 88 if name == "d_big_scale" else 0
    if gap:  # for gaps above 88 the host silently returns another loss
        assert loss_and_grad(host, x, y)[0] == pytest.approx(loss_and_grad(weighted_triplet, x, y)[0] + 0.3, abs=1e-3)
        return
    for dtype, tolerance in ((np.float32, 5e-5), (np.float64, 1e-9)):
        ours, theirs = (loss_and_grad(f, x.astype(dtype), y) for f in (weighted_triplet, host))
        assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
        # Where gradients nearly cancel, what is left of float32 is the rounding of unit terms, another one per processor.
        rounding = 2 * np.finfo(dtype).eps
        assert (ours[1] - theirs[1]).abs().max() <= max(tolerance * theirs[1].abs().max(), rounding)


@pytest.mark.parametrize("name", ["b_4x3_d32", "e_singletons", "f_one_id", "g_duplicates"])
def test_equals_the_loops(name):
    x, y = inputs.wrt_case(name)
    x = x.astype(np.float64)
    if name == "g_duplicates":  # the distance of equal rows is a matter of rounding below 1e-6
        x[1] += 1e-3
        x[5] -= 1e-3
    ours, theirs = loss_and_grad(weighted_triplet, x, y), loss_and_grad(wrt_by_loops, x, y)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert torch.allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-7)


def test_a_textbook_softmax_would_be_another_loss():
    """The 1e-6 in the denominator shows where all negatives are far."""
    x, y = inputs.wrt_case("d_big_scale")
    feats, pids = torch.from_numpy(x).double(), torch.from_numpy(y)
    dist = pairwise_distance(feats)
    same = pids[:, None] == pids[None, :]
    up = dist.masked_fill(~same, -torch.inf).softmax(dim=1)
    down = (-dist).masked_fill(same, -torch.inf).softmax(dim=1)
    textbook = F.softplus((up * dist).sum(dim=1) - (down * dist).sum(dim=1)).mean()
    assert abs(textbook - weighted_triplet(feats, pids)) > 1


def test_float32_inside_autocast():
    x, y = (torch.from_numpy(a) for a in inputs.wrt_case("a_8x12_d16"))
    expected = weighted_triplet(x, y)
    logits = torch.randn(5, 7)
    pids = torch.tensor([0, 6, 2, 2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert weighted_triplet(x, y) == expected
        assert weighted_triplet(x.bfloat16(), y).dtype is torch.float32
        assert identity_loss(logits.bfloat16(), pids).dtype is torch.float32
    assert identity_loss(logits, pids).item() == pytest.approx(identity_by_loops(logits, pids).item(), rel=1e-6)

import golden_inputs_mip as inputs
import numpy as np
import oracles_mip as oracle
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modeling.losses import identity_loss
from tvilfm_plugin.modeling.mip.losses import (
    branch_mean,
    modality_shared_enhancement,
    prompt_identity_loss,
    soft_margin_triplet,
)

GOLDEN = inputs.golden("losses.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN})


class Case:
    """The tensors of a case, and its losses with the authors' weights."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        case = inputs.loss_input(name)
        self.features, self.logits, self.prompt_logits = (
            [torch.from_numpy(a).to(dtype).requires_grad_() for a in arrays]
            for arrays in (case.features, case.logits, case.prompt_logits)
        )
        pids, labels = torch.from_numpy(case.pids), torch.from_numpy(case.modality)
        self.branches = {
            "tri": [soft_margin_triplet(f, pids) for f in self.features],
            "msel": [modality_shared_enhancement(f, pids, labels) for f in self.features],
        }
        self.losses = {
            "id": branch_mean([identity_loss(z, pids) for z in self.logits]),
            "tri": branch_mean(self.branches["tri"]),
            "msel": 0.5 * branch_mean(self.branches["msel"]),
            "iael": 0.5 * prompt_identity_loss(self.prompt_logits, pids),
        }
        self.pids = pids


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_values(name: str, dtype: torch.dtype) -> None:
    """Against the authors' float64 numbers; their float32 triplet overflows in `h_overflow`, ours does not."""
    case = Case(name, dtype)
    for loss, value in case.losses.items():
        assert value.item() == pytest.approx(float(GOLDEN[f"{name}/f64/{loss}"]), rel=1e-5), loss
    assert sum(v.item() for v in case.losses.values()) == pytest.approx(float(GOLDEN[f"{name}/f64/total"]), rel=1e-5)
    for loss in ("tri", "msel"):
        found = [value.item() for value in case.branches[loss]]
        assert found == pytest.approx(list(GOLDEN[f"{name}/f64/{loss}_per_branch"]), rel=1e-5), loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    labels_first = lambda grad: torch.cat([grad.gather(1, case.pids[:, None]), grad[:, :7]], dim=1)
    sources = {"tri": case.features, "msel": case.features, "id": case.logits, "iael": case.prompt_logits}
    grads = {loss: torch.autograd.grad(case.losses[loss], tensors, retain_graph=True) for loss, tensors in sources.items()}

    def close(found: Tensor, key: str) -> None:
        expected = torch.from_numpy(GOLDEN[f"{name}/{key}"]).to(found.dtype)
        scale = expected.abs().max()
        assert (found - expected).abs().max() <= 1e-4 * scale, key

    for branch in (0, 1):
        for loss in ("tri", "msel"):
            grad = grads[loss][branch]
            rows = 32 if grad.numel() > 4096 else len(grad)
            close(grad[:rows, :64], f"grad_{loss}_f{branch}")
        close(labels_first(grads["id"][branch]), f"grad_id_z{branch}")
    close(labels_first(grads["iael"][0]), "grad_iael_z0")
    norms = np.array([[float(g.norm()) for g in grads[loss]] for loss in ("tri", "msel", "id")])
    assert norms == pytest.approx(GOLDEN[f"{name}/grad_norms"], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("name", list(inputs.LOSS_CASES))
def test_literal_twins(name: str) -> None:
    """Pair by pair, for all kinds of batches (also those without a reference file)."""
    case = inputs.loss_input(name)
    feats = torch.from_numpy(case.features[1]).double()
    pids, labels = torch.from_numpy(case.pids), torch.from_numpy(case.modality)
    if name != "h_overflow":
        assert soft_margin_triplet(feats, pids).item() == pytest.approx(oracle.triplet(feats, pids).item(), rel=1e-9)
    found = modality_shared_enhancement(feats, pids, labels).item()
    assert found == pytest.approx(oracle.msel(feats, pids, labels).item(), rel=1e-9)


def test_worked_example() -> None:
    i = torch.arange(8.0)
    feats = torch.stack([i, (i * i) % 7], dim=1)
    pids, labels = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert modality_shared_enhancement(feats, pids, labels).item() == pytest.approx(9.452504, abs=1e-5)
    assert soft_margin_triplet(feats, pids).item() == pytest.approx(3.196716, abs=1e-6)


def test_identities_may_have_unequally_many_images() -> None:
    torch.manual_seed(0)
    feats = torch.randn(9, 5, dtype=torch.float64)
    pids = torch.tensor([4, 4, 4, 4, 4, 9, 9, 9, 9])
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 1])
    assert soft_margin_triplet(feats, pids).item() == pytest.approx(oracle.triplet(feats, pids).item(), rel=1e-9)
    found = modality_shared_enhancement(feats, pids, labels).item()
    assert found == pytest.approx(oracle.msel(feats, pids, labels).item(), rel=1e-9)


@pytest.mark.parametrize("pids", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
def test_anchors_without_partners_add_nothing(pids: list[int]) -> None:
    """One identity only, or no second image: finite losses and gradients."""
    feats = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1])
    loss = soft_margin_triplet(feats, torch.tensor(pids)) + modality_shared_enhancement(feats, torch.tensor(pids), labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(feats.grad).all()


def test_losses_leave_autocast() -> None:
    feats = (20 * torch.randn(8, 768)).requires_grad_()
    pids, labels = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    plain = soft_margin_triplet(feats, pids), modality_shared_enhancement(feats, pids, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = soft_margin_triplet(feats, pids), modality_shared_enhancement(feats, pids, labels)
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))
    half = soft_margin_triplet(feats.half(), pids)
    assert half.dtype is torch.float32 and torch.isfinite(half)


def test_branch_mean() -> None:
    values = [torch.tensor(float(v)) for v in (10, 1, 2, 3, 6)]
    assert branch_mean(values).item() == pytest.approx(0.5 * 10 + 0.5 * 3)
    logits = [torch.randn(4, 3), torch.randn(4, 3)]
    pids = torch.tensor([0, 1, 2, 0])
    expected = sum(F.cross_entropy(z, pids) for z in logits) / 2
    assert prompt_identity_loss(logits, pids).item() == pytest.approx(expected.item())

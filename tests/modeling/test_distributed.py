"""Two gloo processes against one: gathered losses, synchronised BN, and a training step of the model with both."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from oracles_modeling import small_batch, small_model
from torch import nn

from tvilfm_plugin.modeling.distributed import SyncBatchNorm, gather_rows, use_portable_sync_bn, world_size

PIDS = (1, 1, 4, 4)
SYNC = ("MODEL.BACKBONE.NORM", "syncBN", "MODEL.HEADS.NORM", "syncBN", "MODEL.LOSSES.GATHER", True)


def step(rank, shares):
    """Gradients and statistics after one step on this rank's identities."""
    model = small_model("VIBaseline", "", *SYNC).train()
    batch = {k: v.chunk(shares)[rank] for k, v in small_batch(PIDS).items()}
    losses = model(batch)
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return {n: v.item() for n, v in losses.items()}, grads, model.state_dict()


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    losses, grads, state = step(rank, 2)
    for grad in grads.values():  # what DDP does
        dist.all_reduce(grad)
        grad /= 2
    # A norm of plain vectors, whose gradient must cross the processes too.
    torch.manual_seed(0)
    rows = torch.randn(6, 3) + 5
    share = rows.chunk(2)[rank].clone().requires_grad_()
    norm = SyncBatchNorm(3)
    out = norm(share)
    (gather_rows(out) * torch.arange(18).view(6, 3)).pow(2).sum().backward()
    torch.save(
        {"losses": losses, "grads": grads, "state": state, "out": out.detach(), "share": share.grad,
         "norm": norm.state_dict(), "gathered": gather_rows(torch.tensor([rank]))},
        os.path.join(folder, f"{rank}.pt"),
    )  # fmt: skip
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks():
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), *sys.path]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        mp.spawn(worker, args=(folder,), nprocs=2)
        return [torch.load(os.path.join(folder, f"{rank}.pt"), weights_only=True) for rank in range(2)]


def test_a_step_of_two_processes_equals_the_full_batch(ranks):
    losses, grads, state = step(0, 1)
    for rank in ranks:
        assert rank["losses"] == pytest.approx(losses, rel=1e-5)
        for name, grad in grads.items():
            assert (rank["grads"][name] - grad).abs().max() <= 1e-4 * grad.abs().max() + 1e-6, name
        for name, value in state.items():
            assert torch.allclose(rank["state"][name], value, rtol=1e-5, atol=1e-6), name
    assert all(torch.equal(ranks[0]["grads"][n], ranks[1]["grads"][n]) for n in grads)


def test_synchronised_norm_equals_the_full_batch(ranks):
    torch.manual_seed(0)
    rows = (torch.randn(6, 3) + 5).requires_grad_()
    norm = nn.BatchNorm1d(3)
    out = norm(rows)
    (out * torch.arange(18).view(6, 3)).pow(2).sum().backward()
    assert torch.allclose(torch.cat([rank["out"] for rank in ranks]), out, atol=1e-5)
    # Both processes compute the whole loss, so what flows back is twice the gradient; DDP's averaging takes it out.
    assert torch.allclose(torch.cat([rank["share"] for rank in ranks]), 2 * rows.grad, rtol=1e-3, atol=1e-2)
    for name, value in norm.state_dict().items():
        assert torch.allclose(ranks[1]["norm"][name], value, rtol=1e-5), name
    assert ranks[0]["gathered"].tolist() == [0, 1]


def test_on_one_process_nothing_changes():
    rows = torch.randn(4, 3)
    assert world_size() == 1 and gather_rows(rows) is rows
    assert torch.equal(SyncBatchNorm(3)(rows), nn.BatchNorm1d(3)(rows))


def test_the_hosts_sync_bn_becomes_portable():
    model = use_portable_sync_bn(nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3)))
    assert type(model[0]) is SyncBatchNorm and type(model[1]) is nn.BatchNorm2d

"""Rows and batch statistics of all processes, differentiably; on one process everything is what it was."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


def world_size() -> int:
    """Processes that train together; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllGather(Function):
    """Concatenate equal shares; backward sums what every process's loss says about this process's share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        shares = [torch.empty_like(share) for _ in range(world_size())]
        dist.all_gather(shares, share)
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # all_reduce and not reduce_scatter: gloo knows no other way to sum.
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[dist.get_rank()]


class _AllReduce(Function):
    """Sum over the processes, in both directions."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def gather_rows(rows: Tensor) -> Tensor:
    """(N, ...) rows of this process -> (world size * N, ...) of all, in the order of ranks; N must be equal everywhere.

    Gradients flow back summed over the processes, so a loss over all rows, computed by every process, gives, after
    DDP's averaging, the gradient of the full batch.
    """
    return rows if world_size() == 1 else _AllGather.apply(rows.contiguous())


class SyncBatchNorm(nn.SyncBatchNorm):
    """Synchronised BN that also runs on CPU tensors (gloo), where torch's own refuses."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not self.training or world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        x = input.float() if input.dtype.itemsize < 4 else input
        count = float(x.numel() // x.shape[1])
        total = _AllReduce.apply(torch.cat([x.sum(axes), x.new_tensor([count])]))
        rows = total[-1].detach()
        mean = total[:-1] / rows
        # Two passes: the difference of squares loses what a large mean leaves of the variance.
        var = _AllReduce.apply((x - mean.view(shape)).square().sum(axes)) / rows
        self._track(mean.detach(), var.detach() * rows / (rows - 1))
        normal = (x - mean.view(shape)) * torch.rsqrt(var.view(shape) + self.eps)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _track(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def use_portable_sync_bn(module: nn.Module) -> nn.Module:
    """Make every synchronised BN below `module` (e.g. a fast-reid backbone) run on CPU too; keys stay."""
    for child in module.modules():
        if isinstance(child, nn.SyncBatchNorm) and not isinstance(child, SyncBatchNorm):
            child.__class__ = SyncBatchNorm
    return module


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which autocast is off: losses and evaluation compute in float32."""
    return torch.autocast(device.type, enabled=False)


def synchronised(part: nn.Module, norm: str) -> nn.Module:
    """A part with batch statistics over all processes where MODEL.BACKBONE.NORM asks for them ("syncBN")."""
    return use_portable_sync_bn(nn.SyncBatchNorm.convert_sync_batchnorm(part)) if norm == "syncBN" else part

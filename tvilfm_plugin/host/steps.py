"""One training step, and models spread over processes, on any device."""

import logging
import time
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

from tvilfm_plugin.host.replacing import around

logger = logging.getLogger("fastreid." + __name__)


class AnyDeviceDDP(DistributedDataParallel):
    """`device_ids` only where the model is on a GPU; `DefaultTrainer` always passes it, which raises on the CPU."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        on_gpu = all(parameter.is_cuda for parameter in module.parameters())
        super().__init__(module, device_ids=device_ids if on_gpu else None, **options)

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        # torch refuses every synchronised BN on the CPU; ours (a subclass) runs there.
        if any(type(layer) is nn.SyncBatchNorm for layer in module.modules()):
            super()._passing_sync_batchnorm_handle(module)


def synchronise_on_any_device(batch_norm: types.ModuleType) -> None:
    """fast-reid's synchronised BN (NORM "syncBN") is torch's, which refuses CPU tensors; ours runs there too."""
    from tvilfm_plugin.modeling.distributed import SyncBatchNorm

    batch_norm.SyncBatchNorm.__bases__ = (SyncBatchNorm,)


def step_on_any_device(train_loop: types.ModuleType) -> None:
    """The steps of `SimpleTrainer` and `AMPTrainer`, on CPU and GPU.

    Losses are read at once, behind the work that is queued: the original waits for the device once per loss, on a stream of
    its own that does not wait for the losses to be made. Those that are not finite end the training with a remedy. Mixed
    precision is `torch.amp`'s: float16 with a scaler on a GPU, bfloat16 (whose range needs none) on the CPU; the original
    asserts CUDA and calls `torch.cuda.amp`, which is deprecated.
    A processor without bfloat16 arithmetic would emulate it, many times slower than float32, which it then uses.
    """
    around(train_loop.SimpleTrainer, "_write_metrics")(_read_at_once)
    around(train_loop.AMPTrainer, "__init__")(_with_a_scaler_of_the_device)
    around(train_loop.AMPTrainer, "run_step")(_mixed_step)


def _read_at_once(write: Callable[..., None], self: Any, loss_dict: dict[str, torch.Tensor], data_time: float) -> None:
    read = torch.stack([loss.detach().float().reshape(()) for loss in loss_dict.values()]).cpu()
    try:
        write(self, dict(zip(loss_dict, read, strict=True)), data_time)
    except FloatingPointError:
        losses = ", ".join(f"{name} {value:g}" for name, value in zip(loss_dict, read.tolist(), strict=True))
        raise FloatingPointError(
            f"The loss is not finite at iteration {self.iter} ({losses}): the training has diverged. Lower SOLVER.BASE_LR "
            "and the rates beside it, or look for what is not finite in the weights that it started from."
        ) from None


def _with_a_scaler_of_the_device(
    init: Callable[..., None],
    self: Any,
    model: nn.Module,
    data_loader: Any,
    optimizer: Any,
    param_wrapper: Any,
    grad_scaler: Any = None,
) -> None:
    self.device_type = next(model.parameters()).device.type
    self.autocast = self.device_type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not self.autocast:
        logger.warning("SOLVER.AMP.ENABLED: this processor has no bfloat16 arithmetic; training goes on in float32")
    if grad_scaler is None:
        grad_scaler = torch.amp.GradScaler(self.device_type, enabled=self.device_type == "cuda")
    init(self, model, data_loader, optimizer, param_wrapper, grad_scaler=grad_scaler)


def _mixed_step(original: Callable[..., None], self: Any) -> None:
    assert self.model.training, "the model was changed to eval mode during training"
    start = time.perf_counter()
    data = next(self._data_loader_iter)
    data_time = time.perf_counter() - start
    with torch.autocast(self.device_type, enabled=self.autocast):
        losses = self.model(data)
        total = sum(losses.values())
    self.optimizer.zero_grad()
    self.grad_scaler.scale(total).backward()
    self._write_metrics(losses, data_time)
    self.grad_scaler.step(self.optimizer)
    self.grad_scaler.update()
    if hasattr(self.param_wrapper, "assert_buffer_is_valid"):
        self.param_wrapper.assert_buffer_is_valid()

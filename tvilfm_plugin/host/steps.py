"""One training step, and models spread over processes, on any device."""

import logging
import time
from typing import Any

import torch
import torch.nn as nn
from fastreid.engine.train_loop import AMPTrainer, SimpleTrainer
from fastreid.utils.params import ContiguousParams
from torch.nn.parallel import DistributedDataParallel

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


class _OneRead:
    """The host reads all losses of a step at once, behind the work that is queued.

    The original waits for the device once per loss, on a stream of its own that does not wait for the losses to be made.
    """

    def _write_metrics(self, loss_dict: dict[str, torch.Tensor], data_time: float) -> None:
        read = torch.stack([loss.detach().float().reshape(()) for loss in loss_dict.values()]).cpu()
        super()._write_metrics(dict(zip(loss_dict, read, strict=True)), data_time)  # type: ignore[misc]


class AnyDeviceTrainer(_OneRead, SimpleTrainer):
    """Training in float32."""


class AnyDeviceAMPTrainer(_OneRead, AMPTrainer):
    """Mixed precision by `torch.amp`: float16 with a scaler on a GPU, bfloat16 (whose range needs none) on the CPU.

    The original asserts CUDA and calls `torch.cuda.amp`, which is deprecated. A processor without bfloat16 arithmetic would
    emulate it, many times slower than float32, which it then uses.
    """

    def __init__(self, model: nn.Module, data_loader: Any, optimizer: Any, param_wrapper: Any, grad_scaler: Any = None) -> None:
        self.device_type = next(model.parameters()).device.type
        self.autocast = self.device_type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if not self.autocast:
            logger.warning("SOLVER.AMP.ENABLED: this processor has no bfloat16 arithmetic; training goes on in float32")
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(self.device_type, enabled=self.device_type == "cuda")
        super().__init__(model, data_loader, optimizer, param_wrapper, grad_scaler=grad_scaler)

    def run_step(self) -> None:
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
        if isinstance(self.param_wrapper, ContiguousParams):
            self.param_wrapper.assert_buffer_is_valid()

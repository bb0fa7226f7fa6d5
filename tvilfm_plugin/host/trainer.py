"""fast-reid's `DefaultTrainer` and `build_model` as they should behave on today's stack."""

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from yacs.config import CfgNode

from tvilfm_plugin.files.writing import make_folder
from tvilfm_plugin.host.devices import usable_device
from tvilfm_plugin.host.processes import place_from_environment
from tvilfm_plugin.host.replacing import around, replace
from tvilfm_plugin.host.steps import AnyDeviceDDP

# Iterations between two progress lines, written into `DefaultTrainer.build_hooks`.
_HOST_PERIOD = 200


def build_on_usable_device(build: types.ModuleType) -> None:
    """`build_model` moves the model to the device that there is, not to MODEL.DEVICE where that is missing."""

    @around(build, "build_model")
    def to_what_is_there(build_model: Callable[[CfgNode], nn.Module], cfg: CfgNode) -> nn.Module:
        device = str(usable_device(cfg.MODEL.DEVICE))
        if device != cfg.MODEL.DEVICE:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.DEVICE = device
        return build_model(cfg)


def train_on_any_device(defaults: types.ModuleType) -> None:
    """`DefaultTrainer` on CPU and GPU; what its checkpoints lack; a training without an evaluation, or that is finished."""
    replace(defaults, "DistributedDataParallel", lambda of_torch: AnyDeviceDDP)
    around(defaults.DefaultTrainer, "__init__")(_with_whole_checkpoints)
    around(defaults.DefaultTrainer, "train")(_from_any_epoch)


def _check_group() -> None:
    """Raise where a launcher has started several processes that know nothing of one another: each would be rank 0."""
    place = place_from_environment()
    if place is not None and not torch.distributed.is_initialized():
        raise RuntimeError(
            f"This process is one of {place.world_size} that a launcher (torchrun or srun) has started, but they have not met: "
            "each would train by itself, into one OUTPUT_DIR. Call your main function by fastreid.engine.launch(main, 1, "
            "args=...), which joins them, or start one process."
        )


def _with_whole_checkpoints(init: Callable[[Any, CfgNode], None], self: Any, cfg: CfgNode) -> None:
    from fastreid.engine import hooks
    from fastreid.utils import comm

    _check_group()
    # The original opens files in OUTPUT_DIR but leaves it to default_setup to make the folder.
    if comm.is_main_process():
        make_folder(cfg.OUTPUT_DIR or ".")
    init(self, cfg)
    if self.grad_scaler is not None and self.grad_scaler.is_enabled():
        self.checkpointer.checkpointables["grad_scaler"] = self.grad_scaler
    for hook in self._hooks:
        if type(hook) is hooks.PeriodicCheckpointer:
            self.checkpointer.checkpointables["best"] = hook
        if type(hook) is hooks.PeriodicWriter and hook._period == _HOST_PERIOD:
            hook._period = cfg.SOLVER.get("LOG_PERIOD", _HOST_PERIOD) or sys.maxsize


def _from_any_epoch(train: Callable[[Any], Any], self: Any) -> Any:
    """Train from `start_epoch`; gives the last evaluation on rank 0, or None (the original asserts that there was one)."""
    self.epoch = self.start_epoch - 1
    self._last_eval_results = None
    return train(self)

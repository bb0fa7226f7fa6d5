"""fast-reid's `DefaultTrainer` and its evaluator as they should behave on today's stack."""

import os
import sys
from typing import Any

import torch
import torch.nn as nn
from fastreid.engine import HookBase, defaults, hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.evaluation.reid_evaluation import ReidEvaluator
from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.host.checkpoint import AtomicCheckpointer
from tvilfm_plugin.host.devices import usable_device
from tvilfm_plugin.host.hooks import BestKeepingCheckpointer, EpochWriter, LastEvalHook
from tvilfm_plugin.host.loaders import build_test_loader, build_train_loader
from tvilfm_plugin.host.optimizer import build_optimizer
from tvilfm_plugin.host.replacing import lend
from tvilfm_plugin.host.steps import AnyDeviceAMPTrainer, AnyDeviceDDP, AnyDeviceTrainer


class PythonRankEvaluator(ReidEvaluator):
    """Ranks in Python, or with what is compiled already; the original runs `make` in site-packages, or exits."""

    def _compile_dependencies(self) -> None:
        pass


class CompatTrainer(DefaultTrainer):
    """fast-reid's `DefaultTrainer` as it is meant, on CPU and GPU."""

    def __init__(self, cfg: CfgNode) -> None:
        # The original opens files in OUTPUT_DIR but leaves it to default_setup to make the folder.
        if comm.is_main_process():
            os.makedirs(cfg.OUTPUT_DIR or ".", exist_ok=True)
        # Its constructor names these four classes; it has no hook for them.
        with lend(
            defaults,
            DistributedDataParallel=AnyDeviceDDP,
            SimpleTrainer=AnyDeviceTrainer,
            AMPTrainer=AnyDeviceAMPTrainer,
            Checkpointer=AtomicCheckpointer,
        ):
            super().__init__(cfg)
        if self.grad_scaler is not None and self.grad_scaler.is_enabled():
            self.checkpointer.checkpointables["grad_scaler"] = self.grad_scaler
        for hook in self._hooks:
            if isinstance(hook, BestKeepingCheckpointer):
                self.checkpointer.checkpointables["best"] = hook

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        device = str(usable_device(cfg.MODEL.DEVICE))
        if device != cfg.MODEL.DEVICE:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.DEVICE = device
        return super().build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_train_loader(cfg, combineall=cfg.DATASETS.COMBINEALL)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
        loader, num_query = cls.build_test_loader(cfg, dataset_name)
        return loader, PythonRankEvaluator(cfg, num_query, output_dir)

    def build_hooks(self) -> list[HookBase]:
        """The original's hooks in its order, three of them repaired."""

        def repaired(hook: HookBase) -> HookBase:
            if type(hook) is hooks.EvalHook:
                return LastEvalHook(hook._period, hook._func)
            if type(hook) is hooks.PeriodicCheckpointer:
                return BestKeepingCheckpointer(hook.checkpointer, hook.period)
            if type(hook) is hooks.PeriodicWriter:
                return EpochWriter(hook._writers, self.cfg.SOLVER.get("LOG_PERIOD", hook._period) or sys.maxsize)
            return hook

        return [repaired(hook) for hook in super().build_hooks()]

    def train(self) -> Any:
        """Train from `start_epoch`; a finished run is evaluated.

        Returns:
            the last evaluation, on rank 0; None without one. (The original asserts that there was one.)
        """
        self.epoch = self.start_epoch - 1
        self._last_eval_results = None
        return super().train()

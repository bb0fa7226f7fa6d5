"""fast-reid's trainer, loaders, optimiser, checkpoints and evaluator as they should behave on today's stack.

Everything here is a subclass of a class of fast-reid or a builder in the place of one of its builders; the reasons
stand with each. `compat` holds what cannot be done this way.
"""

import logging
import os
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from fastreid.data import build as host_data
from fastreid.engine import HookBase, defaults, hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.defaults import default_setup as host_default_setup
from fastreid.engine.train_loop import AMPTrainer, SimpleTrainer
from fastreid.evaluation.reid_evaluation import ReidEvaluator
from fastreid.solver import build as host_solver
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer
from fastreid.utils.events import CommonMetricPrinter
from fastreid.utils.params import ContiguousParams
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler
from yacs.config import CfgNode

from tvilfm_plugin.compat import DeviceLoader, lend, seed_everything, usable_device
from tvilfm_plugin.files.writing import atomic_file, write_text

logger = logging.getLogger("fastreid." + __name__)


def default_setup(cfg: CfgNode, args: Any) -> None:
    """fast-reid's set-up (folder, log, config dump), then the seed of `cfg.SEED`; the original always seeds at random.

    Each rank gets its own seed, and so its own loader workers; DDP copies rank 0's weights and the samplers agree on
    a seed.
    """
    host_default_setup(cfg, args)
    seed = cfg.get("SEED", -1)
    if seed >= 0:
        seed_everything(seed + comm.get_rank())
        # The fastest kernels may add in another order each time.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        logger.info(f"SEED is {seed}: this replaces the generated seed")


# --- optimiser -------------------------------------------------------------------------------------------------------

# Updates that torch computes in one pass over a buffer; the plain ones make a pass per operation.
FUSED = ("Adam", "AdamW", "SGD")


def keep_gradient_buffers(optimizer: torch.optim.Optimizer) -> None:
    """Let `zero_grad()` write zeros, in place, as it did before torch 2.0.

    fast-reid's flat parameter buffers hold their gradient in a flat buffer too, of which the parameters' gradients are
    views. Since torch 2.0 `zero_grad()` drops the flat buffer's gradient instead: the optimizer then skips it for
    ever and nothing is trained, without a warning.
    """
    zero_grad = optimizer.zero_grad

    def zero_grad_in_place(set_to_none: bool = False) -> None:
        zero_grad(set_to_none=False)

    optimizer.zero_grad = zero_grad_in_place  # type: ignore[method-assign]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> tuple[torch.optim.Optimizer, ContiguousParams]:
    """fast-reid's optimizer, with its merged parameter groups and its clipping, and gradients that arrive."""
    optimizer, parameters = host_solver.build_optimizer(cfg, model)
    keep_gradient_buffers(optimizer)
    return optimizer, parameters


def contiguous_optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> tuple[torch.optim.Optimizer, ContiguousParams]:
    """The same optimizer over parameter groups of one's own.

    Args:
        cfg: its `SOLVER` names the optimizer, the clipping and the freezing.
        groups: one dict per trainable tensor: `params` (a list of one), `lr`, `weight_decay`, `freeze_status`
            ("normal" or "freeze"). Those with equal values are merged into one flat buffer.
    """
    if not groups:
        raise ValueError("There is nothing to train: no parameter of the model requires a gradient.")
    parameters = ContiguousParams(groups)
    kind = getattr(torch.optim, cfg.SOLVER.OPT)
    kind = host_solver.maybe_add_freeze_layer(cfg, host_solver.maybe_add_gradient_clipping(cfg, kind))
    options = {"momentum": cfg.SOLVER.MOMENTUM, "nesterov": cfg.SOLVER.NESTEROV} if cfg.SOLVER.OPT == "SGD" else {}
    # A fused step unscales the gradients itself, so clipping, which comes before, would see them scaled.
    if cfg.SOLVER.get("FUSED", False) and cfg.SOLVER.OPT in FUSED and not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        options["fused"] = True
    optimizer = kind(parameters.contiguous(), **options)
    keep_gradient_buffers(optimizer)
    return optimizer, parameters


# --- loaders ---------------------------------------------------------------------------------------------------------


def _datasets_root() -> str:
    """$FASTREID_DATASETS now; fast-reid reads it once, when it is imported."""
    return os.getenv("FASTREID_DATASETS", "datasets")


def _check_batch(dataset: Any, sampler: Any, batch: int) -> None:
    """Raise where fast-reid would divide by zero, or wait for ever for a batch that its sampler can never fill."""
    world = comm.get_world_size()
    if len(dataset) < batch:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}, but the training set has only {len(dataset)} images: not one batch per "
            "epoch. Lower SOLVER.IMS_PER_BATCH or check DATASETS.NAMES and $FASTREID_DATASETS."
        )
    if batch < world:
        raise ValueError(f"SOLVER.IMS_PER_BATCH is {batch}, less than one image for each of {world} processes.")
    per_batch = getattr(sampler, "num_pids_per_batch", None)
    if per_batch is None:
        return
    mine, instances = batch // world, sampler.num_instances
    if mine % instances or not per_batch:
        raise ValueError(
            f"A batch of {mine} images per process is not a multiple of DATALOADER.NUM_INSTANCE {instances}: "
            f"{type(sampler).__name__} would never fill one."
        )
    needed = per_batch * (world if isinstance(sampler, host_data.samplers.BalancedIdentitySampler) else 1)
    identities = getattr(sampler, "num_identities", needed)
    if identities < needed:
        raise ValueError(
            f"A batch takes {needed} identities ({type(sampler).__name__}, DATALOADER.NUM_INSTANCE {instances}), but "
            f"the training set has only {identities}. Lower SOLVER.IMS_PER_BATCH or raise DATALOADER.NUM_INSTANCE."
        )


def build_train_loader(
    cfg: Any, *, num_workers: int | None = None, total_batch_size: int | None = None, **options: Any
) -> DeviceLoader:
    """In the place of `build_reid_train_loader`: endless batches on MODEL.DEVICE, with or without a GPU.

    Args:
        cfg: a config, or (as fast-reid allows) a dataset; `sampler` and `total_batch_size` are then needed.
        num_workers: instead of DATALOADER.NUM_WORKERS (fast-reid passes this keyword on to the dataset's constructor).
        total_batch_size: of all processes together, instead of SOLVER.IMS_PER_BATCH.
        options: `train_set`, `transforms`, `sampler`; anything else goes to the constructors of the datasets.
    """
    if isinstance(cfg, CfgNode):
        if total_batch_size is not None:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.IMS_PER_BATCH = total_batch_size
        with lend(host_data, _root=_datasets_root()):
            parts = host_data._train_loader_from_config(cfg, **options)
        dataset, sampler, total_batch_size = parts["train_set"], parts["sampler"], parts["total_batch_size"]
        num_workers = parts["num_workers"] if num_workers is None else num_workers
        device = usable_device(cfg.MODEL.DEVICE)
    else:
        dataset, sampler, device = cfg, options["sampler"], usable_device("cuda")
    assert total_batch_size is not None, "total_batch_size is needed where there is no config"
    _check_batch(dataset, sampler, total_batch_size)
    batches = BatchSampler(sampler, total_batch_size // comm.get_world_size(), drop_last=True)
    return DeviceLoader(dataset, batch_sampler=batches, num_workers=num_workers or 0, device=device)


def build_test_loader(
    cfg: Any, dataset_name: Any = None, num_query: int = 0, num_workers: int | None = None, **options: Any
) -> tuple[DeviceLoader, int]:
    """In the place of `build_reid_test_loader`: a data set's queries, then its gallery, on MODEL.DEVICE.

    Args:
        cfg: a config, or (as fast-reid allows) a dataset, followed by the batch size and the number of queries.
        dataset_name: a name of DATASET_REGISTRY; the batch size where `cfg` is a dataset.
        num_query: how many of the first items are queries; read from the named data set.
        num_workers: instead of DATALOADER.NUM_WORKERS (fast-reid always starts four).
        options: `test_set`, `transforms`; anything else goes to the constructor of the data set.

    Returns:
        the loader and the number of queries.
    """
    if isinstance(cfg, CfgNode):
        with lend(host_data, _root=_datasets_root()):
            parts = host_data._test_loader_from_config(cfg, dataset_name=dataset_name, num_query=num_query, **options)
        dataset, batch, num_query = parts["test_set"], parts["test_batch_size"], parts["num_query"]
        num_workers = cfg.DATALOADER.NUM_WORKERS if num_workers is None else num_workers
        device = usable_device(cfg.MODEL.DEVICE)
    else:
        dataset, batch, device = cfg, options.get("test_batch_size", dataset_name), usable_device("cuda")
    shard = host_data.samplers.InferenceSampler(len(dataset))
    batches = BatchSampler(shard, max(1, batch // comm.get_world_size()), drop_last=False)
    return DeviceLoader(dataset, batch_sampler=batches, num_workers=num_workers or 0, device=device), num_query


# --- parts of the trainer --------------------------------------------------------------------------------------------


class PythonRankEvaluator(ReidEvaluator):
    """Ranks in Python, or with what is compiled already; the original runs `make` in site-packages, or exits."""

    def _compile_dependencies(self) -> None:
        pass


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

    def __init__(
        self, model: nn.Module, data_loader: Any, optimizer: Any, param_wrapper: Any, grad_scaler: Any = None
    ) -> None:
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


class AtomicCheckpointer(Checkpointer):
    """Files that are complete or absent, and that `torch.load(weights_only=True)` can read.

    The original writes in place, and truncates `last_checkpoint` before it writes it: killed at that moment, a run
    cannot be resumed. A numpy number among the extra data would be saved but refused on loading.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        if "://" in self.save_dir:  # a store that PathManager knows, not a folder
            super().save(name, **kwargs)
            return
        state = {"model": self.model.state_dict()}
        state.update((key, part.state_dict()) for key, part in self.checkpointables.items())
        state.update((key, value.item() if isinstance(value, np.generic) else value) for key, value in kwargs.items())
        file_name = f"{name}.pth"
        path = os.path.join(self.save_dir, file_name)
        if os.path.basename(path) != file_name:
            raise ValueError(f"A checkpoint's name is a plain file name, not {name!r}.")
        self.logger.info(f"Saving checkpoint to {path}")
        with atomic_file(path) as file:
            torch.save(state, file)
        self.tag_last_checkpoint(file_name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        if "://" in self.save_dir:
            super().tag_last_checkpoint(last_filename_basename)
        else:
            write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)


class LastEvalHook(hooks.EvalHook):
    """Evaluates every `period` epochs (0: never in between), and always at the end of a training that reached it.

    The original divides by the period, evaluates after a crash in the last epoch, and does not evaluate (but dies)
    when a finished run is resumed.
    """

    _evaluated_epoch: int | None = None

    def _do_eval(self) -> None:
        self._evaluated_epoch = self.trainer.epoch
        super()._do_eval()

    def after_train(self) -> None:
        finished = self.trainer.iter >= self.trainer.max_iter
        if finished and self._evaluated_epoch != self.trainer.epoch:
            self._do_eval()
        del self._func


class BestKeepingCheckpointer(hooks.PeriodicCheckpointer):
    """Saves every `period` epochs (0: only at the end) and remembers the best metric across `--resume`.

    The original divides by the period, needs a test set, and lets the first evaluation after a resume replace the best.
    """

    def __init__(self, checkpointer: Checkpointer, period: int) -> None:
        super().__init__(checkpointer, period if period > 0 else sys.maxsize)

    def before_train(self) -> None:
        self.metric_name = "metric"
        if self.trainer.cfg.DATASETS.TESTS:
            super().before_train()
        self.max_epoch = self.trainer.max_epoch

    def state_dict(self) -> dict[str, float]:
        return {"best_metric": self.best_metric}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best_metric = state["best_metric"]


class EpochWriter(hooks.PeriodicWriter):
    """Writes every `period` iterations, after each epoch, and what the last evaluation found.

    The original writes the last iteration of an epoch twice, before the evaluation and after: the writers skip an
    iteration they have seen, so the evaluation never reaches metrics.json and TensorBoard, and the printer divides by
    the zero iterations in between when a training is shorter than three.
    """

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.trainer.iters_per_epoch != 0:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            if not isinstance(writer, CommonMetricPrinter):
                writer.write()
        super().after_train()


# --- the trainer -----------------------------------------------------------------------------------------------------


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

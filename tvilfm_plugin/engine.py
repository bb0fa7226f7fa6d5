"""The trainer: fast-reid's loop, hooks, AMP and DDP around our data, optimiser, schedule, two stages and evaluation."""

import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
from fastreid.engine import hooks
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from tvilfm_plugin.checkpoints.loading import load_weights
from tvilfm_plugin.compat import seed_everything, write_text
from tvilfm_plugin.config import stage1_config
from tvilfm_plugin.data.loaders import build_eval_loader, build_train_loader, is_tri
from tvilfm_plugin.data.text_sources import draw_query_texts
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.evaluation.evaluator import EVALUATOR_REGISTRY
from tvilfm_plugin.host import CompatTrainer, contiguous_optimizer

logger = logging.getLogger("fastreid." + __name__)


def uses_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` has a text encoder."""
    return bool(getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), "has_text", False))


def lr_factor(epoch: int, warmup: int, start: float, milestones: tuple[int, ...], gamma: float) -> float:
    """Factor on every learning rate in an epoch: linear warm-up, then a drop by `gamma` at each milestone.

    With warmup 10, start .01, milestones (40, 60, 100) and gamma .1 this is the schedule of METHOD: .01 (1 - e/10) + e/10,
    then 1, .1, .01, .001.
    """
    if epoch < warmup:
        return start * (1 - epoch / warmup) + epoch / warmup
    return gamma ** sum(epoch >= milestone for milestone in milestones)


def param_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """One entry per trainable tensor: its learning rate and weight decay.

    `heads.*` (neck and classifier) run at HEADS_LR_FACTOR times the base rate; `text.*` at TEXT_LR and TEXT_WEIGHT_DECAY,
    the biases inside its transformer blocks at TEXT_BIAS_LR_FACTOR times that with TEXT_BIAS_WEIGHT_DECAY, and what lies
    outside the blocks (embeddings, final norm, projection) at TEXT_EMBEDDING_LR. Everything else is visual.
    """
    solver = cfg.SOLVER
    text_lr = solver.TEXT_LR if solver.TEXT_LR >= 0 else solver.BASE_LR
    text_decay = solver.TEXT_WEIGHT_DECAY if solver.TEXT_WEIGHT_DECAY >= 0 else solver.WEIGHT_DECAY
    bias_decay = solver.TEXT_BIAS_WEIGHT_DECAY if solver.TEXT_BIAS_WEIGHT_DECAY >= 0 else text_decay
    embedding_lr = solver.TEXT_EMBEDDING_LR if solver.TEXT_EMBEDDING_LR >= 0 else text_lr
    groups = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr, decay = solver.BASE_LR, solver.WEIGHT_DECAY
        part = name.split(".")[0]
        if part == "heads":
            lr *= solver.HEADS_LR_FACTOR
        elif part == "text":
            lr, decay = text_lr, text_decay
            if ".resblocks." not in name:
                lr = embedding_lr
            elif name.endswith("bias"):
                lr, decay = text_lr * solver.TEXT_BIAS_LR_FACTOR, bias_decay
        groups.append({"freeze_status": "normal", "params": [parameter], "lr": lr, "weight_decay": decay, "name": name})
    return groups


# Keys that may differ between two runs that compute the same weights.
_INCIDENTAL = ("OUTPUT_DIR", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "TVILFM.OVERRIDES", "TVILFM.STAGE1_OVERRIDES")
_INCIDENTAL_PARTS = ("TEST.",)


def recipe(cfg: CfgNode) -> str:
    """What determines the weights of a stage, as sorted `KEY: value` lines."""

    def walk(node: CfgNode, prefix: str) -> Iterable[str]:
        for key, value in sorted(node.items()):
            if isinstance(value, CfgNode):
                yield from walk(value, f"{prefix}{key}.")
            elif f"{prefix}{key}" not in _INCIDENTAL and not f"{prefix}{key}".startswith(_INCIDENTAL_PARTS):
                yield f"{prefix}{key}: {list(value) if isinstance(value, tuple) else value}"

    return "\n".join(walk(cfg, "")) + "\n"


def changed_keys(cfg: CfgNode, request: str) -> list[str]:
    """Keys in which a stored recipe differs from that of `cfg`; empty if there is no stored recipe."""
    if not os.path.isfile(request):
        return []
    with open(request, encoding="utf-8") as file:
        stored = set(file.read().splitlines())
    return sorted({line.split(":")[0] for line in stored ^ set(recipe(cfg).splitlines())})


class EpochSeed(hooks.HookBase):
    """Seeds every generator at the start of an epoch, so that an epoch depends on its number and not on how it was reached."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_epoch(self) -> None:
        seed_everything(self.seed + 1_000_003 * (self.trainer.epoch + 1) + comm.get_rank())


class RollingCheckpoint(hooks.HookBase):
    """Saves every `period` epochs and keeps only the newest such file, and `model_final` at the end.

    A run of 120 epochs would otherwise leave 120 files; no file is chosen on the test set.
    """

    def __init__(self, checkpointer: Any, period: int) -> None:
        self.checkpointer = checkpointer
        self.period = period

    def after_epoch(self) -> None:
        epoch, last = self.trainer.epoch, self.trainer.epoch + 1 >= self.trainer.max_epoch
        if not last and not (self.period > 0 and (epoch + 1) % self.period == 0):
            return
        older = self.checkpointer.get_checkpoint_file() if self.checkpointer.has_checkpoint() else ""
        name = "model_final" if last else f"model_{epoch:04d}"
        self.checkpointer.save(name, epoch=epoch)
        folder, file = os.path.split(older)
        if file.startswith("model_0") and file != f"{name}.pth" and os.path.isfile(older):
            os.remove(os.path.join(folder, file))


class TriTrainer(CompatTrainer):
    """fast-reid's trainer with the Tri- data sets, both stages of TVI-LFM and modality ensemble retrieval.

    For an ordinary fast-reid config it is `CompatTrainer`, i.e. the stock trainer on today's stack.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        if self._is_ours(cfg):
            self.checkpointer.checkpointables["data"] = self.data_loader

    @staticmethod
    def _is_ours(cfg: CfgNode) -> bool:
        return any(is_tri(name) for name in (*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS))

    # --- what the host builds ----------------------------------------------------------------------------------------

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if not cls._is_ours(cfg):
            return super().build_train_loader(cfg)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed() % 2**31
        return build_train_loader(cfg, uses_text(cfg), seed)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        if not cls._is_ours(cfg):
            return super().build_optimizer(cfg, model)
        return contiguous_optimizer(cfg, param_groups(cfg, model))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> Any:
        if cfg.SOLVER.WARMUP_EPOCHS < 0:
            return super().build_lr_scheduler(cfg, optimizer, iters_per_epoch)
        if cfg.SOLVER.WARMUP_ITERS or cfg.SOLVER.DELAY_EPOCHS:
            raise ValueError(
                "SOLVER.WARMUP_EPOCHS counts whole epochs; set SOLVER.WARMUP_ITERS 0 and SOLVER.DELAY_EPOCHS 0 beside it, "
                "or WARMUP_EPOCHS -1 for fast-reid's own schedule."
            )
        factor = functools.partial(
            lr_factor,
            warmup=cfg.SOLVER.WARMUP_EPOCHS,
            start=cfg.SOLVER.WARMUP_FACTOR,
            milestones=tuple(cfg.SOLVER.STEPS),
            gamma=cfg.SOLVER.GAMMA,
        )
        return {"lr_sched": LambdaLR(optimizer, factor)}

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
        if not is_tri(dataset_name):
            return super().build_evaluator(cfg, dataset_name, output_dir)
        infrared_query = cfg.DATASETS.DIRECTION == "infrared-to-visible"
        text = uses_text(cfg) and infrared_query
        loader = build_eval_loader(cfg, dataset_name, text)
        data = loader.data
        texts = {}
        for setting in data.settings:
            sources = cfg.TEST.TEXT_SOURCES if text else ()
            texts[setting.name] = [
                draw_query_texts(source, data, setting, seed, human=cfg.TEST.HUMAN_TEXTS, style=cfg.TEST.ORACLE_STYLE)
                for source in sources
                for seed in (cfg.TEST.TEXT_SEEDS if source not in ("self", "none") else (0,))
            ]
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "evaluation", dataset_name) if cfg.TEST.STORE else None
        evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, data, texts, tokenize, folder)
        return loader, evaluator

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
        if not cls._is_ours(cfg):
            return super().test(cfg, model)
        results: OrderedDict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TESTS:
            loader, evaluator = cls.build_evaluator(cfg, name)
            results[name] = evaluator.run(model, loader)
        return next(iter(results.values())) if len(results) == 1 else results

    def build_hooks(self) -> list[hooks.HookBase]:
        ret = super().build_hooks()
        if not self._is_ours(self.cfg):
            return ret
        ret = [h for h in ret if not isinstance(h, hooks.PeriodicCheckpointer)]
        if comm.is_main_process():
            ret.insert(-1, RollingCheckpoint(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        ret.insert(0, EpochSeed(self.data_loader.sampler.seed))
        return ret

    # --- two stages --------------------------------------------------------------------------------------------------

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue this run, or start it: from MODEL.WEIGHTS, or from stage 1, which is trained first where it is missing."""
        if not self._is_ours(self.cfg) or (resume and self.checkpointer.has_checkpoint()):
            super().resume_or_load(resume)
            return
        self._forget_older_run()
        weights = self.cfg.MODEL.WEIGHTS
        if not weights and self.cfg.TVILFM.STAGE1 and not self.cfg.TVILFM.FROM_SCRATCH:
            weights = self._train_stage1(resume)
        if weights:
            load_weights(self._bare_model(), weights, may_miss=("text.", "heads.classifier."))

    def _forget_older_run(self) -> None:
        """A fresh run that is killed before its first checkpoint must not be resumed from an older run in the same folder."""
        comm.synchronize()
        pointer = os.path.join(self.cfg.OUTPUT_DIR, "last_checkpoint")
        if comm.is_main_process() and os.path.isfile(pointer):
            logger.warning(f"{self.cfg.OUTPUT_DIR} holds an older run; this one starts anew (--resume would have continued it)")
            os.remove(pointer)
        comm.synchronize()

    def _bare_model(self) -> nn.Module:
        return getattr(self.model, "module", self.model)

    def _train_stage1(self, resume: bool) -> str:
        """Train stage 1 in OUTPUT_DIR/stage1, or recognise that it is finished; returns its weights file."""
        cfg = stage1_config(self.cfg)
        final = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
        request = os.path.join(cfg.OUTPUT_DIR, "request.yaml")
        changes = changed_keys(cfg, request)
        if os.path.isfile(final) and not changes:
            logger.info(f"Stage 1 is finished: {final}")
            return final
        if changes:
            logger.info(f"Stage 1 in {cfg.OUTPUT_DIR} was made with other values of {', '.join(changes)}: it is trained anew")
            resume = False
        comm.synchronize()
        if comm.is_main_process():
            os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
            write_text(request, recipe(cfg))
        if cfg.SEED >= 0:
            seed_everything(cfg.SEED + comm.get_rank())
        trainer = type(self)(cfg)
        trainer.resume_or_load(resume)
        trainer.train()
        comm.synchronize()
        logger.info("Stage 2 follows")
        return final

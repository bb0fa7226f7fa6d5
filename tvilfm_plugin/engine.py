"""The trainer: fast-reid's loop, hooks, AMP and DDP around our data, optimiser, schedule, two stages and evaluation."""

import functools
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn as nn
from fastreid.engine import hooks
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from tvilfm_plugin.allocator import keep_freed_memory
from tvilfm_plugin.checkpoints.loading import Loaded, load_weights, read_checkpoint
from tvilfm_plugin.checkpoints.released_mip import as_stage1
from tvilfm_plugin.compat import seed_everything, usable_device
from tvilfm_plugin.config import get_cfg, stage1_config
from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.loaders import TrainLoader, build_eval_loader, build_train_loader, cache_folder, is_tri
from tvilfm_plugin.data.text_sources import draw_query_texts
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.epoch_rule import BEST, LABELS, SCORES, BestEpoch, EpochLabel, check_epoch_rule, finished_weights
from tvilfm_plugin.evaluation.evaluator import EVALUATOR_REGISTRY
from tvilfm_plugin.evaluation.provenance import KEY, Provenance, TrainingSet
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.host import CompatTrainer, contiguous_optimizer
from tvilfm_plugin.modeling.stored_views import fill_banks
from tvilfm_plugin.modeling.text_encoder import FROM_CHECKPOINT

logger = logging.getLogger("fastreid." + __name__)


def declared(cfg: CfgNode, name: str, default: Any) -> Any:
    """What the model's class says under `name`, else `default`.

    A method with batches, learning rates or a schedule of its own (MIP) has `build_train_loader(cfg, seed)`,
    `param_groups(cfg, model)` or `build_lr_scheduler(cfg, optimizer)` in its class.
    """
    return getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), name, default)


def uses_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` has a text encoder."""
    return bool(declared(cfg, "has_text", False))


def _paired_loader(cfg: CfgNode, seed: int) -> TrainLoader:
    return build_train_loader(cfg, uses_text(cfg), seed)


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


# Keys, or beginnings of keys, that may differ between two runs that compute the same weights.
_INCIDENTAL = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.CACHE",
    "DATASETS.TOKEN_CACHE",
    "DATASETS.GALLERY",
    "DATASETS.MODES",
    "DATASETS.RULES",
    "DATASETS.SHOTS",
    "DATASETS.TESTS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EPOCH_RULE",
    "SOLVER.KEEP_MEMORY",
    "SOLVER.LOG_PERIOD",
    "TEST.",
    "TVILFM.BANK.MAX_GB",
    "TVILFM.MEMBERS",
    "TVILFM.OVERRIDES",
    "TVILFM.STAGE1",
)
# What a model without text does not read: an ablation of stage 2 on the command line needs no new stage 1.
_TEXT_ONLY = ("TVILFM.", "MODEL.TEXT.", "SOLVER.TEXT_", "INPUT.REPHRASE_PROB")


def recipe(cfg: CfgNode) -> str:
    """What determines the weights of a stage, as sorted `KEY: value` lines."""
    skipped = _INCIDENTAL if uses_text(cfg) else _INCIDENTAL + _TEXT_ONLY

    def walk(node: CfgNode, prefix: str) -> Iterable[str]:
        for key, value in sorted(node.items()):
            if isinstance(value, CfgNode):
                yield from walk(value, f"{prefix}{key}.")
            elif not f"{prefix}{key}".startswith(skipped):
                yield f"{prefix}{key}: {list(value) if isinstance(value, tuple) else value}"

    lines = list(walk(cfg, ""))
    if cfg.SOLVER.EPOCH_RULE != "last":
        lines.append(f"SOLVER.EPOCH_RULE: {cfg.SOLVER.EPOCH_RULE}, every {cfg.TEST.EVAL_PERIOD} epochs")
    return "\n".join(lines) + "\n"


def changed_keys(cfg: CfgNode, request: str) -> list[str]:
    """Keys in which a stored recipe differs from that of `cfg`; empty if there is no stored recipe.

    A key that the stored recipe does not have came later: the run was made as its default says.
    """
    if not os.path.isfile(request):
        return []
    with open(request, encoding="utf-8") as file:
        stored = set(file.read().splitlines())
    known = {_key(line) for line in stored}
    defaults = set(recipe(get_cfg()).splitlines())
    now = {line for line in recipe(cfg).splitlines() if _key(line) in known or line not in defaults}
    return sorted({_key(line) for line in stored ^ now})


def _key(line: str) -> str:
    return line.split(":")[0]


class EpochSeed(hooks.HookBase):
    """Seeds every generator at the start of an epoch, so that an epoch depends on its number and not on how it was reached."""

    def before_epoch(self) -> None:
        # The sampler's seed is drawn where there is no SEED, and comes back with a resumed run.
        seed = self.trainer.data_loader.sampler.seed
        seed_everything(seed + 1_000_003 * (self.trainer.epoch + 1) + comm.get_rank())


class ModelEpoch(hooks.HookBase):
    """Tells the model which epoch begins (from 0), if it asks by having `set_epoch`: a loss of MIP's joins later."""

    def before_epoch(self) -> None:
        model = getattr(self.trainer.model, "module", self.trainer.model)
        if hasattr(model, "set_epoch"):
            model.set_epoch(self.trainer.epoch)


class StoredViews(hooks.HookBase):
    """Before stage 2 begins, with the weights of stage 1 in place: features in the place of images (TVILFM.BANK)."""

    def before_train(self) -> None:
        cfg, loader = self.trainer.cfg, self.trainer.data_loader
        visual = getattr(self.trainer.model, "module", self.trainer.model).visual
        bank = cfg.TVILFM.BANK
        loader.dataset.banks = fill_banks(visual, loader.dataset, cache_folder(cfg, loader.data), bank.DTYPE, bank.MAX_GB)
        logger.info(f"Training on {bank.VIEWS} stored views per image: an approximation of new views in every epoch")


def _stores_views(cfg: CfgNode) -> bool:
    """Whether stage 2 trains on stored features; raises where the visual part does not hold still."""
    if not uses_text(cfg) or not cfg.TVILFM.BANK.VIEWS:
        return False
    if cfg.TVILFM.FROM_SCRATCH or not cfg.TVILFM.FREEZE_BN:
        key = "TVILFM.FROM_SCRATCH True" if cfg.TVILFM.FROM_SCRATCH else "TVILFM.FREEZE_BN False"
        raise ValueError(
            f"Features can be stored only while the visual part does not change, and {key} changes it. Set "
            "TVILFM.BANK.VIEWS 0, which draws new views in every epoch."
        )
    return True


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
        file = os.path.basename(older)
        if re.fullmatch(r"model_\d+\.pth", file) and file != f"{name}.pth" and os.path.isfile(older):
            os.remove(older)


class TriTrainer(CompatTrainer):
    """fast-reid's trainer with the Tri- data sets, both stages of TVI-LFM and modality ensemble retrieval.

    For an ordinary fast-reid config it is `CompatTrainer`, i.e. the stock trainer on today's stack.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if self._is_ours(cfg):
            check_epoch_rule(cfg)
            _stores_views(cfg)
            if cfg.SOLVER.KEEP_MEMORY and usable_device(cfg.MODEL.DEVICE).type == "cpu":
                keep_freed_memory()
        super().__init__(cfg)
        if self._is_ours(cfg):
            self.checkpointer.checkpointables["data"] = self.data_loader
            data = self.data_loader.data
            self.provenance = Provenance((TrainingSet(data.key, data.trial, tuple(sorted(data.train_ids))),))
            _check_unseen(self.provenance, data)
            self._bare_model().provenance = self.provenance
            self.checkpointer.checkpointables[KEY] = self.provenance

    @staticmethod
    def _is_ours(cfg: CfgNode) -> bool:
        return any(is_tri(name) for name in (*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS))

    # --- what the host builds ----------------------------------------------------------------------------------------

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if not cls._is_ours(cfg):
            return super().build_train_loader(cfg)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed() % 2**31
        return declared(cfg, "build_train_loader", _paired_loader)(cfg, seed)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        if not cls._is_ours(cfg):
            return super().build_optimizer(cfg, model)
        return contiguous_optimizer(cfg, declared(cfg, "param_groups", param_groups)(cfg, model))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> Any:
        own = declared(cfg, "build_lr_scheduler", None)
        if own is not None and (schedule := own(cfg, optimizer)) is not None:
            return schedule
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
        name = dataset_name + ("" if cfg.TEST.SPLIT == "test" else f"-{cfg.TEST.SPLIT}")
        name += "" if cfg.TEST.PROTOCOL == "standard" else f"-{cfg.TEST.PROTOCOL}"
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "evaluation", name) if cfg.TEST.STORE else None
        evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, data, texts, tokenize, folder)
        return loader, evaluator

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
        if not cls._is_ours(cfg):
            return super().test(cfg, model)
        if comm.get_world_size() > 1:
            # Each process has BN statistics of its own share of the batches; rank 0 saves the ones that count.
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        provenance = getattr(getattr(model, "module", model), KEY, None)
        if provenance is None:
            # The stock script loads MODEL.WEIGHTS itself.
            known = os.path.isfile(cfg.MODEL.WEIGHTS)
            provenance = read_checkpoint(cfg.MODEL.WEIGHTS)[1] if known else Provenance()
        if not provenance.trained_on:
            logger.warning("Nothing says whom these weights were trained on: it cannot be checked that nobody is tested again.")
        results: OrderedDict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TESTS:
            loader, evaluator = cls.build_evaluator(cfg, name)
            _check_unseen(provenance, loader.data)
            evaluator.epoch_rule = provenance.epoch_rule
            results[name] = evaluator.run(model, loader)
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def load_for_test(cls, cfg: CfgNode, model: Any) -> None:
        """Load MODEL.WEIGHTS for an evaluation, which needs no classifier."""
        if cls._is_ours(cfg):
            model.provenance = load_weights(model, cfg.MODEL.WEIGHTS, may_differ=("heads.classifier.",)).provenance
        else:
            Checkpointer(model).load(cfg.MODEL.WEIGHTS)

    def build_hooks(self) -> list[hooks.HookBase]:
        ret = super().build_hooks()
        if not self._is_ours(self.cfg):
            return ret
        ret = [h for h in ret if not isinstance(h, hooks.PeriodicCheckpointer)]
        if comm.is_main_process():
            # Before the evaluation: a run that is stopped while it evaluates keeps the epoch.
            evaluation = next(i for i, hook in enumerate(ret) if isinstance(hook, hooks.EvalHook))
            ret.insert(evaluation, RollingCheckpoint(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        ret[:0] = [EpochSeed(), EpochLabel(), ModelEpoch(), *([StoredViews()] if _stores_views(self.cfg) else [])]
        rule = self.cfg.SOLVER.EPOCH_RULE
        if rule == "last":
            return ret

        def best(hook: hooks.EvalHook) -> hooks.HookBase:
            select = hook._func if rule == "test" else self._test_on_validation
            return BestEpoch(hook._period, select, hook._func, self.cfg.OUTPUT_DIR, LABELS[rule])

        return [best(hook) if isinstance(hook, hooks.EvalHook) else hook for hook in ret]

    def _test_on_validation(self) -> OrderedDict[str, Any]:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.TEST.SPLIT = "val"
        results = self.test(cfg, self.model)
        return OrderedDict((f"validation/{key}", value) for key, value in results.items())

    # --- two stages --------------------------------------------------------------------------------------------------

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue this run, or start it: from MODEL.WEIGHTS, or from stage 1, which is trained first where it is missing."""
        if not self._is_ours(self.cfg):
            super().resume_or_load(resume)
            return
        if resume and self.checkpointer.has_checkpoint():
            # The host's checkpointer skips what does not fit; this raises first.
            load_weights(self._bare_model(), self.checkpointer.get_checkpoint_file())
            super().resume_or_load(resume)
            return
        self._forget_older_run()
        weights = self.cfg.MODEL.WEIGHTS
        if not weights and self.cfg.TVILFM.STAGE1 and not self.cfg.TVILFM.FROM_SCRATCH:
            weights = self._train_stage1(resume)
        if weights and uses_text(self.cfg):
            first = load_weights(self._bare_model(), weights, may_miss=("text.", "stage1."), translate=as_stage1)
            self._go_on_from(first)
        elif weights:
            self._go_on_from(load_weights(self._bare_model(), weights, may_differ=("heads.classifier.",)))

    def _go_on_from(self, loaded: Loaded) -> None:
        self.provenance.add(loaded.provenance)
        _check_unseen(self.provenance, self.data_loader.data)
        if any(name.startswith("stage1.") for name in loaded.kept):
            self._bare_model().keep_stage1()

    def _forget_older_run(self) -> None:
        """A fresh run that is killed before its first checkpoint must not be resumed from an older run in the same folder."""
        comm.synchronize()
        if comm.is_main_process() and _forget(self.cfg.OUTPUT_DIR, "last_checkpoint", BEST, SCORES):
            logger.warning(f"{self.cfg.OUTPUT_DIR} holds an older run; this one starts anew (--resume would have continued it)")
        comm.synchronize()

    def _bare_model(self) -> Any:
        return getattr(self.model, "module", self.model)

    def _train_stage1(self, resume: bool) -> str:
        """Train stage 1 in OUTPUT_DIR/stage1, or recognise that it is finished; returns its weights file."""
        cfg = stage1_config(self.cfg)
        final = finished_weights(cfg)
        request = os.path.join(cfg.OUTPUT_DIR, "request.yaml")
        changes = changed_keys(cfg, request)
        if final and not changes:
            logger.info(f"Stage 1 is finished: {final}")
            return final
        if changes:
            logger.info(f"Stage 1 in {cfg.OUTPUT_DIR} was made with other values of {', '.join(changes)}: it is trained anew")
            resume = False
        comm.synchronize()
        if comm.is_main_process():
            os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
            if changes:
                # In this order: what is left of the older recipe must never be taken for this one's.
                _forget(cfg.OUTPUT_DIR, "model_final.pth", "last_checkpoint", BEST, SCORES)
            write_text(request, recipe(cfg))
        if cfg.SEED >= 0:
            seed_everything(cfg.SEED + comm.get_rank())
        trainer = type(self)(cfg)
        trainer.resume_or_load(resume)
        trainer.train()
        comm.synchronize()
        logger.info("Stage 2 follows")
        return finished_weights(cfg)


def _check_unseen(provenance: Provenance, data: TriDataset) -> None:
    """Raise if weights would be tested on persons that they were trained on."""
    provenance.check_unseen(data.key, data.trial, {item.pid for item in (*data.query, *data.gallery)})


def _forget(folder: str, *names: str) -> bool:
    """Remove files of an older run; returns whether there were any."""
    found = [path for name in names if os.path.isfile(path := os.path.join(folder, name))]
    for path in found:
        os.remove(path)
    return bool(found)


def load_model(
    config: str | os.PathLike[str], weights: str | os.PathLike[str], *, device: str = "", opts: Sequence[str] = ()
) -> tuple[CfgNode, Any]:
    """A trained model in eval mode, and its config.

    Args:
        config: that of the run: OUTPUT_DIR/config.yaml, or the file that it was trained with.
        weights: a checkpoint.
        device: instead of MODEL.DEVICE; without a GPU the CPU.
        opts: `KEY VALUE` overrides.
    """
    cfg = get_cfg()
    cfg.merge_from_file(os.fspath(config))
    cfg.merge_from_list(list(opts))
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.TEXT.WEIGHTS = FROM_CHECKPOINT
    cfg.MODEL.WEIGHTS = os.fspath(weights)
    cfg.MODEL.DEVICE = str(usable_device(device or cfg.MODEL.DEVICE))
    model = TriTrainer.build_model(cfg)
    TriTrainer.load_for_test(cfg, model)
    cfg.freeze()
    return cfg, model.eval()

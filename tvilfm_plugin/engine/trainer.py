"""The trainer: fast-reid's loop, hooks, AMP and DDP around our data, optimiser, schedule, two stages and evaluation."""

import logging
import os
from collections import OrderedDict
from typing import Any

import torch
import torch.nn as nn
from fastreid.engine import hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.utils import comm
from yacs.config import CfgNode

import tvilfm_plugin.engine.optim  # noqa: F401  (registers)
from tvilfm_plugin.checkpoints.loading import CLASSIFIER, Loaded, load_weights, read_checkpoint
from tvilfm_plugin.checkpoints.released_mip import as_stage1
from tvilfm_plugin.config.check import check_config
from tvilfm_plugin.config.stages import stage1_config
from tvilfm_plugin.data.loaders import build_eval_loader, build_train_loader, is_ours, is_tri, reads_captions
from tvilfm_plugin.data.text_sources import draw_query_texts
from tvilfm_plugin.data.words import choose_tokenizer
from tvilfm_plugin.engine.epoch_rule import LABELS, BestEpoch, EpochLabel, check_epoch_rule
from tvilfm_plugin.engine.finished import finished_weights
from tvilfm_plugin.engine.hooks import EpochSeed, ModelEpoch, RollingCheckpoint, StoredViews, bare, stores_views
from tvilfm_plugin.engine.resuming import check_optimizer_state, resume_run
from tvilfm_plugin.engine.run import identity, refuse_another_run, write_run
from tvilfm_plugin.engine.stages import check_unseen, forget_older_run, train_stage1, trained_on
from tvilfm_plugin.engine.text_trust import calibration
from tvilfm_plugin.engine.tracking import tracking_writer
from tvilfm_plugin.evaluation.provenance import KEY, Provenance
from tvilfm_plugin.files.weights import read_weights_file
from tvilfm_plugin.host.agreement import take_from_main
from tvilfm_plugin.host.devices import usable_device
from tvilfm_plugin.host.memory import keep_freed_memory
from tvilfm_plugin.host.optimizer import contiguous_optimizer
from tvilfm_plugin.keys.host import HOST_SCHEDULES
from tvilfm_plugin.modeling.registration import reads_own_text, uses_text
from tvilfm_plugin.registries import EVALUATOR_REGISTRY, PARAM_GROUPS_REGISTRY, SCHEDULE_REGISTRY, choose

logger = logging.getLogger("fastreid." + __name__)


class TriTrainer(DefaultTrainer):
    """fast-reid's trainer with the Tri- data sets, both stages of TVI-LFM and modality ensemble retrieval.

    For an ordinary fast-reid config it is `DefaultTrainer`, i.e. the stock trainer on today's stack.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if is_ours(cfg):
            for warning in check_config(cfg):
                logger.warning(warning)
            check_epoch_rule(cfg)
            stores_views(cfg)
            if cfg.SOLVER.KEEP_MEMORY and usable_device(cfg.MODEL.DEVICE).type == "cpu":
                keep_freed_memory()
        super().__init__(cfg)
        if is_ours(cfg):
            self.checkpointer.checkpointables["data"] = self.data_loader
            data = self.data_loader.data
            self.provenance = Provenance((trained_on(data),))
            if cfg.MODEL.DUAL_STREAM.WEIGHTS:
                self.provenance.add(read_checkpoint(cfg.MODEL.DUAL_STREAM.WEIGHTS)[1])
            check_unseen(self.provenance, data)
            bare(self.model).provenance = self.provenance
            self.checkpointer.checkpointables[KEY] = self.provenance

    # --- what the host builds ----------------------------------------------------------------------------------------

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if not is_ours(cfg):
            return super().build_train_loader(cfg)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed() % 2**31
        return build_train_loader(cfg, uses_text(cfg), seed)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        if not is_ours(cfg):
            return super().build_optimizer(cfg, model)
        groups = choose(PARAM_GROUPS_REGISTRY, cfg.SOLVER.PARAM_GROUPS, "SOLVER.PARAM_GROUPS")
        return contiguous_optimizer(cfg, groups(cfg, model))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> Any:
        if not is_ours(cfg) or cfg.SOLVER.SCHED in HOST_SCHEDULES:
            return super().build_lr_scheduler(cfg, optimizer, iters_per_epoch)
        return choose(SCHEDULE_REGISTRY, cfg.SOLVER.SCHED, "SOLVER.SCHED")(cfg, optimizer)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
        if not is_tri(dataset_name):
            return super().build_evaluator(cfg, dataset_name, output_dir)
        infrared_query = cfg.DATASETS.DIRECTION == "infrared-to-visible"
        text = uses_text(cfg) and infrared_query
        loader = build_eval_loader(cfg, dataset_name, text and reads_captions(cfg, training=False))
        data = loader.data
        options = {"human": cfg.TEST.HUMAN_TEXTS, "style": cfg.TEST.ORACLE_STYLE, "filtered": reads_own_text(cfg)}
        texts = {}
        for setting in data.settings:
            sources = cfg.TEST.TEXT_SOURCES if text else ()
            texts[setting.name] = [
                draw_query_texts(source, data, setting, seed, **options)
                for source in sources
                for seed in (cfg.TEST.TEXT_SEEDS if source not in ("self", "none") else (0,))
            ]
        name = dataset_name + ("" if cfg.TEST.SPLIT == "test" else f"-{cfg.TEST.SPLIT}")
        name += "" if cfg.TEST.PROTOCOL == "standard" else f"-{cfg.TEST.PROTOCOL}"
        folder = os.path.join(output_dir or cfg.OUTPUT_DIR, "evaluation", name) if cfg.TEST.STORE else None
        evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, data, texts, choose_tokenizer(cfg.MODEL), folder)
        return loader, evaluator

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
        if not is_ours(cfg):
            return super().test(cfg, model)
        check_config(cfg, training=False)
        # Each process has BN statistics of its own share of the batches; rank 0 saves the ones that count.
        take_from_main(model)
        provenance = getattr(bare(model), KEY, None)
        if provenance is None:
            # The stock script loads MODEL.WEIGHTS itself.
            known = os.path.exists(cfg.MODEL.WEIGHTS)
            provenance = read_checkpoint(cfg.MODEL.WEIGHTS)[1] if known else Provenance()
        if provenance.features_only:
            raise ValueError(
                f"{cfg.MODEL.WEIGHTS} came without a protocol (config.json has none): nobody measured these weights where they "
                "were made, so numbers are refused; features and searches are not (Retriever.from_pretrained, tvilfm search). "
                "Evaluate the run with TEST.STORE True and export it again."
            )
        if not provenance.trained_on:
            logger.warning("Nothing says whom these weights were trained on: it cannot be checked that nobody is tested again.")
        results: OrderedDict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TESTS:
            loader, evaluator = cls.build_evaluator(cfg, name)
            check_unseen(provenance, loader.data)
            evaluator.epoch_rule = provenance.epoch_rule
            if cfg.TEST.TEXT_TRUST and evaluator.table:
                evaluator.text_trust = calibration(cfg, bare(model))
            results[name] = evaluator.run(model, loader)
        return next(iter(results.values())) if len(results) == 1 else results

    def build_hooks(self) -> list[hooks.HookBase]:
        ret = super().build_hooks()
        if not is_ours(self.cfg):
            return ret
        ret = [h for h in ret if not isinstance(h, hooks.PeriodicCheckpointer)]
        if comm.is_main_process():
            # Before the evaluation: a run that is stopped while it evaluates keeps the epoch.
            evaluation = next(i for i, hook in enumerate(ret) if isinstance(hook, hooks.EvalHook))
            ret.insert(evaluation, RollingCheckpoint(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        ret[:0] = [EpochSeed(), EpochLabel(), ModelEpoch(), *([StoredViews()] if stores_views(self.cfg) else [])]
        rule = self.cfg.SOLVER.EPOCH_RULE
        if rule == "last":
            return ret

        def best(hook: hooks.EvalHook) -> hooks.HookBase:
            select = hook._func if rule == "test" else self._test_on_validation
            return BestEpoch(hook._period, select, hook._func, self.cfg.OUTPUT_DIR, LABELS[rule])

        return [best(hook) if isinstance(hook, hooks.EvalHook) else hook for hook in ret]

    def build_writers(self) -> list[Any]:
        return [*super().build_writers(), *tracking_writer(self.cfg)]

    def _test_on_validation(self) -> OrderedDict[str, Any]:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.TEST.SPLIT = "val"
        results = self.test(cfg, self.model)
        return OrderedDict((f"validation/{key}", value) for key, value in results.items())

    # --- two stages --------------------------------------------------------------------------------------------------

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue this run, or start it: from MODEL.WEIGHTS, or from stage 1, which is trained first where it is missing."""
        goes_on = resume and self.checkpointer.has_checkpoint()
        if goes_on and is_ours(self.cfg):
            refuse_another_run(self.cfg, self._start_weights(), self.data_loader.data)
            self.start_epoch = resume_run(self.checkpointer, self.max_epoch, self.iters_per_epoch)
            return
        if goes_on:
            path = self.checkpointer.get_checkpoint_file()
            check_optimizer_state(self.optimizer, read_weights_file(path), path)
        if not is_ours(self.cfg):
            super().resume_or_load(goes_on)
            return
        forget_older_run(self.cfg.OUTPUT_DIR)
        weights = self.cfg.MODEL.WEIGHTS
        if not weights and self.cfg.TVILFM.STAGE1 and not self.cfg.TVILFM.FROM_SCRATCH:
            weights = train_stage1(type(self), self.cfg, resume)
        if comm.is_main_process():
            write_run(self.cfg.OUTPUT_DIR, identity(self.cfg, weights, self.data_loader.data), self.cfg)
        if weights:
            text = uses_text(self.cfg)
            may_miss, translate = (("text.", "stage1."), as_stage1) if text else ((), None)
            self._go_on_from(load_weights(bare(self.model), weights, may_miss, (CLASSIFIER,), translate))

    def _start_weights(self) -> str:
        """What this run started from, where it is still there: MODEL.WEIGHTS, or its stage 1."""
        cfg = self.cfg
        if cfg.MODEL.WEIGHTS or not cfg.TVILFM.STAGE1 or cfg.TVILFM.FROM_SCRATCH:
            return str(cfg.MODEL.WEIGHTS)
        return finished_weights(stage1_config(cfg)) if os.path.isfile(cfg.TVILFM.STAGE1) else ""

    def _go_on_from(self, loaded: Loaded) -> None:
        self.provenance.add(loaded.provenance)
        check_unseen(self.provenance, self.data_loader.data)
        if any(name.startswith(CLASSIFIER) for name in loaded.kept):
            people = len(self.data_loader.data.train_ids)
            logger.warning(f"The classifier starts anew: the weights come from other people than the {people} of this training")
        if any(name.startswith("stage1.") for name in loaded.kept):
            bare(self.model).keep_stage1()

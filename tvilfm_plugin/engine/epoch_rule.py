"""Which epoch's weights count: the last one's, or the best on validation identities, or (preset released) on the test set."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.checkpoints.loading import load_weights
from tvilfm_plugin.engine.finished import BEST, SCORES, read_scores
from tvilfm_plugin.engine.hooks import bare
from tvilfm_plugin.evaluation.provenance import KEY, Provenance
from tvilfm_plugin.files.writing import atomic_file, write_text

LABELS = {
    "last": "last epoch",
    "validation": "best Rank-1 on the validation identities",
    "test": "best Rank-1 on the test set",
}
"""SOLVER.EPOCH_RULE -> what the protocol card says."""


def check_epoch_rule(cfg: CfgNode) -> None:
    """Raise where the rule is unknown, cannot be followed, or would choose on the test set without saying so."""
    rule = cfg.SOLVER.EPOCH_RULE
    if rule not in LABELS:
        raise ValueError(f"SOLVER.EPOCH_RULE is {rule!r}; choices are {', '.join(LABELS)}.")
    if rule == "test" and cfg.TVILFM.PRESET != "released":
        raise ValueError(
            "SOLVER.EPOCH_RULE test chooses the epoch on the test set. Only preset released does that, to be compared with "
            "the authors' numbers: use a *_released.yml config, or choose last or validation."
        )
    if rule != "last" and (cfg.TEST.EVAL_PERIOD < 1 or not cfg.DATASETS.TESTS):
        raise ValueError(f"SOLVER.EPOCH_RULE {rule} compares epochs: set TEST.EVAL_PERIOD to 1 or more and DATASETS.TESTS.")


def rank_1(results: Mapping[str, Any]) -> float:
    """Rank-1 of the first data set and setting: the ensemble's, or the images' alone without text."""
    first = next(iter(results.values()))
    results = first if isinstance(first, Mapping) else results
    found = [key for key in results if key.endswith("/R-1")]
    best = [key for key in found if key.endswith("/ensemble/R-1")] or found
    return float(results[best[0]])


class EpochLabel(hooks.HookBase):
    """Keeps the record of the weights true: until the last epoch they are those of some epoch."""

    def before_epoch(self) -> None:
        epoch, last = self.trainer.epoch + 1, self.trainer.max_epoch
        self.trainer.provenance.epoch_rule = LABELS["last"] if epoch >= last else f"epoch {epoch} of {last}"


class BestEpoch(hooks.EvalHook):
    """Evaluates every `period` epochs, keeps the weights with the best Rank-1, and ends the training with them.

    Every Rank-1 is kept in epochs.json: it shows the choice, and what is missing after an interruption.
    """

    def __init__(
        self,
        period: int,
        select: Callable[[], Mapping[str, Any]],
        report: Callable[[], Mapping[str, Any]],
        folder: str,
        label: str,
    ) -> None:
        """`select` evaluates on what the epoch is chosen by, `report`, at the end, on the test set; `label` is for the card."""
        super().__init__(period, self._select)
        self.select, self.report = select, report
        self.folder = folder
        self.label = label
        self.scores: dict[str, float] = {}

    def before_train(self) -> None:
        self.scores = read_scores(self.folder) if self.trainer.start_epoch else {}
        reached = self.trainer.epoch
        if reached >= 0 and (reached + 1) % self._period == 0 and str(reached) not in self.scores:
            self._do_eval()  # the run was stopped after the checkpoint and before the evaluation

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            if str(self.trainer.epoch) not in self.scores:
                self._do_eval()
            load_weights(bare(self.trainer.model), os.path.join(self.folder, BEST))
            self.trainer.provenance.epoch_rule = self.label
            self._func = self.report
            self._do_eval()
        del self._func, self.select, self.report

    def _select(self) -> Mapping[str, Any]:
        results = self.select()
        score = comm.all_gather(rank_1(results) if comm.is_main_process() else None)[0]
        epoch = self.trainer.epoch
        if comm.is_main_process():
            if score > max(self.scores.values(), default=-1.0):
                self._save(epoch)
            write_text(os.path.join(self.folder, SCORES), json.dumps({**self.scores, str(epoch): score}, indent=1))
        self.scores[str(epoch)] = score
        return results

    def _save(self, epoch: int) -> None:
        record = Provenance(self.trainer.provenance.trained_on, self.label)
        with atomic_file(os.path.join(self.folder, BEST)) as file:
            torch.save({"model": bare(self.trainer.model).state_dict(), "epoch": epoch, KEY: record.state_dict()}, file)

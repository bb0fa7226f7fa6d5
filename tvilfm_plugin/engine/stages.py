"""The two stages of TVI-LFM: stage 2 begins with stage 1's weights, which are trained where they are missing."""

import logging
import os
from typing import Any

from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.config import stage1_config
from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.datasets.listing import population
from tvilfm_plugin.engine.finished import BEST, SCORES, finished_weights
from tvilfm_plugin.engine.run import RUN, what_differs
from tvilfm_plugin.evaluation.provenance import Provenance, TrainingSet
from tvilfm_plugin.host.setup import seed_everything

logger = logging.getLogger("fastreid." + __name__)


def train_stage1(trainer: Any, run: CfgNode, resume: bool) -> str:
    """Train stage 1 of a stage-2 config in OUTPUT_DIR/stage1, resume it, or see that it is finished; gives its weights."""
    cfg = stage1_config(run)
    final = finished_weights(cfg)
    changes = what_differs(cfg)
    if final and changes is None:
        logger.warning(f"{cfg.OUTPUT_DIR} has no {RUN}: nothing says how its stage 1 was made")
    if final and not changes:
        logger.info(f"Stage 1 is finished: {final}")
        return final
    if changes:
        logger.info(f"Stage 1 in {cfg.OUTPUT_DIR} was made with other values of {', '.join(changes)}: it is trained anew")
        resume = False
    comm.synchronize()
    if comm.is_main_process() and changes:
        # What is left of the older run must never be taken for this one's.
        forget(cfg.OUTPUT_DIR, "model_final.pth", "last_checkpoint", BEST, SCORES, RUN)
    comm.synchronize()
    if cfg.SEED >= 0:
        seed_everything(cfg.SEED + comm.get_rank())
    stage1 = trainer(cfg)
    stage1.resume_or_load(resume)
    stage1.train()
    comm.synchronize()
    logger.info("Stage 2 follows")
    return finished_weights(cfg)


def trained_on(data: TriDataset) -> TrainingSet:
    """The persons whom a training on a data set sees."""
    return TrainingSet(population(data.key, data.dataset_dir), data.trial, tuple(sorted(data.train_ids)))


def check_unseen(provenance: Provenance, data: TriDataset) -> None:
    """Raise if weights would be tested on persons that they were trained on."""
    tested = {item.pid for item in (*data.query, *data.gallery)}
    provenance.check_unseen(population(data.key, data.dataset_dir), data.trial, tested)


def forget_older_run(folder: str) -> None:
    """A fresh run that is killed before its first checkpoint must not be resumed from an older run in the same folder."""
    comm.synchronize()
    if comm.is_main_process() and forget(folder, "last_checkpoint", BEST, SCORES, RUN):
        logger.warning(f"{folder} holds an older run; this one starts anew (--resume would have continued it)")
    comm.synchronize()


def forget(folder: str, *names: str) -> bool:
    """Remove files of an older run; returns whether there were any."""
    found = [path for name in names if os.path.isfile(path := os.path.join(folder, name))]
    for path in found:
        os.remove(path)
    return any(os.path.basename(path) != RUN for path in found)

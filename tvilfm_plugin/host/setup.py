"""The set-up of a run: folder, log, and the seed of every generator."""

import logging
import os
import random
from typing import Any

import numpy as np
import torch
from fastreid.engine.defaults import default_setup as host_default_setup
from fastreid.utils import comm
from yacs.config import CfgNode

logger = logging.getLogger("fastreid." + __name__)


def seed_everything(seed: int | None) -> None:
    """Seed python, numpy and torch; None seeds at random, as fast-reid does."""
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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

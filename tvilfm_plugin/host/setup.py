"""The set-up of a run: folder, log, and the seed of every generator."""

import contextlib
import logging
import os
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from tvilfm_plugin.host import importing
from tvilfm_plugin.host.replacing import around

logger = logging.getLogger("fastreid." + __name__)


def seed_everything(seed: int | None) -> None:
    """Seed python, numpy and torch; None seeds at random, as fast-reid does."""
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def precision_of_gpu() -> str:
    """Whether float32 is float32 there: NVIDIA's TF32 keeps 10 of 23 bits, by default in convolutions only."""
    named = {True: "TF32", False: "float32"}
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return f"float32 on this GPU: convolutions in {named[convolutions]}, matrix products in {named[products]}"


def set_up_when_ready(defaults: types.ModuleType) -> None:
    """`default_setup` (folder, log, config dump) writes nothing where a run of ours cannot start, and seeds from `cfg.SEED`
    where the config has it; the original writes first, and seeds at random.

    Whether a script trains is known where it has fast-reid's command line (`args.eval_only`). Each rank gets its own seed, and
    so its own loader workers; DDP copies rank 0's weights and the samplers agree on a seed.
    """

    @around(defaults, "default_setup")
    def seeding(set_up: Callable[[CfgNode, Any], None], cfg: CfgNode, args: Any) -> None:
        from fastreid.utils import comm

        training = not args.eval_only if hasattr(args, "eval_only") else None
        with contextlib.nullcontext() if training is None else importing.provided["ready"]()(cfg, training):
            set_up(cfg, args)
        seed = cfg.get("SEED", -1)
        if isinstance(seed, int) and seed >= 0:
            seed_everything(seed + comm.get_rank())
            # The fastest kernels may add in another order each time.
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
            logger.info(f"SEED is {seed}: this replaces the generated seed")
        if torch.cuda.is_available():
            logger.info(precision_of_gpu())


def default_setup(cfg: CfgNode, args: Any) -> None:
    """fast-reid's set-up of a run, with the seed of its config."""
    from fastreid.engine import defaults

    defaults.default_setup(cfg, args)

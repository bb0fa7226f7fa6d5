"""MIP's four learning-rate classes and its schedule, as pure functions, and what the trainer builds of them."""

import functools
import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from yacs.config import CfgNode

GENERATOR = "instance_prompts.block."
LIBRARIES = (".modality_prompts.library", ".instance_prompts.bank")


def lr_class(name: str) -> str:
    """"base", "bias", "prompt" or "generator", by the name of a parameter of `MIP`."""
    if GENERATOR in f".{name}":
        return "generator"
    if f".{name}".endswith(LIBRARIES):
        return "prompt"
    return "bias" if name.endswith("bias") else "base"


def mip_param_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """One entry per trainable tensor, for `host.contiguous_optimizer`: its class's learning rate, one weight decay for all."""
    solver = cfg.SOLVER
    factors = {
        "base": 1.0,
        "bias": solver.BIAS_LR_FACTOR,
        "prompt": solver.PROMPT_LR_FACTOR,
        "generator": solver.GENERATOR_LR_FACTOR,
    }
    return [
        {
            "freeze_status": "normal",
            "params": [parameter],
            "lr": solver.BASE_LR * factors[lr_class(name)],
            "weight_decay": solver.WEIGHT_DECAY,
            "name": name,
        }
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def mip_lr(
    epoch: int,
    peak: float,
    base_lr: float,
    warmup: int = 5,
    start: float = 0.01,
    period: int = 30,
    gamma: float = 0.1,
    floor: float = 1e-5,
) -> float:
    """Learning rate of a group: a linear warm-up, then a cosine that restarts lower.

    The warm-up starts at the same absolute rate for every group, and the cosine's phase counts from epoch 0: it is not
    shifted by the warm-up.

    Args:
        epoch: counted from 1 (0: before training).
        peak: the group's full learning rate.
        base_lr: that of the base group, of which `start` and `floor` are fractions.
        warmup: epochs.
        start: of the warm-up.
        period: epochs between two restarts.
        gamma: factor on the cosine at each restart.
        floor: of the cosine.
    """
    if epoch < warmup:
        return start * base_lr + epoch * (peak - start * base_lr) / warmup
    cycle, phase = divmod(epoch, period)
    scale, low = gamma**cycle, floor * base_lr
    return scale * low + 0.5 * scale * (peak - low) * (1 + math.cos(math.pi * phase / period))


def mip_lr_factor(epoch: int, *, peak: float, **schedule: Any) -> float:
    """Factor on a group's full rate in the trainer's epoch, which counts from 0; `schedule` as `mip_lr`."""
    return mip_lr(epoch + 1, peak, **schedule) / peak


def build_mip_scheduler(cfg: CfgNode, optimizer: Optimizer) -> dict[str, LRScheduler]:
    """What `build_lr_scheduler` returns: one factor per group, stepped by the host's hook after each epoch."""
    solver = cfg.SOLVER
    if solver.WARMUP_ITERS or solver.DELAY_EPOCHS:
        raise ValueError("MIP's schedule counts whole epochs: set SOLVER.WARMUP_ITERS 0 and SOLVER.DELAY_EPOCHS 0.")
    factors: list[Callable[[int], float]] = [
        functools.partial(
            mip_lr_factor,
            peak=group["lr"],
            base_lr=solver.BASE_LR,
            warmup=max(solver.WARMUP_EPOCHS, 0),
            start=solver.WARMUP_FACTOR,
            period=solver.COSINE_PERIOD,
            gamma=solver.GAMMA,
            floor=solver.ETA_MIN_LR / solver.BASE_LR,
        )
        for group in optimizer.param_groups
    ]
    return {"lr_sched": LambdaLR(optimizer, factors)}

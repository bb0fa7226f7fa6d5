"""Learning rates and weight decays: of every parameter, and in every epoch."""

import functools
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from yacs.config import CfgNode

from tvilfm_plugin.modeling.mip.optim import build_mip_scheduler, mip_param_groups
from tvilfm_plugin.registries import PARAM_GROUPS_REGISTRY, SCHEDULE_REGISTRY, register

register(PARAM_GROUPS_REGISTRY, "MIP")(mip_param_groups)
register(SCHEDULE_REGISTRY, "MIPCosine")(build_mip_scheduler)


def lr_factor(epoch: int, warmup: int, start: float, milestones: tuple[int, ...], gamma: float) -> float:
    """Factor on every learning rate in an epoch: linear warm-up, then a drop by `gamma` at each milestone.

    With warmup 10, start .01, milestones (40, 60, 100) and gamma .1 this is the schedule of METHOD: .01 (1 - e/10) + e/10,
    then 1, .1, .01, .001.
    """
    if epoch < warmup:
        return start * (1 - epoch / warmup) + epoch / warmup
    return gamma ** sum(epoch >= milestone for milestone in milestones)


@register(SCHEDULE_REGISTRY, "WarmupMultiStep")
def build_warmup_multi_step(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> dict[str, LRScheduler]:
    """`lr_factor` on every group, stepped by the host's hook after each epoch."""
    solver = cfg.SOLVER
    if solver.WARMUP_ITERS or solver.DELAY_EPOCHS:
        raise ValueError(
            "SOLVER.WARMUP_EPOCHS counts whole epochs; set SOLVER.WARMUP_ITERS 0 and SOLVER.DELAY_EPOCHS 0 beside it, "
            "or SOLVER.SCHED MultiStepLR and WARMUP_EPOCHS -1 for fast-reid's own schedule."
        )
    factor = functools.partial(
        lr_factor,
        warmup=max(solver.WARMUP_EPOCHS, 0),
        start=solver.WARMUP_FACTOR,
        milestones=tuple(solver.STEPS),
        gamma=solver.GAMMA,
    )
    return {"lr_sched": LambdaLR(optimizer, factor)}


@register(PARAM_GROUPS_REGISTRY, "TVILFM")
def param_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """One entry per trainable tensor: its learning rate and weight decay.

    `heads.*` (neck and classifier) run at HEADS_LR_FACTOR times the base rate; `text.*` at TEXT_LR and TEXT_WEIGHT_DECAY,
    the biases inside its transformer blocks at TEXT_BIAS_LR_FACTOR times that with TEXT_BIAS_WEIGHT_DECAY, and what lies
    outside the blocks (embeddings, final norm, projection) at TEXT_EMBEDDING_LR. Everything else is visual. A model's `rates`
    say otherwise by name.
    """
    solver = cfg.SOLVER
    text_lr = solver.TEXT_LR if solver.TEXT_LR >= 0 else solver.BASE_LR
    text_decay = solver.TEXT_WEIGHT_DECAY if solver.TEXT_WEIGHT_DECAY >= 0 else solver.WEIGHT_DECAY
    bias_decay = solver.TEXT_BIAS_WEIGHT_DECAY if solver.TEXT_BIAS_WEIGHT_DECAY >= 0 else text_decay
    embedding_lr = solver.TEXT_EMBEDDING_LR if solver.TEXT_EMBEDDING_LR >= 0 else text_lr
    groups, rates = [], getattr(model, "rates", {})
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr, decay = solver.BASE_LR, solver.WEIGHT_DECAY
        part = next((rate for start, rate in rates.items() if name.startswith(start)), name.split(".")[0])
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

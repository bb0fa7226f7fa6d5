"""Learning rates and weight decays: of every parameter, and in every epoch."""

from typing import Any

from torch import nn
from yacs.config import CfgNode


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

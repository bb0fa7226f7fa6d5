"""fast-reid's optimizer over flat buffers, with gradients that arrive."""

from typing import Any

import torch
import torch.nn as nn
from fastreid.solver import build as host_solver
from fastreid.utils.params import ContiguousParams
from yacs.config import CfgNode

# Updates that torch computes in one pass over a buffer; the plain ones make a pass per operation.
FUSED = ("Adam", "AdamW", "SGD")


def keep_gradient_buffers(optimizer: torch.optim.Optimizer) -> None:
    """Let `zero_grad()` write zeros, in place, as it did before torch 2.0.

    fast-reid's flat parameter buffers hold their gradient in a flat buffer too, of which the parameters' gradients are
    views. Since torch 2.0 `zero_grad()` drops the flat buffer's gradient instead: the optimizer then skips it for
    ever and nothing is trained, without a warning.
    """
    zero_grad = optimizer.zero_grad

    def zero_grad_in_place(set_to_none: bool = False) -> None:
        zero_grad(set_to_none=False)

    optimizer.zero_grad = zero_grad_in_place  # type: ignore[method-assign]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> tuple[torch.optim.Optimizer, ContiguousParams]:
    """fast-reid's optimizer, with its merged parameter groups and its clipping, and gradients that arrive."""
    optimizer, parameters = host_solver.build_optimizer(cfg, model)
    keep_gradient_buffers(optimizer)
    return optimizer, parameters


def contiguous_optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> tuple[torch.optim.Optimizer, ContiguousParams]:
    """The same optimizer over parameter groups of one's own.

    Args:
        cfg: its `SOLVER` names the optimizer, the clipping and the freezing.
        groups: one dict per trainable tensor: `params` (a list of one), `lr`, `weight_decay`, `freeze_status`
            ("normal" or "freeze"). Those with equal values are merged into one flat buffer.
    """
    if not groups:
        raise ValueError("There is nothing to train: no parameter of the model requires a gradient.")
    parameters = ContiguousParams(groups)
    kind = getattr(torch.optim, cfg.SOLVER.OPT)
    kind = host_solver.maybe_add_freeze_layer(cfg, host_solver.maybe_add_gradient_clipping(cfg, kind))
    options = {"momentum": cfg.SOLVER.MOMENTUM, "nesterov": cfg.SOLVER.NESTEROV} if cfg.SOLVER.OPT == "SGD" else {}
    # A fused step unscales the gradients itself, so clipping, which comes before, would see them scaled.
    if cfg.SOLVER.get("FUSED", False) and cfg.SOLVER.OPT in FUSED and not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        options["fused"] = True
    optimizer = kind(parameters.contiguous(), **options)
    keep_gradient_buffers(optimizer)
    return optimizer, parameters

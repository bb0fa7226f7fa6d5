"""fast-reid's optimizer over flat buffers, with gradients that arrive."""

import functools
import logging
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn as nn
from yacs.config import CfgNode

from tvilfm_plugin.host.replacing import around, lend

logger = logging.getLogger("fastreid." + __name__)

# Updates that torch computes in one pass over a buffer; the plain ones make a pass per operation.
FUSED = ("Adam", "AdamW", "SGD")


def keep_gradient_buffers(params: types.ModuleType) -> None:
    """Let `zero_grad()` write zeros, in place, into the gradients of flat buffers, as it did before torch 2.0.

    fast-reid's flat parameter buffers (`ContiguousParams`) hold their gradient in a flat buffer too, of which the
    parameters' gradients are views. Since torch 2.0 `zero_grad()` drops the flat buffer's gradient instead: the optimizer
    then skips it for ever and nothing is trained, without a warning. Gradients of any other tensor go as torch says.
    """

    @around(params.ContiguousParams, "make_params_contiguous")
    def marked(make: Callable[[Any], None], self: Any) -> None:
        make(self)
        for tensor in (*self._param_buffer, *(group["params"][0] for group in self._parameters)):
            tensor.keeps_gradient = True

    @around(torch.optim.Optimizer, "zero_grad")
    @around(nn.Module, "zero_grad")
    def in_place(zero: Callable[[Any, bool], None], self: Any, set_to_none: bool = True) -> None:
        zero(self, set_to_none and not any(hasattr(tensor, "keeps_gradient") for tensor in _tensors(self)))


def _tensors(owner: torch.optim.Optimizer | nn.Module) -> Iterator[torch.Tensor]:
    if isinstance(owner, nn.Module):
        return owner.parameters()
    return (tensor for group in owner.param_groups for tensor in group["params"])


def _fused(cfg: CfgNode) -> bool:
    """Whether `SOLVER.FUSED` asks for one pass over each buffer, and nothing stands against it."""
    if not cfg.SOLVER.get("FUSED", False):
        return False
    if cfg.SOLVER.OPT not in FUSED:
        logger.info(f"SOLVER.FUSED has no effect on SOLVER.OPT {cfg.SOLVER.OPT}: torch fuses {', '.join(FUSED)}")
        return False
    # A fused step unscales the gradients itself, so clipping, which comes before, would see them scaled.
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        logger.info("SOLVER.FUSED has no effect with SOLVER.CLIP_GRADIENTS.ENABLED: gradients are clipped before the step")
        return False
    return True


def fuse_ordinary_optimizers(build: types.ModuleType) -> None:
    """`build_optimizer` heeds `SOLVER.FUSED`, where the config has that key."""

    @around(build, "build_optimizer")
    def heeding(build_optimizer: Callable[..., Any], cfg: CfgNode, model: nn.Module, contiguous: bool = True) -> Any:
        if not _fused(cfg):
            return build_optimizer(cfg, model, contiguous)
        last = build.maybe_add_freeze_layer  # every kind of optimizer passes through it
        with lend(build, maybe_add_freeze_layer=lambda cfg, kind: functools.partial(last(cfg, kind), fused=True)):
            return build_optimizer(cfg, model, contiguous)


def contiguous_optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> tuple[torch.optim.Optimizer, Any]:
    """fast-reid's optimizer, with its merged parameter groups and its clipping, over parameter groups of one's own.

    Args:
        cfg: its `SOLVER` names the optimizer, the clipping and the freezing.
        groups: one dict per trainable tensor: `params` (a list of one), `lr`, `weight_decay`, `freeze_status`
            ("normal" or "freeze"). Those with equal values are merged into one flat buffer.

    Returns:
        the optimizer and the flat buffers (`ContiguousParams`).
    """
    from fastreid.solver import build
    from fastreid.utils.params import ContiguousParams

    if not groups:
        raise ValueError("There is nothing to train: no parameter of the model requires a gradient.")
    parameters = ContiguousParams(groups)
    kind = getattr(torch.optim, cfg.SOLVER.OPT)
    kind = build.maybe_add_freeze_layer(cfg, build.maybe_add_gradient_clipping(cfg, kind))
    options = {"momentum": cfg.SOLVER.MOMENTUM, "nesterov": cfg.SOLVER.NESTEROV} if cfg.SOLVER.OPT == "SGD" else {}
    if _fused(cfg):
        options["fused"] = True
    return kind(parameters.contiguous(), **options), parameters

"""Fusions, rows of the joint loss and losses, under the names that a config gives them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tvilfm_plugin.evaluation.fusion import FUSIONS
from tvilfm_plugin.modeling import losses, rows
from tvilfm_plugin.modeling.distributed import gather_rows
from tvilfm_plugin.modeling.mip import losses as mip
from tvilfm_plugin.registries import FUSION_REGISTRY, LOSS_REGISTRY, ROWS_REGISTRY, choose, register

LossFunction = Callable[..., Tensor]

for _name, _kind in FUSIONS.items():
    register(FUSION_REGISTRY, _name)(_kind)
register(ROWS_REGISTRY, "MJL")(rows.modality_joint)
register(ROWS_REGISTRY, "baseline")(rows.baseline)


@LOSS_REGISTRY.register()
def identity(features: Tensor, logits: Tensor | list[Tensor], pids: Tensor) -> Tensor:
    """Cross entropy over the training identities; of MIP's branches (a list of logits), their mean."""
    if isinstance(logits, list):
        return mip.branch_mean([losses.identity_loss(rows, pids) for rows in logits])
    return losses.identity_loss(logits, pids)


@LOSS_REGISTRY.register()
def weighted_triplet(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """Weighted regularised triplet loss on raw features."""
    return losses.weighted_triplet(features, pids)


# MIP's, of (N, branches, D) features. Two of them ask for more by the name of a parameter.


@LOSS_REGISTRY.register()
def triplet(features: Tensor, logits: list[Tensor], pids: Tensor) -> Tensor:
    """Batch-hard soft-margin triplet loss of every branch."""
    return mip.branch_mean([mip.soft_margin_triplet(rows, pids) for rows in features.unbind(1)])


@LOSS_REGISTRY.register()
def msel(features: Tensor, logits: list[Tensor], pids: Tensor, labels: Tensor) -> Tensor:
    """Modality-shared enhancement of every branch; `labels` (N,) is the modality."""
    return mip.branch_mean([mip.modality_shared_enhancement(rows, pids, labels) for rows in features.unbind(1)])


@LOSS_REGISTRY.register()
def iael(features: Tensor, logits: list[Tensor], pids: Tensor, prompt_logits: list[Tensor]) -> Tensor:
    """Identity loss on instance prompts; `prompt_logits` has (N, K) per prompted layer."""
    return mip.prompt_identity_loss(prompt_logits, pids)


class WeightedLoss(NamedTuple):
    """A loss and its factor in the sum."""

    function: LossFunction
    weight: float


def choose_losses(names: Sequence[str], weights: Sequence[float] = ()) -> dict[str, WeightedLoss]:
    """Losses by name, each with its weight; no weights = 1 each."""
    if weights and len(weights) != len(names):
        raise ValueError(f"MODEL.LOSSES.WEIGHTS has {len(weights)} entries for the {len(names)} losses {tuple(names)}.")
    functions = [choose(LOSS_REGISTRY, name, "MODEL.LOSSES.NAME") for name in names]
    return {n: WeightedLoss(f, w) for n, f, w in zip(names, functions, weights or [1.0] * len(names), strict=True)}


def weighted_losses(
    losses: Mapping[str, WeightedLoss], features: Any, logits: Any, pids: Tensor, more: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The dict of scalars that fast-reid's trainers sum, `loss_<name>`; every loss gets of `more` what its parameters name."""

    def asked(function: LossFunction) -> dict[str, Any]:
        return {name: more[name] for name in inspect.signature(function).parameters if name in more}

    return {
        f"loss_{name}": one.weight * one.function(features, logits, pids, **asked(one.function)) for name, one in losses.items()
    }


def evaluate_losses(
    losses: Mapping[str, WeightedLoss], features: Tensor, logits: Tensor, pids: Tensor, gather: bool, copies: int = 1
) -> dict[str, Tensor]:
    """`weighted_losses` of blocks of rows.

    Args:
        features: (N, D) raw features.
        logits: (N, K).
        pids: (N,).
        copies: blocks that the rows come in; row b of every block is the same person.
    """
    if gather:
        features, logits, pids = (gathered_blocks(rows, copies) for rows in (features, logits, pids))
    return weighted_losses(losses, features, logits, pids, {"copies": copies})


def gathered_blocks(rows: Tensor, blocks: int) -> Tensor:
    """(blocks * B, ...) of all processes; the blocks stay together."""
    return torch.cat([gather_rows(block) for block in rows.chunk(blocks)])

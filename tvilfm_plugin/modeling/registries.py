"""What can be chosen by name: fusions and losses. (Backbones, heads and models are in fast-reid's registries.)"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastreid.utils.registry import Registry
from torch import Tensor

from tvilfm_plugin.modeling import fusion, losses
from tvilfm_plugin.modeling.distributed import gather_rows

FUSION_REGISTRY = Registry("FUSION")
FUSION_REGISTRY.__doc__ = """Subclasses of `fusion.Fusion`, called as `cls(dim=D)`; named by TVILFM.FUSION."""

LOSS_REGISTRY = Registry("LOSS")
LOSS_REGISTRY.__doc__ = """Functions (raw features (N, D), logits (N, K), pids (N,)) -> (); see MODEL.LOSSES.NAME."""

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]

FUSION_REGISTRY.register(fusion.Add)
FUSION_REGISTRY.register(fusion.FilteredAdd)


@LOSS_REGISTRY.register()
def identity(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """Cross entropy over the training identities."""
    return losses.identity_loss(logits, pids)


@LOSS_REGISTRY.register()
def weighted_triplet(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """Weighted regularised triplet loss on raw features."""
    return losses.weighted_triplet(features, pids)


def choose(registry: Registry, name: str, key: str) -> Any:
    """The object registered as `name`; a wrong name lists the choices and the config key to change."""
    if name not in registry._obj_map:
        raise KeyError(f"{key} is {name!r}, but there are only {', '.join(sorted(registry._obj_map))}.")
    return registry.get(name)


class WeightedLoss(NamedTuple):
    """A loss and its factor in the sum."""

    function: LossFunction
    weight: float


def choose_losses(names: Sequence[str], weights: Sequence[float] = ()) -> dict[str, WeightedLoss]:
    """Losses by name.

    Args:
        names: of `LOSS_REGISTRY`.
        weights: one per name; empty = 1 each.
    """
    if weights and len(weights) != len(names):
        raise ValueError(f"MODEL.LOSSES.WEIGHTS has {len(weights)} entries for the {len(names)} losses {tuple(names)}.")
    functions = [choose(LOSS_REGISTRY, name, "MODEL.LOSSES.NAME") for name in names]
    return {n: WeightedLoss(f, w) for n, f, w in zip(names, functions, weights or [1.0] * len(names), strict=True)}


def evaluate_losses(
    losses: Mapping[str, WeightedLoss], features: Tensor, logits: Tensor, pids: Tensor, gather: bool
) -> dict[str, Tensor]:
    """The dict of scalars that fast-reid's trainers sum, `loss_<name>`.

    Args:
        features: (N, D) raw features.
        logits: (N, K).
        pids: (N,).
        gather: compute the losses over the rows of all processes.
    """
    if gather:
        features, logits, pids = gather_rows(features), gather_rows(logits), gather_rows(pids)
    return {f"loss_{n}": loss.function(features, logits, pids) * loss.weight for n, loss in losses.items()}

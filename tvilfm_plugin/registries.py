"""Everything of ours that a config chooses by name. Backbones, heads, models and data sets are in fast-reid's registries."""

from collections.abc import Callable
from typing import Any

from fastreid.utils.registry import Registry


def _registry(name: str, contract: str) -> Registry:
    registry = Registry(name)
    registry.__doc__ = contract
    return registry


FUSION_REGISTRY = _registry("FUSION", "Subclasses of `fusion.Fusion`, called as `cls(dim=D)`; named by TVILFM.FUSION.")
LOSS_REGISTRY = _registry(
    "LOSS", "Functions (raw features (N, D), logits (N, K), pids (N,)) -> (); named by MODEL.LOSSES.NAME."
)
ROWS_REGISTRY = _registry(
    "ROWS", "Functions (rgb (2B, D), ir, fusion, text (B, D)) -> (k * B, D) rows of the joint loss; named by TVILFM.ROWS."
)
SAMPLER_REGISTRY = _registry("SAMPLER", "Pair samplers, called as `obj(cfg, data, seed)`; named by DATALOADER.SAMPLER_TRAIN.")
AUGMENTATION_REGISTRY = _registry(
    "AUGMENTATION", "Training sets, called as `obj(cfg, data, text, batches_per_epoch)`; named by INPUT.AUGMENTATION."
)
PARAM_GROUPS_REGISTRY = _registry(
    "PARAM_GROUPS", "Functions (cfg, model) -> one optimizer group per tensor; named by SOLVER.PARAM_GROUPS."
)
SCHEDULE_REGISTRY = _registry(
    "SCHEDULE", "Functions (cfg, optimizer) -> {name: scheduler}, stepped after each epoch; named by SOLVER.SCHED."
)
EVALUATOR_REGISTRY = _registry(
    "EVALUATOR", "Evaluators of Tri- data sets, called as `obj(cfg, data, texts, tokenize, folder)`; named by TEST.EVALUATOR."
)


def register(registry: Registry, name: str) -> Callable[[Any], Any]:
    """Decorator: put an object into a registry under a name of its own."""

    def put(obj: Any) -> Any:
        registry._do_register(name, obj)
        return obj

    return put


def choose(registry: Registry, name: str, key: str) -> Any:
    """The object registered as `name`; a wrong name lists the choices and the config key to change."""
    if name not in registry._obj_map:
        raise KeyError(f"{key} is {name!r}, but there are only {', '.join(registry._obj_map)}.")
    return registry.get(name)

"""Loading weights into a model, with a word about every key that does not fit."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvilfm_plugin.evaluation.provenance import KEY, Provenance

logger = logging.getLogger("fastreid." + __name__)

Translation = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Loaded(NamedTuple):
    """What `load_weights` did.

    Attributes:
        kept: names that keep their initial values.
        provenance: the file's record of its weights; an empty one if it has none.
    """

    kept: list[str]
    provenance: Provenance


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file: fast-reid's `{"model": ...}` or a bare state dict, without the prefix of DDP."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], Provenance]:
    """`read_state_dict`, and what the file says of its weights."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {str(path)!r}; MODEL.WEIGHTS (or last_checkpoint) must name a local .pth file."
        )
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{str(path)!r} holds no state dict: expected {{'model': {{name: tensor}}}} or {{name: tensor}}.")
    provenance = Provenance()
    if isinstance(content.get(KEY), dict):
        provenance.load_state_dict(content[KEY])
    return {name.removeprefix("module."): value for name, value in state.items()}, provenance


def load_weights(
    model: nn.Module,
    path: str | Path,
    may_miss: Sequence[str] = (),
    may_differ: Sequence[str] = (),
    translate: Translation | None = None,
) -> Loaded:
    """Load a checkpoint; raise with the list of keys if anything but the named parts does not fit.

    Args:
        may_miss: prefixes of parts that the file may be wholly without; they keep their initial values.
        may_differ: prefixes of keys that the file may lack or hold in another shape; they keep their initial values.
        translate: turns the file's tensors into the model's, where another kind of model may have been trained.
    """
    state, provenance = read_checkpoint(path)
    state = translate(state) if translate else state
    own = model.state_dict()
    idle = tuple(part for part in provenance.optional if not any(name.startswith(part) for name in own))
    if any(name.startswith(idle) for name in state):
        logger.info(f"{path}: what the file has below {', '.join(idle)} is not used by a {type(model).__name__}")
        state = {name: value for name, value in state.items() if not name.startswith(idle)}
    misshapen = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    absent = tuple(part for part in may_miss if not any(name.startswith(part) for name in state))
    excused = [name for name in missing if name.startswith((*absent, *may_differ))]
    excused += [name for name in misshapen if name.startswith(tuple(may_differ))]
    problems = [f"missing {n}" for n in missing if n not in excused]
    problems += [
        f"shape {tuple(state[n].shape)} instead of {tuple(own[n].shape)} {n}" for n in misshapen if n not in excused
    ]
    problems += [f"unexpected {n}" for n in unexpected]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise RuntimeError(
            f"{str(path)!r} does not fit this {type(model).__name__} ({len(problems)} keys):\n  {shown}\n"
            "Use the config that the checkpoint was trained with (config.yaml lies beside it)."
        )
    if excused:
        parts = sorted({next(p for p in (*may_miss, *may_differ) if n.startswith(p)) for n in excused})
        logger.info(f"{path}: {len(excused)} keys below {', '.join(parts)} keep their initial values")
    model.load_state_dict({n: v for n, v in state.items() if n not in misshapen}, strict=False)
    logger.info(f"Loaded {len(state) - len(misshapen)} tensors from {path}")
    return Loaded(excused, provenance)

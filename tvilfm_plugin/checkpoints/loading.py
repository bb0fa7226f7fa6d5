"""Loading weights into a model, with a word about every key that does not fit."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger("fastreid." + __name__)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file: fast-reid's `{"model": ...}` or a bare state dict, without the prefix of DDP."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}: MODEL.WEIGHTS must name a local .pth file.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{str(path)!r} holds no state dict: expected {{'model': {{name: tensor}}}} or {{name: tensor}}.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(model: nn.Module, path: str | Path, may_miss: Sequence[str] = ()) -> None:
    """Load a checkpoint; raise with the list of keys if anything but the named parts does not fit.

    Args:
        may_miss: prefixes of keys that the file may lack, or hold in another shape (these keep their initial values).
    """
    state = read_state_dict(path)
    own = model.state_dict()
    misshapen = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    excused = [name for name in (*missing, *misshapen) if name.startswith(tuple(may_miss))]
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
        parts = sorted({next(p for p in may_miss if n.startswith(p)) for n in excused})
        logger.warning(f"{path}: {len(excused)} keys below {', '.join(parts)} keep their initial values")
    model.load_state_dict({n: v for n, v in state.items() if n not in misshapen}, strict=False)
    logger.info(f"Loaded {len(state) - len(misshapen)} tensors from {path}")

"""Loading weights into a model, with a word about every key that does not fit."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from tvilfm_plugin.checkpoints.model_folder import read_description
from tvilfm_plugin.evaluation.provenance import KEY, Provenance
from tvilfm_plugin.files.listing import in_lines
from tvilfm_plugin.files.shipped import folder_of, weights_file
from tvilfm_plugin.files.weights import WeightsError, best_prefix, misfits, read_weights_file, tensors_of
from tvilfm_plugin.modeling.token_rows import whole_tables

logger = logging.getLogger("fastreid." + __name__)

CLASSIFIER = "heads.classifier."
Translation = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Loaded(NamedTuple):
    """What `load_weights` did: names that keep their initial values, and the file's record (an empty one if it has none)."""

    kept: list[str]
    provenance: Provenance
    content: Any


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], Provenance]:
    """Tensors and record of fast-reid's `{"model": ...}`, a bare state dict (see `files.weights`) or a model folder."""
    return _read(path)[1:]


def _read(path: str | Path) -> tuple[Any, dict[str, Tensor], Provenance]:
    folder, path = folder_of(path), weights_file(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {str(path)!r}; MODEL.WEIGHTS (or last_checkpoint) must name a local weight file, or a "
            "folder that `tvilfm export --format folder` wrote."
        )
    content = read_weights_file(path)
    state, _ = tensors_of(content, path)
    record = content.get(KEY) if isinstance(content, dict) else None
    provenance = Provenance()
    if folder:
        described = read_description(folder, verify=True)
        record, provenance.features_only = described[KEY], described["protocol"] is None
    if isinstance(record, dict):
        try:
            provenance.load_state_dict(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"The record of the training in {str(path)!r} cannot be read ({type(error).__name__}: {error}): the file was "
                "changed. Train or import the weights again."
            ) from None
    return content, state, provenance


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
    content, state, provenance = _read(path)
    own = model.state_dict()
    prefix = best_prefix(state, own)
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = translate(state) if translate else state
    state, known = whole_tables(state, own)
    idle = tuple(part for part in provenance.optional if not any(name.startswith(part) for name in own))
    if any(name.startswith(idle) for name in state):
        logger.info(f"{path}: what the file has below {', '.join(idle)} is not used by a {type(model).__name__}")
        state = {name: value for name, value in state.items() if not name.startswith(idle)}
    misshapen = [name for name in own if name in state and state[name].shape != own[name].shape]
    missing = [name for name in own if name not in state]
    absent = tuple(part for part in may_miss if not any(name.startswith(part) for name in state))
    excused = [name for name in missing if name.startswith((*absent, *may_differ))]
    excused += [name for name in misshapen if name.startswith(tuple(may_differ))]
    if problems := misfits(state, own, excused):
        raise RuntimeError(
            f"{str(path)!r} does not fit this {type(model).__name__} ({len(problems)} keys):\n{in_lines(problems)}\n"
            "Use the config that the checkpoint was trained with (config.yaml lies beside it)."
        )
    if excused:
        parts = sorted({next(p for p in (*may_miss, *may_differ) if n.startswith(p)) for n in excused})
        logger.info(f"{path}: {len(excused)} keys below {', '.join(parts)} keep their initial values")
    model.load_state_dict({n: v for n, v in state.items() if n not in misshapen}, strict=False)
    for part, rows in known.items():
        model.get_submodule(part).known_tokens = rows
    logger.info(f"Loaded {len(state) - len(misshapen)} tensors from {path}")
    return Loaded(excused, provenance, content)

"""Names of tensors in the authors' checkpoints, ours in front: how they are translated, and those of TVI-LFM.

Their complete TVI-LFM model has 481 keys; ours has the same tensors except `logit_scale`, which nothing reads. A file of stage
2 has 488: pooling and head of stage 1 as well, of which ours keeps all but the classifier (TVILFM.IR_NECK stage1).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Table = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
"""(pattern of the beginning of our name, theirs in its place); the first that fits counts."""
Shapes = Mapping[str, torch.Size | tuple[int, ...]]
"""Name and shape of every tensor of our model."""

_TVILFM: Table = (
    (r"visual\.backbone\.base\.conv1\.(rgb|ir)\.", r"base_model.visual.\1_model.resnet_conv.0."),
    (r"visual\.backbone\.base\.bn1\.(rgb|ir)\.", r"base_model.visual.\1_model.resnet_conv.1."),
    (r"visual\.backbone\.base\.layer(\d)\.", lambda m: f"base_model.visual.shared_model.resnet_conv.{int(m[1]) - 1}."),
    (r"visual\.pool\.p$", "base_model.visual.GEM.p"),
    (r"text\.", "base_model."),
    (r"heads\.neck\.", "classifier.BN."),
    (r"heads\.classifier\.weight$", "classifier.classifier.weight"),
    (r"stage1\.pool\.p$", "backup_pool.p"),
    (r"stage1\.neck\.", "backup_classifier.BN."),
)


class Translation(NamedTuple):
    """The authors' tensors under our names, and what became of every name.

    Attributes:
        state: what fits our model, float32.
        loaded: our name -> the names in the authors' file that it was made of.
        missing: ours that the file lacks.
        misshapen: ours whose shape differs, with both shapes.
        unused: names of the file that our model does not have: what its config does not use.
    """

    state: dict[str, Tensor]
    loaded: dict[str, tuple[str, ...]]
    missing: list[str]
    misshapen: list[str]
    unused: list[str]


def renamed(name: str, table: Table) -> str | None:
    """The authors' name of one of our tensors; None where no line of the table fits."""
    for pattern, theirs in table:
        found, count = re.subn("^" + pattern, theirs, name)
        if count:
            return found
    return None


def released_key(name: str) -> str | None:
    """The name in TVI-LFM's checkpoints of one of our tensors; None for what they do not have."""
    return renamed(name, _TVILFM)


def translated(
    official: Mapping[str, Tensor],
    shapes: Shapes,
    find: Callable[[str, tuple[int, ...]], tuple[tuple[str, ...], Tensor | None]],
) -> Translation:
    """The authors' tensors under our names.

    Args:
        official: their state dict.
        find: (our name, its shape) -> the names of theirs that it is made of, and the tensor; None where the file lacks it.
    """
    found = Translation({}, {}, [], [], [])
    used: set[str] = set()
    for name, shape in shapes.items():
        theirs, value = find(name, tuple(shape))
        if value is None:
            found.missing.append(name)
            continue
        used |= set(theirs)
        if value.shape != torch.Size(shape):
            found.misshapen.append(f"{name} is {tuple(shape)}, {', '.join(theirs)} is {tuple(value.shape)}")
            continue
        found.state[name] = value.float() if value.is_floating_point() else value
        found.loaded[name] = theirs
    found.unused.extend(sorted(set(official) - used))
    return found


def from_official(official: Mapping[str, Tensor], shapes: Shapes) -> Translation:
    """The tensors of the authors' TVI-LFM under our names."""

    def find(name: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], Tensor | None]:
        key = released_key(name) or ""
        return (key,), official.get(key)

    return translated(official, shapes, find)

"""The way back from our names to those of the authors' checkpoints, which goldens and round trips are compared by."""

from collections.abc import Mapping

from torch import Tensor

from tvilfm_plugin.checkpoints.released_keys import translate
from tvilfm_plugin.checkpoints.released_mip import DEEP_LIBRARY, FIRST_LIBRARY, LIBRARY, official_names

_TO_THEIRS = (
    (r"visual\.backbone\.base\.conv1\.(rgb|ir)\.(.+)", r"base_model.visual.\1_model.resnet_conv.0.\2"),
    (r"visual\.backbone\.base\.bn1\.(rgb|ir)\.(.+)", r"base_model.visual.\1_model.resnet_conv.1.\2"),
    (
        r"visual\.backbone\.base\.layer(\d)\.(.+)",
        lambda m: f"base_model.visual.shared_model.resnet_conv.{int(m[1]) - 1}.{m[2]}",
    ),
    (r"visual\.pool\.p", "base_model.visual.GEM.p"),
    (r"text\.(.+)", r"base_model.\1"),
    (r"heads\.neck\.(.+)", r"classifier.BN.\1"),
    (r"heads\.classifier\.weight", "classifier.classifier.weight"),
    (r"stage1\.pool\.p", "backup_pool.p"),
    (r"stage1\.neck\.(.+)", r"backup_classifier.BN.\1"),
)


def released_key(ours: str) -> str | None:
    """The released code's name of one of our keys; None for what it does not have."""
    return translate(ours, _TO_THEIRS)


def to_official(state: Mapping[str, Tensor], depth: int = 12) -> dict[str, Tensor]:
    """Our tensors under the authors' names; slices of the deep library that no block reads are zero.

    Args:
        state: our state dict, or gradients by parameter name.
        depth: slices of their deep library.
    """
    official: dict[str, Tensor] = {}
    for name, value in state.items():
        theirs = official_names(name)
        if name == LIBRARY:
            two, layers, count, dim = value.shape
            deep = value.new_zeros(two, depth, count, dim)
            deep[:, : layers - 1] = value[:, 1:]
            official |= {FIRST_LIBRARY: value[:, 0].clone(), DEEP_LIBRARY: deep}
        else:
            official[theirs[0]] = value
    return official

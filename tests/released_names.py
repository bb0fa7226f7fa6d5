"""The way back from our MIP to the authors' checkpoints, which goldens and round trips are compared by."""

from collections.abc import Mapping

from torch import Tensor

from tvilfm_plugin.checkpoints.released_mip import DEEP_LIBRARY, FIRST_LIBRARY, LIBRARY, official_names


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

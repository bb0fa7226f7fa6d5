"""Horizontal stripes of a feature map, as vectors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CUTS = ("equal", "adaptive")


class Stripes(nn.Module):
    """A pooling layer: the means of horizontal stripes side by side, after the mean of the whole map if wanted."""

    def __init__(self, count: int, *, cut: str = "adaptive", whole: bool = False) -> None:
        """Args:
        count: stripes.
        cut: "adaptive": as torch's adaptive pooling, overlapping where rows do not divide. "equal": ceil(h / count) rows each,
            the last ones fewer (MMN); a height at which that gives fewer stripes is refused.
        whole: put the mean of the map first (DDAG).
        """
        super().__init__()
        if cut not in CUTS:
            raise ValueError(f"Stripes are cut {' or '.join(CUTS)}, not {cut!r}.")
        self.count = count
        self.cut = cut
        self.whole = whole

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, count * C), or (N, (1 + count) * C) with the whole."""
        if self.cut == "equal":
            parts = maps.split(math.ceil(maps.shape[2] / self.count), dim=2)
            if len(parts) != self.count:
                raise ValueError(
                    f"A map of {maps.shape[2]} rows does not cut into {self.count} equal stripes; "
                    "choose INPUT.SIZE_TRAIN of another height."
                )
            vectors = [part.mean(dim=(2, 3)) for part in parts]
        else:
            vectors = list(F.adaptive_avg_pool2d(maps, (self.count, 1)).squeeze(3).unbind(2))
        return torch.cat([maps.mean(dim=(2, 3)), *vectors] if self.whole else vectors, dim=1)

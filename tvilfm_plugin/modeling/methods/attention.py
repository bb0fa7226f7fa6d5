"""DEEN's blocks: attention between two levels of a trunk, and the expansion into branches.

Letters: N images, C channels of the high map, L channels of the low map, h w positions of a map, n = h * w.
The attention is no softmax: what a block adds is cubic in its input, so it is computed in float32 under autocast.
"""

import torch
from torch import Tensor, nn

from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.losses import at_least_float32


class _Attention(nn.Module):
    """What both kinds share: 1x1 convolutions theta (high map), phi and g (low map) and W, whose norm starts at zero."""

    def __init__(self, high: int, low: int, inner: int, stride: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(high, inner, 1)
        self.phi = nn.Conv2d(low, inner, 1, stride=stride)
        self.g = nn.Conv2d(low, inner, 1)
        norm = nn.BatchNorm2d(high)
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
        self.W = nn.Sequential(nn.Conv2d(inner, high, 1, stride=stride), norm)


class ChannelAttention(_Attention):
    """CNL: the channels of the low map, mixed by how they go with the channels of the high map, are added to the high map."""

    def __init__(self, high: int, low: int, stride: int) -> None:
        """`stride` is the height of the low map over that of the high map."""
        super().__init__(high, low, low, stride)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, stride * h, stride * w) -> (N, C, h, w)."""
        theta, phi, g = self.theta(x).flatten(2), self.phi(low).flatten(2), self.g(low)
        attention = theta @ phi.transpose(1, 2) / theta.shape[1]
        return self.W((attention @ g.flatten(2)).view_as(g)) + x


class SpatialAttention(_Attention):
    """PNL: every position of the high map receives what the low map has where it is alike.

    With `half_maps`, as released, the upper and the lower half of a map count as channels of their own (channel 2c is the first
    half of channel c): positions are compared within a pattern of two halves. It needs an even number of positions.
    """

    def __init__(self, high: int, low: int, half_maps: bool = True) -> None:
        super().__init__(high, low, low // 2, stride=1)
        self.halves = 2 if half_maps else 1

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, h', w') -> (N, C, h, w)."""
        theta = self.theta(x)
        if theta[0, 0].numel() % self.halves or low[0, 0].numel() % self.halves:
            raise ValueError(
                f"DEEN's spatial attention needs an even number of positions; maps are {tuple(x.shape[2:])} and "
                f"{tuple(low.shape[2:])}. Choose INPUT.SIZE_TRAIN so that they are even."
            )
        query, key, value = (self._halved(rows) for rows in (theta, self.phi(low), self.g(low)))
        attention = query.transpose(1, 2) @ key / key.shape[2]
        mixed = value @ attention.transpose(1, 2)
        return self.W(mixed.reshape(theta.shape)) + x

    def _halved(self, maps: Tensor) -> Tensor:
        """(N, c, h, w) -> (N, halves * c, h * w / halves)."""
        return maps.reshape(len(maps), self.halves * maps.shape[1], -1)


class MultiLevelAttention(nn.Module):
    """MFA: channel, then spatial attention of a map to the one before it."""

    def __init__(self, high: int, low: int, stride: int, half_maps: bool = True) -> None:
        super().__init__()
        self.channel = ChannelAttention(high, low, stride)
        self.spatial = SpatialAttention(high, low, half_maps)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, stride * h, stride * w) -> (N, C, h, w), float32 also under autocast."""
        with full_precision(x.device):
            x, low = at_least_float32(x), at_least_float32(low)
            return self.spatial(self.channel(x, low), low)


class _Branch(nn.Module):
    """Mean of three dilated convolutions, ReLU, back to the width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, channels // 4, 3, padding=d, dilation=d, bias=False) for d in (1, 2, 3)
        )
        self.out = nn.Conv2d(channels // 4, channels, 1)
        for conv in (*self.dilated, self.out):
            nn.init.kaiming_normal_(conv.get_parameter("weight"))
        nn.init.zeros_(self.out.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.stack([conv(x) for conv in self.dilated]).mean(dim=0).relu())


class Expansion(nn.Module):
    """DEE: a map and what two branches make of it, below each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Branch(channels) for _ in range(2))
        self.dropout = nn.Dropout(0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (3N, C, h, w), all rows of the map first."""
        return self.dropout(torch.cat([x, *(branch(x) for branch in self.branches)]))

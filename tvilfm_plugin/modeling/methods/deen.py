"""DEEN's network around any ResNet: `DEENTrunk` is a base of `DualStream`, `BranchHead` its neck, classifier and embedding.

Letters: N images, D width of a branch, K training identities, H W h w sizes. An image has three vectors side by side, (N, 3D):
the trunk's own and those of the two expanded branches. Where a BN layer or a loss sees them as rows they are stacked by branch,
(3N, D): branch 0 of all images, branch 1 of all, branch 2 of all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.methods.attention import Expansion, MultiLevelAttention
from tvilfm_plugin.modeling.necks import PackedHead, frozen_bias_neck, small_classifier

BRANCHES = 3


def side_by_side(rows: Tensor) -> Tensor:
    """(3N, D, ...) stacked by branch -> (N, 3D, ...)."""
    return torch.cat(rows.chunk(BRANCHES), dim=1)


def stacked(vectors: Tensor) -> Tensor:
    """(N, 3D, ...) -> (3N, D, ...), stacked by branch."""
    return torch.cat(vectors.chunk(BRANCHES, dim=1))


def stage_width(stage: nn.Module) -> int:
    """Channels that a stage of residual blocks gives: those of the last convolution of its last block."""
    *_, last = stage.children()
    return [conv.out_channels for conv in last.children() if isinstance(conv, nn.Conv2d)][-1]


class DEENTrunk(nn.Module):
    """A ResNet with attention between its stages, expanded into three branches before the last one.

    The modules keep the ResNet's names (conv1, bn1, relu, maxpool, layer1..): ImageNet weights, the stem's names and the
    patterns of checkpoints stay.

    Attributes:
        mfa: per attended stage, `MultiLevelAttention` to what was before it.
        dee: the expansion before the last stage.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module

    def __init__(self, base: nn.Module, *, reduced: bool = False, half_maps: bool = True) -> None:
        """Args:
        base: a ResNet of this layout; its modules are taken over.
        reduced: the form for RegDB: three stages, two of them attended.
        """
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool"):
            self.add_module(name, base.get_submodule(name))
        self.stages = ["layer1", "layer2", "layer3"] if reduced else ["layer1", "layer2", "layer3", "layer4"]
        for name in self.stages:
            self.add_module(name, base.get_submodule(name))
        conv1 = base.get_submodule("conv1")
        assert isinstance(conv1, nn.Conv2d)
        widths = [conv1.out_channels, *(stage_width(self.get_submodule(name)) for name in self.stages)]
        self.mfa = nn.ModuleList(
            MultiLevelAttention(high, low, 1 if n == 0 else 2, half_maps)
            for n, (low, high) in enumerate(zip(widths[:-2], widths[1:-1], strict=True))
        )
        self.dee = Expansion(widths[-2])
        self.dim = BRANCHES * widths[-1]

    def stem(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 4, W / 4)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))

    def branches(self, low: Tensor) -> Tensor:
        """What `stem` gives -> (3N, D, h, w), stacked by branch."""
        *attended, last = self.stages
        for name, attention in zip(attended, self.mfa, strict=True):
            low = attention(self.get_submodule(name)(low), low)
        return self.get_submodule(last)(self.dee(low))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3D, h, w): the branches' maps side by side."""
        return side_by_side(self.branches(self.stem(images)))


class BranchHead(PackedHead):
    """One neck (bias frozen at 0) for all branches' (3N, D) rows, and one bias-free classifier of them, (3N, K)."""

    def __init__(self, *, dim: int, num_classes: int, norm: str = "BN") -> None:
        """`dim` is 3D, of the vectors of an image."""
        super().__init__()
        if dim % BRANCHES:
            raise ValueError(f"An image has {dim} numbers, which are not {BRANCHES} vectors side by side.")
        self.packed_dim = 2 * dim + 2
        self.bn = frozen_bias_neck(dim // BRANCHES, norm)
        self.classifier = small_classifier(dim // BRANCHES, num_classes)

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3D) -> rows (3N, D), stacked by branch, and their logits (3N, K)."""
        rows = stacked(raw)
        return rows, self.classify(self.bn(rows))

    def classify(self, rows: Tensor) -> Tensor:
        """(3N, D) after the neck -> (3N, K)."""
        return self.classifier(rows)

    def units(self, raw: Tensor) -> Tensor:
        """(N, 3D) -> (N, 6, D) unit vectors: before and after the neck of branch 0, then of branch 1, then of branch 2."""
        rows = stacked(raw)
        both = torch.stack([F.normalize(rows, dim=1), F.normalize(self.bn(rows), dim=1)], dim=1)
        return torch.cat(both.chunk(BRANCHES), dim=1)

    def blocks(self, raw: Tensor, modality: Modality = Modality.RGB) -> Tensor:
        """(N, 3D) -> (N, 6D) unit vectors, whose cosine is the mean of the six similarities."""
        units = self.units(raw)
        return units.flatten(1) / units.shape[1] ** 0.5

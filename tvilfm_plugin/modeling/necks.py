"""Necks and classifiers that the models share, and the head of those whose evaluated rows are finished."""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import SyncBatchNorm

NECKS = {"BN": nn.BatchNorm1d, "syncBN": SyncBatchNorm}


class NeckAffine(NamedTuple):
    """A neck in eval mode, with the attributes of a BN layer: (x - running_mean) / sqrt(running_var + eps) * weight + bias."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float

    @classmethod
    def identity(cls, one: Tensor) -> "NeckAffine":
        """The neck that changes nothing, of a (D,) tensor of ones."""
        return cls(one, one * 0, one * 0, one, 0.0)


def bn_neck(dim: int, norm: str = "BN") -> nn.BatchNorm1d | SyncBatchNorm:
    """A BN layer over (N, D); "syncBN" has statistics over all processes."""
    if norm not in NECKS:
        raise ValueError(f"MODEL.HEADS.NORM is {norm!r}; the neck can be {' or '.join(NECKS)}.")
    return NECKS[norm](dim)


def frozen_bias_neck(dim: int, norm: str = "BN") -> nn.BatchNorm1d | SyncBatchNorm:
    """`bn_neck` with weight N(1, 0.01) and bias 0 that stays."""
    neck = bn_neck(dim, norm)
    nn.init.normal_(neck.weight, 1.0, 0.01)
    neck.bias.requires_grad_(False)
    return neck


def small_classifier(dim: int, num_classes: int) -> nn.Linear:
    """(N, D) -> (N, K), bias-free, weights N(0, 0.001); a head that is only to embed has no classes, and so no rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        classifier = nn.Linear(dim, num_classes, bias=False)
        nn.init.normal_(classifier.weight, std=0.001)
    return classifier


def unit_length(rows: Tensor, longest: float, first: bool) -> Tensor:
    """(N, D) rows no longer than `longest` -> (N, D + 2) unit rows with the same inner products across the two sides.

    What a row lacks in length stands in one further number, of the two a different one for either side (`first`: visible), so
    that it meets a zero. The cosine of a visible and an infrared row is their inner product / longest^2.
    """
    lack = (longest**2 - rows.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
    ends = (lack, lack.new_zeros(lack.shape))
    return torch.cat([rows, *(ends if first else ends[::-1])], dim=1) / longest


class PackedHead(nn.Module):
    """A head whose evaluated row is finished: unit vectors side by side, whose cosine is what the method ranks by.

    Attributes:
        packed_dim: W, numbers of a row; the last two complete its length.
        longest: how long a row of `blocks` can be.
    """

    packed_dim: int
    longest = 1.0

    def blocks(self, raw: Tensor, modality: Modality) -> Tensor:
        """(N, D) raw features of a modality -> (N, W - 2) rows whose inner product is what the method ranks by."""
        raise NotImplementedError

    def pack(self, raw: Tensor, modality: Modality = Modality.RGB, mirror: Tensor | None = None) -> Tensor:
        """(N, D) raw features of a modality -> (N, W) unit rows that are compared.

        Args:
            mirror: (N, D) of the mirror images: their blocks are averaged with the images', and stay as long as they are then.
        """
        rows = self.blocks(raw, modality)
        rows = rows if mirror is None else (rows + self.blocks(mirror, modality)) / 2
        return unit_length(rows, self.longest, modality is Modality.RGB)

    @property
    def neck(self) -> NeckAffine:
        """What still happens to a row before it is compared: nothing."""
        one = next(self.parameters()).detach().new_ones(self.packed_dim)
        return NeckAffine.identity(one)

    def embed(self, raw: Tensor) -> Tensor:
        """(N, W) rows of `pack` -> unit rows."""
        return F.normalize(raw, dim=1)

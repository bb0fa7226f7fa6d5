"""Modality-aware prompts (MPL): a library per modality and layer, and one projection for all.

Letters: B images, P prompts per layer, D width.
"""

import math

import torch
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality

LABELS = {Modality.IR: 0, Modality.RGB: 1}
"""The row of a modality in the library, and in everything of MIP that counts modalities."""


def modality_labels(rows: dict[Modality, int], device: torch.device) -> Tensor:
    """Labels (B,) of a batch that holds so many rows of each modality, in this order."""
    unknown = [m.value for m in rows if m not in LABELS]
    if unknown:
        raise ValueError(f"MIP knows infrared and visible images, not {', '.join(unknown)}.")
    return torch.cat([torch.full((count,), LABELS[m], dtype=torch.int64, device=device) for m, count in rows.items()])


def prompt_bound(scale: float, patch: int, dim: int) -> float:
    """Prompts start uniform between minus and plus this number: 1.25 for scale 20, patch 16 and D 768."""
    return scale * math.sqrt(6 / (3 * patch * patch + dim))


def prompt_projection(dim: int) -> nn.Linear:
    """The linear layer behind a prompt library."""
    projection = nn.Linear(dim, dim)
    nn.init.kaiming_normal_(projection.weight, mode="fan_out")
    return projection


class ModalityPrompts(nn.Module):
    """M_i(x) = Dropout(phi(library_i[modality of x])), fresh in every prompted layer i; `library` is (2, layers, P, D)."""

    def __init__(self, *, layers: int, count: int, dim: int, bound: float, dropout: float = 0.1) -> None:
        """Args:
        layers: prompted layers.
        bound: the library starts uniform between minus and plus this.
        dropout: on projected prompts.
        """
        super().__init__()
        self.library = nn.Parameter(torch.empty(len(LABELS), layers, count, dim).uniform_(-bound, bound))
        self.projection = prompt_projection(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, layer: int, labels: Tensor) -> Tensor:
        """Modality labels (B,) -> prompts (B, P, D) of a layer."""
        # There are only two kinds: project both, then give each image its own (dropout differs by image).
        return self.dropout(self.projection(self.library[:, layer])[labels])

"""Instance-aware prompts (IPG): made from the image itself, by a transformer block or by mixing a bank.

Letters: B images, P prompts per layer, D width, E entries of the bank.
"""

import copy
import math

import torch
from torch import Tensor, nn

from tvilfm_plugin.modeling.mip.prompts import prompt_projection
from tvilfm_plugin.modeling.mip.vit import Block

QUERIES = ("learned", "zeros")


class PromptGenerator(nn.Module):
    """One block for all layers: a query of P tokens looks at the layer's patches and becomes the prompts.

    Attributes:
        query: (1, P, D) learned, or None: zeros, as the released code feeds it. Equal queries without a position become
            equal prompts, so zeros make one distinct prompt, P times.
    """

    def __init__(self, *, block: Block, count: int, dim: int, query: str = "learned") -> None:
        """Args:
        block: its copy becomes the generator.
        query: "learned" or "zeros".
        """
        super().__init__()
        if query not in QUERIES:
            raise ValueError(f"MODEL.MIP.QUERY is {query!r}; choose {' or '.join(QUERIES)}.")
        self.count = count
        self.block = copy.deepcopy(block)
        self.block.drop_path.p = 0.0
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, dim), std=0.02)) if query == "learned" else None

    def forward(self, layer: int, tokens: Tensor) -> Tensor:
        """Class and patch tokens (B, 1 + patches, D) that enter a layer -> prompts (B, P, D) for it."""
        patches = tokens[:, 1:]
        if self.query is not None:
            return self.block(self.query.expand(patches.shape[0], -1, -1), patches)
        # All rows would come out the same: one is computed, and sees the others.
        zeros = patches.new_zeros(patches.shape[0], self.count, patches.shape[2])
        return self.block(zeros[:, :1], torch.cat([zeros[:, 1:], patches], dim=1)).expand(-1, self.count, -1)


class PromptFusion(nn.Module):
    """Each prompt is a mixture of a bank's entries, weighted by what the image looks like.

    Attributes:
        bank: (E, layers, D).
        mixers: (layers, P * E, D), the rows that score the E entries for each of the P prompts of a layer.
    """

    def __init__(
        self, *, layers: int, count: int, dim: int, entries: int, bound: float, temperature: float = 0.0, dropout: float = 0.1
    ) -> None:
        """Args:
        layers: prompted layers.
        bound: the bank starts uniform between minus and plus this.
        temperature: scores are divided by it; 0 leaves them.
        dropout: on projected prompts.
        """
        super().__init__()
        self.entries = entries
        self.temperature = temperature or 1.0
        self.bank = nn.Parameter(torch.empty(entries, layers, dim).uniform_(-bound, bound))
        # Kaiming fan-out of each linear layer D -> E.
        self.mixers = nn.Parameter(torch.empty(layers, count * entries, dim).normal_(std=math.sqrt(2 / entries)))
        self.projection = prompt_projection(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, layer: int, tokens: Tensor) -> Tensor:
        """Class and patch tokens (B, 1 + patches, D) that enter a layer -> prompts (B, P, D) for it."""
        # The class token says nothing about the image before the first block.
        image = tokens[:, 1:].mean(dim=1) if layer == 0 else tokens[:, 0]
        scores = nn.functional.linear(image, self.mixers[layer]).unflatten(1, (-1, self.entries))
        mixed = (scores / self.temperature).softmax(dim=2) @ self.bank[:, layer]
        return self.dropout(self.projection(mixed))

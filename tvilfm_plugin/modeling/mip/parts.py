"""From tokens to the five vectors: a global branch and four local ones (JPM: jigsaw of shifted, shuffled patches).

Letters: B images, D width.
"""

import torch
from torch import Tensor, nn

from tvilfm_plugin.modeling.mip.vit import EPS, Block


def jigsaw_order(patches: int, shift: int = 5, groups: int = 2) -> list[int]:
    """The order in which the jigsaw lays out the tokens 1..`patches` (0 is the class token).

    The first `shift` - 1 patches move to the end; then the sequence is cut in `groups` pieces that are interleaved. Where
    it cannot be cut evenly, its second-to-last token is repeated at the end.
    """
    tokens = [*range(shift, patches + 1), *range(1, shift)]
    if len(tokens) % groups:
        tokens.append(tokens[-2])
    if len(tokens) % groups:
        raise ValueError(f"{patches} patches cannot be cut in {groups} pieces (MODEL.MIP.GROUPS), not even with one more.")
    return [token for several in zip(*_cut(tokens, len(tokens) // groups), strict=True) for token in several]


def jigsaw_parts(patches: int, shift: int = 5, groups: int = 2, parts: int = 4) -> list[list[int]]:
    """Token indices of each local part: consecutive runs of the jigsaw, equally long; what is left over is not used."""
    length = patches // parts
    if not length or not 1 <= shift <= patches:
        raise ValueError(
            f"{patches} patches are too few for {parts} parts and a shift of {shift}; enlarge the image or reduce "
            "MODEL.MIP.STRIDE, MODEL.MIP.PARTS or MODEL.MIP.SHIFT."
        )
    return _cut(jigsaw_order(patches, shift, groups), length)[:parts]


def _cut(tokens: list[int], length: int) -> list[list[int]]:
    return [tokens[start : start + length] for start in range(0, len(tokens), length)]


class TokenReader(nn.Module):
    """A block and a norm of which only the first token is read."""

    def __init__(self, block: Block, dim: int) -> None:
        super().__init__()
        self.block = block
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, first: Tensor, others: Tensor) -> Tensor:
        """(B, 1, D) and (B, T, D) that it looks at -> (B, D)."""
        return self.norm(self.block(first, others))[:, 0]


class LocalBranch(nn.Module):
    """Each part of the jigsaw, read by the class token through a shared block."""

    index: Tensor

    def __init__(self, reader: TokenReader, parts: list[list[int]]) -> None:
        super().__init__()
        self.reader = reader
        self.register_buffer("index", torch.tensor(parts), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + patches, D) -> (B, parts, D)."""
        count = len(self.index)
        pieces = tokens[:, self.index].flatten(0, 1)
        return self.reader(tokens[:, :1].repeat_interleave(count, dim=0), pieces).unflatten(0, (-1, count))

"""A text transformer over captions that lie end to end, without the positions behind their ends."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def can_pack(transformer: Any) -> bool:
    """Whether the blocks are the ones that `packed_transformer` computes: CLIP's pre-norm attention and MLP."""
    from tvilfm_plugin.data.open_clip_files.transformer import ResidualAttentionBlock

    return not transformer.grad_checkpointing and all(
        type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") for block in transformer.resblocks
    )


def packed_transformer(transformer: Any, embedded: Tensor, ends: Tensor) -> Tensor:
    """What the causal transformer says at the last position of every caption.

    Norms, projections and MLPs act on single positions, so only attention needs captions side by side. Behind the last
    attention, nothing but the last position of each caption is computed.

    Args:
        transformer: open_clip's, for which `can_pack` holds.
        embedded: (N, L, width) embedded tokens; what lies behind a caption's end is not read.
        ends: (N,) last position of each caption.

    Returns:
        (N, width).
    """
    count, length, width = embedded.shape
    kept = (torch.arange(length, device=ends.device) <= ends[:, None]).flatten().nonzero().squeeze(1)
    last = (ends + 1).cumsum(0) - 1
    rows = embedded.reshape(-1, width).index_select(0, kept)
    for number, block in enumerate(transformer.resblocks, start=1):
        attended = _attend(block.attn, block.ln_1(rows), kept, count, length)
        if number == len(transformer.resblocks):
            rows, attended = rows[last], attended[last]
        rows = rows + block.ls_1(block.attn.out_proj(attended))
        rows = rows + block.ls_2(block.mlp(block.ln_2(rows)))
    return rows


def _attend(attention: nn.MultiheadAttention, rows: Tensor, kept: Tensor, count: int, length: int) -> Tensor:
    """Causal self-attention of (T, width) rows, before the output projection; `kept` says where they lie in (N, L)."""
    width = rows.shape[1]
    projected = F.linear(rows, attention.in_proj_weight, attention.in_proj_bias)
    padded = projected.new_zeros(count * length, 3 * width).index_copy(0, kept, projected)
    heads = padded.view(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    mixed = _causal_attention(query, key, value)
    return mixed.transpose(1, 2).reshape(count * length, width).index_select(0, kept)


def _causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention(..., is_causal=True)` of (N, heads, L, d).

    In reduced precision its gradient on a CPU takes five times what these short products do (a quarter of a training step).
    """
    if query.dtype == torch.float32:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    length = query.shape[-2]
    behind = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    shares = scores.masked_fill(behind, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return shares @ value

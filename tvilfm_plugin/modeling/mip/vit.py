"""The vision transformer's parts: overlapping patches, pre-norm blocks.

`MLP` is timm's too, but importing timm would cost every training half a second.

Letters: B images, T tokens of any kind, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

EPS = 1e-6


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights and zero biases, for every linear layer below `module`."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


class Attention(nn.Module):
    """Multi-head self-attention of which only the first rows are read out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"MODEL.MIP.WIDTH {dim} cannot be split into {num_heads} heads (MODEL.MIP.HEADS).")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        """(B, T, D) normalised tokens -> (B, rows, D), the output of the first `rows` of them, which see all T."""
        query, key, value = self._split(tokens, rows)
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).flatten(2))

    def weights(self, tokens: Tensor, rows: int) -> Tensor:
        """(B, T, D) normalised tokens -> (B, heads, rows, T): how much each of the first rows attends to every token."""
        query, key, _ = self._split(tokens, rows)
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(dim=-1)

    def _split(self, tokens: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, heads, rows, d), key and value (B, heads, T, d)."""
        if rows == tokens.shape[1]:
            query, key, value = self.qkv(tokens).chunk(3, dim=2)
        else:
            dim = tokens.shape[2]
            query = F.linear(tokens[:, :rows], self.qkv.weight[:dim], self.qkv.bias[:dim])
            key, value = F.linear(tokens, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=2)
        query, key, value = (x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        return query, key, value


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block that computes only what is read.

    Prompts, and all but the first token of a head, serve as keys and values: their own outputs would be thrown away. They
    are passed as `context`, and neither their queries nor their MLP are computed.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, T, D) tokens and (B, C, D) further tokens that they see -> (B, T, D)."""
        seen = self.norm1(tokens if context is None else torch.cat([tokens, context], dim=1))
        tokens = tokens + self.drop_path(self.attn(seen, tokens.shape[1]))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def attention(self, tokens: Tensor, context: Tensor | None = None, rows: int = 1) -> Tensor:
        """Arguments as `forward` -> (B, heads, rows, T + C): how the first rows attend to tokens, then context."""
        seen = self.norm1(tokens if context is None else torch.cat([tokens, context], dim=1))
        return self.attn.weights(seen, rows)


def patch_grid(image_size: tuple[int, int], patch: int, stride: int) -> tuple[int, int]:
    """Rows and columns of (overlapping) patches in an image (H, W)."""
    if min(image_size) < patch:
        raise ValueError(f"Images of {image_size} hold no patch of {patch} pixels; set INPUT.SIZE_TRAIN or MODEL.MIP.PATCH.")
    return (image_size[0] - patch) // stride + 1, (image_size[1] - patch) // stride + 1


class TokenEmbedding(nn.Module):
    """Images -> class token and patches (a `grid`, row by row), with position and `camera` (cameras, 1, D), if several."""

    def __init__(
        self, *, image_size: tuple[int, int], patch: int, stride: int, dim: int, cameras: int = 0, camera_scale: float = 3.0
    ) -> None:
        """`stride` pixels lie between patches. Up to one camera there is no camera embedding, else times `camera_scale`."""
        super().__init__()
        self.grid = patch_grid(image_size, patch, stride)
        self.camera_scale = camera_scale
        self.patch = nn.Conv2d(3, dim, patch, stride)
        nn.init.normal_(self.patch.weight, std=math.sqrt(2 / (patch * patch * dim)))
        nn.init.zeros_(self.patch.get_parameter("bias"))
        self.cls = nn.Parameter(torch.empty(1, 1, dim))
        self.position = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], dim))
        self.camera = nn.Parameter(torch.empty(cameras, 1, dim)) if cameras > 1 else None
        for table in (self.cls, self.position, self.camera):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, H, W) and camera indices (B,) from 0 on (None: unknown) -> (B, 1 + patches, D)."""
        patches = self.patch(images).flatten(2).transpose(1, 2)
        if patches.shape[1] != self.position.shape[1] - 1:
            raise ValueError(
                f"Images of {tuple(images.shape[2:])} give {patches.shape[1]} patches, but the position table has "
                f"{self.grid[0]} x {self.grid[1]}. INPUT.SIZE_TRAIN and INPUT.SIZE_TEST must be equal."
            )
        tokens = torch.cat([self.cls.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1) + self.position
        if self.camera is None:
            return tokens
        # Where nobody says which camera took an image, the mean over all is the best guess.
        which = self.camera.mean(dim=0, keepdim=True) if cameras is None else self.camera[cameras]
        return tokens + self.camera_scale * which

"""MIP written out token by token, over tensors with the authors' names: every token through every layer, nothing left out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(x: Tensor, state: State, name: str) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    """(B, T, D) -> (B, T, D)."""
    dim = x.shape[2] // heads
    q, k, v = linear(layer_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(3, dim=2)
    seen = []
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        weights = torch.softmax(q[:, :, part] @ k[:, :, part].transpose(1, 2) / math.sqrt(dim), dim=2)
        seen.append(weights @ v[:, :, part])
    x = x + linear(torch.cat(seen, dim=2), state, f"{name}.attn.proj")
    hidden = linear(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + linear(hidden, state, f"{name}.mlp.fc2")


def forward(
    state: State,
    images: Tensor,
    labels: Tensor,
    cameras: Tensor,
    *,
    layers: int,
    heads: int,
    stride: int,
    modality_prompts: bool,
    instance_prompts: str,
    count: int,
) -> tuple[Tensor, list[Tensor]]:
    """Five vectors (B, 5, D) and the instance prompts of every layer.

    Args:
        state: tensors with the authors' names.
        images: (B, 3, H, W) normalised.
        labels: (B,) modality.
        cameras: (B,) from 0.
        layers: executed blocks.
        heads: of attention.
        stride: of the patches.
        modality_prompts: MPL.
        instance_prompts: "zeros", "learned" or "none".
        count: instance prompts.
    """
    rows = []
    for n, image in enumerate(images):
        patches = F.conv2d(image[None], state["base.patch_embed.proj.weight"], state["base.patch_embed.proj.bias"], stride)
        tokens = torch.cat([state["base.cls_token"][0], patches[0].flatten(1).T])
        rows.append(tokens + state["base.pos_embed"][0] + 3.0 * state["base.sie_embed"][cameras[n]])
    x = torch.stack(rows)
    prompts = []
    for i in range(layers):
        cls, patches = x[:, :1], x[:, 1:]
        parts = [cls]
        if modality_prompts:
            library = state["base.prompt_embeddings"] if i == 0 else state["base.deep_prompt_embeddings"][:, i - 1]
            parts.append(linear(torch.stack([library[label] for label in labels]), state, "base.prompt_proj"))
        if instance_prompts != "none":
            query = state["base.prompt_embed"] if instance_prompts == "learned" else patches.new_zeros(1, count, x.shape[2])
            query = query.expand(len(x), -1, -1)
            made = block(torch.cat([query, patches], dim=1), state, "base.instance_prompt_generator", heads)[:, :count]
            prompts.append(made)
            parts.append(made)
        before = sum(part.shape[1] for part in parts)
        out = block(torch.cat([*parts, patches], dim=1), state, f"base.blocks.{i}", heads)
        x = torch.cat([out[:, :1], out[:, before:]], dim=1)
    vectors = [layer_norm(block(x, state, "b1.0", heads), state, "b1.1")[:, 0]]
    patches = torch.cat([x[:, 5:], x[:, 1:5]], dim=1)
    n = patches.shape[1]
    if n % 2:
        patches = torch.cat([patches, patches[:, -2:-1]], dim=1)
    half = patches.shape[1] // 2
    shuffled = torch.stack([patches[:, :half], patches[:, half:]], dim=2).flatten(1, 2)
    for j in range(4):
        part = torch.cat([x[:, :1], shuffled[:, j * (n // 4) : (j + 1) * (n // 4)]], dim=1)
        vectors.append(layer_norm(block(part, state, "b2.0", heads), state, "b2.1")[:, 0])
    return torch.stack(vectors, dim=1), prompts


def prompt_logits(state: State, prompts: list[Tensor], heads: int, own_block: bool) -> list[Tensor]:
    """IAEL: per layer (B, K) logits, batch statistics in the necks."""
    logits = []
    for i, made in enumerate(prompts):
        token = made.mean(dim=1)
        if own_block:
            token = torch.cat([state["zero_token"].expand(len(made), -1, -1), made], dim=1)
            token = layer_norm(block(token, state, "b3.0", heads), state, "b3.1")[:, 0]
        mean, var = token.mean(0), token.var(0, unbiased=False)
        neck = f"bottlenecks_ins_prompts.{i}"
        token = (token - mean) / torch.sqrt(var + 1e-5) * state[f"{neck}.weight"] + state[f"{neck}.bias"]
        logits.append(token @ state[f"classifiers_ins_prompts.{i}.weight"].T)
    return logits


def triplet(feats: Tensor, pids: Tensor) -> Tensor:
    """Batch-hard soft-margin triplet, pair by pair."""
    losses = []
    for a in range(len(feats)):
        distance = [torch.sqrt(torch.clamp((feats[a] - feats[b]).square().sum(), min=1e-12)) for b in range(len(feats))]
        furthest = max(d for d, pid in zip(distance, pids, strict=True) if pid == pids[a])
        nearest = min(d for d, pid in zip(distance, pids, strict=True) if pid != pids[a])
        losses.append(torch.log1p(torch.exp(furthest - nearest)))
    return torch.stack(losses).mean()


def msel(feats: Tensor, pids: Tensor, labels: Tensor) -> Tensor:
    """MSEL, pair by pair; every identity has at least two images of each modality."""
    per_modality: dict[int, list[Tensor]] = {0: [], 1: []}
    for a in range(len(feats)):
        kin = [b for b in range(len(feats)) if pids[b] == pids[a] and b != a]
        d = {b: torch.linalg.vector_norm(feats[a] - feats[b]) for b in kin}
        intra = torch.stack([d[b] for b in kin if labels[b] == labels[a]]).mean()
        cross = torch.stack([d[b] for b in kin if labels[b] != labels[a]]).mean()
        per_modality[int(labels[a])].append((cross - intra) ** 2)
    return sum(torch.stack(values).mean() for values in per_modality.values()) / 2


def fusion_prompts(
    tokens: Tensor, layer: int, bank: Tensor, mixers: Tensor, weight: Tensor, bias: Tensor, temperature: float
) -> Tensor:
    """Fusion type: (B, 1 + patches, D) -> (B, P, D), prompt by prompt; `mixers` (P, E, D) and `bank` (E, D) of the layer."""
    image = torch.stack([row[1:].mean(0) if layer == 0 else row[0] for row in tokens])
    prompts = []
    for mixer in mixers:
        scores = image @ mixer.T
        if temperature:
            scores = scores / temperature
        prompts.append(torch.softmax(scores, dim=1) @ bank @ weight.T + bias)
    return torch.stack(prompts, dim=1)

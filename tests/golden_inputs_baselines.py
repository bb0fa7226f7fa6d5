"""Seeded inputs behind tests/goldens/baselines: weights by official key, images, tokens, features.

Everything comes from numpy's legacy generator; the order of the draws is part of the definition.
"""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState

Array = np.ndarray
GOLDENS = Path(__file__).parent / "goldens" / "baselines"
CLASSES = 24
PIDS = (5, 5, 17, 17)  # of 4 visible and 4 infrared images
ROBERTA = {
    "vocab_size": 1000, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 40, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5,
}  # fmt: skip
# Per case: seeds of the visible and the infrared images, their number, height, width, salt of the weights.
EVAL = {
    "a": (801, 802, 2, 288, 144, 0), "b": (803, 804, 2, 384, 144, 0), "c": (805, 806, 1, 288, 144, 7),
    "d": (807, 808, 1, 384, 144, 7), "m": (809, 810, 1, 384, 192, 0), "n": (811, 812, 1, 384, 192, 7),
}  # fmt: skip
SIMILARITY = {"s": (851, 852, 3, 288, 144, 0), "t": (853, 854, 3, 288, 144, 7)}
# Seed of the first image set, height, width, salt.
TRAIN = {"a": (821, 96, 48, 0), "b": (831, 128, 64, 7), "e": (841, 128, 64, 0)}
# Seed, identities, images per identity and modality, width, scale.
LOSS = {
    "a_4x4_d32": (901, 4, 4, 32, 1.0), "b_2x3_d16": (902, 2, 3, 16, 0.3), "c_6x4_d64": (903, 6, 4, 64, 0.1),
    "d_4x4_far": (904, 4, 4, 16, 6.0),
}  # fmt: skip
# Colour phrases of the four training captions.
COLOURS = {
    "a": [["gray", "white gray"], ["gray", "white gray"], ["dark blue", "light blue"], ["dark blue", "gray"]],
    "b": [["black"], ["black", "white and red"], ["blue"], ["blue", "black"]],
}
RERANK = {"a": 971, "b": 972, "c": 973}


@cache
def golden(name: str) -> Any:
    """A file of reference numbers: a dict of arrays, or what a JSON file holds."""
    path = GOLDENS / name
    return json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))


def weight(key: str, shape: tuple[int, ...], training: bool = False, salt: int = 0) -> Array:
    """The tensor of an official key: its own checksum seeds it, its role decides the size."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    z = RandomState((zlib.crc32(key.encode()) + salt) % 2**32).standard_normal(shape)
    values = z * _scale(key, shape) if len(shape) > 1 or key.endswith("gate") else _vector(key, z)
    if len(shape) == 1:
        if key.endswith(".bn3.weight"):
            values = 0.4 * values
        if key.endswith(".W.1.weight"):
            values = 0.3 * values
        damped = "base.layer4." in key and (".bn3." in key or ".downsample.1." in key)
        if training and damped and key.endswith((".weight", ".bias")):
            values = 0.1 * values
    return values.astype(np.float32)


def _scale(key: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 4:
        fan_in = shape[1] * shape[2] * shape[3]
        small = any(part in key for part in ("NL_", "DEE.", "joint_encoder", "wpa."))
        return float(np.sqrt((0.01 if "MFA" in key else 0.25 if small else 2.0) / fan_in))
    if key.endswith("gate"):
        return 0.5
    if "embeddings" in key:
        return 0.1
    if "classifier" in key:
        return 0.02
    if key.startswith(("attention_", "out_att")):
        return float(1 / np.sqrt(shape[0]))
    return float(0.7 / np.sqrt(shape[1]))


def _vector(key: str, z: Array) -> Array:
    if key.endswith("running_mean"):
        return 0.1 * z
    if key.endswith("running_var"):
        return 0.75 + 0.5 * np.abs(z)
    if key.endswith("weight"):
        return 1.0 + 0.1 * z
    assert key.endswith("bias"), key
    return 0.05 * z


def images(seed: int, count: int, height: int = 288, width: int = 144) -> Array:
    """(N, H, W, 3) uint8."""
    rng = RandomState(seed)
    coarse = rng.uniform(0, 255, (count, height // 16, width // 16, 3))
    fine = np.repeat(np.repeat(coarse, 16, 1), 16, 2) + rng.uniform(-20, 20, (count, height, width, 3))
    return np.clip(np.round(fine), 0, 255).astype(np.uint8)


def normalised(pixels: Array) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 with ImageNet's mean and deviation."""
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def tokens(seed: int, count: int, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, L) RoBERTa ids, padded with 0, and their mask; row 0 is cut."""
    rng = RandomState(seed)
    ids, mask = np.zeros((count, length), np.int64), np.zeros((count, length), np.int64)
    for row in range(count):
        words = 30 if row == 0 else rng.randint(5, 14)
        text = np.concatenate([[0], rng.randint(4, 1000, words), [2]])[:length]
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def train_batch(case: str) -> dict[str, torch.Tensor]:
    """Normalised `rgb`, `rgb_aug`, `ir`; `ids`, `mask`, `pids`."""
    seed, height, width, _ = TRAIN[case]
    batch = {name: normalised(images(seed + i, 4, height, width)) for i, name in enumerate(("rgb", "rgb_aug", "ir"))}
    ids, mask = tokens(seed + 3, 4)
    return batch | {"ids": ids, "mask": mask, "pids": torch.tensor(PIDS)}


def loss_case(name: str, blocks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(blocks * B, D) features and their labels; every block has the same identities in the same order."""
    seed, identities, each, width, scale = LOSS[name]
    rng = RandomState(seed)
    labels = np.repeat(3 + 7 * np.arange(identities), each)
    centres = np.repeat(rng.standard_normal((identities, width)), each, 0)
    rows = [0.8 * centres + rng.standard_normal((len(labels), width)) + 0.3 * rng.standard_normal(width) for _ in range(blocks)]
    features = (scale * np.concatenate(rows)).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(np.tile(labels, blocks).astype(np.int64))


def logits_case(name: str) -> torch.Tensor:
    """(3B, 11) logits of [visible 1; visible 2; infrared]."""
    seed, identities, each, _, scale = LOSS[name]
    values = RandomState(seed + 50).standard_normal((3 * identities * each, 11))
    return torch.from_numpy((2 * scale * values).astype(np.float32))


def aug_tensor(call: int) -> torch.Tensor:
    """(3, 24, 12), a normalised image."""
    return torch.from_numpy(RandomState(950 + call).standard_normal((3, 24, 12)).astype(np.float32))


def rerank_features(name: str) -> list[Array]:
    """Eight sets of unit rows, 12 queries then 20 gallery images: six visual, one text, one joint."""
    rng = RandomState(RERANK[name])
    q_pids = rng.randint(0, 6, 12)
    g_pids = np.concatenate([np.arange(6), rng.randint(0, 6, 14)])
    rng.randint(0, 2, 12), rng.randint(0, 4, 20)  # cameras, which nothing here needs
    sets = []
    for width in (16,) * 7 + (32,):
        centre, gap = rng.standard_normal((6, width)), rng.standard_normal(width)
        query = centre[q_pids] + gap + 0.9 * rng.standard_normal((12, width))
        gallery = centre[g_pids] + 0.9 * rng.standard_normal((20, width))
        rows = np.concatenate([query, gallery])
        sets.append(rows / np.sqrt((rows**2).sum(1, keepdims=True)))
    return sets

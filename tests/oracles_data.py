"""Slow literal twins of the data pipeline: one image, one pixel box, one draw at a time."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tvilfm_plugin.data.paired import TokenTable

FILL = (0.4914, 0.4822, 0.4465)


def erase(image: Tensor, rng: random.Random, prob: float) -> Tensor:
    """Random erasing of one normalised (3, H, W) image, draws and pixels in one."""
    image = image.clone()
    height, width = image.shape[1:]
    if rng.uniform(0, 1) > prob:
        return image
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * (height * width)
        aspect = rng.uniform(0.3, 1 / 0.3)
        h = int(round(math.sqrt(area * aspect)))
        w = int(round(math.sqrt(area / aspect)))
        if h < height and w < width:
            y = rng.randint(0, height - h)
            x = rng.randint(0, width - w)
            for channel in range(3):
                image[channel, y : y + h, x : x + w] = FILL[channel]
            return image
    return image


def copy_channel(image: Tensor, channel: int) -> Tensor:
    return torch.stack([image[channel]] * 3)


def exchange(image: Tensor, rng: random.Random, prob: float) -> Tensor:
    if rng.uniform(0, 1) > prob:
        return image.clone()
    return copy_channel(image, rng.randint(0, 2))


def adaptive_gray(image: Tensor, rng: random.Random, prob: float) -> Tensor:
    choice = rng.randint(0, 3)
    if choice < 3:
        return copy_channel(image, choice)
    if rng.uniform(0, 1) > prob:
        return image.clone()
    return torch.stack([0.2989 * image[0] + 0.5870 * image[1] + 0.1140 * image[2]] * 3)


def apply_one(image: Tensor, draw: Sequence[int]) -> Tensor:
    """What a draw row `[top, left, height, width, op]` says, on one (3, H, W) image."""
    top, left, height, width, op = draw
    image = image.clone()
    for channel in range(3):
        image[channel, top : top + height, left : left + width] = FILL[channel]
    if op in (1, 2, 3):
        return copy_channel(image, op - 1)
    if op == 4:
        return torch.stack([0.2989 * image[0] + 0.5870 * image[1] + 0.1140 * image[2]] * 3)
    return image


def crop_flip(image: np.ndarray, pad: int, top: int, left: int, flip: bool, gray: bool) -> np.ndarray:
    """Pad, crop at (top, left) of the padded image, mirror, grey: by the image library, (H, W, 3) -> (H, W, 3)."""
    height, width = image.shape[:2]
    picture = ImageOps.expand(Image.fromarray(image), border=pad, fill=0)
    picture = picture.crop((left, top, left + width, top + height))
    if flip:
        picture = ImageOps.mirror(picture)
    if gray:
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture)


def pair_batches(
    rgb_pids: Sequence[int], ir_pids: Sequence[int], identities: int, instances: int, rng: np.random.RandomState
) -> tuple[list[int], list[int]]:
    """Indices of one epoch: the documented sampling, with lists."""
    people = sorted(set(rgb_pids))
    rgb: list[int] = []
    ir: list[int] = []
    for _ in range(int(max(len(rgb_pids), len(ir_pids)) / (identities * instances)) + 1):
        for pid in rng.choice(people, identities, replace=False):
            rgb.extend(rng.choice([i for i, p in enumerate(rgb_pids) if p == pid], instances))
            ir.extend(rng.choice([i for i, p in enumerate(ir_pids) if p == pid], instances))
    return rgb, ir


def token_table(texts: Sequence[tuple[Tensor, Tensor | None]]) -> TokenTable:
    """Of every image's caption and its rephrase (None: there is none), each (L,) ids."""
    rows = [some for pair in texts for some in pair if some is not None]
    numbers = iter(range(len(rows)))
    index = [[-1 if some is None else next(numbers) for some in pair] for pair in texts]
    return TokenTable(torch.stack(rows).numpy(), np.array(index))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two samples or batches are equal bit for bit."""
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) if isinstance(one[k], Tensor) else one[k] == other[k] for k in one
    )

"""Channel augmentation (CAJ): random numbers are drawn per sample on the CPU, channels changed per batch on the device.

A row of *ops* is `[top, left, height, width, op]`: the erased box (empty if its height is 0) and a `ChannelOp`. They
come from Python's `random.Random`, in the order in which the authors' code asks for them. `apply_channel_ops` acts on
normalised images, as channel augmentation is defined.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# An erased pixel, in normalised values (the authors erase after normalising).
FILL = (0.4914, 0.4822, 0.4465)
LUMINANCE = (0.2989, 0.5870, 0.1140)
# Height / width of an erased box, and its inverse, at least.
MIN_ASPECT = 0.3


class ChannelOp(IntEnum):
    """What happens to the three channels of an image."""

    KEEP = 0
    RED = 1
    GREEN = 2
    BLUE = 3
    LUMINANCE = 4


class Box(NamedTuple):
    """Pixels `[top, top + height) x [left, left + width)`."""

    top: int
    left: int
    height: int
    width: int


NO_BOX = Box(0, 0, 0, 0)
COPIES = (ChannelOp.RED, ChannelOp.GREEN, ChannelOp.BLUE)
ChannelDraw = Callable[[random.Random], ChannelOp]


def draw_erasing(rng: random.Random, height: int, width: int, prob: float, area: tuple[float, float] = (0.02, 0.4)) -> Box:
    """The box that random erasing blanks in an image of `height` x `width`, with probability `prob`; its aspect is uniform."""
    if rng.uniform(0, 1) > prob:
        return NO_BOX
    return draw_box(rng, height, width, area, lambda: rng.uniform(MIN_ASPECT, 1 / MIN_ASPECT), attempts=100)


def draw_box(
    rng: random.Random,
    height: int,
    width: int,
    area: tuple[float, float],
    draw_aspect: Callable[[], float],
    attempts: int,
    smallest: int = 0,
) -> Box:
    """A box that is strictly smaller than an image of `height` x `width`.

    Args:
        area: bounds of its share of the image, drawn uniformly.
        draw_aspect: gives its height / width.
        attempts: after this many that are too large, or shorter than `smallest` pixels, there is none.
    """
    for _ in range(attempts):
        target = rng.uniform(*area) * (height * width)
        aspect = draw_aspect()
        box_height, box_width = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if smallest <= box_height < height and smallest <= box_width < width:
            return Box(rng.randint(0, height - box_height), rng.randint(0, width - box_width), box_height, box_width)
    return NO_BOX


def draw_exchange(rng: random.Random, prob: float) -> ChannelOp:
    """Channel exchange: with probability `prob` one of R, G, B takes the place of all three."""
    if prob < 1 and rng.uniform(0, 1) > prob:  # what always happens needs no number (CAJ)
        return ChannelOp.KEEP
    return COPIES[rng.randint(0, 2)]


def draw_adaptive_gray(rng: random.Random, gray_prob: float) -> ChannelOp:
    """Channel-adaptive gray: R, G or B for all three, or (every fourth time) luminance with probability `gray_prob`."""
    choice = rng.randint(0, 3)
    if choice < 3:
        return COPIES[choice]
    return ChannelOp.KEEP if rng.uniform(0, 1) > gray_prob else ChannelOp.LUMINANCE


def apply_channel_ops(images: Tensor, ops: Tensor, fill_values: Sequence[float] = FILL) -> Tensor:
    """Erase boxes, then mix channels; nothing waits for the device and nothing loops over images.

    Args:
        images: (N, 3, H, W) normalised images; left as they are.
        ops: (N, 5+) int64 on the same device, columns top, left, height, width, op; further columns are ignored.
        fill_values: of an erased pixel's three channels.

    Returns:
        (N, 3, H, W), a new tensor.
    """
    count, _, height, width = images.shape
    box, op = boxes_of(images, ops)
    op = op.view(count, 1)
    # Planes are picked by index, not by a product with a 3 x 3 matrix: exact also under autocast and TF32.
    is_copy = (op >= ChannelOp.RED) & (op <= ChannelOp.BLUE)
    channel = torch.where(is_copy, op - ChannelOp.RED, torch.arange(3, device=images.device))
    plane = torch.arange(count, device=images.device).view(count, 1) * 3 + channel
    mixed = images.reshape(count * 3, height, width).index_select(0, plane.flatten()).view(count, 3, height, width)
    is_gray = (op == ChannelOp.LUMINANCE).view(count, 1, 1, 1)
    torch.where(is_gray, luminance(images), mixed, out=mixed)

    # Erasing comes before the channels are mixed; done last, its values have to be mixed as well. They are made on the
    # device, because a tensor of Python numbers would be copied from the host, and that waits.
    fill = torch.stack([images.new_full((), value) for value in fill_values])
    fill = torch.where(is_gray, luminance(fill.view(1, 3, 1, 1)), fill[channel].view(count, 3, 1, 1))
    return torch.where(box, fill, mixed, out=mixed)


def boxes_of(images: Tensor, ops: Tensor) -> tuple[Tensor, Tensor]:
    """What lies in the boxes of operations, (N, 1, H, W) bool, and their last column, (N,); checks both shapes."""
    count, channels, height, width = images.shape
    if channels != 3 or ops.ndim != 2 or ops.shape[0] != count or ops.shape[1] < 5:
        raise ValueError(
            f"Images (N, 3, H, W) need ops (N, 5) of the same N; got {tuple(images.shape)} and {tuple(ops.shape)}."
        )
    top, left, box_height, box_width, last = ops[:, :5].unbind(1)
    rows, columns = _within(height, top, box_height), _within(width, left, box_width)
    return rows.view(count, 1, height, 1) & columns.view(count, 1, 1, width), last


def luminance(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (LUMINANCE[0] * red).add_(LUMINANCE[1] * green).add_(LUMINANCE[2] * blue)


def _within(length: int, start: Tensor, extent: Tensor) -> Tensor:
    """(N, length) bool: the positions of each row that lie in `[start, start + extent)`."""
    position = torch.arange(length, device=start.device)
    return (position >= start[:, None]) & (position < (start + extent)[:, None])


def grayscale(planes: np.ndarray) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W) uint8 luminance, in the integer arithmetic of an image library's "L" mode."""
    red, green, blue = planes.astype(np.uint32)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


@dataclass(frozen=True)
class CropFlip:
    """Pad with `pad` black pixels, crop back to the same size, mirror, make grey; on uint8, before normalisation."""

    pad: int = 10
    flip_prob: float = 0.5
    gray_prob: float = 0.0

    def __call__(self, image: np.ndarray, rng: random.Random, out: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 -> contiguous (3, H, W) uint8, in `out` or new."""
        down, right = rng.randint(-self.pad, self.pad), rng.randint(-self.pad, self.pad)
        flip = rng.random() < self.flip_prob
        gray = rng.random() < self.gray_prob
        planes = image.transpose(2, 0, 1)
        # Mirroring the shifted image is shifting the mirror image the other way.
        planes = shifted(mirrored(planes), down, -right, out) if flip else shifted(planes, down, right, out)
        if gray:
            planes[:] = grayscale(planes)
        return planes


def mirrored(planes: np.ndarray) -> np.ndarray:
    """(C, H, W) uint8 planes with every row reversed."""
    if planes.shape[2] % 8 == 0 and planes.strides[2] == 1:
        # Eight pixels at a time: reversing words, and bytes within a word, is twice as fast as reversing bytes.
        return planes.view(">u8")[:, :, ::-1].astype("<u8").view(np.uint8)
    return planes[:, :, ::-1]


def shifted(planes: np.ndarray, down: int, right: int, out: np.ndarray | None = None) -> np.ndarray:
    """Move the content of (C, H, W) planes `down` and `right` (negative: up, left); black moves in. In `out`, or new.

    A crop of a padded image is this shift, so the padded image need not exist.
    """
    height, width = planes.shape[1:]
    moved = np.empty(planes.shape, planes.dtype) if out is None else out
    # One copy of everything. What crosses the edge of a row or of a plane lands where it is black.
    offset = down * width + right
    size = max(planes.size - abs(offset), 0)
    moved.reshape(-1)[max(offset, 0) :][:size] = planes.reshape(-1)[max(-offset, 0) :][:size]
    moved[:, : max(down, 0)] = 0
    moved[:, max(height + min(down, 0), 0) :] = 0
    moved[:, :, : max(right, 0)] = 0
    moved[:, :, max(width + min(right, 0), 0) :] = 0
    return moved


@dataclass(frozen=True)
class View:
    """One view of a sample: its crop on the CPU, bounds of the erased share, and what draws its channel operation (or None)."""

    crop: CropFlip
    erase_prob: float = 0.0
    channels: ChannelDraw | None = None
    area: tuple[float, float] = (0.02, 0.4)

    def __call__(self, image: np.ndarray, rng: random.Random, out: np.ndarray | None = None) -> tuple[np.ndarray, list[int]]:
        """(H, W, 3) uint8 -> its (3, H, W) uint8 crop, in `out` or new, and its row of operations for the device."""
        planes = self.crop(image, rng, out)
        height, width = planes.shape[1:]
        box = draw_erasing(rng, height, width, self.erase_prob, self.area) if self.erase_prob > 0 else NO_BOX
        op = ChannelOp.KEEP if self.channels is None else self.channels(rng)
        return planes, [*box, int(op)]


@dataclass(frozen=True)
class TrainAugmentation:
    """The three views of a training sample: two of the visible image, one of the infrared image.

    `caj` is channel-augmented joint learning, as TVI-LFM trains with it.
    """

    rgb: View
    rgb_aug: View
    ir: View

    @classmethod
    def caj(
        cls,
        pad: int = 10,
        flip_prob: float = 0.5,
        gray_prob: float = 0.1,
        rgb_erasing_prob: float = 0.6,
        ir_erasing_prob: float = 0.5,
        exchange_prob: float = 0.5,
        ir_gray_prob: float = 0.6,
        ir_channels: bool = True,
        ir_crop_gray_prob: float = 0.0,
        erasing_area: tuple[float, float] = (0.02, 0.4),
    ) -> "TrainAugmentation":
        """CAJ with other strengths; the defaults are the paper's, for images of 288 x 144 pixels."""
        crop = CropFlip(pad, flip_prob)
        return cls(
            rgb=View(CropFlip(pad, flip_prob, gray_prob), rgb_erasing_prob, area=erasing_area),
            rgb_aug=View(crop, rgb_erasing_prob, partial(draw_exchange, prob=exchange_prob), erasing_area),
            ir=View(
                CropFlip(pad, flip_prob, ir_crop_gray_prob),
                ir_erasing_prob,
                partial(draw_adaptive_gray, gray_prob=ir_gray_prob) if ir_channels else None,
                erasing_area,
            ),
        )

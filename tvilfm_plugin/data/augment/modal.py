"""MIP's augmentation, the same for both modalities: drawn and applied per sample on the CPU up to the normalisation.

What the authors do after normalising (noise erasing, then grey) is drawn here and applied per batch on the device. A row of
*ops* is `[top, left, height, width, gray]`.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from tvilfm_plugin.data.augment.caj import LUMINANCE, NO_BOX, Box, CropFlip


def draw_noise_box(
    rng: random.Random,
    height: int,
    width: int,
    prob: float,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: float = 0.3,
    attempts: int = 10,
) -> Box:
    """The box that noise erasing fills in an image of `height` x `width`.

    Args:
        rng: source of the random numbers.
        height: of the image.
        width: of the image.
        prob: probability that anything is erased.
        area: bounds of the erased share of the image, drawn uniformly.
        aspect: height / width of the box lies between this and its inverse, its logarithm drawn uniformly.
        attempts: a box must be strictly smaller than the image; after this many that are not, nothing is erased.
    """
    if rng.random() > prob:
        return NO_BOX
    for _ in range(attempts):
        target = rng.uniform(*area) * (height * width)
        ratio = math.exp(rng.uniform(math.log(aspect), -math.log(aspect)))
        box_height, box_width = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < box_height < height and 0 < box_width < width:
            return Box(rng.randint(0, height - box_height), rng.randint(0, width - box_width), box_height, box_width)
    return NO_BOX


def jitter(image: np.ndarray, rng: random.Random, brightness: float, contrast: float) -> np.ndarray:
    """Brightness and contrast of (H, W, 3) uint8, in random order, by factors uniform in 1 +- the given amounts."""
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    rng.shuffle(steps)
    picture = Image.fromarray(np.ascontiguousarray(image))
    for enhance, amount in steps:
        picture = enhance(picture).enhance(rng.uniform(1 - amount, 1 + amount))
    return np.asarray(picture)


def blur(planes: np.ndarray, sigma: float, radius: int = 10) -> np.ndarray:
    """Gaussian blur of (3, H, W) uint8 with a kernel of 2 * radius + 1 pixels; the border mirrors the image."""
    height, width = planes.shape[1:]
    rows = torch.from_numpy(np.ascontiguousarray(planes)).unsqueeze(1).float()
    # The kernel is a product, so two passes do. An image smaller than it has no more to mirror.
    down, right = min(radius, height - 1), min(radius, width - 1)
    rows = F.conv2d(F.pad(rows, (0, 0, down, down), mode="reflect"), _gauss(sigma, down).view(1, 1, -1, 1))
    rows = F.conv2d(F.pad(rows, (right, right, 0, 0), mode="reflect"), _gauss(sigma, right).view(1, 1, 1, -1))
    return rows.squeeze(1).round_().clamp_(0, 255).to(torch.uint8).numpy()


def _gauss(sigma: float, radius: int) -> Tensor:
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def erase_and_gray(images: Tensor, ops: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill boxes with standard normal noise, then make the drawn images grey; nothing waits for the device.

    Args:
        images: (N, 3, H, W) normalised images; left as they are.
        ops: (N, 5+) int64 on the same device, columns top, left, height, width, gray.
        generator: of the noise, on the same device; None takes torch's global one.

    Returns:
        (N, 3, H, W), a new tensor.
    """
    count, channels, height, width = images.shape
    if channels != 3 or ops.ndim != 2 or ops.shape[0] != count or ops.shape[1] < 5:
        raise ValueError(
            "Noise erasing needs images (N, 3, H, W) and ops (N, 5) of the same N; "
            f"got {tuple(images.shape)} and {tuple(ops.shape)}."
        )
    top, left, box_height, box_width, gray = (column.view(count, 1) for column in ops[:, :5].unbind(1))
    row, column = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows = (row >= top) & (row < top + box_height)
    columns = (column >= left) & (column < left + box_width)
    noise = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
    erased = torch.where((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), noise, images)
    red, green, blue = erased.unbind(1)
    luminance = (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue).unsqueeze(1)
    return torch.where(gray.view(count, 1, 1, 1) > 0, luminance, erased)


@dataclass(frozen=True)
class ModalAugmentation:
    """How one view of an image is made.

    Attributes:
        crop: padding, crop and mirror image.
        brightness: bound of the brightness jitter.
        contrast: bound of the contrast jitter.
        blur_sigma: bounds of the blur; every image is either jittered or blurred.
        jitter_prob: probability that it is jittered.
        erase_prob: probability of noise erasing.
        gray_prob: probability of a grey image.
    """

    crop: CropFlip = CropFlip()
    brightness: float = 0.3
    contrast: float = 0.3
    blur_sigma: tuple[float, float] = (0.1, 3.0)
    jitter_prob: float = 0.5
    erase_prob: float = 0.5
    gray_prob: float = 0.5

    def __call__(self, image: np.ndarray, rng: random.Random) -> tuple[np.ndarray, list[int]]:
        """(H, W, 3) uint8 -> its (3, H, W) uint8 view, and its row of operations for the device."""
        planes = self.crop(image, rng)
        if rng.random() < self.jitter_prob:
            planes = jitter(planes.transpose(1, 2, 0), rng, self.brightness, self.contrast).transpose(2, 0, 1)
        else:
            planes = blur(planes, rng.uniform(*self.blur_sigma))
        box = draw_noise_box(rng, planes.shape[1], planes.shape[2], self.erase_prob)
        # A copy, writable and in one piece: torch wants to own its memory.
        return np.array(planes, order="C"), [*box, int(rng.random() < self.gray_prob)]

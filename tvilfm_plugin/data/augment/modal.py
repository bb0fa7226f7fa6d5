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

from tvilfm_plugin.data.augment.caj import MIN_ASPECT, NO_BOX, Box, CropFlip, boxes_of, draw_box, luminance

BLUR_RADIUS = 10


def draw_noise_box(rng: random.Random, height: int, width: int, prob: float) -> Box:
    """The box that noise erasing fills, with probability `prob`; the logarithm of its aspect is uniform."""
    if rng.random() > prob:
        return NO_BOX
    bound = math.log(MIN_ASPECT)
    return draw_box(rng, height, width, (0.02, 1 / 3), lambda: math.exp(rng.uniform(bound, -bound)), attempts=10, smallest=1)


def jitter(image: np.ndarray, rng: random.Random, brightness: float, contrast: float) -> np.ndarray:
    """Brightness and contrast of (H, W, 3) uint8, in random order, by factors uniform in 1 +- the given amounts."""
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    rng.shuffle(steps)
    picture = Image.fromarray(np.ascontiguousarray(image))
    for enhance, amount in steps:
        picture = enhance(picture).enhance(rng.uniform(1 - amount, 1 + amount))
    return np.asarray(picture)


def blur(planes: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (3, H, W) uint8 with a kernel of 21 pixels; the border mirrors the image."""
    height, width = planes.shape[1:]
    rows = torch.from_numpy(np.ascontiguousarray(planes)).unsqueeze(1).float()
    # The kernel is a product, so two passes do. An image smaller than it has no more to mirror.
    down, right = min(BLUR_RADIUS, height - 1), min(BLUR_RADIUS, width - 1)
    rows = F.conv2d(F.pad(rows, (0, 0, down, down), mode="reflect"), _gauss(sigma, down).view(1, 1, -1, 1))
    rows = F.conv2d(F.pad(rows, (right, right, 0, 0), mode="reflect"), _gauss(sigma, right).view(1, 1, 1, -1))
    return rows.squeeze(1).round_().clamp_(0, 255).to(torch.uint8).numpy()


def _gauss(sigma: float, radius: int) -> Tensor:
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def erase_and_gray(images: Tensor, ops: Tensor) -> Tensor:
    """Fill boxes with standard normal noise, then make the drawn images grey; nothing waits for the device.

    Args:
        images: (N, 3, H, W) normalised images; left as they are.
        ops: (N, 5+) int64 on the same device, columns top, left, height, width, gray.

    Returns:
        (N, 3, H, W), a new tensor.
    """
    box, gray = boxes_of(images, ops)
    noisy = torch.where(box, torch.randn_like(images, memory_format=torch.contiguous_format), images)
    return torch.where(gray.view(-1, 1, 1, 1) > 0, luminance(noisy), noisy)


@dataclass(frozen=True)
class ModalAugmentation:
    """One view of an image: crop and mirror image, jitter or blur (with their bounds), and erasing by noise."""

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

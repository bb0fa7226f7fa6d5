"""Pictures made worse on purpose, as cameras do at night: pure functions of (H, W, 3) uint8, whatever the size."""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

Change = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 -> the same."""


def blurred(picture: np.ndarray) -> np.ndarray:
    """Out of focus: a Gaussian of a 40th of the height."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(len(picture) / 40)))


def dark(picture: np.ndarray) -> np.ndarray:
    """A fifth of the light, in whole counts."""
    return picture // 5


def occluded(picture: np.ndarray) -> np.ndarray:
    """Grey from half the height down, as behind a counter."""
    hidden = picture.copy()
    hidden[len(picture) // 2 :] = 128
    return hidden


DAMAGES: Mapping[str, Change] = {"blurred": blurred, "dark": dark, "occluded": occluded}

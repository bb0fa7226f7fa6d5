"""From a picture to the pixels that a network gets; the only place that decides how. Needs numpy and Pillow alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from tvilfm_plugin.files.pictures import Window, open_picture

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}

Picture = str | Path | Image.Image | np.ndarray
"""A file, a PIL image, or pixels: (H, W), (H, W, 1) or (H, W, 3) uint8, or with a window (H, W) of any number."""


def read_resized(path: str, size: tuple[int, int], resample: str = "lanczos", window: Window | None = None) -> np.ndarray:
    """The (H, W, 3) uint8 RGB image of a file, resized with one of FILTERS if it needs it; `window` as in `open_picture`."""
    return resized(open_picture(path, window), size, resample)


def resized(rgb: Image.Image, size: tuple[int, int], resample: str = "lanczos") -> np.ndarray:
    """An RGB image as `read_resized` gives it."""
    height, width = size
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), FILTERS[resample])
    return np.asarray(rgb)


def picture_pixels(
    picture: Picture, size: tuple[int, int], resample: str = "lanczos", window: Window | None = None
) -> np.ndarray:
    """Whatever somebody has of a picture, as `read_resized` gives it."""
    if isinstance(picture, np.ndarray):
        picture = _image_of(picture, window)
    return resized(open_picture(picture, window), size, resample)


def _image_of(pixels: np.ndarray, window: Window | None) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    counts = window is not None and pixels.ndim == 2 and pixels.dtype != np.uint8 and pixels.dtype.kind in "uif"
    if not (pixels.ndim == 2 or colour) or not pixels.size or not (pixels.dtype == np.uint8 or counts):
        raise ValueError(
            f"Pixels of shape {pixels.shape} and type {pixels.dtype} are no image: (H, W), (H, W, 1) or (H, W, 3) uint8 is "
            "needed. For counts of an infrared camera, (H, W), INPUT.IR_SCALING (low, high) says what is black and white."
        )
    return Image.fromarray(pixels.astype(np.float32) if counts else pixels)

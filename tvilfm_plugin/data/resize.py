"""From a picture to the pixels that a network gets; the only place that decides how. Needs numpy and Pillow alone."""

from pathlib import Path

import numpy as np
from PIL import Image

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}

Picture = str | Path | Image.Image | np.ndarray
"""A file, a PIL image, or pixels (H, W) or (H, W, 3) uint8."""


def read_resized(path: str, size: tuple[int, int], resample: str = "lanczos") -> np.ndarray:
    """The RGB image of a file as (H, W, 3) uint8, resized with one of FILTERS; an image of that size is not resampled."""
    with Image.open(path) as image:
        return resized(image, size, resample)


def resized(image: Image.Image, size: tuple[int, int], resample: str = "lanczos") -> np.ndarray:
    """An opened image as `read_resized` gives it."""
    rgb = image.convert("RGB")
    height, width = size
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), FILTERS[resample])
    return np.asarray(rgb)


def picture_pixels(picture: Picture, size: tuple[int, int], resample: str = "lanczos") -> np.ndarray:
    """Whatever somebody has of a picture, as `read_resized` gives it."""
    if isinstance(picture, (str, Path)):
        return read_resized(str(picture), size, resample)
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 2
        if picture.dtype != np.uint8 or not (grey or (picture.ndim == 3 and picture.shape[2] == 3)) or not picture.size:
            raise ValueError(
                f"Pixels of shape {picture.shape} and type {picture.dtype} are no image: (H, W) or (H, W, 3) uint8 is needed."
            )
        picture = Image.fromarray(picture)
    return resized(picture, size, resample)

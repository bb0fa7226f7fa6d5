"""Image and mirror image as one row: the host's form (TEST.FLIP) and the methods' own (TEST.FLIP_FORM embeddings)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tvilfm_plugin.modality import Modality

EMBEDDINGS = "embeddings"


def mirrored(test: Any) -> bool:
    """Whether the section TEST of a config asks for the method's own form."""
    return bool(test.FLIP.ENABLED and test.FLIP_FORM == EMBEDDINGS)


def encoding(model: Any, test: Any) -> tuple[Callable[..., Tensor], bool]:
    """How the model makes rows of images, and whether features of image and mirror image are averaged besides."""
    if not mirrored(test):
        return model.encode_images, test.FLIP.ENABLED
    if getattr(model, "stage1", None) is not None:
        raise ValueError("TEST.FLIP_FORM embeddings makes no row of TVILFM.IR_NECK stage1; change one of the two.")
    return model.encode_mirrored, False


def encode_rows(encode: Callable[..., Tensor], images: Tensor, modality: Modality, camids: Tensor | None, flip: bool) -> Tensor:
    """(N, D) raw features of (N, 3, H, W) pixels; with `flip`, the mean over images and mirror images."""
    raw = encode(images, modality, camids)
    return (raw + encode(images.flip(dims=[3]), modality, camids)) / 2 if flip else raw

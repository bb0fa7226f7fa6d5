"""Reading the pictures of a gallery: those that can be read, and a list of the others. Needs neither torch nor the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.data.resize import read_resized
from tvilfm_plugin.files.pictures import PictureError
from tvilfm_plugin.retrieval.records import Record


class Unreadable(NamedTuple):
    """An image that was skipped, and why."""

    path: str
    reason: str


class Pictures(NamedTuple):
    """A block of a gallery."""

    pixels: list[np.ndarray]
    records: list[Record]
    unreadable: list[Unreadable]


def read_pictures(images: Sequence[Record], size: tuple[int, int], resample: str) -> Pictures:
    """Read and resize images; see `data.resize.read_resized` for the arguments."""
    block = Pictures([], [], [])
    for record in images:
        try:
            block.pixels.append(read_resized(record.path, size, resample))
        except OSError as error:
            why = error.reason if isinstance(error, PictureError) else f"{type(error).__name__}: {error}"
            block.unreadable.append(Unreadable(record.path, why))
            continue
        block.records.append(record)
    return block


def check_any(records: Sequence[Record], images: Sequence[Record]) -> None:
    """Raise if no image of a gallery could be read."""
    if not records:
        raise ValueError(f"None of the {len(images)} gallery images can be read, so there is nothing to search.")

"""Features of a fixed number of augmented views of every training image, computed once and kept on disk.

While the visual part is frozen (stage 2), a training step needs of an image nothing but the features of its views.
Fresh views in every epoch would need the whole stream of draws (11 GB for SYSU-MM01 and 20 epochs); with k views per
image, drawn once, training is an approximation, and whoever trains so must say k.

A bank is an ordinary `.npy` array (N, V, D), row n the V views of image n. It grows in a `.part` file, image by image,
so a run that is stopped goes on where it was, and gets its name when it is complete.
"""

import errno
import io
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tvilfm_plugin.files.arrays import mapped_array
from tvilfm_plugin.files.writing import locked, make_folder
from tvilfm_plugin.modality import Modality

logger = logging.getLogger("fastreid." + __name__)

DTYPES = ("float32", "float16")


def view_rng(modality: Modality, image: int, view: int) -> random.Random:
    """The random numbers of one stored view: a function of the three alone, in every process."""
    return random.Random(f"{modality.value} {image} {view}")


class FeatureBank:
    """`bank[image, view]` is (D,) float32, read from a memory map; cheap to pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._rows = mapped_array(path, "feature bank")
        except ValueError as error:
            raise ValueError(f"{error}. Delete it: it is computed again.") from None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, V, D)."""
        return tuple(self._rows.shape)

    def __getitem__(self, at: tuple[int, int]) -> Tensor:
        return torch.from_numpy(np.array(self._rows[at], dtype=np.float32))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


def filled_bank(
    path: Path, shape: tuple[int, int, int], dtype: str, features: Callable[[int, int], np.ndarray], chunk: int = 16
) -> FeatureBank:
    """The bank of that name; what is missing of it is computed.

    Several processes may ask at once: one computes, the others wait for it.

    Args:
        path: must name everything that the features depend on (a fingerprint).
        shape: (N, V, D).
        dtype: one of DTYPES; float16 halves the file and rounds to 3 digits.
        features: (first, end) -> (end - first, V, D) of these images.
    """
    if dtype not in DTYPES:
        raise ValueError(f"A feature bank stores {' or '.join(DTYPES)} (TVILFM.BANK.DTYPE), not {dtype!r}.")
    if not path.is_file():
        make_folder(path.parent)
        with locked(path.with_suffix(".lock"), "feature bank"):
            if not path.is_file():
                _fill(path, shape, dtype, features, chunk)
    bank = FeatureBank(path)
    if bank.shape != shape:
        raise ValueError(f"The feature bank {path} holds {bank.shape} numbers instead of {shape}. Delete it: it is not ours.")
    return bank


def _fill(path: Path, shape: tuple[int, int, int], dtype: str, features: Callable[[int, int], np.ndarray], chunk: int) -> None:
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    start, stride = len(header.getvalue()), shape[1] * shape[2] * np.dtype(dtype).itemsize
    part = path.with_suffix(".part")
    done = max(0, (part.stat().st_size if part.is_file() else 0) - start) // stride
    missing, free = (shape[0] - done) * stride, shutil.disk_usage(path.parent).free
    logger.info(
        f"Feature bank {path}: {shape[1]} views of {shape[0]} images, {shape[0] * stride / 1e9:.2f} GB {dtype}; "
        f"{done} images are there"
    )
    if missing > free:
        raise OSError(
            errno.ENOSPC,
            f"The feature bank needs {missing / 1e9:.2f} GB more in {path.parent} and {free / 1e9:.2f} GB are free. Store "
            "fewer views (TVILFM.BANK.VIEWS) or float16, or point DATASETS.CACHE to a larger disk",
        )
    with part.open("r+b" if part.is_file() else "w+b") as file:
        file.write(header.getvalue())
        # What follows the last complete image was being written when the process died.
        file.truncate(start + done * stride)
        file.seek(start + done * stride)
        with tqdm(total=shape[0], initial=done, unit="image", desc="Feature bank", disable=None) as bar:
            for first in range(done, shape[0], chunk):
                end = min(first + chunk, shape[0])
                rows = np.asarray(features(first, end))
                if rows.shape != (end - first, *shape[1:]) or not np.isfinite(rows).all():
                    raise ValueError(
                        f"Images {first}..{end - 1} gave features of shape {rows.shape}, or not finite ones; the bank holds "
                        f"finite {shape[1:]} of each. Look at the weights of stage 1."
                    )
                with np.errstate(over="ignore"):
                    stored = rows.astype(dtype)
                if not np.isfinite(stored).all():
                    largest = np.abs(rows).max()
                    raise ValueError(f"Features up to {largest:.3g} overflow {dtype}; set TVILFM.BANK.DTYPE float32.")
                file.write(stored.tobytes())
                file.flush()
                # A size on disk must mean that the content is there, also after a power cut.
                os.fsync(file.fileno())
                bar.update(end - first)
    os.replace(part, path)

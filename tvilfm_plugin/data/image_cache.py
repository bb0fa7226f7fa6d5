"""Every image decoded and resized once, then read from a memory-mapped file.

A cache file is an ordinary `.npy` array (N, 3, H, W) uint8: planes, because crops and batches are made of planes. Its
name is `<list>-<state>.npy`: `list` stands for which images at what size, `state` for what the image files are now
(their sizes and modification times). A cache file gets its name when it is complete, so a name can be trusted.
"""

import contextlib
import errno
import hashlib
import io
import logging
import operator
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tvilfm_plugin.data.resize import FILTERS, read_resized
from tvilfm_plugin.files.arrays import known_array
from tvilfm_plugin.files.pictures import PictureError, Window
from tvilfm_plugin.files.places import relative
from tvilfm_plugin.files.writing import atomic_file, locked, make_folder

logger = logging.getLogger("fastreid." + __name__)

# Goes up when the same files would give other pixels.
RESIZE_VERSION = 2
_MAX_LISTED = 5
_GIVE_UP_AFTER = 100
_CHUNK = 16
_ONE_AT_A_TIME = threading.Lock()


class ImageCache(Sequence[np.ndarray]):
    """`cache[i]` is image i as (H, W, 3) uint8, a view of a read-only memory map; cheap to pickle.

    The images are decoded when the cache is first built, and again when the list, a file's size or its modification
    time changes. Several processes may ask for the same cache at once: one builds, the others wait for it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        folder: Path | str,
        resample: str = "lanczos",
        window: Window | None = None,
    ) -> None:
        """
        Args:
            paths: the image files; index i of the cache is paths[i].
            size: (H, W) that every image gets.
            folder: where cache files lie. Paths count relative to it, so a data set may move together with its cache.
            resample: filter of the resizing, a name in FILTERS; each has cache files of its own.
            window: what of more than 8 bits becomes grey, likewise; None refuses such images.
        """
        if not paths:
            raise ValueError("An image cache needs at least one image; the list of paths is empty.")
        if resample not in FILTERS:
            raise ValueError(f"Images cannot be resized with {resample!r} (INPUT.RESAMPLE_*); choose {', '.join(FILTERS)}.")
        self.size = (int(size[0]), int(size[1]))
        self._shape = (len(paths), 3, *self.size)
        folder = Path(folder).absolute()
        names, state = _identify(paths, self.size, folder, resample, window)
        self.path = folder / f"{names}-{state}.npy"
        planes = known_array(self.path, self._shape, np.uint8, "image cache")
        if planes is None:
            planes = self._build([os.fspath(path) for path in paths], names, resample, window)
        self._planes = planes

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        """(H, W, 3) uint8 of one image; its memory is ordered in planes, so `transpose(2, 0, 1)` is contiguous."""
        return self._planes[operator.index(index)].transpose(1, 2, 0)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "_shape": self._shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        planes = known_array(self.path, self._shape, np.uint8, "image cache")
        if planes is None:
            raise FileNotFoundError(
                f"The image cache {self.path} has gone while it was in use: deleted, or replaced because its images "
                "changed. Start again; the cache will be rebuilt."
            )
        self._planes = planes

    def _build(self, paths: list[str], names: str, resample: str, window: Window | None) -> np.ndarray:
        folder = self.path.parent
        try:
            make_folder(folder)
            with locked(folder / f"{names}.lock", "image cache"):
                # Another process may have finished while this one waited.
                planes = known_array(self.path, self._shape, np.uint8, "image cache")
                if planes is not None:
                    return planes
                # Only the holder of the lock writes here, so these were left behind by a process that died.
                for stale in folder.glob(f".{names}-*.part"):
                    stale.unlink(missing_ok=True)
                self._write(paths, resample, window)
                for old in folder.glob(f"{names}-*.npy"):
                    if old != self.path:
                        # Windows keeps a file that somebody has mapped; it goes another time.
                        with contextlib.suppress(PermissionError):
                            old.unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, ImageError):
                raise
            why = str(error.strerror or error).rstrip(".")
            said = (
                f"Cannot build the image cache in {folder}: {why}. Point DATASETS.CACHE to a writable "
                f"folder on a disk with {self._bytes / 1e9:.2f} GB free; finished cache files are untouched"
            )
            raise OSError(*[error.errno] if error.errno else [], said) from error
        planes = known_array(self.path, self._shape, np.uint8, "image cache")
        if planes is None:
            raise OSError(f"The image cache {self.path} vanished once it was written; is the folder being cleaned?")
        return planes

    @property
    def _bytes(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64))

    def _write(self, paths: list[str], resample: str, window: Window | None) -> None:
        """Decode everything into a file that gets its name when it is complete."""
        free = shutil.disk_usage(self.path.parent).free
        if free < self._bytes:
            raise OSError(errno.ENOSPC, f"{self._bytes / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")
        logger.info("Decoding %d images once into %s (%.2f GB)", len(paths), self.path, self._bytes / 1e9)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": self._shape})
        with atomic_file(self.path) as file:
            _write_at(file.fileno(), header.getvalue(), 0)
            _decode_all(paths, self.size, resample, window, file.fileno(), len(header.getvalue()))


class ImageError(OSError):
    """Some images cannot be read; the message names them."""


def _identify(
    paths: Sequence[str], size: tuple[int, int], folder: Path, resample: str, window: Window | None
) -> tuple[str, str]:
    """Hash of (names, size, filter, window), and hash of the state that the files are in."""
    names, state = hashlib.sha256(), hashlib.sha256()
    # Lanczos came first: its files have no filter in their name.
    words = [f"{size[0]}x{size[1]}", *([resample] if resample != "lanczos" else []), *([str(window)] if window else [])]
    names.update((" ".join(words) + "\n").encode())
    state.update(f"{RESIZE_VERSION}\n".encode())
    parents: dict[str, str] = {}
    missing = []
    for path in paths:
        head, tail = os.path.split(path)
        if head not in parents:
            parents[head] = relative(head or ".", folder)
        names.update(os.fsencode(f"{parents[head]}/{tail}\n"))
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(os.fspath(path))
            continue
        except OSError as error:
            raise ImageError(f"{path} cannot be looked at: {error.strerror}. Restore it, or take it off the lists.") from error
        state.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    if missing:
        raise ImageError(_named(missing, len(paths), "do not exist"))
    return names.hexdigest()[:16], state.hexdigest()[:16]


def _decode_all(
    paths: list[str], size: tuple[int, int], resample: str, window: Window | None, handle: int, offset: int
) -> None:
    """Decode on several threads (the decoder releases the interpreter) and write every image at its place."""
    stride = 3 * size[0] * size[1]
    broken: dict[int, str] = {}
    stop = threading.Event()

    def decode(start: int) -> int:
        chunk = range(start, min(start + _CHUNK, len(paths)))
        for index in chunk:
            if stop.is_set():
                break
            try:
                image = read_resized(paths[index], size, resample, window)
            # A damaged file raises whatever its decoder meets first: OSError, SyntaxError, ValueError, struct.error ...
            except Exception as error:
                why = error.reason if isinstance(error, PictureError) else f"{type(error).__name__}: {error}"
                broken[index] = f"{paths[index]} ({why.rstrip('.')})"
                if len(broken) >= _GIVE_UP_AFTER:
                    stop.set()
                continue
            _write_at(handle, image.transpose(2, 0, 1).tobytes(), offset + index * stride)
        return len(chunk)

    pool = ThreadPoolExecutor(min(8, usable_cores()))
    # No bar where nobody watches: a log file has the line that announces the work.
    with pool, tqdm(total=len(paths), unit="image", desc="Image cache", disable=None) as bar:
        try:
            for done in pool.map(decode, range(0, len(paths), _CHUNK)):
                bar.update(done)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if broken:
        at_least = "at least " if stop.is_set() else ""
        raise ImageError(at_least + _named([broken[i] for i in sorted(broken)], len(paths), "cannot be read"))


def _write_at(handle: int, data: bytes, offset: int) -> None:
    """Write until everything is written: a full disk raises here, where a memory map would kill the process."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            written = os.pwrite(handle, view, offset)
        else:  # Windows: position and write are two steps, which no other thread may come between
            with _ONE_AT_A_TIME:
                os.lseek(handle, offset, os.SEEK_SET)
                written = os.write(handle, view)
        view, offset = view[written:], offset + written


def usable_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _named(what: list[str], total: int, problem: str) -> str:
    listed = "; ".join(what[:_MAX_LISTED]) + (" ..." if len(what) > _MAX_LISTED else "")
    return f"{len(what)} of {total} images {problem}: {listed}. Restore them, or take them off the data set's lists."

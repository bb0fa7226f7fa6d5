"""Files of numpy arrays: plain values, or an error that names the file; or None, where they can be made again."""

import contextlib
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

logger = logging.getLogger("fastreid." + __name__)


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a .npy file; nothing of the file is run.

    Raises:
        ValueError: it holds Python objects or no array, or is damaged.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        begins = file.read(6)
    if begins != b"\x93NUMPY":
        raise ValueError(f"{name} is no array that numpy.save wrote (Python objects are never loaded); write it again.")
    try:
        return np.load(path, allow_pickle=False)
    # The header is a text that a damaged file makes anything of: ValueError, SyntaxError, TokenError, EOFError ...
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} is damaged, or holds Python objects, which are never loaded ({why}).") from None


def mapped_array(path: str | os.PathLike[str], what: str) -> np.ndarray:
    """The memory-mapped array of a .npy file.

    Args:
        what: the file is, for the message.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged; the sentence has no end, which is the remedy.
    """
    try:
        return np.lib.format.open_memmap(os.fspath(path), mode="r")
    except OSError:
        raise
    except Exception as error:  # what damage may raise: see read_array
        raise ValueError(f"The {what} {os.fspath(path)} is damaged ({error})") from error


def known_array(path: str | os.PathLike[str], shape: tuple[int, ...], dtype: type, what: str) -> np.ndarray | None:
    """The memory-mapped array of a .npy file; None, with a warning, if it is damaged or another one than asked for.

    Args:
        what: the file is, for the warning.

    Raises:
        OSError: the file cannot be read; one that is absent is None.
    """
    try:
        mapped = mapped_array(path, what)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        logger.warning("%s and will be made again.", error)
        return None
    if mapped.shape != shape or mapped.dtype != dtype:
        logger.warning("The %s %s holds %s %s; it will be made again.", what, path, mapped.shape, mapped.dtype)
        return None
    # A plain array of the same memory: indexing a np.memmap costs several times more.
    return np.asarray(mapped)


@contextlib.contextmanager
def open_arrays(path: str | os.PathLike[str], remedy: str) -> Iterator[Any]:
    """A .npz file, whose arrays are inflated when they are asked for; nothing of the file is run.

    Raises:
        ValueError: it holds Python objects or one array only, or is damaged; the message ends with the remedy.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("one array only")
        with file:
            yield file
    # A damaged archive raises whatever its reader meets first.
    except (ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{os.fspath(path)} is no archive of plain arrays ({error}). {remedy}") from None

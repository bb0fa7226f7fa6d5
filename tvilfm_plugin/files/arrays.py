"""Files of numpy arrays that others wrote: plain values, or an error that names the file."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np


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

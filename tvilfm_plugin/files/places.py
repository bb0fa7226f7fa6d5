"""Paths of pictures as an artefact keeps them: below $FASTREID_DATASETS, so that it works on another machine."""

import os
from pathlib import Path, PurePath


def datasets_root() -> str:
    """$FASTREID_DATASETS now, fast-reid's "datasets" without one."""
    return os.getenv("FASTREID_DATASETS", "datasets")


def travelling(path: str) -> str:
    """A picture's path below the data sets' folder, with forward slashes; as it is where it lies elsewhere."""
    if not os.path.isabs(path) and not os.path.isabs(datasets_root()):
        absolute, root = os.path.normpath(path), os.path.normpath(datasets_root())
    else:
        absolute, root = os.path.abspath(path), os.path.abspath(datasets_root())
    below = absolute.startswith(root + os.sep)
    return PurePath(os.path.relpath(absolute, root)).as_posix() if below else path


def local(path: str) -> str:
    """Where the picture of a stored path lies on this machine; the stored path where it is not there."""
    here = Path(datasets_root()) / path
    return str(here) if not os.path.isabs(path) and not os.path.isfile(path) and here.is_file() else path

"""Paths of pictures, as an artefact keeps them (below $FASTREID_DATASETS, to work anywhere), and as the disk has them."""

import os
import posixpath
import unicodedata
from collections.abc import Iterable
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


def local(path: str, near: str | os.PathLike[str] = "") -> str:
    """Where the picture of a stored path lies on this machine; the stored path where it is not there.

    Args:
        path: as `travelling` made it.
        near: where the data sets' folder lay as seen from the artefact, for one that has not moved; asked where
            $FASTREID_DATASETS says nothing.
    """
    if os.path.isabs(path) or os.path.isfile(path):
        return path
    roots = [near, datasets_root()] if near and "FASTREID_DATASETS" not in os.environ else [datasets_root()]
    return next((str(Path(root) / path) for root in roots if os.path.isfile(os.path.join(root, path))), path)


def relative(path: str, start: str | os.PathLike[str]) -> str:
    """A path as seen from a folder; absolute where no way leads there (another drive of Windows)."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return os.path.abspath(path)


def seen_from(folder: str | os.PathLike[str]) -> str:
    """The data sets' folder as a relative path from a folder, with forward slashes; "" where there is none (another drive)."""
    try:
        return PurePath(os.path.relpath(datasets_root(), folder)).as_posix()
    except ValueError:
        return ""


def as_on_disk(folder: str | os.PathLike[str], paths: Iterable[str]) -> list[str]:
    """Paths below a folder as the disk spells them: macOS may write an accent as a sign of its own, a table does not.

    Args:
        paths: with forward slashes; what is not there in any spelling stays as it is.
    """
    names: dict[str, dict[str, str]] = {}  # of a folder: composed -> as it is there

    def spelled(path: str) -> str:
        if path.isascii() or os.path.lexists(os.path.join(folder, path)):
            return path
        above, name = posixpath.split(path)
        above = spelled(above) if above != path else above
        place = os.path.join(folder, above)
        if place not in names:
            there = os.listdir(place) if os.path.isdir(place) else []
            names[place] = {unicodedata.normalize("NFC", one): one for one in there}
        return posixpath.join(above, names[place].get(unicodedata.normalize("NFC", name), name))

    return [spelled(path) for path in paths]

"""Files that are complete or absent, their hash, and locks that die with their process."""

import contextlib
import errno
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger("fastreid." + __name__)


class FolderError(OSError):
    """Nothing can be written where it is wanted; the message names the place, the fact and the remedy."""


def check_folder(path: str | os.PathLike[str], what: str = "The folder to write to") -> Path:
    """The path, if files can be written below it; makes nothing.

    Args:
        what: whose value it is, for the message about an empty one.
    """
    if not os.fspath(path).strip():
        raise FolderError(f"{what} is empty; name a folder, e.g. logs/mine.")
    folder = Path(path)
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder)
    if os.path.lexists(there) and not there.is_dir():
        fact = "is a link to nowhere" if there.is_symlink() and not there.exists() else "is a file"
        raise FolderError(f"{folder} cannot be a folder to write to: {there} {fact}. Name another folder.")
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise FolderError(f"{folder} cannot be written to: {there} is read-only. Name another folder, or change its rights.")
    return folder


def check_file(path: str | os.PathLike[str], what: str = "The file to write") -> Path:
    """The path, if a file can be written there; makes nothing. Arguments as those of `check_folder`."""
    if not os.fspath(path).strip():
        raise FolderError(f"{what} is empty; name a file.")
    if os.path.isdir(path):
        raise FolderError(f"{os.fspath(path)} is a folder; name a file in it.")
    check_folder(Path(path).parent)
    return Path(path)


def make_folder(path: str | os.PathLike[str], what: str = "The folder to write to") -> Path:
    """The folder, made where it is missing. Arguments as those of `check_folder`."""
    folder = check_folder(path, what)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a name that is too long, or no name at all
        if no_room(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise FolderError(f"The folder {folder} cannot be made ({reason}). Name another folder.") from error
    return folder


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file that appears under its name only when it is complete; a killed process leaves the old one."""
    if os.path.isdir(path):
        raise FolderError(f"{os.fspath(path)} is a folder; name a file in it.")
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    try:  # the system takes the umask off, for this file alone
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:  # the temporary name tells nobody anything
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        with os.fdopen(descriptor, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # rename and data can reach the disk in either order, and a power cut fall between
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        if full := no_room(error):
            raise OSError(full.errno, full.strerror, os.fspath(path)) from error
        raise


def no_room(error: BaseException | None) -> OSError | None:
    """The system's word that there is no room for more, also where a library hides it behind another error (torch's writer)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        error = error.__cause__ or error.__context__
    return None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically, line ends as they are: the same bytes on every system."""
    with atomic_file(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class InUseError(RuntimeError):
    """Another process holds a lock and does not give it back in time; the message names the lock file."""


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], what: str, wait: float = -1) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, however it ends. The log says what is waited for.

    Args:
        path: the lock file; it stays when the lock is released.
        what: what is worked on, for messages: "image cache".
        wait: seconds to wait for another process; negative: until it is done.
    """
    import filelock

    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            if wait == 0:
                raise
            logger.info("Another process is building this %s; waiting for it (%s)", what, os.fspath(path))
            lock.acquire(timeout=wait)
        except filelock.Timeout:
            raise InUseError(
                f"Another process is building this {what} ({os.fspath(path)} is locked); wait for it, or choose another file."
            ) from None
    try:
        yield
    finally:
        lock.release()

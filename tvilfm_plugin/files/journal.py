"""Work that survives a kill: a JSON line per piece, on the disk before the next begins; half a line counts for nothing."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tvilfm_plugin.files.writing import locked


class Journal:
    """The lines of a file that this process alone writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        # What follows half a line must not be glued to it.
        stream.truncate(sum(map(len, self.lines())))

    def lines(self) -> Iterator[bytes]:
        """All that is there."""
        self._stream.seek(0)
        return whole_lines(self._stream)

    def clear(self) -> None:
        """Begin anew."""
        self._stream.truncate(0)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows so that a kill right after this returns loses none of them; half characters become JSON's escapes."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._stream.write(text.encode("utf-8", "backslashreplace"))
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextlib.contextmanager
def journal(path: Path, what: str) -> Iterator[Journal]:
    """Open a journal, made on demand, under a lock beside it.

    Args:
        what: what is written, for the message.

    Raises:
        InUseError: another process has it.
    """
    with locked(path.with_suffix(".lock"), what, wait=0), open(path, "a+b") as stream:
        yield Journal(stream)


def whole_lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Lines up to the first that a killed process left unfinished, or that another one is writing at this moment."""
    for line in stream:
        if not line.endswith(b"\n"):
            return
        yield line

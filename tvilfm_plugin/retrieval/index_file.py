"""An index file: what faiss writes, followed by our records and fingerprint.

    [faiss index][JSON: kind, fingerprint, records][length of the JSON: 8 bytes][b"TVILFM01"]

faiss alone can read such a file too. Vectors are mapped into memory, not read. Nothing in it is executed.
"""

import json
import os
import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

import faiss
import numpy as np

from tvilfm_plugin.files.writing import atomic_file
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.records import Records

MAGIC = b"TVILFM01"
_TAIL = struct.Struct("<Q8s")
REMEDY = "Embed the gallery again."


class Content(NamedTuple):
    """What an index file holds.

    Attributes:
        stored: faiss's index.
        kind: the name of its type.
        fingerprint: by what the vectors were made.
        records: of its images, in the order of the vectors.
    """

    stored: faiss.Index
    kind: str
    fingerprint: Fingerprint
    records: Records


def write_index_file(path: str | Path, content: Content) -> None:
    """Write a file that is complete or absent; the index's vectors are streamed, not copied."""
    with atomic_file(path) as file:
        faiss.write_index(content.stored, faiss.PyCallbackIOWriter(file.write))
        file.write(_trailer(content.kind, content.fingerprint, content.records))


def read_index_file(path: str | Path, mapped: bool = True) -> Content:
    """Read a file that `write_index_file` or a `FlatFile` wrote.

    Args:
        mapped: leave the vectors in the file, from where the system fetches what a search touches. IVF is always read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no gallery index {path}. Make it: tools/retrieve.py --gallery DIR --index {path}.")
    described = _read_trailer(path)
    fingerprint = Fingerprint.from_dict(described["fingerprint"])
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged: faiss cannot read it ({str(error).splitlines()[0][:200]}). {REMEDY}") from None
    records = Records.from_dict(described["records"])
    if index.ntotal != len(records) or index.d != fingerprint.dim:
        raise ValueError(
            f"{path} is damaged: {index.ntotal} vectors of {index.d} numbers, but records of {len(records)} images with "
            f"{fingerprint.dim} numbers. {REMEDY}"
        )
    return Content(index, described["kind"], fingerprint, records)


def _trailer(kind: str, fingerprint: Fingerprint, records: Records) -> bytes:
    described = {"kind": kind, "fingerprint": fingerprint.to_dict(), "records": records.to_dict()}
    text = json.dumps(described, separators=(",", ":")).encode()
    return text + _TAIL.pack(len(text), MAGIC)


def _read_trailer(path: Path) -> dict[str, Any]:
    broken = f"{path} is no gallery index, or not a complete one"
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size < _TAIL.size:
            raise ValueError(f"{broken}. {REMEDY}")
        file.seek(size - _TAIL.size)
        length, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic != MAGIC or length > size - _TAIL.size:
            raise ValueError(f"{broken}. {REMEDY}")
        file.seek(size - _TAIL.size - length)
        try:
            described = json.loads(file.read(length))
            columns = described["records"]
            if not {"paths", "pids", "camids", "times"} <= set(columns) or not isinstance(described["kind"], str):
                raise KeyError("records")
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{broken}: its description cannot be read. {REMEDY}") from None
    if not isinstance(described.get("fingerprint"), dict):
        raise ValueError(f"{broken}: it has no fingerprint. {REMEDY}")
    return described


class FlatFile:
    """A flat index that grows on the disk by whole blocks, so that its vectors never need to be in memory.

    The file begins as faiss writes an empty flat index; the counts in that header are set when it is finished.
    """

    def __init__(self, file: IO[bytes], dim: int) -> None:
        """
        Args:
            file: open for reading and writing; empty, or begun before.
            dim: D.
        """
        self.file = file
        self.dim = dim
        self.header = _flat_header(dim, 0)
        if file.seek(0, os.SEEK_END) < len(self.header):
            file.truncate(0)
            file.seek(0)
            file.write(self.header)

    def truncate(self, rows: int) -> None:
        """Drop what was written behind the first rows."""
        end = self._end(rows)
        if self.file.seek(0, os.SEEK_END) < end:
            raise ValueError(f"The unfinished index has lost vectors: it should hold {rows}.")
        self.file.truncate(end)

    def append(self, vectors: np.ndarray) -> None:
        """Add (n, D) vectors; they are on the disk when this returns."""
        self.file.seek(0, os.SEEK_END)
        self.file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self.sync()

    def vectors(self, rows: int) -> np.ndarray:
        """All (N, D) vectors, mapped into memory."""
        return np.memmap(self.file.name, dtype="<f4", mode="r", offset=len(self.header), shape=(rows, self.dim))

    def finish(self, fingerprint: Fingerprint, records: Records) -> None:
        """Set the counts and add records and fingerprint: now it is an index file."""
        self.truncate(len(records))
        self.file.seek(0, os.SEEK_END)
        self.file.write(_trailer("flat", fingerprint, records))
        self.file.seek(0)
        self.file.write(_flat_header(self.dim, len(records)))
        self.sync()

    def sync(self) -> None:
        """Bring everything to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def _end(self, rows: int) -> int:
        return len(self.header) + rows * self.dim * 4


def _flat_header(dim: int, rows: int) -> bytes:
    """What faiss writes before the vectors of a flat index: its own bytes for an empty one, with both counts set."""
    empty = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes())
    # faiss: 4 bytes of name, int32 D, int64 number of vectors, ..., uint64 number of floats.
    struct.pack_into("<q", empty, 8, rows)
    struct.pack_into("<Q", empty, len(empty) - 8, rows * dim)
    return bytes(empty)

"""An index file: what faiss writes, followed by our records and fingerprint.

    [faiss index][JSON: kind, fingerprint, records, digests][length of the JSON: 8 bytes][b"TVILFM02"]

faiss alone can read such a file too. Vectors are mapped into memory, not read. Nothing in it is executed, and faiss, which
trusts what it reads, gets only bytes that are those that were written: their digest, and that of the rest, stand in the JSON.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tvilfm_plugin.files.writing import atomic_file
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.records import Records

MAGIC, OLD_MAGIC = b"TVILFM02", b"TVILFM01"
_TAIL = struct.Struct("<Q8s")
_CHUNK = 1 << 22
# What faiss begins the types of `KINDS` with.
_FAISS = (b"Ix", b"Iw", b"IH")
REMEDY = "Embed the gallery again."


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


_Number = Annotated[int, Field(gt=-(2**63), lt=2**63)]


class _RecordsSchema(_Strict):
    paths: list[Any]  # names that are no UTF-8 are strings with surrogates, which pydantic does not take for strings
    pids: list[_Number | None]
    camids: list[_Number | None]
    times: list[float | None]


class _Digests(_Strict):
    vectors: str
    description: str


class _Description(_Strict):
    kind: str
    fingerprint: Fingerprint
    records: _RecordsSchema
    digests: _Digests | None = None


class Content(NamedTuple):
    """What an index file holds."""

    stored: faiss.Index
    kind: str
    fingerprint: Fingerprint
    records: Records


class _Hashed:
    """What faiss writes, passed on and hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)


def write_index_file(path: str | Path, content: Content) -> None:
    """Write a file that is complete or absent; the index's vectors are streamed, not copied."""
    if content.stored.ntotal != len(content.records) or content.stored.d != content.fingerprint.dim:
        raise ValueError(
            f"{path} is not written: the index has {content.stored.ntotal} vectors of {content.stored.d} numbers, but records "
            f"of {len(content.records)} images with {content.fingerprint.dim} numbers. {REMEDY}"
        )
    with atomic_file(path) as file:
        hashed = _Hashed(file)
        faiss.write_index(content.stored, faiss.PyCallbackIOWriter(hashed.write))
        file.write(_trailer(content.kind, content.fingerprint, content.records, hashed.digest.hexdigest()))


def refuse_foreign(path: Path) -> Path:
    """The path, unless a file of another kind lies there, which an index would replace; a damaged index may go."""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            begins = file.read(2)
            file.seek(-min(_TAIL.size, path.stat().st_size), os.SEEK_END)
            ends = file.read()
        if begins not in _FAISS and MAGIC[:6] not in ends:
            raise ValueError(f"{path} is no gallery index, and the index would replace it. Name another file, or remove it.")
    return path


def read_index_file(path: str | Path, mapped: bool = True) -> Content:
    """Read a file that `write_index_file` or a `FlatFile` wrote.

    Args:
        mapped: leave the vectors in the file, from where the system fetches what a search touches. IVF is always read.

    Raises:
        ValueError: it is no such file, or one byte of it is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no gallery index {path}. Make it: `tvilfm search RUN --gallery DIR --index {path}`.")
    described, end = _read_trailer(path)
    fingerprint = described.fingerprint
    if described.digests is not None and _digest_of(path, end) != described.digests.vectors:
        raise ValueError(f"{path} is damaged: faiss cannot read it, as its vectors are not those that were written. {REMEDY}")
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged: faiss cannot read it ({str(error).splitlines()[0][:200]}). {REMEDY}") from None
    try:
        records = Records.from_dict(described.records.model_dump())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {str(error).rstrip('.')}. {REMEDY}") from None
    if index.ntotal != len(records) or index.d != fingerprint.dim:
        raise ValueError(
            f"{path} is damaged: {index.ntotal} vectors of {index.d} numbers, but records of {len(records)} images with "
            f"{fingerprint.dim} numbers. {REMEDY}"
        )
    parts = (described.kind, fingerprint, records)
    if described.digests is not None and _digest_of_description(*parts) != described.digests.description:
        raise ValueError(f"{path} is damaged: its records are not those that were written. {REMEDY}")
    return Content(index, *parts)


def _plain(kind: str, fingerprint: Fingerprint, records: Records) -> dict[str, Any]:
    return {"kind": kind, "fingerprint": fingerprint.to_dict(), "records": records.to_dict()}


def _digest_of_description(kind: str, fingerprint: Fingerprint, records: Records) -> str:
    text = json.dumps(_plain(kind, fingerprint, records), separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _trailer(kind: str, fingerprint: Fingerprint, records: Records, vectors: str) -> bytes:
    """What follows faiss's bytes, whose sha256 is `vectors`."""
    digests = {"vectors": vectors, "description": _digest_of_description(kind, fingerprint, records)}
    described = {**_plain(kind, fingerprint, records), "digests": digests}
    text = json.dumps(described, separators=(",", ":"), allow_nan=False).encode()
    return text + _TAIL.pack(len(text), MAGIC)


def _digest_of(path: Path, end: int) -> str:
    """sha256 of the first bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while end > 0 and (chunk := file.read(min(end, _CHUNK))):
            digest.update(chunk)
            end -= len(chunk)
    return digest.hexdigest()


def _read_trailer(path: Path) -> tuple[_Description, int]:
    """The description, and where what faiss wrote ends."""
    broken = f"{path} is no gallery index, or not a complete one"
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size < _TAIL.size:
            raise ValueError(f"{broken}. {REMEDY}")
        file.seek(size - _TAIL.size)
        length, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic not in (MAGIC, OLD_MAGIC) and magic[:6] == MAGIC[:6]:
            version = magic[6:].decode("ascii", "replace")
            known = MAGIC[6:].decode()
            raise ValueError(f"{path} is no gallery index of a version that is read here ({version}; known: {known}). {REMEDY}")
        if magic not in (MAGIC, OLD_MAGIC) or length > size - _TAIL.size:
            raise ValueError(f"{broken}. {REMEDY}")
        end = size - _TAIL.size - length
        file.seek(end)
        try:
            described = _Description.model_validate(json.loads(file.read(length)))
        # pydantic's error is a ValueError, as that of a file that is no JSON.
        except (ValueError, RecursionError) as error:
            wrong = error.errors() if isinstance(error, ValidationError) else []
            if any(one["type"] == "missing" and one["loc"][0] == "fingerprint" for one in wrong):
                raise ValueError(f"{broken}: it has no fingerprint. {REMEDY}") from None
            raise ValueError(f"{broken}: its description cannot be read. {REMEDY}") from None
    # Files of the first version have no digests; all others must have them.
    strange = not all(type(path) is str for path in described.records.paths)
    if strange or (described.digests is None) != (magic == OLD_MAGIC):
        raise ValueError(f"{broken}: its description cannot be read. {REMEDY}")
    return described, end


class FlatFile:
    """A flat index that grows on the disk by whole blocks, so that its vectors never need to be in memory.

    The file begins as faiss writes an empty flat index; the counts in that header are set when it is finished.
    """

    def __init__(self, file: IO[bytes], dim: int) -> None:
        """`file` is open for reading and writing: empty, or begun before with rows of as many numbers."""
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
        self.file.seek(0)
        self.file.write(_flat_header(self.dim, len(records)))
        self.file.flush()
        digest = _digest_of(Path(self.file.name), self._end(len(records)))
        self.file.seek(0, os.SEEK_END)
        self.file.write(_trailer("flat", fingerprint, records, digest))
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

"""GalleryIndex: unit vectors of gallery images and what is known of them, searched by inner product with faiss.

An ensemble query is one vector (Eq. 10), so one search serves every set of members. Needs neither torch nor the host.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np

from tvilfm_plugin.files.writing import locked
from tvilfm_plugin.retrieval import kinds
from tvilfm_plugin.retrieval.approximation import ApproximationReport, compare_with_flat
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.hits import check_top
from tvilfm_plugin.retrieval.index_file import Content, read_index_file, write_index_file
from tvilfm_plugin.retrieval.records import EVERYTHING, Filter, Record, Records

BLOCK = 16_384
# Of a file that somebody replaces again and again while it is read.
READINGS = 5
# Places of an answer that are filled up where there are fewer images.
MOST_HITS = 1_000_000
# Of a unit vector's length in float32.
UNIT_TOLERANCE = 1e-3


def as_floats(values: Any, what: str) -> np.ndarray:
    """A contiguous array of float32."""
    try:
        return np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{what} are arrays of numbers (n, D), not {type(values).__name__} with other things in it.") from None


class FileIdentity(NamedTuple):
    """Which file a path names, and in which state."""

    path: Path
    inode: tuple[int, int]
    size: int
    changed: int


def identity_of(path: Path) -> FileIdentity | None:
    """None: there is no such file."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return FileIdentity(path, (stat.st_dev, stat.st_ino), stat.st_size, stat.st_mtime_ns)


class GalleryIndex:
    """N gallery images: a unit vector and a record each; row n of both is the same image.

    Attributes:
        kind: type of index, a name in `kinds.KINDS`.
        fingerprint: by what the vectors were made.
        records: paths, identities, cameras and times.
        report: how it differs from a flat index; None for a flat one, or after loading.
    """

    def __init__(
        self, fingerprint: Fingerprint, kind: str = "flat", *, count: int = 0, stored: faiss.Index | None = None
    ) -> None:
        """An empty index.

        Args:
            fingerprint: of the vectors that will be added.
            kind: a name in `kinds.KINDS`.
            count: how many images are expected; types that learn use it, flat ones do not.
            stored: faiss's, in the place of a new one.
        """
        self.kind = kind
        self.fingerprint = fingerprint
        self.records = Records.of([])
        self.report: ApproximationReport | None = None
        self._index = kinds.make(kind, fingerprint.dim, count) if stored is None else stored
        self._mapped: FileIdentity | None = None
        self._files: dict[Path, FileIdentity] = {}

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        records: Records | Sequence[Record],
        fingerprint: Fingerprint,
        kind: str = "flat",
        *,
        say: Callable[[str], object] | None = print,
        stored: Path | None = None,
    ) -> Self:
        """Index (N, D) unit vectors, e.g. a memory map.

        Args:
            stored: the flat index file whose vectors these are: a type of two stages then reads them there, not in memory.
            say: every type but flat is compared with flat, and this is told the result; None compares nothing.
        """
        if not len(vectors) and kind != "flat":
            raise ValueError(f"An index of type {kind} needs images to begin with; there is none. Use flat.")
        made = cls(fingerprint, kind, count=len(vectors))
        made._fit(vectors)
        records = records if isinstance(records, Records) else Records.of(records)
        if not isinstance(made._index, faiss.IndexRefine):
            stored = None
        growing = made._index if stored is None else made._index.base_index
        for start in range(0, len(vectors), BLOCK):
            rows = slice(start, start + BLOCK)
            growing.add(made._checked(vectors[rows]))
        if stored is not None:
            made._mapped = identity_of(stored)
            kinds.put_exact(made._index, faiss.read_index(str(stored), faiss.IO_FLAG_MMAP_IFC))
        made.records = made._one_each(records, len(vectors))
        if kind != "flat" and say is not None:
            made.report = compare_with_flat(made, vectors)
            say(str(made.report))
        return made

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"GalleryIndex({len(self):,} images of {self.dim} numbers, {self.kind}, weights {self.fingerprint.weights[:12]})"

    @property
    def dim(self) -> int:
        """D."""
        return self.fingerprint.dim

    # --- searching ---------------------------------------------------------------------------------------------------

    def search(self, queries: np.ndarray, top: int, allowed: Filter = EVERYTHING) -> tuple[np.ndarray, np.ndarray]:
        """The best images of (Q, D) queries.

        Returns:
            (Q, top) inner products, best first, and (Q, top) rows of `records`; -1 where there are fewer. Equal images: the
            lower row first.
        """
        check_top(top)
        self._check_mapped()
        queries = as_floats(queries, "Queries")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"Queries of shape {queries.shape} cannot be compared with vectors of {self.dim} numbers.")
        if not np.isfinite(queries).all():
            raise ValueError("A query is not finite, so nothing can be compared with it.")
        if top > max(MOST_HITS, len(self)):
            raise ValueError(f"{top} hits cannot be asked for at once; the index has {len(self)} images.")
        mask = None if allowed.everything else self.records.passing(allowed)
        there = len(self) if mask is None else int(mask.sum())
        if not there:
            return np.full((len(queries), top), -np.inf, np.float32), np.full((len(queries), top), -1)
        k = min(top, there)
        scores, rows = self._index.search(queries, k, params=kinds.parameters(self.kind, self._index, mask))
        short = (rows < 0).any(axis=1)
        if short.any():
            holder = kinds.exact_part(self.kind, self._index)
            name = "flat" if holder is not self._index else self.kind
            params = kinds.parameters(name, holder, mask, exhaustive=True)
            scores[short], rows[short] = holder.search(queries[short], k, params=params)
        order = np.lexsort((rows, -scores), axis=1)
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        missing = ((0, 0), (0, top - k))
        return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)

    def nearest(self, query: np.ndarray, top: int, allowed: Filter = EVERYTHING) -> tuple[list[Record], np.ndarray]:
        check_top(top)
        found = self.search(query[None], min(top, max(1, len(self))), allowed)[1][0]
        found = found[found >= 0]
        return [self.records[int(row)] for row in found], self.vectors(found)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) vectors as the index holds them: exactly in flat, ivf and hnsw, rounded in the others."""
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        self._check_mapped()
        if kinds.choose_kind(self.kind).lists and self._index.direct_map.type == faiss.DirectMap.NoMap:
            self._index.make_direct_map()
        return self._index.reconstruct_batch(np.asarray(rows, dtype=np.int64))

    # --- changing ----------------------------------------------------------------------------------------------------

    def add(self, vectors: np.ndarray, records: Records | Sequence[Record]) -> None:
        """Add (n, D) unit vectors and their records. A type that learns does so from the first that are added."""
        records = records if isinstance(records, Records) else Records.of(records)
        checked = self._checked(vectors)
        joined = self._one_each(self.records + records, len(self) + len(checked))
        self._own()
        self._fit(checked)
        if len(checked):
            self._index.add(checked)
        self.records = joined

    def remove(self, paths: Collection[str]) -> int:
        """Take images out, by path; raises for a path that is not there.

        Returns:
            how many there were.
        """
        wanted = set(paths)
        leave = np.array([path in wanted for path in self.records.paths], dtype=bool)
        if unknown := wanted - {path for path, out in zip(self.records.paths, leave, strict=True) if out}:
            raise KeyError(
                f"{len(unknown)} of {len(wanted)} paths are not in the index, e.g. {min(unknown)!r}: nothing was removed."
            )
        self._own()
        if kinds.choose_kind(self.kind).removes:
            self._index.remove_ids(np.flatnonzero(leave))
        else:
            kept = self.vectors(np.flatnonzero(~leave))
            self._index.reset()
            if len(kept):
                self._index.add(kept)
        self.records = self.records.where(~leave)
        return int(leave.sum())

    def _own(self) -> None:
        """Bring mapped vectors into memory, as they were loaded: a map of the file cannot grow, and the file may be another."""
        if self._mapped is not None:
            self._check_mapped()
            self._index = faiss.deserialize_index(faiss.serialize_index(self._index))
            self._mapped = None

    def _check_mapped(self) -> None:
        """Raise if the mapped file was written into: its pages are no longer those that were loaded.

        A file that was replaced (as `save` does) is another file under the same name; the map still shows the old one.
        """
        if self._mapped is not None:
            now = identity_of(self._mapped.path)
            if now is not None and now != self._mapped and now.inode == self._mapped.inode:
                raise ValueError(
                    f"{self._mapped.path} was overwritten while it is in use. Load it again; replace such a file by another "
                    "(rename), never by writing into it."
                )

    def _fit(self, vectors: np.ndarray) -> None:
        kind = kinds.choose_kind(self.kind)
        # A type that is made from vectors has a stand-in before there are any.
        unfitted = kind.fitted is not None and not isinstance(self._index, faiss.IndexRefine) and len(vectors)
        if self._index.is_trained and not unfitted:
            return
        rows = np.sort(np.random.default_rng(0).choice(len(vectors), kind.trained(len(vectors)), replace=False))
        if kind.fitted is None:
            self._index.train(self._checked(vectors[rows]))
        else:
            self._index = kind.fitted(self._checked(vectors[rows]))

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = as_floats(vectors, "Vectors")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"Vectors of shape {vectors.shape} do not fit an index of (N, {self.dim}).")
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.abs(lengths - 1) < UNIT_TOLERANCE).all():
            bad = int((~(np.abs(lengths - 1) < UNIT_TOLERANCE)).sum())
            raise ValueError(f"{bad} of {len(vectors)} vectors are not unit vectors: divide them by their length (L2).")
        return vectors

    def _one_each(self, records: Records, vectors: int) -> Records:
        if len(records) != vectors:
            raise ValueError(f"{vectors} vectors for {len(records)} records: give one record per vector.")
        seen: set[str] = set()
        twice = next((path for path in records.paths if path in seen or seen.add(path)), None)  # type: ignore[func-returns-value]
        if twice is not None:
            raise ValueError(f"{twice!r} would be in the index twice: a path names one image. Remove it first.")
        return records

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a file that is complete or absent.

        Raises:
            ValueError: the file was loaded or saved by this index and somebody else has replaced it since: their work would be
                lost. Nothing is written.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into: make it first.")
        lock = path.with_name(f"{path.name}.lock")
        # filelock before 4.0 let two writers in when a lock file is removed.
        with locked(lock, "index", wait=60):
            try:
                mine, now = self._files.get(path.absolute()), identity_of(path)
                if mine is not None and now is not None and now != mine:
                    raise ValueError(
                        f"{path} was replaced by another process after this index was read or saved, and saving would lose "
                        "what that process wrote. Load the file again and repeat the change, or save under another name."
                    )
                write_index_file(path, Content(self._index, self.kind, self.fingerprint, self.records))
                if (now := identity_of(path)) is not None:
                    self._files[path.absolute()] = now
            finally:
                lock.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, expected: Fingerprint | None = None, *, mapped: bool = True) -> Self:
        """Read a file.

        Args:
            expected: the fingerprint of the model that will search; another one's index is refused.
            mapped: leave the vectors in the file until they are needed.
        """
        path = Path(path)
        for _ in range(READINGS):
            before = identity_of(path)
            try:
                content = read_index_file(path, mapped)
            except ValueError:  # Half of one file and half of the next is damaged as well.
                if identity_of(path) == before:
                    raise
            if identity_of(path) == before:
                break
        else:
            raise ValueError(f"{path} was replaced while it was read. Load it again.")
        if expected is not None:
            content.fingerprint.check(expected, f"The gallery index {path}")
        kinds.choose_kind(content.kind)
        loaded = cls(content.fingerprint, content.kind, stored=content.stored)
        loaded.records, loaded._mapped = content.records, before if mapped else None
        # Of what was read, not of what may lie there by now: who saves must notice that.
        loaded._files = {} if before is None else {path.absolute(): before}
        return loaded

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """All vectors, (n, D) at a time."""
        for start in range(0, len(self), size):
            yield self.vectors(np.arange(start, min(start + size, len(self))))

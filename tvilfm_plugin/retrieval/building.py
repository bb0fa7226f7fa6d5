"""Embedding a gallery in blocks: images never lie in memory all at once, and a killed run goes on where it was."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tvilfm_plugin.files.journal import Journal, journal
from tvilfm_plugin.files.writing import check_file, make_folder
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.index_file import FlatFile, refuse_foreign
from tvilfm_plugin.retrieval.pictures import Unreadable, check_any
from tvilfm_plugin.retrieval.records import Record, Records

logger = logging.getLogger("fastreid." + __name__)

BLOCK = 512


class Embedded(NamedTuple):
    """A block of images after the network."""

    vectors: np.ndarray
    records: list[Record]
    unreadable: list[Unreadable]


Embed = Callable[[Sequence[Record]], Embedded]


def embed_in_memory(
    images: Sequence[Record], embed: Embed, fingerprint: Fingerprint, kind: str = "flat", block: int = BLOCK
) -> tuple[GalleryIndex, list[Unreadable]]:
    """An index of all images that can be read, and the list of the others."""
    done = [embed(images[start : start + block]) for start in _starts(images, 0, block)]
    records = [record for one in done for record in one.records]
    check_any(records, images)
    index = GalleryIndex.build(np.concatenate([one.vectors for one in done]), records, fingerprint, kind)
    return index, [bad for one in done for bad in one.unreadable]


def embed_to_file(
    images: Sequence[Record], embed: Embed, fingerprint: Fingerprint, path: str | Path, kind: str = "flat", block: int = BLOCK
) -> tuple[GalleryIndex, list[Unreadable]]:
    """The same, into a file: vectors go to the disk block by block.

    Until everything is done, an older index stays under `path`; the unfinished one lies beside it as `path.part` and
    `path.part.jsonl`. The same call after a crash goes on behind the last whole block; with other images, weights or
    another preprocessing it starts anew.
    """
    path = refuse_foreign(check_file(path, "The gallery index"))
    make_folder(path.parent)
    with _Unfinished.opened(path, images, fingerprint) as part:
        if part.taken:
            logger.info(f"Going on with {path}: {part.taken} of {len(images)} images were embedded before")
        for start in _starts(images, part.taken, block):
            part.add(embed(images[start : start + block]), min(start + block, len(images)))
        check_any(part.records, images)
        part.finish(kind)
        return GalleryIndex.load(path, fingerprint), part.unreadable


class _Unfinished:
    """The vectors and the journal of an index that is being built. The journal's line comes after its vectors.

    Each line has a digest of itself and of its vectors: what a damaged disk or another program changed is not indexed.
    """

    def __init__(
        self, path: Path, vectors: IO[bytes], lines: Journal, images: Sequence[Record], fingerprint: Fingerprint
    ) -> None:
        self.path, self.part, self.journal, self.fingerprint = path, Path(vectors.name), lines, fingerprint
        self.records: list[Record] = []
        self.unreadable: list[Unreadable] = []
        self.taken = 0
        task = {"format": 2, "images": _digest_of_images(images), "fingerprint": fingerprint.to_dict()}
        known = [self._checked(line, number) for number, line in enumerate(lines.lines())]
        if not known or {key: known[0].get(key) for key in task} != task:
            known = []
            vectors.truncate(0)
            lines.clear()
            self._write(task)
        self.flat = FlatFile(vectors, fingerprint.dim)
        blocks = []
        for number, line in enumerate(known[1:], start=1):
            if not {"taken", "records", "unreadable", "vectors"} <= line.keys():
                raise self._damaged(number)
            done = [*(row[0] for row in line["records"]), *(row[0] for row in line["unreadable"])]
            if sorted(done) != sorted(one.path for one in images[self.taken : line["taken"]]):
                raise self._damaged(number)
            self.taken = line["taken"]
            self.records += [Record(*row) for row in line["records"]]
            self.unreadable += [Unreadable(*row) for row in line["unreadable"]]
            blocks.append((len(self.records), line["vectors"]))
        self.flat.truncate(len(self.records))
        first = 0
        for number, (end, digest) in enumerate(blocks, start=1):
            if end > first and _digest(self.flat.vectors(end)[first:].tobytes()) != digest:
                raise self._damaged(number)
            first = end

    @classmethod
    @contextmanager
    def opened(cls, path: Path, images: Sequence[Record], fingerprint: Fingerprint) -> "Iterator[_Unfinished]":
        vectors, written = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.jsonl")
        with journal(written, "index") as lines:
            vectors.touch()
            with open(vectors, "r+b") as rows:
                yield cls(path, rows, lines, images, fingerprint)
            # Reached without an error only: what was finished has its name, and its journal has served.
            vectors.unlink(missing_ok=True)
            written.unlink(missing_ok=True)
        written.with_suffix(".lock").unlink(missing_ok=True)

    def add(self, done: Embedded, taken: int) -> None:
        """Keep a block; `taken` images of the list are then dealt with."""
        rows = np.ascontiguousarray(done.vectors, dtype="<f4")
        self.flat.append(rows)
        line = {"taken": taken, "records": done.records, "unreadable": done.unreadable, "vectors": _digest(rows.tobytes())}
        self._write(line)
        self.records += done.records
        self.unreadable += done.unreadable

    def finish(self, kind: str) -> None:
        """Give the index its name."""
        records = Records.of(self.records)
        self.flat.finish(self.fingerprint, records)
        if kind == "flat":
            self.flat.file.close()  # Windows gives no open file another name
            os.replace(self.part, self.path)
            return
        # An index of another type learns from the vectors of the flat one, which stay on the disk.
        vectors = self.flat.vectors(len(records))
        GalleryIndex.build(vectors, records, self.fingerprint, kind, stored=self.part).save(self.path)

    def _write(self, line: dict[str, Any]) -> None:
        self.journal.append([{**line, "line": _digest_of_line(line)}])

    def _checked(self, text: bytes, number: int) -> dict[str, Any]:
        """A line of the journal, if it is what was written."""
        try:
            line = json.loads(text)
            digest = line.pop("line", None)
        except (ValueError, RecursionError, AttributeError, TypeError):
            raise self._damaged(number) from None
        # The first line of an older version has no digest; the task that it names is then another one.
        if digest != _digest_of_line(line) and not (number == 0 and digest is None and "format" not in line):
            raise self._damaged(number)
        return dict(line)

    def _damaged(self, number: int) -> ValueError:
        return ValueError(
            f"The unfinished index {self.part}, or line {number + 1} of its journal {self.part.name}.jsonl, is damaged. Delete "
            "both files to embed the gallery from the beginning."
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of_line(line: dict[str, Any]) -> str:
    return _digest(json.dumps(line, sort_keys=True).encode())


def _digest_of_images(images: Sequence[Record]) -> str:
    """Of the list, and of each file's size and time: a picture that was replaced under its name is embedded again."""

    def state(path: str) -> list[int] | None:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        return [found.st_size, found.st_mtime_ns]

    return _digest(json.dumps([[*one, state(one.path)] for one in images]).encode())


def _starts(images: Sequence[Record], first: int, block: int) -> Iterator[int]:
    """Where blocks begin, under a progress bar that counts images."""
    with tqdm(total=len(images), initial=first, desc="Embedding the gallery", unit="image", disable=None, leave=False) as bar:
        for start in range(first, len(images), block):
            yield start
            bar.update(min(block, len(images) - start))

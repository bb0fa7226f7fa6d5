"""Results that survive a kill: one JSON line per image, appended and flushed batch by batch, merged when all are there."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvilfm_plugin.captioning.sources import Source
from tvilfm_plugin.files.journal import journal, whole_lines
from tvilfm_plugin.files.json import digest_of, kind_of, parse_json, read_json, shorten
from tvilfm_plugin.files.text import is_blank
from tvilfm_plugin.files.writing import InUseError, make_folder
from tvilfm_plugin.files.writing import write_text as write_file

Row = dict[str, Any]


class RowStore:
    """The rows of one kind of work in one folder, a file per rank.

    A row is a JSON object with "image" (its key), "provenance" and a result, or "error" in place of the result. Rows with
    an error are done again by the next run. Any number of ranks, on any number of machines that share the folder, may
    write at the same time; the number may differ from run to run.

    Args:
        folder: for this work and nothing else; made on demand.
        provenance: how this run makes its results; rows that were made otherwise are refused.
        result: the key of a row's result, a text; `may_be_empty` if "" is one. Rows that have neither a result nor an
            error count as failed, so that they are done again.
    """

    def __init__(
        self, folder: Path, provenance: Mapping[str, Any], *, result: str = "text", may_be_empty: bool = False
    ) -> None:
        self.folder, self.provenance = folder, dict(provenance)
        self.result, self.may_be_empty = result, may_be_empty

    def read(self, holds: Callable[[Row], bool] | None = None) -> dict[str, Row]:
        """Image -> row, of all ranks and runs, if its result still `holds`. A result counts more than an error."""
        rows: dict[str, Row] = {}
        for file in sorted(self.folder.glob("rank*.jsonl")):
            for row, as_written in _read_lines(file):
                if "error" not in row and not self._is_result(row.get(self.result)):
                    row = {"image": row["image"], "error": f"its row in {file.name} has no {self.result}"}
                if not as_written:
                    self._refuse_others([row])
                    row = {"image": row["image"], "error": f"its row in {file.name} was changed after it was written"}
                if holds and "error" not in row and not holds(row):
                    continue
                known = rows.get(row["image"])
                if known is None or ("error" in known and "error" not in row):
                    rows[row["image"]] = row
        self._refuse_others(rows.values())
        return rows

    def _is_result(self, value: Any) -> bool:
        return is_text(value) or (self.may_be_empty and value == "")

    def _refuse_others(self, rows: Iterable[Row]) -> None:
        for row in rows:
            made = row.get("provenance", {})
            if "error" in row or made == self.provenance:
                continue
            now = self.provenance
            if not isinstance(made, dict):
                raise ValueError(f"{self.folder} has a row of {row['image']!r} whose provenance is {shorten(made)}; remove it.")
            names = [name for name in sorted(set(made) | set(now)) if made.get(name) != now.get(name)]
            differ = [f"{name}: {made.get(name)!r} then, {now.get(name)!r} now" for name in names]
            raise ValueError(
                f"{self.folder} holds rows that were made otherwise ({'; '.join(differ)}). Give the same options to go on "
                "with them, --restart to put them aside, or another --out."
            )

    def restart(self) -> Path | None:
        """Put existing rows aside, not away; returns where they lie now."""
        if not self.folder.is_dir():
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        os.rename(self.folder, aside)
        return aside

    @contextlib.contextmanager
    def writer(self, rank: int) -> Iterator[Callable[[Iterable[Row]], None]]:
        """What appends rows as one rank."""
        make_folder(self.folder)
        file = self.folder / f"rank{rank:05d}.jsonl"
        with contextlib.ExitStack() as opened:
            try:
                lines = opened.enter_context(journal(file, "file"))
            except InUseError as error:
                raise RuntimeError(
                    f"Another process writes {file}. Wait for it, or give every process its own --rank of --world-size."
                ) from error
            yield lambda rows: lines.append(_sealed({**row, "provenance": self.provenance}) for row in rows)


def is_text(value: object) -> bool:
    """Whether a value is a text that says something and that a file can hold (no half characters)."""
    return isinstance(value, str) and not is_blank(value) and not any("\ud800" <= char <= "\udfff" for char in value)


def _sealed(row: Row) -> Row:
    return row | {"digest": digest_of(row)}


def _read_lines(file: Path) -> Iterator[tuple[Row, bool]]:
    """Row and whether it is as it was written (rows of before have no digest, and count as such)."""
    with file.open("rb") as stream:
        for number, line in enumerate(whole_lines(stream), start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line, f"{file}, line {number}", half_characters=True)  # `is_text` refuses them
            except ValueError as error:
                raise ValueError(f"{error} Or remove the line: what it said is then made again.") from None
            if not isinstance(row, dict) or not isinstance(row.get("image"), str):
                raise ValueError(f"{file} has a line without an image: {line[:80]!r}.")
            digest = row.pop("digest", None)
            yield row, digest in (None, digest_of(row))


def merge(folder: Path, name: str, sources: Sequence[Source], texts: Mapping[str, str]) -> list[Path]:
    """Write captions (by key; images without one are left out) as released: `caption_dict_*` and `id_caption_map_*`.

    The same rows give the same bytes, whoever made them in whatever order.
    """
    ordered = sorted(sources, key=lambda source: natural_order(source.key))
    kept = [source for source in ordered if texts.get(source.key)]
    persons: dict[str, list[str]] = {}
    for source in sorted(kept, key=lambda source: (source.pid, natural_order(source.key))):
        listed = persons.setdefault(str(source.pid), [])
        if texts[source.key] not in listed:  # the released lists name each text once
            listed.append(texts[source.key])
    files = {
        f"caption_dict_{name}.json": {source.key: {"description": texts[source.key]} for source in kept},
        f"id_caption_map_{name}.json": persons,
    }
    return [write_json(folder / file, content) for file, content in files.items()]


def natural_order(text: str) -> list[Any]:
    """Sort key that puts 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def write_json(file: Path, content: object) -> Path:
    """Write a JSON file all or nothing."""
    return write_text(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_text(file: Path, text: str) -> Path:
    """Write a text file all or nothing."""
    make_folder(file.parent)
    write_file(file, text)
    return file


def read_descriptions(file: Path) -> dict[str, str]:
    """Path as in a released JSON file or in rows (JSONL) -> text; null and "" are none, what is no text a ValueError."""
    if file.suffix == ".jsonl":
        rows = [(row, as_written) for row, as_written in _read_lines(file) if is_text(row.get("text"))]
        if changed := [row["image"] for row, as_written in rows if not as_written]:
            raise ValueError(
                f"{file}: the row of {shorten(changed[0])} was changed after it was written ({len(changed)} such). Remove the "
                "row and go on with its run; or its digest, if the change was meant."
            )
        return {row["image"]: row["text"] for row, _ in rows}
    if file.is_dir():
        return {k: v for part in sorted(file.glob("rank*.jsonl")) for k, v in read_descriptions(part).items()}
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {kind_of(content)}; expected image path -> {{'description': text}}.")
    texts = {}
    for path, entry in content.items():
        text = entry.get("description") if isinstance(entry, dict) else entry
        if text in (None, ""):
            continue
        if not is_text(text):
            raise ValueError(f"{file}: the description of {shorten(path)} is {kind_of(text)}, {shorten(text)}, and no text.")
        texts[path] = text
    return texts

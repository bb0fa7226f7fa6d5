"""Own data as rows: who is on which picture, taken by which camera, and what was said of it.

The rows come from a table (CSV, JSON lines, Parquet) or from the names of folders. What cannot be understood is never
guessed: it becomes a problem with the row's place, and all problems are found in one go.
"""

import csv
import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.modality import Modality

SPLITS = ("train", "val", "test")
SUFFIXES = (".csv", ".jsonl", ".parquet")
REQUIRED = ("path", "identity", "modality", "split")
OPTIONAL = ("camera", "caption", "rephrase")
# As people, and the published data sets, call them.
MODALITIES = {
    **dict.fromkeys(("rgb", "vis", "visible"), Modality.RGB),
    **dict.fromkeys(("ir", "nir", "infrared", "thermal"), Modality.IR),
}
# Without a camera, the two kinds of images at least come from two cameras: no rule then hides one from the other.
DEFAULT_CAMERA = {Modality.RGB: "1", Modality.IR: "2"}


class Row(NamedTuple):
    """One image.

    Attributes:
        where: its place, for messages: "line 7", "row 3", or the path.
        path: relative to the data set's folder, with forward slashes; or absolute.
        identity, camera: as written.
        caption, rephrase: "" if there is none.
    """

    where: str
    path: str
    identity: str
    camera: str
    modality: Modality
    split: str
    caption: str = ""
    rephrase: str = ""


@dataclass
class ImageTable:
    """What was read.

    Attributes:
        source: the file or folder.
        rows: those that could be understood.
        problems: what could not, each with its place.
        notes: what is worth knowing and not wrong.
    """

    source: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def identity_number(name: str) -> int:
    """The number that stands for a person: a whole number is itself, another name the first 48 bits of its SHA-256.

    It depends on the name alone, so a person keeps it when others come or go.
    """
    return int(name) if name.isdecimal() else int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def camera_numbers(names: Sequence[str]) -> dict[str, int]:
    """Camera -> number: whole numbers are themselves; if there is any other name, all are numbered from 1 on, sorted."""
    different = sorted(set(names))
    if all(name.isdecimal() for name in different):
        return {name: int(name) for name in different}
    return {name: number for number, name in enumerate(different, start=1)}


# --- a table ----------------------------------------------------------------------------------------------------------


def find_table(folder: str | os.PathLike[str], stem: str = "table") -> Path | None:
    """The file `<stem>.csv`, `.jsonl` or `.parquet` of a folder, or None."""
    found = [path for suffix in SUFFIXES if (path := Path(folder, stem + suffix)).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}; keep one of them.")
    return found[0] if found else None


def read_table(file: str | os.PathLike[str]) -> ImageTable:
    """The rows of a table with the columns REQUIRED and, if wanted, OPTIONAL; upper and lower case are alike."""
    table = ImageTable(str(file))
    for where, fields in _records(Path(file), REQUIRED, OPTIONAL, table):
        row, problems = _row(where, fields)
        table.problems += problems
        if row is not None:
            table.rows.append(row)
    return table


def read_captions(file: str | os.PathLike[str], table: ImageTable) -> dict[str, tuple[str, str, str]]:
    """path -> (where, caption, rephrase) of a file with the columns path, caption and, if wanted, rephrase.

    Args:
        table: gets the problems.
    """
    captions: dict[str, tuple[str, str, str]] = {}
    for where, fields in _records(Path(file), ("path", "caption"), ("rephrase",), table):
        path = _plain_path(fields.get("path", ""))
        if path in captions:
            table.problems.append(f"{where}: {path} was captioned before, in {captions[path][0]}.")
        captions.setdefault(path, (where, fields.get("caption", ""), fields.get("rephrase", "")))
    return captions


def _row(where: str, fields: Mapping[str, str]) -> tuple[Row | None, list[str]]:
    problems = [f"{where}: {name} is empty." for name in REQUIRED if not fields.get(name)]
    modality = MODALITIES.get(fields.get("modality", "").lower())
    if modality is None and fields.get("modality"):
        problems.append(f"{where}: modality {fields['modality']!r} is none of {', '.join(MODALITIES)}.")
    split = fields.get("split", "").lower()
    if split and split not in SPLITS:
        problems.append(f"{where}: split {fields['split']!r} is none of {', '.join(SPLITS)}.")
    if problems or modality is None:
        return None, problems
    camera = fields.get("camera") or DEFAULT_CAMERA[modality]
    texts = fields.get("caption", ""), fields.get("rephrase", "")
    return Row(where, _plain_path(fields["path"]), fields["identity"], camera, modality, split, *texts), []


def _plain_path(path: str) -> str:
    """Forward slashes, and nothing superfluous."""
    return os.path.normpath(path.replace("\\", "/")).replace("\\", "/") if path else ""


def _records(
    file: Path, required: Sequence[str], optional: Sequence[str], table: ImageTable
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, column -> text) of every record; what is wrong with the file itself becomes a problem of the table."""
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if file.suffix not in readers:
        raise ValueError(f"{file} is no table: expected a name that ends in {', '.join(readers)}.")
    unknown: set[str] = set()
    missing: set[str] | None = None
    try:
        for where, record in readers[file.suffix](file, table):
            fields = {str(name).strip().lower(): value for name, value in record.items()}
            unknown |= set(fields) - {*required, *optional}
            if missing is None:  # the first record names the columns
                missing = set(required) - set(fields)
                if missing and file.suffix != ".jsonl":
                    break
            try:
                yield where, {name: _text(name, value) for name, value in fields.items() if name in {*required, *optional}}
            except ValueError as error:
                table.problems.append(f"{where}: {error}")
    except UnicodeDecodeError as error:
        table.problems.append(f"{file.name} is not UTF-8 (byte {error.start}): save it again as UTF-8.")
    if missing is None:
        table.problems.append(f"{file.name} has no rows; expected the columns {', '.join([*required, *optional])}.")
    elif missing and file.suffix != ".jsonl":
        found = f"found {', '.join(sorted(unknown))}" if unknown else "found no other"
        table.problems.append(f"{file.name} has no column {', '.join(n for n in required if n in missing)}; {found}.")
    for name in sorted(unknown):
        alike = difflib.get_close_matches(name, [*required, *optional], n=1)
        table.notes.append(f"column {name!r} of {file.name} is not used" + (f"; did you mean {alike[0]!r}?" if alike else "."))


def _csv(file: Path, table: ImageTable) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        # Spreadsheets write semicolons or tabs where the comma is a decimal point.
        reader = csv.DictReader(stream, delimiter=max(",;\t", key=header.count), strict=True)
        try:
            for record in reader:
                where = f"line {reader.line_num}"
                surplus = record.pop(None, None)  # type: ignore[call-overload]
                short = [name for name, value in record.items() if value is None]
                if surplus or short:
                    found = len(record) - len(short) + len(surplus or ())
                    table.problems.append(
                        f"{where}: {found} fields instead of {len(record)}; a text with a comma needs quotation marks."
                    )
                    continue
                yield where, record
        except csv.Error as error:
            table.problems.append(f"line {reader.reader.line_num}: {error}; what follows was not read.")


def _jsonl(file: Path, table: ImageTable) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(file, encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                table.problems.append(f"line {number}: no valid JSON ({error.msg}, column {error.colno}).")
                continue
            if isinstance(record, dict):
                yield f"line {number}", record
            else:
                table.problems.append(f"line {number}: a {type(record).__name__} instead of an object {{...}}.")


def _parquet(file: Path, table: ImageTable) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pandas
        import pyarrow  # noqa: F401  (what pandas reads Parquet with)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{file} is read with pandas and pyarrow, of which {error.name} is missing: pip install pandas pyarrow. CSV and "
            "JSON lines need neither.",
            name=error.name,
        ) from None
    frame = pandas.read_parquet(file)
    for number, record in enumerate(frame.astype(object).where(frame.notna(), None).to_dict("records"), start=1):
        yield f"row {number}", record


def _text(name: str, value: Any) -> str:
    """A field as text; 12 and 12.0 (what a spreadsheet makes of 12) are the same."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} is {value!r}, expected a text or a whole number.")
    return " ".join(str(value).split()) if name in ("caption", "rephrase") else str(value).strip()


# --- a folder ---------------------------------------------------------------------------------------------------------

LAYOUT = "split/modality/identity/image or split/modality/identity/camera/image, e.g. train/visible/0001/cam1/0001.jpg"


def scan_folder(folder: str | os.PathLike[str], image_suffixes: Sequence[str]) -> ImageTable:
    """The rows that the names of folders tell, see LAYOUT; texts come from `captions.csv` (.jsonl, .parquet) if there is one.

    Args:
        image_suffixes: what image files end in, lower case.
    """
    root = Path(folder)
    table = ImageTable(str(root))
    file = find_table(root, "captions")
    captions = read_captions(file, table) if file else {}
    seen: set[str] = set()
    for split in sorted(path for path in root.iterdir() if path.name in SPLITS and path.is_dir()):
        for path in sorted(split.rglob("*")):
            relative = path.relative_to(root)
            if path.suffix.lower() not in image_suffixes or any(part.startswith(".") for part in relative.parts):
                continue
            parts, where = relative.parts, relative.as_posix()
            if len(parts) not in (4, 5):
                table.problems.append(f"{where}: expected {LAYOUT}.")
                continue
            _, caption, rephrase = captions.get(where, ("", "", ""))
            camera = parts[3] if len(parts) == 5 else ""
            fields = dict(zip(REQUIRED, (where, parts[2], parts[1], parts[0]), strict=True))
            row, problems = _row(where, fields | {"camera": camera, "caption": caption, "rephrase": rephrase})
            table.problems += problems
            seen.add(where)
            if row is not None:
                table.rows.append(row)
    if not seen and not table.problems:
        table.problems.append(f"{root} has no image in {', '.join(SPLITS)}: expected {LAYOUT}.")
    strays = [(where, path) for path, (where, _, _) in captions.items() if path not in seen]
    table.problems += [f"{file.name if file else ''}, {where}: there is no image {path!r}." for where, path in strays]
    return table

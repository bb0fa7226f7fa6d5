"""Own data as rows: who is on which picture, taken by which camera, and what was said of it.

The rows come from a table (CSV, JSON lines, Parquet) or from the names of folders. What cannot be understood is never
guessed: it becomes a problem with the row's place, and all problems are found in one go.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.files.pictures import find_pictures
from tvilfm_plugin.files.places import as_on_disk
from tvilfm_plugin.files.tables import SUFFIXES, Table
from tvilfm_plugin.files.text import is_blank, is_nothing, is_number, plain_name
from tvilfm_plugin.modality import Modality

SPLITS = ("train", "val", "test")
REQUIRED = ("path", "identity", "modality", "split")
OPTIONAL = ("camera", "caption", "rephrase")
# As people, and the published data sets, call them.
MODALITIES = {
    **dict.fromkeys(("rgb", "vis", "visible"), Modality.RGB),
    **dict.fromkeys(("ir", "nir", "infrared", "thermal"), Modality.IR),
}
# Without a camera, the two kinds of images at least come from two cameras: no rule then hides one from the other.
DEFAULT_CAMERA = {Modality.RGB: "1", Modality.IR: "2"}

# Identities that are no person: people whom nobody searches for, and pictures that no result should depend on.
DISTRACTOR, JUNK = "distractor", ("junk", "-1")
# Where captions that were generated lie, beside the splits.
TEXTS = "Text"
LEAVE_EMPTY = "leave it empty"


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
        distractors: how many visible test images show people whom nobody searches for; each is an identity of its own.
        junk: how many images were left out because their identity says so.
    """

    source: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    distractors: int = 0
    junk: int = 0


def identity_number(name: str) -> int:
    """The number that stands for a person: a whole number is itself, another name the first 48 bits of its SHA-256.

    It depends on the name alone, so a person keeps it when others come or go.
    """
    return int(name) if is_number(name) else int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def camera_numbers(names: Sequence[str]) -> dict[str, int]:
    """Camera -> number: whole numbers are themselves; if there is any other name, all are numbered from 1 on, sorted."""
    different = sorted(set(names))
    if all(is_number(name) for name in different):
        return {name: int(name) for name in different}
    return {name: number for number, name in enumerate(different, start=1)}


def find_table(folder: str | os.PathLike[str], stem: str = "table") -> Path | None:
    """The file `<stem>.csv`, `.jsonl` or `.parquet` of a folder, or None."""
    names = [stem + suffix for suffix in SUFFIXES]
    found = [path for path in sorted(Path(folder).glob("*")) if path.name.lower() in names and path.is_file()]
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
    folder = Path(file).parent
    places = as_on_disk(folder, (_below(folder, row.path) for row in table.rows))
    table.rows = [row._replace(path=path) for row, path in zip(table.rows, places, strict=True)]
    _mark_extras(table)
    return table


def _below(folder: Path, path: str) -> str:
    """A path as the table's other ones are, relative to its folder, where it lies in it."""
    place = Path(os.path.abspath(folder))
    return Path(path).relative_to(place).as_posix() if Path(path).is_relative_to(place) else path


def _mark_extras(table: ImageTable) -> None:
    """Make every distractor a person of its own, and leave junk out.

    A distractor's identity is "distractor", or 0 (0000, as Market-1501 writes it) where that stands at visible test images
    alone: under one label, rules that count people would count all of them as one. Junk is "junk" or -1.
    """
    searched = {row.identity for row in table.rows if row.modality is Modality.IR or row.split != "test"}
    rows: list[Row] = []
    for row in table.rows:
        nobody = is_number(row.identity) and int(row.identity) == 0 and row.identity not in searched
        if row.identity.lower() in JUNK:
            table.junk += 1
        elif nobody or row.identity.lower() == DISTRACTOR:
            if row.modality is Modality.IR or row.split != "test":
                table.problems.append(
                    f"{row.where}: a distractor is a visible test image, this one is {row.split}, {row.modality.value}; name "
                    "the person, or write 'junk' to leave the image out."
                )
                continue
            table.distractors += 1
            rows.append(row._replace(identity=f"{DISTRACTOR} {row.path}"))
        else:
            rows.append(row)
    table.rows = rows
    spelled: dict[str, set[str]] = {}
    for row in rows:
        spelled.setdefault(row.identity.casefold(), set()).add(row.identity)
    if alike := [" and ".join(sorted(names)) for _, names in sorted(spelled.items()) if len(names) > 1]:
        table.notes.append(f"identities that differ in upper case alone count as different people: {', '.join(alike[:3])}.")
    if table.distractors:
        table.notes.append(
            f"{table.distractors} visible test images are distractors (identity 'distractor', or 0 without an infrared image): "
            "each counts as a person of its own whom no query shows."
        )
    if table.junk:
        table.notes.append(f"{table.junk} images are junk (identity 'junk' or -1): they are in no gallery, query or training.")


def is_distractor(identity: str) -> bool:
    """Whether a row's identity stands for one picture of somebody whom nobody searches for."""
    return identity.startswith(f"{DISTRACTOR} ")


def read_captions(file: str | os.PathLike[str], table: ImageTable) -> dict[str, tuple[str, str, str]]:
    """path -> (where, caption, rephrase) of a file with these columns (rephrase if wanted); `table` gets the problems."""
    captions: dict[str, tuple[str, str, str]] = {}
    for where, fields in _records(Path(file), ("path", "caption"), ("rephrase",), table):
        path = _below(Path(file).parent, plain_path(fields.get("path", "")))
        if path in captions:
            table.problems.append(f"{where}: {path} was captioned before, in {captions[path][0]}.")
        captions.setdefault(path, (where, fields.get("caption", ""), fields.get("rephrase", "")))
    return captions


def _row(where: str, fields: Mapping[str, str]) -> tuple[Row | None, list[str]]:
    problems = [f"{where}: {name} is empty." for name in REQUIRED if not fields.get(name)]
    problems += [
        f"{where}: {reason}"
        for name, remedy in (("identity", "name the person, or write 'junk'"), ("camera", LEAVE_EMPTY))
        if (reason := says_nothing(name, fields.get(name, ""), remedy))
    ]
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
    return Row(where, plain_path(fields["path"]), fields["identity"], camera, modality, split, *texts), []


def plain_path(path: str) -> str:
    """Forward slashes, and nothing superfluous."""
    return os.path.normpath(path.replace("\\", "/")).replace("\\", "/") if path else ""


def _records(
    file: Path, required: Sequence[str], optional: Sequence[str], table: ImageTable
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, column -> text) of every record; what is wrong with the file itself becomes a problem of the table."""
    found = Table(file, required, optional)
    found.problems = table.problems
    for where, record in found:
        try:
            yield where, {name: field_text(name, value) for name, value in record.items() if name in found.known}
        except ValueError as error:
            table.problems.append(f"{where}: {error}")
    table.notes += found.notes


def says_nothing(name: str, text: str, remedy: str = LEAVE_EMPTY) -> str:
    """What is wrong with a field in which a program has written that there is none; "" if it has not."""
    return f"{name} is {text!r}, which says that there is none; {remedy}." if is_nothing(text) else ""


def field_text(name: str, value: Any) -> str:
    """A field as text; 12 and 12.0 (what a spreadsheet makes of 12) are the same."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} is {value!r}, expected a text or a whole number.")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{name} holds half a character (a lone surrogate): {ascii(value)[:60]}.")
    if name in ("caption", "rephrase"):
        if reason := says_nothing(name, str(value)):
            raise ValueError(reason)
        return "" if is_blank(str(value)) else " ".join(str(value).split())
    if name == "path":
        return str(value).strip()
    # pandas writes the whole numbers of a column with gaps as 12.0.
    return re.sub(r"^([0-9]+)\.0+$", r"\1", plain_name(str(value)))


# --- a folder ---------------------------------------------------------------------------------------------------------

LAYOUT = "split/modality/identity/image or split/modality/identity/camera/image, e.g. train/visible/0001/cam1/0001.jpg"


def scan_folder(folder: str | os.PathLike[str]) -> ImageTable:
    """The rows that the names of folders tell, see LAYOUT; texts come from `captions.csv` (.jsonl, .parquet), if any."""
    root = Path(folder)
    table = ImageTable(str(root))
    file = find_table(root, "captions")
    captions = read_captions(file, table) if file else {}
    captions = dict(zip(as_on_disk(root, captions), captions.values(), strict=True))
    seen: set[str] = set()
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = [path for path in folders if path.name.lower() in SPLITS]
    for found in map(find_pictures, splits):
        if found.left_out:
            table.notes.append(found.told(root))
        for path in found.paths:
            relative = Path(path).relative_to(root)
            parts, where = relative.parts, relative.as_posix()
            if len(parts) not in (4, 5):
                table.problems.append(f"{where}: expected {LAYOUT}.")
                continue
            _, caption, rephrase = captions.get(where, ("", "", ""))
            camera = plain_name(parts[3]) if len(parts) == 5 else ""
            names = (plain_name(parts[level]) for level in (2, 1, 0))
            fields = dict(zip(REQUIRED, (where, *names), strict=True))
            row, problems = _row(where, fields | {"camera": camera, "caption": caption, "rephrase": rephrase})
            table.problems += problems
            seen.add(where)
            if row is not None:
                table.rows.append(row)
    if not seen and not table.problems:
        table.problems.append(f"{root} has no image in {', '.join(SPLITS)}: expected {LAYOUT}.")
    others = [path.name for path in folders if path not in splits and path.name != TEXTS]
    if others:
        table.notes.append(f"folders that are no split ({', '.join(SPLITS)}) are not looked into: {', '.join(others[:5])}.")
    strays = [(where, path) for path, (where, _, _) in captions.items() if path not in seen]
    table.problems += [f"{file.name if file else ''}, {where}: there is no image {path!r}." for where, path in strays]
    _mark_extras(table)
    return table

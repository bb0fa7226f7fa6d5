"""Which images a gallery consists of: a folder, a list of files, or a table."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.data import image_table
from tvilfm_plugin.files.pictures import SUFFIXES, find_pictures
from tvilfm_plugin.files.places import as_on_disk
from tvilfm_plugin.files.tables import Table, check_read, is_table
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.records import Record

logger = logging.getLogger("fastreid." + __name__)

COLUMNS = ("path", "pid", "camid", "time")
JUNK = image_table.JUNK[0]
ALIASES = {"pid": "identity", "camid": "camera"}


def list_gallery(source: Any) -> list[Record]:
    """The images of a gallery; nothing is opened.

    Args:
        source: a folder (all images below it, in sorted order), paths, `Record`s, or a pandas DataFrame or a file (CSV, JSON
            lines, Parquet) with the column `path` and, where known, `pid`, `camid` and `time` (numbers, or dates, which
            become Unix seconds). Paths in a file are relative to it. Of the table of own data, the visible test images.
    """
    if isinstance(source, (str, os.PathLike)):
        records = _of_table(Path(source)) if is_table(source) else _of_folder(Path(source))
    elif hasattr(source, "columns"):
        columns = {name: source[name].tolist() for name in COLUMNS if name in source.columns}
        records = _of_columns(columns, list(map(str, source.columns)), len(source))
    elif isinstance(source, Iterable):
        records = [one if isinstance(one, Record) else Record(_path(one, f"Entry {n}")) for n, one in enumerate(source)]
    else:
        raise TypeError(f"A gallery is a folder, a list of paths or a DataFrame, not {type(source).__name__}.")
    if not records:
        raise ValueError("The gallery is empty: the list names no image.")
    seen: set[str] = set()
    for record in records:
        place = os.path.abspath(record.path)
        if place in seen:
            raise ValueError(f"The gallery names {record.path!r} twice; a path names one image.")
        seen.add(place)
    return records


def gallery_captions(source: Any) -> dict[str, str]:
    """Path -> caption of the images of a table with a column `caption`; nothing of other galleries."""
    if not isinstance(source, (str, os.PathLike)) or not is_table(source):
        return {}
    file = Path(source)
    rows = [row for _, row in Table(file, ("path",), ("caption",))]
    said = [row for row in rows if not _missing(row.get("caption"))]
    paths = _placed((Record(str(row["path"])) for row in said), file)
    return {one.path: str(row["caption"]) for one, row in zip(paths, said, strict=True)}


def _of_folder(folder: Path) -> list[Record]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; a gallery is a folder, a list of paths, a table or a DataFrame.")
    found = find_pictures(folder)
    if not found.paths:
        left_out = " " + found.told(folder) if found.left_out else ""
        raise ValueError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)} in it and in its folders.{left_out}")
    if found.left_out:
        logger.warning(f"{folder}: {found.told(folder)}")
    return [Record(path) for path in found.paths]


def _of_table(file: Path) -> list[Record]:
    """The images of a table: of own data the visible test images, as docs/own_data.md says; of any other every row."""
    table = Table(file, ("path",), (*COLUMNS[1:], *ALIASES.values(), "modality", "split", "caption", "rephrase"))
    rows = list(table)
    if table.columns and "path" not in table.columns:
        raise ValueError(f"The table has no column 'path', only {', '.join(table.columns)}.")
    check_read(file, table.problems)
    if set(image_table.REQUIRED) <= set(table.columns):
        return _of_own_data(file)
    columns: dict[str, list[Any]] = {name: [row.get(name) for _, row in rows] for name in COLUMNS if name in table.columns}
    for name, alias in ALIASES.items():
        if alias in table.columns:
            columns.setdefault(name, [row.get(alias) for _, row in rows])
    places = [where for where, _ in rows]
    for name in ALIASES:
        values = columns.get(name, [None] * len(rows))
        columns[name] = [_name(name, value, where) for where, value in zip(places, values, strict=True)]
    names = {name for name in columns.get("camid", ()) if name is not None}
    if not all(map(_is_whole, names)):
        numbers = image_table.camera_numbers(sorted(names))
        columns["camid"] = [name and numbers[name] for name in columns["camid"]]
    said = [(name or "").lower() for name in columns["pid"]]
    keep = [_of_gallery(where, row) and who != JUNK for (where, row), who in zip(rows, said, strict=True)]
    columns["pid"] = [
        None if who in ("", JUNK, image_table.DISTRACTOR) else _number(name, image_table.identity_number)
        for who, name in zip(said, columns["pid"], strict=True)
    ]
    records = _of_columns(columns, table.columns, len(rows), places)
    _say_what_is_left_out(file, len(rows), sum(keep))
    return _placed((one for one, kept in zip(records, keep, strict=True) if kept), file)


def _of_own_data(file: Path) -> list[Record]:
    table = image_table.read_table(file)
    check_read(file, table.problems, " `tvilfm data check --dataset table` explains every row.")
    cameras = image_table.camera_numbers([row.camera for row in table.rows])
    chosen = [row for row in table.rows if row.modality is Modality.RGB and row.split == "test"]
    _say_what_is_left_out(file, len(table.rows) + table.junk, len(chosen))
    return [
        Record(
            str(file.parent / row.path),
            None if image_table.is_distractor(row.identity) else image_table.identity_number(row.identity),
            cameras[row.camera],
        )
        for row in chosen
    ]


def _of_gallery(where: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is for a gallery: visible, and of the test people, where the table says such things."""
    modality, split = (str(row.get(name) or "").strip().lower() for name in ("modality", "split"))
    if modality and modality not in image_table.MODALITIES:
        raise ValueError(f"{where}: modality {modality!r} is none of {', '.join(image_table.MODALITIES)}.")
    return image_table.MODALITIES.get(modality, Modality.RGB) is Modality.RGB and split in ("", "test", "gallery")


def _say_what_is_left_out(file: Path, rows: int, kept: int) -> None:
    if rows and not kept:
        raise ValueError(f"{file} has {rows} rows and none of them is a visible test image, which a gallery is made of.")
    if kept < rows:
        logger.info(f"{file}: the gallery is its {kept} visible test images; {rows - kept} other rows are left out.")


def _placed(records: Iterable[Record], file: Path) -> list[Record]:
    records = list(records)
    paths = as_on_disk(file.parent, (image_table.plain_path(record.path) for record in records))
    return [record._replace(path=str(file.parent / path)) for record, path in zip(records, paths, strict=True)]


def _name(column: str, value: Any, where: str) -> str | None:
    """A person or a camera of a table, as own data's are read; None where the field is empty."""
    if _missing(value):
        return None
    try:
        text = image_table.field_text(column, value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if reason := image_table.says_nothing(column, text):
        raise ValueError(f"{where}: {reason}")
    return text or None


def _is_whole(value: Any) -> bool:
    return str(value).strip().lstrip("-").isdecimal()


def _number(text: str, of_name: Callable[[str], int]) -> Any:
    """A whole number as it is, also as text; the number that stands for any other name."""
    return text if _is_whole(text) or _is_float(text) else of_name(text)


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _of_columns(
    columns: dict[str, list[Any]], names: list[str], count: int, places: Sequence[str] | None = None
) -> list[Record]:
    if "path" not in columns:
        raise ValueError(f"The table has no column 'path', only {', '.join(names) or 'none'}.")
    full = [columns.get(name, [None] * count) for name in COLUMNS]
    places = places or [f"Row {row}" for row in range(count)]
    return [
        Record(_path(path, where), _whole(pid, "pid", where), _whole(camid, "camid", where), _seconds(time, where))
        for where, (path, pid, camid, time) in zip(places, zip(*full, strict=True), strict=True)
    ]


def _path(value: Any, where: str) -> str:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{where}: path is {value!r}, not the name of an image file.")
    return os.fspath(value)


def _missing(value: Any) -> bool:
    # By name: pandas need not be there, and comparing its NA with anything raises.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value.strip() == "" if isinstance(value, str) else isinstance(value, float) and math.isnan(value)


def _whole(value: Any, column: str, where: str) -> int | None:
    if _missing(value):
        return None
    try:
        if int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {column} is {value!r}, not a whole number; leave it empty if unknown.") from None


def _seconds(value: Any, where: str) -> float | None:
    if _missing(value):
        return None
    try:
        if hasattr(value, "timestamp"):
            return float(value.timestamp())
        if isinstance(value, str) and not _is_float(value):
            moment = datetime.fromisoformat(value.strip())
            # As pandas: a date without a zone is UTC.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return float(np.float64(value))
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: time is {value!r}, no number and no date; 2024-05-01T12:00 is one, and pandas.to_datetime makes them."
        ) from None

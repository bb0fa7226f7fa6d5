"""Which images a gallery consists of: a folder, a list of files, or a table."""

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.retrieval.records import Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
COLUMNS = ("path", "pid", "camid", "time")


def list_gallery(source: Any) -> list[Record]:
    """The images of a gallery; nothing is opened.

    Args:
        source: a folder (all images below it, in sorted order), paths, `Record`s, or a pandas DataFrame or a CSV file with
            the column `path` and, where known, `pid`, `camid` and `time` (numbers, or dates of a DataFrame, which become
            Unix seconds). Paths in a CSV file are relative to it.
    """
    if isinstance(source, (str, os.PathLike)) and not str(source).lower().endswith(".csv"):
        return _of_folder(Path(source))
    if isinstance(source, (str, os.PathLike)):
        records = _of_csv(Path(source))
    elif hasattr(source, "columns"):
        columns = {name: source[name].tolist() for name in COLUMNS if name in source.columns}
        records = _of_columns(columns, list(map(str, source.columns)), len(source))
    elif isinstance(source, Iterable):
        records = [one if isinstance(one, Record) else Record(os.fspath(one)) for one in source]
    else:
        raise TypeError(f"A gallery is a folder, a list of paths or a DataFrame, not {type(source).__name__}.")
    if not records:
        raise ValueError("The gallery is empty: the list names no image.")
    seen: set[str] = set()
    for record in records:
        if record.path in seen:
            raise ValueError(f"The gallery names {record.path!r} twice; a path names one image.")
        seen.add(record.path)
    return records


def _of_folder(folder: Path) -> list[Record]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; a gallery is a folder, a list of paths or a DataFrame.")
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)} in it and in its folders.")
    return [Record(path) for path in found]


def _of_csv(file: Path) -> list[Record]:
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        names, rows = list(reader.fieldnames or ()), list(reader)
    columns = {name: [row[name] for row in rows] for name in COLUMNS if name in names}
    return [one._replace(path=str(file.parent / one.path)) for one in _of_columns(columns, names, len(rows))]


def _of_columns(columns: dict[str, list[Any]], names: list[str], count: int) -> list[Record]:
    if "path" not in columns:
        raise ValueError(f"The table has no column 'path', only {', '.join(names) or 'none'}.")
    full = [columns.get(name, [None] * count) for name in COLUMNS]
    return [
        Record(os.fspath(path), _whole(pid, "pid", row), _whole(camid, "camid", row), _seconds(time, row))
        for row, (path, pid, camid, time) in enumerate(zip(*full, strict=True))
    ]


def _missing(value: Any) -> bool:
    # By name: pandas need not be there, and comparing its NA with anything raises.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value.strip() == "" if isinstance(value, str) else isinstance(value, float) and math.isnan(value)


def _whole(value: Any, column: str, row: int) -> int | None:
    if _missing(value):
        return None
    try:
        if int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"Row {row}: {column} is {value!r}, not a whole number; leave it empty if unknown.") from None


def _seconds(value: Any, row: int) -> float | None:
    if _missing(value):
        return None
    try:
        return float(value.timestamp()) if hasattr(value, "timestamp") else float(np.float64(value))
    except (TypeError, ValueError):
        raise ValueError(f"Row {row}: time is {value!r}, no number and no date; pandas.to_datetime makes dates.") from None

"""Tables as people and their spreadsheets write them: CSV, JSON lines and Parquet, read into the same records.

Column names count without upper case and without blanks around them. What cannot be understood is never guessed: it becomes
a problem with its place, and all problems are found in one go.
"""

import csv
import difflib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tvilfm_plugin.files.json import NotFiniteError, loads
from tvilfm_plugin.files.text import TextFileError, plain_name, read_text

SUFFIXES = (".csv", ".jsonl", ".parquet")
_SEPARATORS = ",;\t"


class Table:
    """A file of rows; going through it once gives (place, column -> value) of every row that can be read.

    Values of CSV are texts, others are as they are.

    Attributes:
        source: the file.
        columns: every column that the header, or some row, names, in order of appearance.
        problems: what could not be read, each with its place; complete once all rows were seen.
        notes: what is worth knowing and not wrong.
    """

    def __init__(self, file: str | os.PathLike[str], required: Sequence[str], optional: Sequence[str]) -> None:
        """
        Args:
            file: its name says what it is, see SUFFIXES.
            required: columns that must be there.
            optional: columns that may be there; any other becomes a note.
        """
        self.source = Path(file)
        self.required, self.known = tuple(required), (*required, *optional)
        self.columns: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        if self.source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{file} is no table: expected a name that ends in {', '.join(SUFFIXES)}.")

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        kind = self.source.suffix.lower()
        try:
            for where, pairs in {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[kind](self):
                record, twice = self._record(pairs)
                if not twice:
                    yield where, record
                    continue
                self.problems.append(f"{where}: column {twice!r} stands there twice; keep one of them.")
                if kind != ".jsonl":  # then it is so in every row
                    break
        except TextFileError as error:
            self.problems.append(str(error).replace(str(self.source), self.source.name, 1))
        self._check_columns()

    def header(self, names: Iterable[Any]) -> bool:
        """Note the names of columns; whether all that are required are among them."""
        self.columns += dict.fromkeys(_plain(name) for name in names)
        return not set(self.required) - set(self.columns)

    def _record(self, pairs: Sequence[tuple[Any, Any]]) -> tuple[dict[str, Any], str]:
        record: dict[str, Any] = {}
        twice = ""
        for name, value in pairs:
            column = _plain(name)
            twice = column if column in record and column in self.known else twice
            record[column] = dict(value) if isinstance(value, _Pairs) else value
        self.columns += [column for column in record if column not in self.columns]
        return record, twice

    def _check_columns(self) -> None:
        name = self.source.name
        missing = [column for column in self.required if column not in self.columns]
        unknown = [column for column in sorted(self.columns) if column not in self.known]
        if not self.columns:
            self.problems.append(f"{name} has no rows; expected the columns {', '.join(self.known)}.")
        elif missing:
            found = f"found {', '.join(unknown)}" if unknown else "found no other"
            self.problems.append(f"{name} has no column {', '.join(missing)}; {found}.")
        for column in unknown:
            alike = difflib.get_close_matches(column, self.known, n=1)
            self.notes.append(f"column {column!r} of {name} is not used" + (f"; did you mean {alike[0]!r}?" if alike else "."))


def _plain(name: Any) -> str:
    return plain_name(str(name)).lower()


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends as tables do."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def check_read(file: str | os.PathLike[str], problems: Sequence[str], hint: str = "") -> None:
    """Raise with the first problem of a table, if it has any."""
    if problems:
        more = f" ({len(problems)} problems)" if len(problems) > 1 else ""
        raise ValueError(f"{os.fspath(file)}: {problems[0]}{more}{hint}")


def _csv(table: Table) -> Iterator[tuple[str, list[tuple[Any, Any]]]]:
    text = read_text(table.source)
    text = re.sub(r"^sep=[,;\t]\r?\n", "", text)  # a line of Excel's own
    header = text.lstrip("\r\n").split("\n", 1)[0].split("\r", 1)[0]
    # Spreadsheets write semicolons or tabs where the comma is a decimal point; people put blanks after a separator.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=header.count), strict=True, skipinitialspace=True
    )
    names: list[str] = []
    try:
        for fields in reader:
            where = f"line {reader.line_num}"
            if not any(map(str.strip, fields)):  # a spreadsheet keeps the separators of rows that were emptied
                continue
            if not names:
                names = fields
                if not table.header(names):
                    return
                continue
            if len(fields) != len(names):
                table.problems.append(
                    f"{where}: {len(fields)} fields instead of {len(names)}; a text with a comma needs quotation marks."
                )
                continue
            yield where, list(zip(names, fields, strict=True))
    except csv.Error as error:
        table.problems.append(f"line {reader.line_num}: {error}; what follows was not read.")


def _jsonl(table: Table) -> Iterator[tuple[str, list[tuple[Any, Any]]]]:
    # Not splitlines: JSON may hold the line separators of Unicode as they are.
    for number, line in enumerate(io.StringIO(read_text(table.source), newline=None), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = loads(line, object_pairs_hook=_Pairs)
        except json.JSONDecodeError as error:
            table.problems.append(f"{where}: no valid JSON ({error.msg}, column {error.colno}).")
        except NotFiniteError as error:
            table.problems.append(f"{where}: it holds {error}.")
        except (ValueError, RecursionError):
            table.problems.append(f"{where}: no valid JSON (nested too deeply, or a number with thousands of digits).")
        else:
            if isinstance(record, _Pairs):
                yield where, list(record)
            else:
                table.problems.append(f"{where}: a {type(record).__name__} instead of an object {{...}}.")


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with every key as often as it stands there."""


def _parquet(table: Table) -> Iterator[tuple[str, list[tuple[Any, Any]]]]:
    try:
        import pandas
        import pyarrow
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{table.source} is read with pandas and pyarrow, of which {error.name} is missing: pip install pandas pyarrow. "
            "CSV and JSON lines need neither.",
            name=error.name,
        ) from None
    try:
        frame = pandas.read_parquet(table.source)
        if any(name is not None for name in frame.index.names):  # a column that pandas had as its index
            frame = frame.reset_index()
        columns = [frame.iloc[:, n].tolist() for n in range(frame.shape[1])]  # texts are decoded here, and not before
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        table.problems.append(f"{table.source.name} is no Parquet file or is damaged ({str(error).splitlines()[0][:120]}).")
        return
    if not table.header(frame.columns):
        return
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        pairs = [(name, None if _absent(value) else value) for name, value in zip(frame.columns, values, strict=True)]
        yield f"row {number}", pairs


def _absent(value: Any) -> bool:
    """None, NaN and pandas' own ways to say so; by name, as comparing its NA with anything raises."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)


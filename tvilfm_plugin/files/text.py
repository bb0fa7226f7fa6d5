"""Text files as people and their editors write them: UTF-8 with or without a byte order mark, or UTF-16 with one."""

import codecs
import os
import unicodedata
from pathlib import Path

# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextFileError(ValueError):
    """A file is no text, or in an encoding that cannot be told for sure; the message names it."""


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: blanks, controls, and signs without a width (byte order marks, joiners)."""
    return all(unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc", "Cf") for char in text)


def is_nothing(text: str) -> bool:
    """Whether a text is what programs write where there is none."""
    return text.strip().lower() in ("nan", "none", "null", "n/a", "na", "<na>", "undefined")


def plain_name(text: str) -> str:
    """A name as one compares it: composed (NFC; macOS writes file names decomposed), without what cannot be seen."""
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in ("Cf", "Cc")).strip()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, line ends as they are."""
    return decode_text(Path(path).read_bytes(), os.fspath(path))


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file without their ends (LF, CR LF or CR)."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0 on, written in ordinary digits, that 64 bits hold."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def decode_text(data: bytes, source: str) -> str:
    """The text that some bytes are.

    Args:
        source: where they come from; errors begin with it.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    if encoding == "utf-32":
        raise TextFileError(f"{source} is UTF-32: save it again as UTF-8.")
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise TextFileError(f"{source} is not {name} (byte {error.start + len(mark)}): save it again as UTF-8.") from None

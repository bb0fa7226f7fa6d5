"""JSON files: every error names the file, nothing is dropped in silence, and what others wrote is checked by a schema."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from tvilfm_plugin.files.text import decode_text, read_text

T = TypeVar("T")
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class JsonError(ValueError):
    """A file is no JSON, or not what was expected; the message names it."""


class NotFiniteError(ValueError):
    """NaN or an infinite number in JSON."""


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a file of JSON says, see `parse_json`."""
    return parse_json(read_text(path), os.fspath(path))


def loads(text: str | bytes, **hooks: Any) -> Any:
    """`json.loads` without what Python adds to JSON: NaN, Infinity and numbers that only infinity can hold are a ValueError."""
    return json.loads(text, parse_float=_finite, parse_constant=_finite, **hooks)


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise NotFiniteError(f"{shorten(word, 20)[1:-1]}, which is no number of JSON; write null, or a number")
    return number


def parse_json(text: str | bytes, source: str, half_characters: bool = False) -> Any:
    """What a text says; a key that an object has twice is refused, since only one of its values could be kept.

    Args:
        source: where the text comes from; errors begin with it.
        half_characters: let lone surrogates pass, for a caller that looks at the texts itself.
    """
    if isinstance(text, bytes):
        text = decode_text(text, source)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise JsonError(f"{source} has the key {shorten(twice)} twice in one object; keep one of them.")
        return found

    try:
        content = loads(text, object_pairs_hook=once)
        if not half_characters and "\\ud" in text.lower():  # emoji are written as two of these
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except JsonError:
        raise
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise JsonError(f"{source} holds half a character ({ascii(half)[1:-1]}); write it again.") from None
    except json.JSONDecodeError as error:
        lines = text.lstrip()[:40].splitlines()
        found = f"begins with {lines[0]!r}" if lines else "it is empty"
        where = f"{error.msg}, line {error.lineno}, column {error.colno}; {found}"
        raise JsonError(f"{source} is no valid JSON ({where}). Download or write it again.") from None
    except RecursionError:
        raise JsonError(f"{source} is nested too deeply to be read; it is damaged or no data file of ours.") from None
    except NotFiniteError as error:
        raise JsonError(f"{source} holds {error}.") from None
    except ValueError:  # Python stops at 4,300 digits
        raise JsonError(f"{source} holds a number with thousands of digits; it is damaged or no data file of ours.") from None


def expect_object(content: Any, source: str) -> dict[str, Any]:
    """The content, if it is an object."""
    if not isinstance(content, dict):
        raise JsonError(f"{source} holds {kind_of(content)}, expected an object {{...}}.")
    return content


def checked(content: Any, schema: type[T] | Any, source: str) -> T:
    """The content as a pydantic schema understands it, strictly: 5, true and "5" are three different things.

    Args:
        schema: a pydantic model or any type annotation.
        source: where the content comes from; errors begin with it and name the first value that is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        # A union says one thing per choice: the deepest is what was meant.
        first = max(wrong[:8], key=lambda one: len(one["loc"]))
        place = "".join(f"[{part!r:.60}]" for part in first["loc"] if not _is_a_type(part)) or "the whole"
        more = f" ({len(wrong)} values are wrong)" if len(wrong) > 1 else ""
        said = first["msg"][0].lower() + first["msg"][1:]
        raise JsonError(f"{source}: {place} is {kind_of(first['input'])}, {shorten(first['input'])}; {said}{more}.") from None


def _is_a_type(part: Any) -> bool:
    return isinstance(part, str) and part in ("str", "none", "list[str]", "model", "dict") or "[" in str(part)


def digest_of(content: Mapping[str, Any]) -> str:
    """sha256 of an object without its key `digest`, which keeps it: whether the rest was changed can be told later."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def kind_of(value: Any) -> str:
    """What a value is, in JSON's words."""
    return _NAMES.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)


def shorten(value: Any, length: int = 60) -> str:
    """A value for a message: its start."""
    text = repr(value if not isinstance(value, str) else value[: length + 1])
    return text[:length] + "..." * (len(text) > length)

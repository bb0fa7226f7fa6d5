"""One config key: its default, what it may be, and a line of meaning."""

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

NUMBERS = {"int": "a whole number", "float": "a number"}
PLURAL = {"int": "whole numbers", "float": "numbers", "str": "names"}


@dataclass(frozen=True)
class Key:
    """A key of the config.

    Attributes:
        name: in full, e.g. "TVILFM.ROWS".
        default: a bool, int, float, str, or a tuple or list of one of these.
        meaning: one line.
        low, high: bounds, included, of a number or of every number of a list; None: none.
        above: bound that is not included.
        choices: what a text, or every text of a list, may be; or the name of a registry ("FUSION") that knows.
        count: how many entries a list has; (least, most), most None: any number.
        unique: whether no entry of a list may stand twice.
        file: whether it names an input file: a run is known by the content of such files, not by their names.
        wanted: what is said of a wrong value in the place of the general sentence.
        optional: whether "" is a choice as well.
    """

    name: str
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | str = ()
    count: tuple[int, int | None] = (0, None)
    unique: bool = False
    optional: bool = False
    file: bool = False
    wanted: str = ""

    @property
    def kind(self) -> str:
        """ "bool", "int", "float", "str", or "list of" one of the last three."""
        if isinstance(self.default, (tuple, list)):
            return f"list of {type(self.default[0]).__name__ if self.default else 'float'}"
        return type(self.default).__name__

    def problem(self, value: Any, names: Callable[[str], Sequence[str]]) -> str:
        """What is wrong with a value, as a sentence with the key, or ""; a registry whose `names` are none passes all."""
        of_kind = self._problem_of_list if isinstance(self.default, (tuple, list)) else self._problem_of_one
        problem = of_kind(value, names)
        return f"{self.name} is {shown(value)}; {self.wanted}." if problem and self.wanted else problem

    def _problem_of_one(self, value: Any, names: Callable[[str], Sequence[str]], entry: bool = False) -> str:
        kind = self.kind.removeprefix("list of ")
        said = f"{self.name} {'holds' if entry else 'is'} {shown(value)}"
        if kind in NUMBERS:
            if not is_whole(value) and not (kind == "float" and isinstance(value, float) and math.isfinite(value)):
                return f"{said}; it must be {NUMBERS[kind]}{self._bounds(' ')}."
            low = self.low is not None and value < self.low or self.above is not None and value <= self.above
            if low or self.high is not None and value > self.high:
                return f"{said}; it must be {NUMBERS[kind]}{self._bounds(' ')}."
        elif kind == "bool" and not isinstance(value, bool):
            return f"{said}; choices are True, False."
        elif kind == "str":
            if not isinstance(value, str):
                return f"{said}; it must be a text."
            known = tuple(names(self.choices)) if isinstance(self.choices, str) else self.choices
            if known and value not in known and not (self.optional and not value):
                return f"{said}; choices are {', '.join(known)}{', or empty' if self.optional else ''}."
        return ""

    def _problem_of_list(self, value: Any, names: Callable[[str], Sequence[str]]) -> str:
        kind = self.kind.removeprefix("list of ")
        if not isinstance(value, (tuple, list)):
            return f"{self.name} is {shown(value)}; it must be a list of {PLURAL[kind]}, e.g. {shown(self.default)}."
        for one in value:
            if problem := self._problem_of_one(one, names, entry=True):
                return problem
        least, most = self.count
        if len(value) < least or most is not None and len(value) > most:
            wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            return f"{self.name} is {shown(value)}; it must hold {wanted} entries, e.g. {shown(self.default)}."
        twice = [one for n, one in enumerate(value) if one in value[:n]]
        if self.unique and twice:
            return f"{self.name} is {shown(value)}, which names {shown(twice[0])} twice; name each once."
        return ""

    def _bounds(self, before: str = "") -> str:
        if self.low is not None and self.high is not None:
            return f"{before}from {self.low} to {self.high}"
        parts = [f"of at least {self.low}"] if self.low is not None else []
        parts += [f"above {self.above}"] if self.above is not None else []
        parts += [f"of at most {self.high}"] if self.high is not None else []
        return before + " and ".join(parts) if parts else ""

    def range(self) -> str:
        """What it may be, in words, for the documentation."""
        if isinstance(self.choices, str):
            return f"a name in {self.choices}_REGISTRY" + (", or empty" if self.optional else "")
        if self.choices:
            return ", ".join(f"`{choice}`" for choice in self.choices) + (", or empty" if self.optional else "")
        return self._bounds().removeprefix("of ")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of at most 64 bits, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxtuple, _repr.maxlist = 2, 200, 200, 12, 12


def shown(value: Any) -> str:
    """A value as one writes it on the command line, shortened."""
    return _repr.repr(tuple(value) if isinstance(value, list) else value)

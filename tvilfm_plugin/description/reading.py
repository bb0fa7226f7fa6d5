"""One reading of a description: which attributes a text states of a person, what it denies, and what could not be read.

Rules and word lists (`vocabulary.json`, colours from `lexicon.json`), no model: an adjective stands before its noun or shortly
after it ("a red, long-sleeved kurta", "a jacket with full sleeves"), which is how people write such texts. The guards and the
audit judge by this reading alone; a chat model's checked answer becomes the same type.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from tvilfm_plugin.description.lexicon import lexicon

Fact = tuple[str, str]
"""Slot and value, e.g. ("upper_colour", "jacket red")."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_ADJECTIVES = ("colour", "tone", "pattern", "length", "style", "sleeves")
_DENIABLE = ("wearing", "wear", "have", "having", "carry", "carrying", "holding", "hold")  # "not wearing a hat"
_COPULAS = ("is", "are", "be", "was", "were", "being", "comes", "appears", "looks")
_IS = (*_COPULAS, "is also", "appears to be")
_ARTICLES = ("a", "an", "the")
_BODY = ("hair", "face")  # what one has and does not wear
_HAS_SLEEVES = ("upper", "dress")
_HAS_LENGTH = ("hair", "upper", "dress", "lower")
# Of two nouns for one thing ("jeans pants", "hoodie jacket", "sports shoes") the general one says nothing.
_GENERAL = {"top", "trousers", "shoes", "bag", "hat", "hair", "thing", "dress", "glasses", "shirt"}


@dataclass
class Part:
    """Something a text names: a garment, the hair, a bag.

    Attributes:
        kind: "upper", "lower", "dress", "shoes", "hair", "hat", "glasses", "bag", "thing", ...
        type: e.g. "jacket"; the kind itself where the text is no more precise.
    """

    kind: str
    type: str
    colours: set[str] = field(default_factory=set)
    tones: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    styles: set[str] = field(default_factory=set)
    sleeves: str = ""
    lengths: set[str] = field(default_factory=set)

    def facts(self) -> Iterator[Fact]:
        """What is stated of it."""
        if self.kind == "hair":
            if self.type != "hair":
                yield "hair_style", self.type
            styles = self.styles - ({"tied"} if self.type != "hair" else set())  # a bun is tied
            yield from (("hair_style", style) for style in styles)
        else:
            yield self.kind, self.type
        name = "" if self.kind == "hair" else f"{self.type} "
        colours = self.colours or ({"dark"} & self.tones if self.kind == "hair" else set())
        yield from ((f"{self.kind}_colour", name + colour) for colour in colours)
        patterns = self.patterns - ({"patterned"} if len(self.patterns) > 1 else set())
        yield from ((f"{self.kind}_pattern", name + pattern) for pattern in patterns)
        if self.sleeves:
            yield f"{self.kind}_sleeves", name + self.sleeves
        plain = {"shorts": {"short"}, "jeans": {"full"}, "trousers": {"full"}}.get(self.type, set())
        yield from ((f"{self.kind}_length", name + length) for length in self.lengths - plain)


@dataclass(frozen=True)
class Attributes:
    """What a text says of a person.

    Attributes:
        sex: "man", "woman", or "" where it leaves that open.
        age: "young", "old", "middle-aged", "little" or "child"; "" for a man or a woman.
        parts: hair, garments, shoes, bags and things, in order of appearance.
        absent: kinds or types that the text denies: {"bag", "cap"}.
        pronouns: sexes that its pronouns and further nouns name.
        names, numbers, others: names of persons, numbers, and other persons.
        sides: "left", "right".
        unread: words that the reading knows nothing about, and what a person cannot be: {"is a sweater"}.
    """

    sex: str = ""
    age: str = ""
    parts: tuple[Part, ...] = ()
    absent: frozenset[str] = frozenset()
    pronouns: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    sides: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()

    def facts(self) -> set[Fact]:
        """Everything that is stated, as pairs of slot and value."""
        found = {fact for part in self.parts for fact in part.facts()}
        found |= {(slot, value) for slot, value in (("sex", self.sex), ("age", self.age)) if value}
        return found | {("absent", name) for name in self.absent}


class _Token(NamedTuple):
    """A word or a phrase: its kind of meaning ("head", "colour", "sleeves", ...), slot and value, and how it is written."""

    meaning: str
    slot: str
    value: str
    words: tuple[str, ...]


@cache
def _vocabulary() -> dict[tuple[str, ...], _Token]:
    listed = json.loads(files("tvilfm_plugin.description").joinpath("vocabulary.json").read_text(encoding="utf-8"))
    known: dict[tuple[str, ...], _Token] = {}

    def enter(phrase: str, meaning: str, slot: str = "", value: str = "") -> None:
        words = tuple(phrase.split())
        known.setdefault(words, _Token(meaning, slot, value, words))

    for kind, types in listed["heads"].items():
        for name, nouns in types.items():
            for noun in nouns:
                for form in (noun, noun + "s", noun + "es" if noun.endswith(("s", "x", "ch", "sh")) else noun):
                    enter(form, "head", kind, name)
    for phrase in listed["sleeveless"]:
        enter(phrase, "sleeves", "", "sleeveless")
    for value, adjectives in listed["sleeves"].items():
        for adjective in adjectives:
            for noun in ("sleeve", "sleeves", "sleeved", "sleeve length", "length sleeve", "length sleeves"):
                enter(f"{adjective} {noun}", "sleeves", "", value)
    for several in listed["several people"]:
        enter(several, "others")
    for value, words in listed["people"].items():
        for word in words:
            enter(word, "person", value.split()[-1] if value else "", "young" if value.startswith("young") else "")
    for word in listed["young people"]:
        enter(word, "person", "", "child")
    for word in listed["relatives"]:
        enter(word, "others")
    for phrase in listed["several colours"]:
        enter(phrase, "colour", "", "several")
    for family, colours in lexicon().colours.items():
        for colour in colours:
            tone = family == "tone"
            enter(colour.replace("-", " "), "tone" if tone else "colour", "", colour if tone else family)
    for key, meaning in (("pronouns", "pronoun"), ("age", "age"), ("hair styles", "style"), ("lengths", "length"),
                         ("patterns", "pattern")):  # fmt: skip
        for value, words in listed[key].items():
            for word in words:
                enter(word, meaning, "", value)
    for key, meaning in (("tones", "tone"), ("negations", "not"), ("names", "named"), ("numbers", "number"),
                         ("verbs", "verb"), ("places", "place"), ("details", "detail"), ("fillers", "filler")):  # fmt: skip
        for word in listed[key]:
            enter(word, meaning, "", word)
    return known


@cache
def _longest() -> int:
    return max(map(len, _vocabulary()))


def _tokens(text: str) -> list[_Token]:
    text = re.sub(r"n['’]t\b", " not", text, flags=re.IGNORECASE)
    words = _WORD.findall(re.sub(r"(?<=\w)\s*-\s*(?=\w)", " ", text))
    lower = [word.lower() for word in words]
    found, n = [], 0
    known = _vocabulary()
    while n < len(words):
        for length in range(min(_longest(), len(words) - n), 0, -1):
            token = known.get(tuple(lower[n : n + length]))
            if token:
                found.append(token)
                n += length
                break
        else:
            word = words[n]
            meaning = "number" if word[0].isdigit() else "unknown" if word[0].isalnum() else "mark"
            found.append(_Token(meaning, "", word, (word,)))
            n += 1
    return found


class _Reader:
    """Goes through the tokens once; adjectives wait for their noun, or go to the last one at the end of their phrase."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.persons: list[tuple[str, str]] = []
        self.age = ""
        self.absent: set[str] = set()
        self.pronouns: set[str] = set()
        self.names: list[str] = []
        self.numbers: list[str] = []
        self.others: list[str] = []
        self.sides: set[str] = set()
        self.unread: list[str] = []
        self.waiting: list[_Token] = []
        self.held: list[_Token] = []  # said before the noun that they belong to was named
        self.last: Part | None = None
        self.joined = False  # nothing stood between the last noun and this one
        self.fresh = False  # nothing but adjectives did
        self.denied = False
        self.opened = False  # an article came and its noun not yet
        self.subject = ""  # "who": a person; "of": something of theirs; "is": a person, and what follows is said to be them

    def read(self, tokens: list[_Token]) -> Attributes:
        for n, token in enumerate(tokens):
            after = tokens[n + 1] if n + 1 < len(tokens) else None
            if token.words == ("denim",) and after is not None and after.meaning == "head" and after.slot != "lower":
                continue  # "denim jacket": what it is made of
            if after is not None and after.words == ("and",) and n + 2 < len(tokens):
                after = tokens[n + 2]  # "black, straight, and open hair"
            self._take(token, after)
        self._flush()
        sexes = [sex for sex, _ in self.persons if sex]
        first = next((age for one, age in self.persons if one or age), "")
        said = set(sexes) | self.pronouns
        sex = sexes[0] if sexes else next(iter(self.pronouns)) if len(self.pronouns) == 1 else ""
        return Attributes(
            sex, self.age or first, tuple(self.parts), frozenset(self.absent), frozenset(said),
            tuple(self.names), tuple(self.numbers), tuple(self.others), frozenset(self.sides), tuple(self.unread),
        )  # fmt: skip

    def _take(self, token: _Token, after: _Token | None) -> None:
        meaning = token.meaning
        joined, self.joined = self.joined, False
        said, self.subject = self.subject, self._subject(token)
        if meaning in _ADJECTIVES:
            self.waiting.append(token)
        elif meaning == "head":
            if said == "is" and self.opened and not self.denied and token.slot not in _BODY:
                self.unread.append(f"is a {token.value}")
            self._name_part(token, joined)
            self.joined, self.fresh, self.opened = True, True, False
        elif meaning == "detail" or token.value in ("colour", "color", "coloured", "colored", "pair", "length"):
            self.joined = joined and meaning == "detail"
            self.opened = self.opened and meaning == "detail"  # "of a red colour"
        elif token.words == ("and",):
            self.fresh = False
        elif meaning == "mark":
            self.fresh = False
            if token.value in ".;!?:":
                self._flush()
                self.denied = False
            elif token.value == "," and after is not None and after.meaning not in (*_ADJECTIVES, "head", "detail"):
                self._flush()
            if token.value == ",":
                self.denied = self.denied and after is not None and after.words == ("or",)
        elif meaning == "not":
            self._flush()
            self.denied = True
        elif meaning == "person":
            self._flush()
            self.persons.append((token.slot, token.value))
        elif meaning == "age":
            self.age = self.age or token.value
        elif meaning == "pronoun":
            self._flush()
            self.pronouns.add(token.value)
        elif meaning == "number":
            self.numbers.append(token.value)
        elif meaning == "others":
            self.others.append(" ".join(token.words))
        elif meaning == "named":
            self.names.append(" ".join(token.words))
        elif meaning == "unknown":
            self._flush()
            (self.names if token.value[0].isupper() else self.unread).append(token.value)
        elif meaning == "verb":
            self._flush()
            self.denied = self.denied and token.value in _DENIABLE
            self.opened = token.value not in _COPULAS
        else:
            if token.value in ("left", "right"):
                self.sides.add(token.value)
            if token.value in (*_ARTICLES, "that", "which", "whose", "on", "over", "with"):
                self._flush()
            self.opened = self.opened or token.value in _ARTICLES
            if token.value in ("but", "with"):
                self.denied = False

    def _subject(self, token: _Token) -> str:
        if token.value in _IS:
            return "is" if self.subject == "who" else ""
        if token.meaning == "person" or (token.meaning == "pronoun" and token.words[0] in ("he", "she")):
            return {"": "who", "is": ""}.get(self.subject, self.subject)
        if token.meaning in (*_ADJECTIVES, "age") or token.value in (*_ARTICLES, "who", "that", ","):
            return self.subject
        return "of" if token.meaning == "filler" and token.value != "and" else ""

    def _name_part(self, token: _Token, joined: bool) -> None:
        kind, name = token.slot, token.value
        if self.denied:
            self.absent.add(name)
            self.waiting.clear()
            return
        if joined and self.last is not None and self.last.kind == kind and not self.waiting:
            if self.last.type in _GENERAL or name not in _GENERAL:
                self.last.type = name
            return
        if self.fresh and self.last is not None and self.last in self.parts and self._describes(self.last, kind, joined):
            # "hoodie dark blue jacket", "backpack jacket": the last noun is the thing
            self.last.kind, self.last.type = kind, name
            self._settle(self.last)
            return
        same = next((part for part in self.parts if part.kind == kind and kind in _BODY), None)
        if same is None:
            # "a jacket ... the jacket is red": named again
            same = next((p for p in self.parts if (p.kind, p.type) == (kind, name) and self._adds_only(p)), None)
        part = same or Part(kind, name)
        if same is None:
            self.parts.append(part)
        elif kind == "hair" and name != "hair":
            if part.type not in ("hair", name):
                part.styles.add(name)
            else:
                part.type = name
        self.last = part
        self._settle(part)

    def _settle(self, part: Part) -> None:
        for waiting in (*self.held, *self.waiting):
            self._apply(waiting, part)
        self.held.clear()
        self.waiting.clear()

    @staticmethod
    def _describes(part: Part, kind: str, joined: bool) -> bool:
        """Whether a noun belongs to the one that follows."""
        return (part.type == "hoodie" and kind == "upper") or (joined and part.kind == "bag" and kind in _HAS_SLEEVES)

    def _adds_only(self, part: Part) -> bool:
        """Whether what waits can be said of a part that is named already."""
        colours = {token.value for token in self.waiting if token.meaning == "colour"}
        return not colours or not part.colours or colours <= part.colours

    def _flush(self) -> None:
        """The phrase ended: what waits belongs to the noun before it."""
        for token in self.waiting:
            target = self._target(token)
            if self.opened and token.meaning in ("colour", "tone"):
                continue  # of a noun that nobody knows
            if target is not None:
                self._apply(token, target)
            elif token.meaning == "sleeves" or token.meaning == "style":
                self.held.append(token)
        self.waiting.clear()
        self.opened = self.fresh = False

    def _target(self, token: _Token) -> Part | None:
        if token.meaning == "sleeves":
            return next((part for part in reversed(self.parts) if part.kind in _HAS_SLEEVES), None)
        if token.meaning == "style":
            return next((part for part in self.parts if part.kind == "hair"), None)
        if token.meaning == "length":
            return self.last if self.last is not None and self.last.kind in _HAS_LENGTH and not self.last.lengths else None
        return self.last

    def _apply(self, token: _Token, part: Part) -> None:
        if token.meaning == "sleeves":
            target = part if part.kind in _HAS_SLEEVES else self._target(token)
            if target is not None:
                target.sleeves = target.sleeves or token.value
        elif token.meaning == "style":
            target = part if part.kind == "hair" else self._target(token)
            if target is not None:
                target.styles.add(token.value)
        elif token.meaning == "colour":
            part.colours.add(token.value)
        elif token.meaning == "tone":
            part.tones.add(token.value)
        elif token.meaning == "pattern":
            part.patterns.add(token.value)
        elif part.kind in _HAS_LENGTH:
            part.lengths.add(token.value)


@lru_cache(maxsize=1 << 16)
def read(text: str) -> Attributes:
    """What a description says of the person."""
    return _Reader().read(_tokens(text))

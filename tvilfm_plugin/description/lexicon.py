"""Words for colours and garments, read from `lexicon.json`; the colour filter, the guards and the audit share them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|[.,;!?]")
_REACH = 6  # words between a colour and its garment: "black colour full sleeve round neck t-shirt"


@dataclass(frozen=True)
class Lexicon:
    """The word lists.

    Attributes:
        released: colour words of the authors' tool.
        colours: family -> words that are always a colour ("tone" holds words such as "dark" that are of no family).
        colours_before_a_garment: family -> words that are a colour only in front of a garment.
        modifiers: words that belong to a colour which follows ("light", "navy").
        colour_nouns: words that belong to a colour which precedes ("colour", "toned").
        coloured_prefixes: words that make a colour with "-coloured".
        dropped_suffixes: second parts of compounds that say nothing without the colour ("haired").
        adjectives: words that share a noun with a colour ("a small, silver watch").
        no_nouns: words that begin no noun phrase which a colour before them could describe.
        determiners: words after which a colour describes the noun that follows, even across a comma.
        clause_breaks: words that end a colour's reach: "a red bag and black shoes" tells of no black bag.
        garments: class -> words.
    """

    released: Sequence[str]
    colours: Mapping[str, Sequence[str]]
    colours_before_a_garment: Mapping[str, Sequence[str]]
    modifiers: Sequence[str]
    colour_nouns: Sequence[str]
    coloured_prefixes: Sequence[str]
    dropped_suffixes: Sequence[str]
    adjectives: Sequence[str]
    no_nouns: Sequence[str]
    determiners: Sequence[str]
    clause_breaks: Sequence[str]
    garments: Mapping[str, Sequence[str]]


@cache
def lexicon() -> Lexicon:
    """The word lists, read once."""
    return Lexicon(**json.loads(files("tvilfm_plugin.description").joinpath("lexicon.json").read_text(encoding="utf-8")))


def alternation(words: Sequence[str]) -> str:
    """A regular expression for any of the words, longest first; spaces and hyphens stand for one another."""
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    return "|".join(_spelling(word) for word in ordered)


def _spelling(word: str) -> str:
    # A word-piece tokenizer decodes "t-shirt" as "t - shirt".
    return r"(?:\s*-\s*|\s+)".join(re.escape(part) for part in re.split(r"[\s-]+", word))


@cache
def _families() -> dict[str, str]:
    listed = lexicon()
    return {
        word: family
        for table in (listed.colours_before_a_garment, listed.colours)
        for family, words in table.items()
        for word in words
    }


@cache
def _garment_pattern() -> re.Pattern[str]:
    names = "|".join(f"(?P<{name}>{alternation(words)})" for name, words in lexicon().garments.items())
    # "on top of" and "at the bottom" are places, "half-sleeve" is no garment.
    return re.compile(rf"(?<!\w)(?<!\bon )(?:{names})(?!\w)(?! of\b)", re.IGNORECASE)


def garments_in(text: str) -> set[str]:
    """Garment classes that a text names."""
    return {str(match.lastgroup) for match in _garment_pattern().finditer(text)}


@cache
def _colour_word_pattern() -> re.Pattern[str]:
    listed = lexicon()
    always = alternation([word for words in listed.colours.values() for word in words])
    sometimes = alternation([word for words in listed.colours_before_a_garment.values() for word in words])
    garments = alternation([word for words in listed.garments.values() for word in words])
    return re.compile(
        rf"(?<![^\W_])(?:(?P<always>{always})|(?P<sometimes>{sometimes})(?=\s(?:[\w-]+\s)?(?:{garments})\b))(?![^\W_])",
        re.IGNORECASE,
    )


def _colour_spans(text: str) -> list[tuple[int, str]]:
    families = _families()
    found = []
    for match in _colour_word_pattern().finditer(text):
        word = re.sub(r"\s*-\s*", "-", match.group(0).lower())
        family = families.get(word) or families.get(word.replace("-", " ")) or families.get(re.sub(r"\s+", "-", word))
        found.append((match.end(), family or "tone"))
    return found


def garment_colours(text: str) -> dict[str, set[str]]:
    """Colour families that a text gives to each garment class: those shortly before it, in the same clause.

    A heuristic that reads attributive colours only ("a black shirt"), which is how captions write them.
    """
    pairs: dict[str, set[str]] = {}
    breaks = set(lexicon().clause_breaks)
    garments = list(_garment_pattern().finditer(text))
    for end, family in _colour_spans(text):
        if family == "tone":
            continue
        following = next((garment for garment in garments if garment.start() >= end), None)
        if following is None:
            continue
        between = [word.lower() for word in _WORD.findall(text[end : following.start()])]
        # "black and white shoes": a conjunction between two colours does not end the reach of the first.
        linked = [word in _families() for word in between[1:]]
        between = [w for n, w in enumerate(between) if w not in ("and", ",") or n >= len(linked) or not linked[n]]
        if len(between) <= _REACH and not breaks & set(between):
            pairs.setdefault(str(following.lastgroup), set()).add(family)
    return pairs

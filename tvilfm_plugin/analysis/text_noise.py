"""Texts made worse on purpose: what a hurried, mistaken or confused witness would say. Pure functions of (text, share, seed).

Larger shares contain smaller ones: the colours that are swapped at 20 % are among those swapped at 40 %. A curve over the
share then shows the damage and not a new random draw at every point. No global state is touched.
"""

import json
import random
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tvilfm_plugin.description.lexicon import alternation

ANYBODY = "a person"
"""What a text calls its subject when it does not tell who that is."""


class Words(NamedTuple):
    """The word lists of `text_words.json`.

    Attributes:
        colours: family -> words, the first of which stands for the family.
        connectives: words and phrases that begin a new attribute.
        subjects, auxiliaries: words between the end of a sentence and the connective of the next ("he", "is").
    """

    colours: dict[str, list[str]]
    connectives: list[str]
    subjects: list[str]
    auxiliaries: list[str]


@cache
def words() -> Words:
    """The word lists, read once."""
    return Words(**json.loads(files("tvilfm_plugin.analysis").joinpath("text_words.json").read_text(encoding="utf-8")))


def colour_families(text: str) -> list[str]:
    """The colour family of every colour word, in the order of the text."""
    return [_families()[_plain(match.group())] for match in _colour_pattern().finditer(text)]


def swap_colours(text: str, share: float = 1.0, seed: int = 0) -> str:
    """Replace a share of the colour words by words of another colour.

    Within a text a colour is always replaced by the same other one, which the text does not name if there is one left, so
    that a person in black with black shoes stays consistent, and wrong.
    """
    _check_share(share)
    rng = random.Random(f"colours:{seed}:{text}")
    named = list(dict.fromkeys(colour_families(text)))
    free = [family for family in words().colours if family not in named]
    rng.shuffle(free)
    if len(free) < len(named):
        # Almost every colour is named: going round the ring of all colours still changes each one.
        ring = list(words().colours)
        step = rng.randrange(1, len(ring))
        other = {family: ring[(ring.index(family) + step) % len(ring)] for family in named}
    else:
        other = dict(zip(named, free[: len(named)], strict=True))

    def replaced(match: re.Match[str]) -> str:
        swap = rng.random() < share
        return _like(match.group(), words().colours[other[_families()[_plain(match.group())]]][0]) if swap else match.group()

    return _agree(_colour_pattern().sub(replaced, text), text)


def drop_attributes(text: str, share: float, seed: int = 0) -> str:
    """Leave a share of the attributes out.

    An attribute is a phrase that a connective begins ("wearing a red shirt", "and white shoes"), and the subject, in whose
    place an anonymous one is left. All dropped, a text says no more than "a person".
    """
    _check_share(share)
    rng = random.Random(f"attributes:{seed}:{text}")
    stripped = text.strip()
    if not stripped:
        return text
    starts = [match.start() for match in _phrase_pattern().finditer(stripped)]
    bounds = [0, *starts, len(stripped)]
    phrases = [stripped[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
    dropped = [rng.random() < share for _ in phrases]
    if not any(dropped):
        return text
    # A full stop ends the subject that makes up a whole text.
    result = ANYBODY if dropped[0] else phrases[0].rstrip(" .")
    for n in range(1, len(phrases)):
        if not dropped[n]:
            # Who or what comes first stays, so a dropped subject leaves no gap.
            result += (_joined(phrases[n]) if n > 1 and dropped[n - 1] else phrases[n]).rstrip()
    return result if not stripped.endswith(".") or result.endswith(".") else f"{result}."


def wrong_person(pids: NDArray[np.int64], share: float, seed: int = 0) -> NDArray[np.int64]:
    """(Q,) queries whose texts the queries get: with probability `share` another identity's (all alike), else their own."""
    _check_share(share)
    pids = np.asarray(pids)
    ids, code = np.unique(pids, return_inverse=True)
    if share > 0 and len(ids) < 2:
        raise ValueError("There is no wrong person: all queries are of one identity.")
    if seed < 0:
        raise ValueError(f"The seed of the wrong texts is {seed}; it must be a whole number of at least 0.")
    generator = np.random.RandomState(seed)
    hit, who, which = generator.random_sample((3, len(pids)))
    members = [np.flatnonzero(code == i) for i in range(len(ids))]
    result = np.arange(len(pids))
    for q in np.flatnonzero(hit < share):
        # A step of 1..n-1 round the ring of identities is uniform over the others.
        others = members[(code[q] + 1 + int(who[q] * (len(ids) - 1))) % len(ids)]
        result[q] = others[int(which[q] * len(others))]
    return result


@cache
def _families() -> dict[str, str]:
    return {_plain(word): family for family, listed in words().colours.items() for word in listed}


@cache
def _colour_pattern() -> re.Pattern[str]:
    colours = alternation([word for listed in words().colours.values() for word in listed])
    return re.compile(rf"(?<![^\W_])(?:{colours})(?![^\W_])", re.IGNORECASE)


@cache
def _phrase_pattern() -> re.Pattern[str]:
    """Where an attribute begins: a full stop with the next sentence's subject, a comma, a connective, or several of them."""
    w = words()
    connective = rf"(?:{alternation(w.auxiliaries)}|{alternation(w.connectives)})\b"
    sentence = rf"[.;!?]\s+(?:(?:{alternation(w.subjects)})\b\s*)?"
    return re.compile(rf"(?:\s*{sentence}|\s*,\s*)(?:{connective}\s*)*|(?:\s+{connective})+", re.IGNORECASE)


def _joined(phrase: str) -> str:
    """A phrase whose predecessor was left out: it must not begin with the "and" that joined the two."""
    bare = re.sub(r"^\s*(?:,\s*)?(?:and\b\s*)?", "", phrase, flags=re.IGNORECASE)
    if bare == phrase.lstrip() or _phrase_pattern().match(f" {bare}"):
        return phrase if bare == phrase.lstrip() else f" {bare}"
    return f" with {bare}"


def _plain(word: str) -> str:
    return re.sub(r"[\s-]+", " ", word.lower())


def _like(model: str, word: str) -> str:
    return word.capitalize() if model[0].isupper() else word


def _agree(text: str, was: str) -> str:
    """The article before a word that was put in or moved up: "a orange bag" reads "an orange bag".

    Articles that stand before the same word as in the original are left as they were written there.
    """
    written = {match.group(0).lower() for match in _ARTICLE.finditer(was)}

    def fix(match: re.Match[str]) -> str:
        if match.group(0).lower() in written:
            return match.group(0)
        return f"{match.group(1)}{'n' if match.group(3)[0].lower() in 'aeiou' else ''}{match.group(2)}{match.group(3)}"

    return _ARTICLE.sub(fix, text)


_ARTICLE = re.compile(r"\b(a)n?(\s+)([\w-]+)", re.IGNORECASE)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"A share is a fraction between 0 and 1, got {share}.")

"""Take colours out of texts about infrared images, which show none.

`released` does what the authors' tool does: some plain replacements for each listed word. `strict` knows more colours and
their compounds ("light-blue", "half-black and half-white"), and what to do with the words around them, so that the sentence
stays one.
"""

import re
from functools import cache
from typing import NamedTuple

from tvilfm_plugin.description.lexicon import alternation, garments_in, lexicon

MODES = ("released", "strict")


def remove_colours(text: str, mode: str = "strict") -> str:
    """The text without its colours: in mode "strict" the very same string if it names none."""
    if mode == "released":
        return _remove_released(text)
    if mode != "strict":
        raise ValueError(f"Unknown colour filter {mode!r}; choices are {', '.join(MODES)}.")
    # Every round removes at least one match, and none makes a new word.
    while match := _strict_pattern().search(text):
        edges = _cut(text[: match.start()], text[match.end() :])
        text = _join(edges, capital=match.group(0)[0].isupper())
    return text


def find_colours(text: str) -> list[str]:
    """Every colour expression that `strict` would remove, in order, as it is written."""
    return [match.group(0).strip(" ,") for match in _strict_pattern().finditer(text)]


def has_colour(text: str) -> bool:
    """Whether `strict` would change the text."""
    return _strict_pattern().search(text) is not None


def _remove_released(text: str) -> str:
    """The authors' rule: plain replacements, colour by colour in their order, without word boundaries or a second look."""
    listed = lexicon().released
    for colour in listed:
        if colour not in text:
            continue
        if " and " in text:
            for other in listed:
                text = text.replace(f" half-{colour} and half-{other}", "").replace(f" {colour} and {other},", "")
        text = text.replace(f" half-{colour}", "").replace(f" {colour}-colored", "").replace(f"{colour}-", "")
        text = text.replace(f", {colour} ", " ").replace(f" {colour},", "")
        text = text.replace(f" {colour}.", ".").replace(f" {colour} ", " ")
    return text


@cache
def _strict_pattern() -> re.Pattern[str]:
    listed = lexicon()
    joint = r"(?:\s*-\s*|\s+)"
    garments = alternation([word for words in listed.garments.values() for word in words])
    always = alternation([word for words in listed.colours.values() for word in words])
    sometimes = alternation([word for words in listed.colours_before_a_garment.values() for word in words])
    nouns = alternation(listed.colour_nouns)
    base = (
        rf"(?:(?:{always})|(?:{sometimes})(?={joint}(?:{nouns})\b|\s+(?:[\w-]+\s+){{0,2}}(?:{garments})\b)"
        rf"|(?:{alternation(listed.coloured_prefixes)}){joint}colou?red)(?:\s*-\s*ish)?(?![^\W_])"
    )
    modifiers = alternation(listed.modifiers)
    # "blue-colored", "blue in colour", "dark blue colour"; the prefix of "denim-blue" or "semi-transparent" is no colour
    # by itself, and one that makes sense without it stays (see `_cut`).
    colour = rf"(?:(?:{modifiers}){joint})*{base}(?:{joint}(?:{nouns})\b|\s+in\s+colou?r\b)?"
    link = rf"(?:\s*,\s*(?:and\s+|or\s+)?|{joint}(?:and|or){joint}|\s*[&/]\s*|{joint})"
    return re.compile(rf"(?<![^\W_])(?P<group>{colour}(?:{link}{colour})*)(?![^\W_])", re.IGNORECASE)


class _Edges(NamedTuple):
    """What is left of a text around a colour that was cut out; `joint` goes between."""

    left: str
    joint: str
    right: str


def _cut(left: str, right: str) -> _Edges:
    """Decide which of the neighbouring words go with a colour that stood between `left` and `right`."""
    left, right = _cut_compound(left, right)
    follower = re.match(r"\s*(,?)\s*([\w-]+)?", right)
    assert follower is not None
    comma, word = follower.group(1), (follower.group(2) or "").lower()
    last = (re.findall(r"[\w-]+|[^\w\s]", left) or [""])[-1].lower()
    if word and not comma and word not in lexicon().no_nouns:
        return _Edges(_without_adjective_comma(left), " ", right)
    if word and comma and last in lexicon().determiners and not _is_predicate(word):
        return _Edges(left, " ", right[follower.end(1) :])  # "with black, curly hair"
    return _cut_predicate(left, right)


def _is_predicate(word: str) -> bool:
    return word in lexicon().no_nouns or (word.endswith("ing") and word not in ("flowing", "matching"))


def _cut_compound(left: str, right: str) -> tuple[str, str]:
    """Hyphens on either side: "half-white", "denim-blue", "black-striped", "black-haired"."""
    prefix = re.search(r"([\w]+)?(\s*-\s*)$", left)
    if prefix:
        whole = (prefix.group(1) or "").lower() in ("half", "semi", "all", "off", "multi", "non", "near", "mid", "two")
        left = left[: prefix.start() if whole else prefix.start(2)]
    suffix = re.match(rf"(?:\s*-\s*)(?:({'|'.join(lexicon().dropped_suffixes)})\b)?", right, re.IGNORECASE)
    return left, right[suffix.end() :] if suffix else right


def _without_adjective_comma(left: str) -> str:
    """ "a small, [silver] watch" loses its comma, "a t-shirt, [blue] jeans" does not."""
    match = re.search(r"(?:\b(an?|the|his|her|their)\s+)?([\w-]+)\s*,\s*$", left, re.IGNORECASE)
    if not match:
        return left
    word = match.group(2).lower()
    adjective = word in lexicon().adjectives or word.endswith("sleeved") or (match.group(1) and not garments_in(word))
    return left[: match.end(2)] if adjective else left


_PREPOSITION = re.compile(
    r"(?:,?\s*\b(?:that|which)\s+(?:comes?|is|are)\s+)?(?:,?\s*\b(?:dressed|clad|attired|outfitted|clothed)(?:\s+up)?\s+)?"
    r"\b(?:in|of|with)\s+(?:(?:an?|the|all|various|varying|different|matching|contrasting)\s+)*"
    r"(?:(?:shades?|tones?|hues?|mix|mixture|combination|blend|pattern|colou?rs?|colou?r\s+scheme)\s+(?:of|in)\s+)?$",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r",?\s*\b(that|which|who|whose\s+\w+)\s+(?:is|are|was|were|looks?|appears?)(?:\s+to\s+be)?(?:\s+\w+ly)?\s*$", re.IGNORECASE
)
_COPULA = re.compile(r"\b(?:is|are|was|were|looks?|appears?|seems?)(?:\s+to\s+be)?(?:\s+(?:all|\w+ly))?\s*$", re.IGNORECASE)
_WEARING = re.compile(r"(?P<be>\b(?:is|are)\s+)?\b(?:wearing|wears|sporting|dons)(?:\s+(?:all|an?|the))*\s*$", re.IGNORECASE)
_CLAUSE_START = re.compile(r"(?:^|[.;!?]\s|,\s(?:and\s|while\s|with\s)?|\sand\s(?=(?:his|her|their|the|its)\s)|\swhile\s)")

_LISTING = re.compile(
    r"\s*(?:,|\band\b|\bor\b|\bin addition to\b|\b(?:along|together) with\b|\bas well as\b)(?:\s+and)?\s*$", re.IGNORECASE
)


def _cut_predicate(left: str, right: str) -> _Edges:
    """The colour stood alone ("whose shirt is black.", "dressed in black and", "shoes of white color,")."""
    conjunction = re.match(r"\s*,?\s*and\s+(?=\w)", right)
    verb = re.match(r"\s*,?\s*and\s+(?=(?:has|have|is|are|features?|comes?)\b)", right)
    match = _RELATIVE.search(left)
    if match:
        return _Edges(left[: match.end(1)], " ", right[verb.end() :]) if verb else _Edges(left[: match.start()], " ", right)
    match = _PREPOSITION.search(left)
    if match:
        left = left[: match.start()]
        if _COPULA.search(left):  # "shoes are of a brown colour"
            return _cut_predicate(left, right)
        doing = re.match(r"\s*,?\s*and\s+(?=\w+ing\b)", right)
        return _Edges(left, " ", right[doing.end() :] if doing else right)
    match = _WEARING.search(left) or _COPULA.search(left)
    if match:
        if verb and _COPULA.search(left):
            return _Edges(left[: match.start()], " ", right[verb.end() :])
        if conjunction and match.re is _WEARING:
            end = match.end("be") if match.group("be") else match.start()
            return _Edges(left[:end], " ", right[conjunction.end() :])
        starts = [start for start in _CLAUSE_START.finditer(left) if start.end() <= match.start()]
        start = starts[-1] if starts else None
        if match.re is _WEARING and not match.group("be"):
            return _Edges(left[: match.start()], " ", right)
        if start is None or start.group(0)[:1] in ("", ".", ";", "!", "?"):
            # Nothing but a colour was said: the sentence goes with its full stop.
            kept = left[: start.end()] if start else ""
            rest = re.sub(r"^\s*[.;!?,]\s*", "", right, count=1)
            return _Edges(kept, " ", rest)
        return _Edges(left[: start.start()], " ", right)
    listing = _LISTING.search(left)
    if listing:
        return _Edges(left[: listing.start()], " ", right)
    article = re.search(r"\s*\b(?:an?|all)\s*$", left, re.IGNORECASE)
    return _Edges(left[: article.start()] if article else left, " ", right)


def _join(edges: _Edges, capital: bool) -> str:
    left, right = edges.left.rstrip(), edges.right.lstrip()
    if not left or left[-1] in ".!?;":
        right = re.sub(r"^(?:[,;]\s*|and\s+)", "", right)
        # A sentence that lost its first word keeps beginning as it did.
        right = right[:1].upper() + right[1:] if capital else right
    elif left[-1] in ",;" and right[:1] in tuple(",;.!?"):
        left = left[:-1].rstrip()
    left = _agreeing_article(left, right)
    if not left or not right or right[0] in ".,;:!?)":
        return (left + right).strip() if not left or not right else left + right
    return f"{left}{edges.joint}{right}"


def _agreeing_article(left: str, right: str) -> str:
    match = re.search(r"\b(a|an)$", left, re.IGNORECASE)
    word = re.match(r"[\w-]+", right)
    if not match or not word:
        return left
    vowel = word.group(0)[0].lower() in "aeiou" and not re.match(r"(?:uni|use|eu|one)", word.group(0), re.IGNORECASE)
    article = "an" if vowel else "a"
    return left[: match.start()] + (article.capitalize() if match.group(1)[0].isupper() else article)

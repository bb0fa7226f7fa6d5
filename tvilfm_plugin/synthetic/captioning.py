"""Say in words what one image shows, with the mistakes that this image invites.

`observe` decides what is said and what of it is wrong or left out; `describe` and `rephrase` only word it. Colours are read off
the image (`Look.seen`), what the picture does not show (`Look.hidden`, counted from its pixels) cannot be said, and the rest of
the errors are a captioner's own.
`jot` puts a statement in key words, as a passer-by would.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvilfm_plugin.synthetic.looks import Look
from tvilfm_plugin.synthetic.people import HAIR_COLOURS, VARIETIES, Person, word_for

COLOURED: dict[str, str] = {
    "upper colour": "upper",
    "lower colour": "lower",
    "shoes colour": "shoes",
    "hair colour": "hair",
    "bag colour": "bag",
}
"""Attribute that only a visible image's caption names -> the slot of the palette that it reads."""

SAID: tuple[str, ...] = ("gender", "hair", "upper", "pattern", "lower", "bag", *COLOURED)
"""Every attribute that a caption may name, in the order in which it is decided."""

_NAMED_EXACTLY = 0.05  # how often a caption names the variety ("ponytail") instead of the coarse word ("long hair")


@dataclass(frozen=True)
class Statement:
    """What a caption says.

    Attributes:
        said: attribute -> value: a coarse word or a variety of `VARIETIES`, a colour, "man" or "woman".
        wrong: attributes of `said` whose value is not true.
        missing: attributes of the person that the caption could have named and does not.
    """

    said: Mapping[str, str]
    wrong: tuple[str, ...]
    missing: tuple[str, ...]


def observe(person: Person, look: Look, rng: random.Random, *, wrong: float, missing: float) -> Statement:
    """Decide what the caption of one image says.

    Args:
        wrong: probability that a named detail of the shape is wrong (colours are as wrong as the image's light makes them).
        missing: probability that a visible attribute is left out.
    """
    said: dict[str, str] = {}
    errors, left_out = [], []
    for attribute in SAID:
        if attribute in COLOURED and look.camera.infrared:
            continue
        truth = _truth(person, attribute)
        if truth is None:
            continue
        overlooked, mistaken, exact = rng.random() < missing, rng.random() < wrong, rng.random() < _NAMED_EXACTLY
        owner = attribute.split()[0]
        if overlooked or owner in look.hidden or (attribute == "bag colour" and "bag" not in said):
            left_out.append(attribute)
        elif attribute in COLOURED:
            value = look.seen.get(COLOURED[attribute], truth)
            if (
                attribute == "hair colour"
                and value not in HAIR_COLOURS
                and said.get("hair", "hat") in ("short hair", "long hair")
            ):
                left_out.append(attribute)  # a green hat taken for hair: nobody would call the hair green
                continue
            said[attribute] = value
            if value != truth:
                errors.append(attribute)
        elif mistaken:
            said[attribute] = rng.choice(_mistakes(attribute, truth))
            errors.append(attribute)
        else:
            said[attribute] = truth if attribute == "gender" or exact else word_for(attribute, truth)
    return Statement(said, tuple(errors), tuple(left_out))


def agrees(attribute: str, value: str, person: Person) -> bool:
    """Whether a value that a caption gives to an attribute is true of a person."""
    truth = _truth(person, attribute)
    if attribute in COLOURED or attribute == "gender" or truth is None:
        return value == truth
    return value in (truth, word_for(attribute, truth))


def _truth(person: Person, attribute: str) -> str | None:
    """The true colour or variety; None where there is nothing to name (no bag, no pattern)."""
    if attribute in COLOURED:
        slot = COLOURED[attribute]
        return None if slot == "bag" and not person.shape.bag else getattr(person.palette, slot)
    value = getattr(person.shape, attribute)
    return None if value in ("", "plain") else value


def _mistakes(attribute: str, truth: str) -> list[str]:
    if attribute == "gender":
        return ["woman" if truth == "man" else "man"]
    if attribute == "bag":
        return [variety for variety in VARIETIES["bag"]["bag"] if variety != truth]
    return [word for word in VARIETIES[attribute] if word not in ("", "plain", word_for(attribute, truth))]


# --- wording ----------------------------------------------------------------------------------------------------------

_GENDERS = {"man": ("man", "man", "boy", "guy"), "woman": ("woman", "lady", "girl"), "": ("person",)}
_HAIR = {
    "short hair": ("short {} hair",),
    "long hair": ("long {} hair",),
    "hat": ("a {} hat",),
    "crew cut": ("a {} crew cut", "cropped {} hair"),
    "quiff": ("a {} quiff", "{} hair combed up"),
    "curls": ("curly {} hair", "{} curls"),
    "loose hair": ("long open {} hair", "{} shoulder-length hair"),
    "ponytail": ("a {} ponytail", "{} hair in a ponytail"),
    "bun": ("a {} bun", "{} hair in a bun"),
    "pigtails": ("{} pigtails", "{} hair in two pigtails"),
    "cap": ("a {} cap",),
    "beanie": ("a {} beanie", "a {} knitted hat"),
    "brimmed hat": ("a {} brimmed hat", "a wide {} hat"),
    "": ("{} hair",),
}
_UPPER = {
    "t-shirt": ("t-shirt", "tee", "short sleeve shirt"),
    "sweater": ("sweater", "long sleeve top", "full sleeve jumper"),
    "jacket": ("jacket", "full sleeve jacket"),
    "tee": ("round neck t-shirt", "half sleeve t-shirt"),
    "tank top": ("tank top", "sleeveless top"),
    "tunic tee": ("long t-shirt", "tunic"),
    "pullover": ("pullover",),
    "hoodie": ("hoodie", "hooded sweater"),
    "long jumper": ("long sweater", "long jumper"),
    "bomber": ("bomber jacket", "short jacket"),
    "parka": ("parka", "belted jacket"),
    "coat": ("coat", "knee-length coat"),
    "": ("top",),
}
_PATTERN = {
    "striped": ("striped",),
    "checked": ("checked", "checkered"),
    "two-tone": ("two-tone", "color-block"),
    "printed": ("printed",),
    "wide stripes": ("broad-striped",),
    "thin stripes": ("finely striped", "pinstriped"),
    "upright stripes": ("vertically striped",),
    "slanted stripes": ("diagonally striped",),
    "tartan": ("tartan", "plaid"),
    "chequers": ("chequerboard",),
    "windowpane": ("windowpane",),
    "chest band": ("chest-banded",),
    "lower half": ("half-and-half",),
    "side panels": ("side-paneled",),
    "yoke": ("yoked",),
    "disc": ("dot print",),
    "box": ("box print",),
    "cross": ("cross print",),
}
_LOWER = {
    "pants": ("{} pants", "{} jeans", "{} trousers"),
    "shorts": ("{} shorts",),
    "skirt": ("a {} skirt",),
    "skinny pants": ("{} skinny jeans", "{} leggings"),
    "straight pants": ("{} straight pants",),
    "flared pants": ("{} flared pants",),
    "cropped pants": ("{} cropped pants", "{} ankle-length pants"),
    "hot pants": ("{} hot pants", "very short {} shorts"),
    "bermudas": ("{} knee-length shorts",),
    "baggy shorts": ("{} baggy shorts",),
    "mini skirt": ("a {} mini skirt", "a short {} skirt"),
    "pencil skirt": ("a {} pencil skirt",),
    "wide skirt": ("a wide {} skirt",),
    "long skirt": ("a long {} skirt",),
    "": ("{} bottoms",),
}
_BAG = {
    "bag": ("a {} bag",),
    "backpack": ("a {} backpack",),
    "shoulder bag": ("a {} shoulder bag", "a {} sling bag"),
    "handbag": ("a {} handbag", "a {} purse"),
}
_SHOES = ("shoes", "shoes", "casual shoes", "footwear")


@dataclass(frozen=True)
class _Phrases:
    """Noun phrases of one caption; "" for what is not said."""

    who: str
    hair: str
    upper: str
    lower: str
    shoes: str
    bag: str
    pronoun: str
    possessive: str
    hat: bool


def _phrases(statement: Statement, rng: random.Random) -> _Phrases:
    said = statement.said

    def noun(table: Mapping[str, Sequence[str]], attribute: str) -> str:
        colour = said.get(f"{attribute} colour", "")
        if attribute not in said and not colour:
            return ""
        return _article(rng.choice(table[said.get(attribute, "")]).format(colour))

    gender = said.get("gender", "")
    upper = ""
    if {"upper", "upper colour", "pattern"} & set(said):
        words = [rng.choice(_PATTERN[said["pattern"]]) if "pattern" in said else "", said.get("upper colour", "")]
        words = words if rng.random() < 0.7 else words[::-1]
        upper = _article(" ".join(["a", *words, rng.choice(_UPPER[said.get("upper", "")])]))
    return _Phrases(
        who=_article(f"a {rng.choice(_GENDERS[gender])}"),
        hair=noun(_HAIR, "hair"),
        upper=upper,
        lower=noun(_LOWER, "lower"),
        shoes=" ".join([said["shoes colour"], rng.choice(_SHOES)])
        if "shoes colour" in said
        else rng.choice(("shoes", "shoes", "")),
        bag=noun(_BAG, "bag") if "bag" in said else "",
        pronoun={"man": "he", "woman": "she"}.get(gender, "the person"),
        possessive={"man": "his", "woman": "her"}.get(gender, "the"),
        hat="hat" in said.get("hair", "") or said.get("hair") in VARIETIES["hair"]["hat"],
    )


def describe(statement: Statement, rng: random.Random) -> str:
    """Word a statement as an image captioner does: one lower-case sentence."""
    p = _phrases(statement, rng)
    opening = p.who + (f" {'in' if p.hat else 'with'} {p.hair}" if p.hair else "")
    style = rng.randrange(4)
    if style == 0:
        worn = _and([p.lower, p.shoes])
        clauses = [
            opening,
            f"wearing {p.upper}" if p.upper else "",
            (f"paired with {worn}" if p.upper else f"wearing {worn}") if worn else "",
        ]
        text = ", ".join(filter(None, [*clauses, f"carrying {p.bag}" if p.bag else ""]))
        return text + "."
    if style == 1:
        worn = " along with ".join(filter(None, [p.upper, _and([p.lower, p.shoes])]))
        text = opening + (f" wearing {worn}" if worn else "")
        return text + (f". {p.pronoun} is carrying {p.bag}." if p.bag else ".")
    if style == 2:
        worn = " paired with ".join(filter(None, [p.upper, p.lower]))
        text = opening + (f" wearing {worn}" if worn else "") + (f" has worn {p.shoes}" if p.shoes else "")
        side = rng.choice((f"in {p.possessive} hand", f"on {p.possessive} shoulder"))
        return text + (f", holding {p.bag} {side}." if p.bag else ".")
    worn = _and([p.upper, p.lower, p.shoes])
    text = opening + (f", wearing {worn}" if worn else "")
    return text + (f", and carrying {p.bag}." if p.bag else ".")


def rephrase(statement: Statement, rng: random.Random) -> str:
    """Word the same statement as a language model does when it is asked for similar words."""
    p = _phrases(statement, rng)
    who = {"man": "a man", "woman": "a woman"}.get(statement.said.get("gender", ""), "an individual")
    if rng.random() < 0.4:
        who = {"man": "a male individual", "woman": "a female individual"}.get(statement.said.get("gender", ""), "a pedestrian")
    dressed = rng.choice(("is wearing", "is dressed in", "is seen wearing", "has on"))
    style = rng.randrange(3)
    if style == 0:
        sentences = [
            f"{who}{' with ' + p.hair if p.hair else ''} {dressed} {_and([p.upper, p.lower, p.shoes]) or 'everyday clothes'}"
        ]
        sentences += [f"{p.pronoun} {rng.choice(('is holding', 'carries', 'has'))} {p.bag}"] if p.bag else []
    elif style == 1:
        sentences = [f"{who} {dressed} {p.upper or 'everyday clothes'}{', paired with ' + p.lower if p.lower else ''}"]
        extra = _and([p.hair, p.shoes, p.bag])
        sentences += [f"{p.pronoun} has {extra}"] if extra else []
    else:
        lead = f"{who}, carrying {p.bag}," if p.bag else who
        sentences = [f"{lead} {dressed} {_and([p.upper, p.lower]) or 'everyday clothes'}"]
        sentences += [f"{p.pronoun} has {p.hair}{' and wears ' + p.shoes if p.shoes else ''}"] if p.hair else []
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in (" ".join(sentence.split()) for sentence in sentences))


def jot(statement: Statement, rng: random.Random) -> str:
    """Word the same statement as a person does who fills in a form: key words with commas, no sentence."""
    p = _phrases(statement, rng)
    words = [statement.said.get("gender", "person"), p.hair, p.upper, p.lower, p.shoes, p.bag]
    return ", ".join(" ".join(word for word in part.split() if word not in ("a", "an")) for part in words if part)


def _and(parts: Sequence[str]) -> str:
    parts = [part for part in parts if part]
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def _article(phrase: str) -> str:
    """Close the gaps that words left unsaid and make "a" an "an" where it must be."""
    words = phrase.split()
    if len(words) > 1 and words[0] == "a" and words[1][0] in "aeiou":
        words[0] = "an"
    return " ".join(words)

"""Progressive attributes: what a chat model is asked, what of its answer is accepted, and the caption made of it.

The first question asks what there is; the second asks about details, only of what the first found. "unknown" is a welcome
answer everywhere: a caption that leaves something out misleads less than one that guesses.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tvilfm_plugin.captioning.colour_filter import remove_colours
from tvilfm_plugin.modality import Modality

UNKNOWN = "unknown"
_LONGEST = 20_000  # characters of an answer that are looked at
_MAX_WORDS = 4  # an attribute is a word or two; a sentence is no attribute


class Field(NamedTuple):
    """One attribute: its name, the question, the allowed values (empty = a short phrase), and whether it is a colour."""

    name: str
    question: str
    values: tuple[str, ...] = ()
    colour: bool = False


FIRST: tuple[Field, ...] = (
    Field("gender", "man or woman", ("man", "woman")),
    Field("hair_length", "length of the hair", ("short", "medium-length", "long", "none")),
    Field("headwear", "kind of hat or cap, 'none' if there is none"),
    Field("upper", "kind of the upper garment, e.g. t-shirt, jacket"),
    Field("lower", "kind of the lower garment, e.g. trousers, skirt; 'none' for a dress"),
    Field("shoes", "kind of the shoes, e.g. sneakers, boots"),
    Field("bag", "kind of bag, e.g. backpack, handbag; 'none' if there is none"),
)
SECOND: tuple[Field, ...] = (
    Field("hair_style", "style of the hair, e.g. curly, ponytail"),
    Field("hair_colour", "colour of the hair", colour=True),
    Field("upper_colour", "colour of the upper garment", colour=True),
    Field("upper_pattern", "pattern of the upper garment", ("plain", "striped", "checked", "printed", "two-tone")),
    Field("upper_sleeves", "sleeves of the upper garment", ("sleeveless", "short-sleeved", "long-sleeved")),
    Field("lower_colour", "colour of the lower garment", colour=True),
    Field("lower_length", "length of the lower garment", ("short", "knee-length", "full-length")),
    Field("shoes_colour", "colour of the shoes", colour=True),
    Field("bag_colour", "colour of the bag", colour=True),
    Field("bag_place", "where the bag is carried", ("on the back", "over the shoulder", "in the hand")),
)


def fields_for(modality: Modality, found: Mapping[str, str] | None = None) -> tuple[Field, ...]:
    """The fields of the first question, or of the second one, given what the first one found.

    Infrared images are never asked for colours.
    """
    if found is None:
        return FIRST
    kept = []
    for field in SECOND:
        owner = field.name.split("_")[0]
        missing = owner != "hair" and found.get(owner, UNKNOWN) in (UNKNOWN, "none")
        if not missing and not (field.colour and modality is Modality.IR):
            kept.append(field)
    return tuple(kept)


def question(fields: tuple[Field, ...], modality: Modality) -> str:
    """The question for some fields, which asks for one JSON object."""
    kind = "an infrared image, which shows no colours" if modality is Modality.IR else "a photograph"
    lines = [
        f'- "{field.name}": {field.question}' + (f"; one of {', '.join(field.values)}" if field.values else "")
        for field in fields
    ]
    return "\n".join(
        [
            f"This is {kind}, of one pedestrian. Describe only what you can see.",
            "Answer with one JSON object and nothing else. Its keys:",
            *lines,
            f'Every value is a word or two. Where you are not sure, the value is "{UNKNOWN}".',
        ]
    )


def parse_answer(answer: str, fields: tuple[Field, ...], modality: Modality) -> dict[str, str]:
    """The accepted attributes of an answer; a ValueError where it holds no JSON object, or nothing of that can be used."""
    content = _first_object(answer)
    accepted: dict[str, str] = {}
    for field in fields:
        value = content.get(field.name)
        if not isinstance(value, str):
            continue
        value = " ".join(value.lower().replace("_", " ").split()).strip(" .,;:!?\"'")
        if modality is Modality.IR:
            value = remove_colours(value)
        plain = all(char.isalnum() or char in " -'/" for char in value)
        if not value or value == UNKNOWN or len(value.split()) > _MAX_WORDS or not plain:
            continue
        if field.values and value not in (*field.values, "none"):
            continue
        accepted[field.name] = value
    if not accepted and any(field.name not in content for field in fields):
        raise ValueError(f"none of the keys {', '.join(field.name for field in fields)} has a usable value")
    return accepted


def _first_object(answer: str) -> dict[str, Any]:
    """Models wrap JSON in prose and code fences: the first object that can be read counts."""
    decoder, answer = json.JSONDecoder(), answer[:_LONGEST]
    start = answer.find("{")
    while start >= 0:
        try:
            content, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):  # no JSON, a number with thousands of digits, nested too deeply
            start = answer.find("{", start + 1)
            continue
        if isinstance(content, dict):
            return content
        start = answer.find("{", start + 1)
    raise ValueError("the answer holds no JSON object")


def caption_of(attributes: Mapping[str, str]) -> str:
    """Fill the caption template: "a man with short black hair, wearing a striped red t-shirt, ..."."""

    def phrase(*names: str, noun: str = "", article: bool = True) -> str:
        words = [attributes.get(name, "") for name in names]
        head = words[-1] or noun
        if not head or head == "none":
            return ""
        words = [word for word in [*words[:-1], head] if word and word not in ("none", "plain")]
        # "short-sleeved jacket jacket": models repeat the noun in their adjectives.
        text = " ".join(word for n, word in enumerate(words) if n == len(words) - 1 or word != head)
        plural = head.endswith("s") and not head.endswith("ss")
        return text if plural or not article else f"{'an' if text[0] in 'aeiou' else 'a'} {text}"

    gender = attributes.get("gender", "person")
    hair = ""
    if attributes.get("hair_length") != "none" and any(name.startswith("hair_") for name in attributes):
        hair = phrase("hair_length", "hair_style", "hair_colour", "hair", noun="hair", article=False)
    text = f"a {gender}" + (f" with {hair}" if hair else "")
    worn = [
        phrase("upper_sleeves", "upper_pattern", "upper_colour", "upper"),
        phrase("lower_length", "lower_colour", "lower"),
        phrase("shoes_colour", "shoes", noun="shoes" if "shoes_colour" in attributes else ""),
        phrase("headwear"),
    ]
    worn = [part for part in worn if part]
    if worn:
        text += ", wearing " + (", ".join(worn[:-1]) + " and " + worn[-1] if len(worn) > 1 else worn[0])
    bag = phrase("bag_colour", "bag")
    if bag:
        text += f", carrying {bag}" + (f" {attributes['bag_place']}" if attributes.get("bag_place", "none") != "none" else "")
    return text + "."

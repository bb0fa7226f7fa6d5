"""What synthetic captions say, and where their errors come from."""

import random
import re

import pytest

from tvilfm_plugin.synthetic.captioning import COLOURED, Statement, agrees, describe, jot, observe, rephrase
from tvilfm_plugin.synthetic.people import CLOTHES_COLOURS, HAIR_COLOURS, Person, draw_people
from tvilfm_plugin.synthetic.rendering import Camera, Look, draw_look
from tvilfm_plugin.synthetic.writer import error_rates

COLOURS = re.compile(r"\b(" + "|".join({*CLOTHES_COLOURS, *HAIR_COLOURS}) + r")\b")


def taken(infrared: bool, wrong: float = 0.12, missing: float = 0.12) -> list[tuple[Person, Look, Statement, random.Random]]:
    out = []
    for n, person in enumerate(draw_people(60, seed=4)):
        for camera in range(1, 6):
            rng = random.Random(f"{n}/{camera}")
            look = draw_look(person, Camera(camera, infrared), rng, wrong)
            out.append((person, look, observe(person, look, rng, wrong=wrong, missing=missing), rng))
    return out


def test_only_visible_images_have_colours() -> None:
    assert not any(COLOURS.search(describe(s, rng)) or COLOURS.search(rephrase(s, rng)) for *_, s, rng in taken(infrared=True))
    named = [bool(COLOURS.search(describe(s, rng))) for *_, s, rng in taken(infrared=False)]
    assert sum(named) > 0.95 * len(named)


def test_texts_are_sentences() -> None:
    for *_, statement, rng in taken(infrared=False) + taken(infrared=True):
        text, other = describe(statement, rng), rephrase(statement, rng)
        assert text == text.lower() and text.endswith(".") and other[0].isupper() and other.endswith(".")
        for sentence in (text, other):
            assert "  " not in sentence and " ," not in sentence and ",," not in sentence and "{" not in sentence
            assert not re.search(r"\ba [aeiou]", sentence.lower())
            assert len(sentence.split()) <= 45  # far from CLIP's 77 tokens


def test_errors_are_as_frequent_as_asked_and_at_least_a_tenth_by_default() -> None:
    for infrared in (False, True):
        rates = error_rates([statement for _, _, statement, _ in taken(infrared)])
        assert 0.10 <= rates["wrong"] < 0.14
        assert 0.10 <= rates["missing"] < 0.22
    more = error_rates([statement for _, _, statement, _ in taken(False, wrong=0.3, missing=0.4)])
    assert 0.26 < more["wrong"] < 0.34 and more["missing"] > 0.38


def test_without_error_rates_only_the_view_hides_something() -> None:
    for person, look, statement, _ in taken(infrared=False, wrong=0.0, missing=0.0):
        assert statement.wrong == () and not look.seen
        assert {attribute.split()[0] for attribute in statement.missing} == set(look.hidden)
        assert all(agrees(attribute, value, person) for attribute, value in statement.said.items())


def test_wrong_and_missing_are_told_truly() -> None:
    for person, _, statement, _ in taken(infrared=False):
        untrue = [attribute for attribute, value in statement.said.items() if not agrees(attribute, value, person)]
        assert sorted(untrue) == sorted(statement.wrong)
        assert not set(statement.said) & set(statement.missing)


def test_colours_are_named_as_this_image_shows_them() -> None:
    falsified = 0
    for person, look, statement, _ in taken(infrared=False):
        for attribute, slot in COLOURED.items():
            if attribute in statement.said:
                assert statement.said[attribute] == look.seen.get(slot, getattr(person.palette, slot))
                falsified += slot in look.seen
    assert falsified > 50


def test_nothing_hidden_is_named() -> None:
    hidden = 0
    for _, look, statement, _ in taken(infrared=False) + taken(infrared=True):
        owners = {attribute.split()[0] for attribute in statement.said}
        assert not owners & set(look.hidden)
        hidden += len(look.hidden)
    assert hidden > 50


@pytest.mark.parametrize("infrared", [False, True])
def test_captions_are_repeatable(infrared: bool) -> None:
    a, b = ([describe(s, rng) for *_, s, rng in taken(infrared)] for _ in range(2))
    assert a == b and len(set(a)) > 0.6 * len(a)


def test_key_words_name_exactly_what_is_said() -> None:
    for *_, statement, rng in taken(infrared=False):
        text = jot(statement, rng)
        words = re.findall(r"[a-z-]+", text)
        assert text.split(", ")[0] == statement.said.get("gender", "person") and ", ," not in text
        assert not {"a", "an", "is", "wearing"} & set(words)
        assert set(COLOURS.findall(text)) == {value for attribute, value in statement.said.items() if attribute in COLOURED}

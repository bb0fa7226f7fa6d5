"""Text to attributes: sentences written for each rule, every word of the lists, and properties that hold for any text."""

import random

import pytest

from tvilfm_plugin.captioning.attributes import FIRST, SECOND, parse_answer
from tvilfm_plugin.captioning.reading import read, read_answer
from tvilfm_plugin.modality import Modality


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a man with short black hair, in a long sleeve grey sweater and a blue shirt inner, and jeans pants",
         {("sex", "man"), ("hair_length", "short"), ("hair_colour", "black"), ("upper", "sweater"),
          ("upper_sleeves", "sweater long"), ("upper_colour", "sweater grey"), ("upper", "shirt"), ("upper_colour", "shirt blue"),
          ("lower", "jeans")}),
        ("A jacket with full sleeves that is red, and a t - shirt with no sleeves",
         {("upper", "jacket"), ("upper_sleeves", "jacket long"), ("upper_colour", "jacket red"), ("upper", "t-shirt"),
          ("upper_sleeves", "t-shirt sleeveless")}),
        ("a girl with black, straight, and open hair; she has a pair of white sports shoes",
         {("sex", "woman"), ("age", "young"), ("hair_colour", "black"), ("hair_style", "straight"), ("hair_style", "open"),
          ("shoes", "sneakers"), ("shoes_colour", "sneakers white")}),
        ("a person without a bag or a hat, carrying nothing but a red umbrella",
         {("absent", "bag"), ("absent", "hat"), ("thing", "umbrella"), ("thing_colour", "umbrella red")}),
        ("He doesn't wear glasses. His trousers are striped and his cap is black and white.",
         {("sex", "man"), ("absent", "glasses"), ("lower", "trousers"), ("lower_pattern", "trousers striped"), ("hat", "cap"),
          ("hat_colour", "cap black"), ("hat_colour", "cap white")}),
        ("an elderly lady with hair tied in a bun in a knee-length skirt, a scarf, a watch and a sling bag on top of her coat",
         {("sex", "woman"), ("age", "old"), ("hair_style", "bun"), ("lower", "skirt"), ("lower_length", "skirt knee"),
          ("scarf", "scarf"), ("watch", "watch"), ("bag", "shoulder bag"), ("upper", "coat")}),
        ("", set()),
    ],
)  # fmt: skip
def test_sentences(text: str, facts: set[tuple[str, str]]) -> None:
    assert read(text).facts() == facts


def test_what_is_no_attribute() -> None:
    found = read("A 19-year-old man named Joe Black and his mother hold a frobnicator in the left hand")
    assert found.names == ("named", "Joe") and found.numbers == ("19",) and found.others == ("mother",)
    assert "frobnicator" in found.unread and found.sides == {"left"}


def test_a_chat_models_answer_is_read_alike() -> None:
    answer = (
        '{"gender": "woman", "hair_length": "long", "headwear": "none", "upper": "jacket", "lower": "jeans", '
        '"bag": "backpack", "upper_colour": "red", "upper_sleeves": "long-sleeved", "bag_colour": "black"}'
    )
    found = read_answer(parse_answer(answer, FIRST + SECOND, Modality.RGB))
    assert found.facts() == {
        ("sex", "woman"), ("hair_length", "long"), ("absent", "hat"), ("upper", "jacket"), ("upper_colour", "jacket red"),
        ("upper_sleeves", "jacket long"), ("lower", "jeans"), ("bag", "backpack"), ("bag_colour", "backpack black"),
    }  # fmt: skip
    assert not found.unread


def test_any_text_is_read() -> None:
    rng = random.Random(0)
    pieces = ["a", "red", "man", "-", ",", ".", "no", "shirt", "sleeve", "half", "n't", "9", "with", "hair", "日本", "\x00", "\ud800"]
    for _ in range(400):
        text = " ".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
        assert read(text).facts() == read(text.upper()).facts() == read(f"  {text} ").facts(), text

"""Text to attributes: sentences written for each rule, every word of the lists, and properties that hold for any text."""

import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tvilfm_plugin.captioning.attributes import FIRST, SECOND, caption_of, parse_answer
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.modality import Modality

GOLDENS = Path(__file__).parents[1] / "goldens"
LABELS = json.loads((GOLDENS / "released_attributes.json").read_text(encoding="utf-8"))["facts"]
RELEASED = os.environ.get("TVILFM_RELEASED_REGDB_TEXT", "")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a man with short black hair, in a long sleeve grey sweater and a blue shirt inner, and jeans pants",
         {("sex", "man"), ("hair_length", "short"), ("hair_colour", "black"), ("upper", "sweater"), ("lower", "jeans"),
          ("upper_sleeves", "sweater long"), ("upper_colour", "sweater grey"), ("upper", "shirt"),
          ("upper_colour", "shirt blue")}),
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
    found = read(caption_of(parse_answer(answer, FIRST + SECOND, Modality.RGB)))
    assert found.facts() == {
        ("sex", "woman"), ("hair_length", "long"), ("upper", "jacket"), ("upper_colour", "jacket red"),
        ("upper_sleeves", "jacket long"), ("lower", "jeans"), ("bag", "backpack"), ("bag_colour", "backpack black"),
    }  # fmt: skip
    assert not found.unread


def test_any_text_is_read() -> None:
    rng = random.Random(0)
    pieces = ["a", "red", "man", "-", ",", ".", "no", "shirt", "sleeve", "half", "n't", "9", "with", "hair", "日本", "\ud800"]
    for _ in range(400):
        text = " ".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
        assert read(text).facts() == read(text.upper()).facts() == read(f"  {text} ").facts(), text


def test_released_captions() -> None:
    """Precision and recall per attribute on 200 released captions (not ours to pass on; the labels are)."""
    if not RELEASED:
        pytest.skip("set TVILFM_RELEASED_REGDB_TEXT to the released regdb_text folder")
    told = {}
    for name in ("Blip_RGB", "Blip_IR"):
        for entry in json.loads((Path(RELEASED) / name / f"caption_dict_{name}.json").read_text(encoding="utf-8")).values():
            told[hashlib.sha256(entry["description"].encode()).hexdigest()[:16]] = entry["description"]
    counted: dict[str, Counter[str]] = {}
    for key, labels in LABELS.items():
        truth = {tuple(label.split("=")) for label in labels}
        found = read(told[key]).facts()
        for slot, _ in truth | found:
            counted.setdefault(slot, Counter())
        for name, facts in (("right", truth & found), ("wrong", found - truth), ("missed", truth - found)):
            for slot, _ in facts:
                counted[slot][name] += 1
    assert len(LABELS) == 200
    for slot, one in sorted(counted.items()):
        precision, recall = (one["right"] / max(1, one["right"] + one[other]) for other in ("wrong", "missed"))
        print(f"{slot:14}{one['right'] + one['missed']:5} precision {precision:.3f} recall {recall:.3f}")
        assert min(precision, recall) >= 0.95, slot

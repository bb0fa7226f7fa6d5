"""Captions against what is true of synthetic people."""

import json

from tvilfm_plugin.captioning.truth_audit import FACTS, read_truth, true_values, truth_findings
from tvilfm_plugin.modality import Modality

WOMAN = {
    "shape": {"gender": "woman", "hair": "ponytail", "upper": "hoodie", "pattern": "tartan", "lower": "hot pants",
              "bag": "backpack"},
    "palette": {"upper": "blue", "lower": "orange", "shoes": "purple", "bag": "white", "hair": "grey"},
}  # fmt: skip


def test_exact_and_coarse_words_and_their_synonyms_are_true():
    truth = true_values(WOMAN)
    assert truth["sex"] == {"woman"} and {"hoodie", "sweater"} <= truth["upper"] and truth["lower"] == {"shorts"}
    assert truth["upper_pattern"] == {"checked"} and {"bag", "backpack"} <= truth["bag"] and truth["hair_length"] == {"long"}
    assert [truth[f"{slot}_colour"] for slot in ("hair", "upper", "lower", "shoes", "bag")] == [
        {"grey"}, {"blue"}, {"orange"}, {"purple"}, {"white"},
    ]  # fmt: skip


def test_wrong_and_right_attributes_are_counted(tmp_path):
    images = {name: {"identity": 7} for name in ("a.jpg", "b.jpg")}
    (tmp_path / FACTS).write_text(json.dumps({"people": {"7": WOMAN}, "images": images}))
    truth = read_truth(tmp_path / FACTS)
    texts = {
        "a.jpg": "a girl in a blue checked sweater, with orange shorts and black shoes",
        "b.jpg": "a man in a red top and orange trousers",
        "of another data set.jpg": "a man",
    }
    found = {one.key: (one.count, one.of) for one in truth_findings(truth, texts, Modality.RGB)}
    assert found == {
        "untrue_sex": (1, 2), "untrue_upper": (0, 1), "untrue_upper_colour": (1, 2), "untrue_upper_pattern": (0, 1),
        "untrue_lower": (1, 2), "untrue_lower_colour": (0, 2), "untrue_shoes_colour": (1, 1),
    }  # fmt: skip
    infrared = {one.key for one in truth_findings(truth, texts, Modality.IR)}
    assert infrared == {"untrue_sex", "untrue_upper", "untrue_upper_pattern", "untrue_lower"}

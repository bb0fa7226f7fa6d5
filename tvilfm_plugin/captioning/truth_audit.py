"""What captions say against what is true, where that is known: the synthetic benchmark writes it beside its pictures."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.captioning.findings import EXAMPLES, Finding
from tvilfm_plugin.description.questions import values_of
from tvilfm_plugin.description.reading import Attributes, read
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.synthetic.captioning import COLOURED, Statement, describe
from tvilfm_plugin.synthetic.people import word_for

FACTS = "attributes.json"
SLOTS = ("sex", "hair_length", "hair_colour", "upper", "upper_colour", "upper_pattern", "lower", "lower_colour", "shoes_colour",
         "bag", "bag_colour")  # fmt: skip
_WORDINGS = 24  # of each person: enough to meet every synonym


class Truth(NamedTuple):
    """What attributes.json of a synthetic benchmark says: image path below the data set -> person -> `true_values`."""

    person_of: Mapping[str, str]
    people: Mapping[str, Mapping[str, frozenset[str]]]


def read_truth(file: Path) -> Truth:
    """The truth of a data set."""
    facts = json.loads(file.read_text(encoding="utf-8"))
    person_of = {key: str(image["identity"]) for key, image in facts["images"].items()}
    return Truth(person_of, {number: true_values(person) for number, person in facts["people"].items()})


def truth_findings(truth: Truth, texts: Mapping[str, str], modality: Modality) -> list[Finding]:
    """Per attribute, how many captions that name it name another than the person has; `texts` go by path below the data set."""
    named, wrong, examples = Counter[str](), Counter[str](), defaultdict[str, list[str]](list)
    for key, text in texts.items():
        if key not in truth.person_of:
            continue
        said, true = read(text), truth.people[truth.person_of[key]]
        for slot in SLOTS:
            values = values_of(said, slot) - {"top"}  # which any upper garment is
            if not values or modality is Modality.IR and slot.endswith("_colour"):
                continue
            named[slot] += 1
            if not values & true.get(slot, frozenset()):
                wrong[slot] += 1
                examples[slot].append(f"{key}: {', '.join(sorted(values))}")
    meaning = "captions that name another {} than the person has, of those that name one"
    return [
        Finding(f"untrue_{slot}", wrong[slot], named[slot], meaning.format(slot.replace("_", " ")), examples[slot][:EXAMPLES])
        for slot in SLOTS
        if named[slot]
    ]


def true_values(person: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Slot -> every value that a right caption of a person may be read as: exact and coarse words, and all their synonyms."""
    shape, palette = person["shape"], person["palette"]
    rng = random.Random(0)
    found: dict[str, set[str]] = {}
    for n in range(_WORDINGS):
        said = {"gender": shape["gender"]}
        for attribute in ("hair", "upper", "pattern", "lower", "bag"):
            value = shape[attribute]
            if value not in ("", "plain"):
                said[attribute] = value if n % 2 else word_for(attribute, value)
        said |= {name: palette[slot] for name, slot in COLOURED.items() if slot != "bag" or "bag" in said}
        _add(found, read(describe(Statement(said, (), ()), rng)))
    return {slot: frozenset(values) for slot, values in found.items()}


def _add(found: dict[str, set[str]], one: Attributes) -> None:
    for slot in SLOTS:
        found.setdefault(slot, set()).update(values_of(one, slot))

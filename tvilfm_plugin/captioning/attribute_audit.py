"""What captions say attribute by attribute, where they contradict each other, and where rephrases leave them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tvilfm_plugin.captioning.findings import EXAMPLES, Finding, Subject
from tvilfm_plugin.captioning.guards import objection
from tvilfm_plugin.description.reading import Attributes, read
from tvilfm_plugin.modality import Modality

_LEGS = {"lower", "dress"}
# Slots that a caption can be expected to name; colours of infrared images are none of them.
_EXPECTED = (
    "sex", "age", "hair_length", "hair_style", "hair_colour", "hat", "glasses", "upper", "upper_sleeves", "upper_colour",
    "upper_pattern", "lower", "lower_length", "lower_colour", "shoes", "shoes_colour", "bag", "bag_colour", "thing", "absent",
)  # fmt: skip
_DRIFTS = {
    "leaves out": ("rephrases_lost", "rephrases that leave an attribute of the caption out"),
    "changes who it is": ("rephrases_person", "rephrases that change sex or age"),
    "names somebody": ("rephrases_named", "rephrases that name somebody"),
    "copies the caption": ("rephrases_copied", "rephrases that copy the caption"),
    "is in another script": ("rephrases_script", "rephrases with foreign scripts or control characters"),
    "denies": ("rephrases_denied", "rephrases that deny what the caption does not"),
}


def contradictions(train: Sequence[Subject], texts: Mapping[str, str], modality: Modality) -> list[Finding]:
    """Training persons whose captions disagree. Test persons are left out on purpose.

    Whoever repairs contradictions needs the identities, and knowing those of test images is knowing the answers.
    """
    persons: dict[int, list[Attributes]] = {}
    for subject in train:
        persons.setdefault(subject.pid, []).append(read(texts[subject.key]))
    several = {pid: said for pid, said in persons.items() if len(said) > 1}

    def finding(key: str, meaning: str, found: Mapping[int, str]) -> Finding:
        examples = [f"{pid}: {what}" for pid, what in list(found.items())[:EXAMPLES]]
        return Finding(key, len(found), len(several), meaning, examples)

    findings = []
    if modality is Modality.RGB:
        meaning = "training persons with captions that give one garment different colours (front and back may differ)"
        clashing = {pid: clash for pid, said in several.items() if (clash := _colour_clash(said))}
        findings.append(finding("colour_contradictions", meaning, clashing))
    meaning = "training persons with captions that disagree about what covers the legs"
    legs = {pid: _legs(said) for pid, said in several.items()}
    mixed = {pid: ", ".join(sorted(worn)) for pid, worn in legs.items() if len(worn) > 1}
    findings.append(finding("garment_contradictions", meaning, mixed))
    for key, slot, what in (("sex_contradictions", "sex", "sex"), ("hair_contradictions", "hair_length", "length of hair"),
                            ("sleeve_contradictions", "upper_sleeves", "sleeves of a garment")):  # fmt: skip
        clashing = {pid: clash for pid, said in several.items() if (clash := _value_clash(said, slot))}
        findings.append(finding(key, f"training persons with captions that disagree about the {what}", clashing))
    return findings


def _legs(said: Iterable[Attributes]) -> set[str]:
    long = {"jeans", "joggers", "leggings"}  # trousers, to many
    worn = {part.type for one in said for part in one.parts if part.kind in _LEGS}
    return {"trousers" if name in long else name for name in worn}


def _colour_clash(said: Iterable[Attributes]) -> str:
    seen: dict[str, list[frozenset[str]]] = {}
    for one in said:
        for part in one.parts:
            if part.colours:
                seen.setdefault(part.type if part.kind == "upper" else part.kind, []).append(frozenset(part.colours))
    # Two sets that share a colour may both be right (front and back, "black and white").
    bad = {g: sets for g, sets in seen.items() if any(not a & b for n, a in enumerate(sets) for b in sets[:n])}
    return "; ".join(f"{garment}: {', '.join(sorted(set().union(*sets)))}" for garment, sets in sorted(bad.items()))


def _value_clash(said: Iterable[Attributes], slot: str) -> str:
    values: dict[str, set[str]] = {}
    for one in said:
        for found, value in one.facts():
            if found == slot:
                *garment, last = value.split()
                values.setdefault(" ".join(garment), set()).add(last)
    return "; ".join(", ".join(sorted(one)) for one in values.values() if len(one) > 1)


def coverage(texts: Mapping[str, str], modality: Modality) -> list[Finding]:
    """What is said, what never is, and what could not be read."""
    counted: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    unclear, named, script = [], [], []
    for key, text in texts.items():
        found = read(text)
        counted.update({slot for slot, _ in found.facts()})
        unread.update(set(found.unread))
        if found.unread:
            unclear.append(key)
        if found.names or found.others:
            named.append(f"{key}: {', '.join((*found.names, *found.others))}")
        if any(char.isalpha() and not char.isascii() for char in text):
            script.append(key)
    expected = [slot for slot in _EXPECTED if modality is not Modality.IR or not slot.endswith("_colour")]
    never = [slot for slot in expected if not counted[slot]]
    shares = [f"{slot} {counted[slot] / max(1, len(texts)):.1%}" for slot in expected]
    common = [f"{count} x {word}" for word, count in unread.most_common(EXAMPLES)]
    return [
        Finding("never_said", len(never), len(expected), "attributes that no caption names", [", ".join(shares), *never]),
        Finding("unread", len(unclear), len(texts), "captions with words that the reading does not know", common),
        Finding("named", len(named), len(texts), "captions that name somebody or further people", named[:EXAMPLES]),
        Finding("foreign_script", len(script), len(texts), "captions with letters of other scripts", script[:EXAMPLES]),
    ]


def drift(texts: Mapping[str, str], rephrases: Mapping[str, str], modality: Modality) -> list[Finding]:
    """How far rephrases move from their captions, by the very rules of the guards, and in words."""
    refused: dict[str, str] = {}
    overlap = 0.0
    for key, rephrase in rephrases.items():
        if reason := objection(texts[key], rephrase, modality):
            refused[key] = reason
        before, after = (set(re.findall(r"[a-z]+", text.lower())) for text in (texts[key], rephrase))
        overlap += len(before & after) / max(1, len(before | after))
    kinds = Counter(reason.split(":")[0] for reason in refused.values())
    examples = [f"{count} x {kind}" for kind, count in kinds.most_common()]
    examples += [f"{key}: {reason}" for key, reason in list(refused.items())[:EXAMPLES]]
    mean = overlap / len(rephrases) if rephrases else 0.0
    meaning = f"rephrases that the guards would refuse (mean share of common words {mean:.2f})"
    findings = [Finding("drift", len(refused), len(rephrases), meaning, examples)]
    for kind, (key, meaning) in _DRIFTS.items():
        said = [f"{name}: {reason}" for name, reason in refused.items() if reason.split(":")[0] == kind]
        findings.append(Finding(key, len(said), len(rephrases), meaning, said[:EXAMPLES]))
    return findings


def per_camera(
    known: Sequence[Subject], texts: Mapping[str, str], rephrases: Mapping[str, str], modality: Modality
) -> dict[str, dict[str, float]]:
    """Camera -> captions, attributes per caption, share with unread words, share of rephrases that the guards refuse."""
    cameras: dict[str, list[str]] = {}
    for subject in known:
        if subject.camera:
            cameras.setdefault(subject.camera, []).append(subject.key)
    table: dict[str, dict[str, float]] = {}
    for camera, keys in sorted(cameras.items()):
        said = [read(texts[key]) for key in keys]
        again = [key for key in keys if key in rephrases]
        refused = sum(bool(objection(texts[key], rephrases[key], modality)) for key in again)
        table[camera] = {
            "captions": len(keys),
            "attributes": sum(len(one.facts()) for one in said) / len(said),
            "unread": sum(bool(one.unread) for one in said) / len(said),
            "drift": refused / len(again) if again else 0.0,
        }
    return table

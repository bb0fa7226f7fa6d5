"""The one question whose answer splits the present candidates best, from what their captions say; no language model."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tvilfm_plugin.description.reading import Attributes

QUESTIONS: Mapping[str, str] = {
    "sex": "Is it a man or a woman?",
    "hair_length": "How long is the hair?",
    "hair_colour": "What colour is the hair?",
    "upper": "What is worn on the upper body?",
    "upper_colour": "What colour is the upper garment?",
    "upper_pattern": "What pattern has the upper garment?",
    "upper_sleeves": "How long are the sleeves?",
    "lower": "What is worn on the legs?",
    "lower_colour": "What colour is it on the legs?",
    "lower_length": "How long is it on the legs?",
    "shoes": "What kind of shoes?",
    "shoes_colour": "What colour are the shoes?",
    "hat": "Which hat or cap?",
    "bag": "Which bag?",
    "bag_colour": "What colour is the bag?",
    "thing": "What is carried?",
}
"""Slot of a reading -> the question about it, in the fixed order that a questionnaire would have."""


class Question(NamedTuple):
    """What to ask.

    Attributes:
        slot: of the reading.
        text: the question.
        choices: values that candidates have, most probable first.
        bits: how much the answer is expected to tell.
    """

    slot: str
    text: str
    choices: tuple[str, ...]
    bits: float


def values_of(candidate: Attributes, slot: str) -> frozenset[str]:
    """What a caption says of a slot, without the garment's name: {"red", "white"}; empty where it says nothing."""
    return frozenset(value.split()[-1] if "_" in slot else value for name, value in candidate.facts() if name == slot)


def best_question(
    candidates: Sequence[Attributes], weights: Sequence[float], asked: Collection[str] = (), *, noise: float = 0.1
) -> Question | None:
    """The question with the least expected entropy of the candidates after its answer; None if no question tells anything.

    Args:
        candidates: N readings, one a candidate's caption (or captions).
        weights: N, how probable each is; any positive scale.
        asked: slots that are not asked again.
        noise: probability that an answer is wrong.
    """
    prior = _normal(weights)
    before = _entropy(prior)
    best: Question | None = None
    for slot, text in QUESTIONS.items():
        said = [values_of(candidate, slot) for candidate in candidates]
        share: dict[str, float] = {}
        for weight, values in zip(prior, said, strict=True):
            for value in values if weight else ():
                share[value] = share.get(value, 0.0) + weight / len(values)
        if slot in asked or len(share) < 2:
            continue
        after = 0.0
        for answer in share:
            joint = [w * _likelihood(answer, values, len(share), noise) for w, values in zip(prior, said, strict=True)]
            after += sum(joint) * _entropy(_normal(joint))
        bits = before - after
        if bits > 1e-9 and (best is None or bits > best.bits):
            best = Question(slot, text, tuple(sorted(share, key=lambda value: (-share[value], value))), bits)
    return best


def answered(
    candidates: Sequence[Attributes], weights: Sequence[float], slot: str, answer: str, *, noise: float = 0.1
) -> list[float]:
    """The candidates' probabilities after an answer, N; "" (don't know) leaves them as they are."""
    if not answer:
        return _normal(weights)
    said = [values_of(candidate, slot) for candidate in candidates]
    choices = len(frozenset().union({answer}, *said))
    joint = [w * _likelihood(answer, values, choices, noise) for w, values in zip(weights, said, strict=True)]
    return _normal(joint)


def _likelihood(answer: str, values: Collection[str], choices: int, noise: float) -> float:
    """P(answer | candidate): a caption that says nothing of it is neither confirmed nor ruled out."""
    if not values:
        return 1 / choices
    if answer in values:
        return (1 - noise) / len(values)
    return noise / max(1, choices - len(values))


def _normal(weights: Sequence[float]) -> list[float]:
    if not weights or min(weights) < 0 or not 0 < (total := math.fsum(weights)) < math.inf:
        raise ValueError("Candidates need weights that are not negative and not all zero.")
    return [weight / total for weight in weights]


def _entropy(shares: Sequence[float]) -> float:
    return -math.fsum(share * math.log2(share) for share in shares if share > 0)

"""The one question whose answer splits the present candidates best; no language model."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.description.reading import Attributes, read


class Wording(NamedTuple):
    """How an attribute is asked for, the sentence that states an answer, and what a text tower is asked to tell apart."""

    question: str
    sentence: str
    values: tuple[str, ...] = ()


_COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
QUESTIONS: Mapping[str, Wording] = {
    "sex": Wording("Is it a man or a woman?", "a {}", ("man", "woman")),
    "hair_length": Wording("How long is the hair?", "a person with {} hair", ("short", "long")),
    "hair_colour": Wording("What colour is the hair?", "a person with {} hair", ("black", "brown", "blonde", "grey")),
    "upper": Wording(
        "What is worn on the upper body?", "a person wearing a {}", ("t-shirt", "shirt", "jacket", "coat", "sweater", "hoodie")
    ),
    "upper_colour": Wording("What colour is the upper garment?", "a person wearing a {} top", _COLOURS),
    "upper_pattern": Wording("What pattern has the upper garment?", "a person in a {} top", ("plain", "striped", "checked")),
    "upper_sleeves": Wording("How long are the sleeves?", "a person wearing a {} sleeve top", ("short", "long")),
    "lower": Wording("What is worn on the legs?", "a person wearing {}", ("trousers", "jeans", "shorts", "skirt")),
    "lower_colour": Wording("What colour is it on the legs?", "a person wearing {} trousers", _COLOURS),
    "lower_length": Wording("How long is it on the legs?", "a person wearing a {} skirt"),
    "shoes": Wording("What kind of shoes?", "a person wearing {}"),
    "shoes_colour": Wording("What colour are the shoes?", "a person wearing {} shoes", _COLOURS),
    "hat": Wording("Which hat or cap?", "a person wearing a {}"),
    "bag": Wording("Which bag?", "a person carrying a {}", ("backpack", "handbag")),
    "bag_colour": Wording("What colour is the bag?", "a person carrying a {} bag"),
    "thing": Wording("What is carried?", "a person carrying a {}"),
}
"""Slot of a reading -> its question, in the fixed order that a questionnaire would have."""
SHARPNESS = 2.0
"""How probable a hit is: softmax of this times its similarity, standardised over the hits."""
TOWER_SHARPNESS = 1.0
"""The same of an answer, by the standardised scores of its sentence."""
NOISE = 0.3
"""Probability that an answer and a right candidate's caption differ: either errs, or says it in other words;
0.1 to 0.4 do alike on training people (docs/captioning.md)."""
_GENERAL = frozenset({"top", "bag", "hat", "shoes", "thing"})
_UNKNOWN = re.compile(
    r"(?:\?|skip|unknown|no idea|not sure|(?:i )?(?:don['’]?t|do not) (?:know|remember))?[.!]?", re.IGNORECASE
)


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


class Answers(NamedTuple):
    """What N candidates would answer to one question.

    Attributes:
        choices: V values.
        likelihood: (N, V) probability of each answer, given that the candidate is meant; rows add up to 1.
    """

    choices: tuple[str, ...]
    likelihood: np.ndarray


def values_of(candidate: Attributes, slot: str) -> frozenset[str]:
    """What a caption says of a slot, without the garment's name: {"red", "white"}; empty where it says nothing."""
    return frozenset(value.split()[-1] if "_" in slot else value for name, value in candidate.facts() if name == slot)


def telling(candidate: Attributes, slot: str) -> frozenset[str]:
    """`values_of` without the words that any garment or bag may be called by: a "top" tells no jacket from a shirt."""
    return values_of(candidate, slot) - _GENERAL


def answers_read(candidates: Sequence[Attributes], *, noise: float = NOISE) -> dict[str, Answers]:
    """Slot -> answers, from readings of the candidates' captions; slots of which they say one thing or none are left out.

    Args:
        candidates: N readings, one a candidate's caption (or captions). One that says nothing of a slot is neither confirmed
            nor ruled out by any answer.
        noise: probability that an answer is wrong, or a caption.
    """
    found = {}
    for slot in QUESTIONS:
        said = [telling(candidate, slot) for candidate in candidates]
        choices = sorted(frozenset().union(*said))
        if len(choices) > 1:
            named = np.array([[value in values for value in choices] for values in said])
            count = named.sum(axis=1, keepdims=True)
            others = len(choices) - count
            right = np.where(others > 0, 1 - noise, 1.0) / np.maximum(count, 1)
            likelihood = np.where(named, right, noise / np.maximum(others, 1))
            found[slot] = Answers(tuple(choices), np.where(count > 0, likelihood, 1 / len(choices)))
    return found


def probabilities(similarity: np.ndarray, sharpness: float = SHARPNESS) -> np.ndarray:
    """(Q, G) similarities -> how probable it is that each image shows the person; rows add up to 1."""
    spread = similarity.std(axis=1, keepdims=True)
    score = sharpness * (similarity - similarity.max(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    shares = np.exp(score)
    return shares / shares.sum(axis=1, keepdims=True)


def sentences() -> dict[str, dict[str, str]]:
    """Slot -> each of its `values` -> the sentence that states it, of the questions that a text tower can judge."""
    return {slot: {value: one.sentence.format(value) for value in one.values} for slot, one in QUESTIONS.items() if one.values}


def answers_scored(
    images: np.ndarray, stated: Mapping[str, tuple[Sequence[str], np.ndarray]], *, noise: float = 0.1
) -> dict[str, Answers]:
    """What N images would answer by the text tower's scores.

    Args:
        images: (N, D) unit vectors.
        stated: slot -> V values and the (V, D) unit vectors of their `sentences`.
        noise: probability that an answer is wrong.
    """
    found = {}
    for slot, (values, rows) in stated.items():
        score = images @ rows.T
        # What all images share, and what an image has in common with any of the sentences, tells nothing.
        score = score - score.mean(axis=0) - score.mean(axis=1, keepdims=True) + score.mean()
        share = probabilities(score, TOWER_SHARPNESS)
        found[slot] = Answers(tuple(values), (1 - noise) * share + noise / len(rows))
    return found


def best_question(
    answers: Mapping[str, Answers], weights: Sequence[float] | np.ndarray, asked: Collection[str] = ()
) -> Question | None:
    """The question with the least expected entropy of the candidates after its answer; None if no question tells anything.

    Args:
        answers: slot -> what the N candidates would say.
        weights: (N,) how probable each is; any positive scale.
        asked: slots that are not asked again.
    """
    prior = _normal(weights)
    best: Question | None = None
    for slot, (choices, likelihood) in answers.items():
        if slot in asked:
            continue
        joint = prior[:, None] * likelihood
        share = joint.sum(axis=0)
        # The mutual information of candidate and answer.
        bits = float(_entropy(share) - prior @ _entropy(likelihood, axis=1))
        if bits > 1e-9 and (best is None or bits > best.bits):
            ordered = sorted(zip(choices, share.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
            best = Question(slot, QUESTIONS[slot].question, tuple(value for value, p in ordered if p > 0), bits)
    return best


def answered(answers: Mapping[str, Answers], weights: Sequence[float] | np.ndarray, slot: str, answer: str) -> np.ndarray:
    """(N,) probabilities of the candidates after an answer; one that nobody gives ("" among them) leaves them as they are."""
    prior = _normal(weights)
    choices, likelihood = answers[slot] if slot in answers else ((), np.empty((len(prior), 0)))
    return _normal(prior * likelihood[:, choices.index(answer)]) if answer in choices else prior


def understood(slot: str, answer: str) -> str:
    """The value of an answer in a witness's own words ("crimson" is red); "" for "don't know".

    Raises:
        ValueError: the words say nothing of what was asked.
    """
    answer = answer.strip()
    if _UNKNOWN.fullmatch(answer):
        return ""
    for words in (answer, *re.split(r"[,.;:!]", answer)):
        for text in (QUESTIONS[slot].sentence.format(words.strip()), words):
            if values := values_of(read(text), slot):
                return min(values)
    raise ValueError(f'{answer!r} does not answer {QUESTIONS[slot].question!r}; say a value, or "don\'t know".')


def _normal(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if not len(values) or not (values >= 0).all() or not 0 < (total := values.sum()) < np.inf:
        raise ValueError("Candidates need weights that are not negative and not all zero.")
    return values / total


def _entropy(shares: np.ndarray, axis: int | None = None) -> np.ndarray:
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=axis)

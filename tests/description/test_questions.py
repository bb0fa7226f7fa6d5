"""Which question splits the candidates best, against counting by hand and against a fixed order."""

import math
import random

import numpy as np
import pytest

from tvilfm_plugin.description.questions import (
    QUESTIONS,
    answered,
    answers_read,
    answers_scored,
    best_question,
    probabilities,
    sentences,
    understood,
    values_of,
)
from tvilfm_plugin.description.reading import read


def test_the_question_that_halves_the_candidates() -> None:
    texts = ["a man in a red shirt", "a man in a blue shirt", "a man in a green shirt", "a woman in a white shirt"]
    candidates = answers_read([read(text) for text in texts], noise=0.0)
    question = best_question(candidates, [1, 1, 1, 1])
    assert question is not None and question.slot == "upper_colour" and question.bits == pytest.approx(2.0)
    assert question.choices == ("blue", "green", "red", "white")
    again = best_question(candidates, [1, 1, 1, 1], asked=["upper_colour"])
    assert again is not None and again.slot == "sex"
    assert again.bits == pytest.approx(2 - 0.75 * math.log2(3))
    assert best_question(candidates, [1, 1, 1, 1], asked=["upper_colour", "sex"]) is None
    assert best_question(candidates, [0, 0, 0, 1]) is None


def test_answers() -> None:
    readings = [read("a man in a red and white shirt"), read("a man in a blue shirt"), read("a man")]
    assert values_of(readings[0], "upper_colour") == {"red", "white"} and not values_of(readings[2], "upper_colour")
    candidates = answers_read(readings, noise=0.1)
    np.testing.assert_allclose(candidates["upper_colour"].likelihood.sum(axis=1), 1)
    for nothing in ("", "purple"):
        assert answered(candidates, [1, 1, 2], "upper_colour", nothing).tolist() == [0.25, 0.25, 0.5]
    after = answered(candidates, [1, 1, 1], "upper_colour", "red")
    # 0.9 shared by two colours, a wrong answer, and nothing said: one of three choices.
    assert after.tolist() == pytest.approx([x / sum([0.45, 0.05, 1 / 3]) for x in (0.45, 0.05, 1 / 3)])
    with pytest.raises(ValueError, match="not all zero"):
        answered(candidates, [0, 0, 0], "sex", "man")


def entropy(shares):
    return -sum(share * math.log2(share) for share in shares if share)


def test_expected_entropy_counted_by_hand() -> None:
    texts = [
        "a man in a red shirt and jeans",
        "a woman in a red skirt",
        "a boy with a bag in a blue shirt",
        "a person in a coat",
    ]
    answers, prior = answers_read([read(text) for text in texts]), [0.1, 0.2, 0.3, 0.4]
    told = {}
    for slot, (choices, likelihood) in answers.items():
        after = 0.0
        for v in range(len(choices)):
            joint = [p * likelihood[n, v] for n, p in enumerate(prior)]
            after += sum(joint) * entropy([p / sum(joint) for p in joint])
        told[slot] = entropy(prior) - after
    question = best_question(answers, prior)
    assert question is not None and question.slot == max(told, key=told.get)
    assert question.bits == pytest.approx(max(told.values()))


def test_answers_in_a_witness_s_own_words() -> None:
    assert understood("upper_colour", "crimson") == "red" and understood("upper_colour", "it was a dark red jacket") == "red"
    assert understood("sex", "woman") == "woman" and understood("sex", "She was a lady") == "woman"
    assert understood("lower", "blue jeans") == "jeans" and understood("hair_length", "long") == "long"
    for words in ("", "?", "don't know", "I don’t remember", "Not sure."):
        assert understood("sex", words) == ""
    with pytest.raises(ValueError, match="does not answer 'What colour is the bag"):
        understood("bag_colour", "a Thursday")
    for slot, wording in QUESTIONS.items():  # each sentence states what its question asks for
        value = {"colour": "red", "length": "long", "pattern": "striped", "sleeves": "long"}.get(slot.partition("_")[2])
        value = value or {
            "sex": "man",
            "upper": "shirt",
            "lower": "jeans",
            "shoes": "boots",
            "hat": "cap",
            "bag": "backpack",
        }.get(slot, "phone")
        assert values_of(read(wording.sentence.format(value)), slot) == {value}, slot


def test_better_than_a_fixed_order_and_robust_to_wrong_answers() -> None:
    rng = random.Random(0)
    colours, garments = ("red", "blue", "green", "white", "black"), ("shirt", "jacket", "sweater")
    people = [
        read(
            f"a {rng.choice(('man', 'woman'))} in a {rng.choice(colours)} {rng.choice(garments)}, "
            f"{rng.choice(colours)} {rng.choice(('jeans', 'shorts', 'skirt'))} and {rng.choice(colours)} shoes"
        )
        for _ in range(60)
    ]

    answers = answers_read(people)

    def found(adaptive: bool, wrong: float, unknown: float) -> float:
        total = 0.0
        for target in range(len(people)):
            weights, asked = np.full(len(people), 1 / len(people)), []
            for step in range(3):
                question = best_question(answers, weights, asked)
                slot = question.slot if adaptive and question else list(QUESTIONS)[step]
                asked.append(slot)
                answer = next(iter(sorted(values_of(people[target], slot))), "")
                if rng.random() < unknown:
                    answer = ""
                elif answer and rng.random() < wrong:
                    answer = rng.choice(sorted({v for one in people for v in values_of(one, slot)}))
                weights = answered(answers, weights, slot, answer)
            best = np.isclose(weights, weights.max())
            total += best[target] / best.sum()
        return total / len(people)

    truthful = found(True, 0.0, 0.0)
    assert truthful > found(False, 0.0, 0.0) + 0.1
    assert truthful > found(True, 0.2, 0.0) > 3 / len(people) and truthful > found(True, 0.0, 0.3) > 3 / len(people)


def test_a_tower_that_sees_colours_answers_by_its_scores():
    stated = sentences()
    assert stated["upper_colour"]["red"] == "a person wearing a red top" and "shoes" not in stated
    tower = {"upper_colour": (tuple(stated["upper_colour"]), np.eye(11, 12, dtype=np.float32))}  # each colour its own direction
    images = np.eye(12, dtype=np.float32)[[3, 0, 7]] * 0.6 + 0.8 * np.eye(12, dtype=np.float32)[11]
    answers = answers_scored(images, tower)["upper_colour"]
    assert [answers.choices[v] for v in answers.likelihood.argmax(axis=1)] == ["red", "black", "blue"]
    np.testing.assert_allclose(answers.likelihood.sum(axis=1), 1, rtol=1e-5)


def test_probabilities_follow_the_similarities():
    found = probabilities(np.array([[0.3, 0.1, 0.2], [1.0, 1.0, 1.0]]))
    assert found[0].argsort().tolist() == [1, 2, 0] and found[1].tolist() == pytest.approx([1 / 3] * 3)
    np.testing.assert_allclose(found, probabilities(np.array([[30.0, 10, 20], [5, 5, 5]])))  # any scale

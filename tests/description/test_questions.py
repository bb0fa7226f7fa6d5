"""Which question splits the candidates best, against counting by hand and against a fixed order."""

import math
import random

import pytest

from tvilfm_plugin.description.questions import QUESTIONS, answered, best_question, values_of
from tvilfm_plugin.description.reading import read


def test_the_question_that_halves_the_candidates() -> None:
    texts = ["a man in a red shirt", "a man in a blue shirt", "a man in a green shirt", "a woman in a white shirt"]
    candidates = [read(text) for text in texts]
    question = best_question(candidates, [1, 1, 1, 1], noise=0.0)
    assert question is not None and question.slot == "upper_colour" and question.bits == pytest.approx(2.0)
    assert question.choices == ("blue", "green", "red", "white")
    again = best_question(candidates, [1, 1, 1, 1], asked=["upper_colour"], noise=0.0)
    assert again is not None and again.slot == "sex"
    assert again.bits == pytest.approx(2 - 0.75 * math.log2(3))
    assert best_question(candidates, [1, 1, 1, 1], asked=["upper_colour", "sex"]) is None
    assert best_question(candidates, [0, 0, 0, 1], noise=0.0) is None


def test_answers() -> None:
    candidates = [read("a man in a red and white shirt"), read("a man in a blue shirt"), read("a man")]
    assert values_of(candidates[0], "upper_colour") == {"red", "white"} and not values_of(candidates[2], "upper_colour")
    assert answered(candidates, [1, 1, 2], "upper_colour", "") == [0.25, 0.25, 0.5]
    after = answered(candidates, [1, 1, 1], "upper_colour", "red", noise=0.1)
    # 0.9 shared by two colours, a wrong answer, and nothing said: one of three choices.
    assert after == pytest.approx([x / sum([0.45, 0.05, 1 / 3]) for x in (0.45, 0.05, 1 / 3)])
    with pytest.raises(ValueError, match="not all zero"):
        answered(candidates, [0, 0, 0], "sex", "man")


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

    def found(adaptive: bool, wrong: float, unknown: float) -> float:
        total = 0.0
        for target in range(len(people)):
            weights, asked = [1 / len(people)] * len(people), []
            for step in range(3):
                question = best_question(people, weights, asked)
                slot = question.slot if adaptive and question else list(QUESTIONS)[step]
                asked.append(slot)
                answer = next(iter(sorted(values_of(people[target], slot))), "")
                if rng.random() < unknown:
                    answer = ""
                elif answer and rng.random() < wrong:
                    answer = rng.choice(sorted({v for one in people for v in values_of(one, slot)}))
                weights = answered(people, weights, slot, answer)
            best = max(weights)
            total += (weights[target] == best) / weights.count(best)
        return total / len(people)

    truthful = found(True, 0.0, 0.0)
    assert truthful > found(False, 0.0, 0.0) + 0.1
    assert truthful > found(True, 0.2, 0.0) > 3 / len(people) and truthful > found(True, 0.0, 0.3) > 3 / len(people)

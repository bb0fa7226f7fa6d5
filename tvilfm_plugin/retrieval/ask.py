"""A dialogue with a witness: the question that splits the hits of a search best, its answer, and the hits after it.

What an image would answer is read from its caption where there is one; else it is the text tower's own score of the sentence
that states the answer. No language model, and no network between two answers.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tvilfm_plugin.description.questions import Answers, Question, answered, best_question, probabilities, understood
from tvilfm_plugin.retrieval.hits import Hit

CANDIDATES = 200
"""Hits of the first search that the questions are about."""


class Dialogue:
    """A search's hits, their (N,) probabilities, and what a witness said: slot -> answer, in order, "" for "don't know"."""

    def __init__(self, hits: Sequence[Hit], answers: Mapping[str, Answers]) -> None:
        """N hits as a search gave them, and what they would answer (`questions.answers_read` or `answers_scored`)."""
        self.answers, self._hits = answers, list(hits)
        self.weights = probabilities(np.array([[hit.similarity for hit in hits]]))[0]
        self.said: dict[str, str] = {}

    def question(self) -> Question | None:
        """The next one; None where no question tells anything any more."""
        return best_question(self.answers, self.weights, self.said) if len(self._hits) > 1 else None

    def answer(self, slot: str, words: str) -> None:
        """Take an answer in the witness's own words, "don't know" among them; ValueError where they say nothing of it."""
        self.said[slot] = understood(slot, words)
        self.weights = answered(self.answers, self.weights, slot, self.said[slot])

    @property
    def hits(self) -> list[Hit]:
        """Most probable first."""
        return [self._hits[n] for n in np.argsort(-self.weights, kind="stable")]

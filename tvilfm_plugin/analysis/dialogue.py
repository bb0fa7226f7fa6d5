"""What questions to a witness bring: R-1 after 0 to N answers on a stored evaluation, with the questions of a real dialogue.

The witness is simulated: the answer is what most captions of the person's visible images outside the gallery say, which is
nearly the truth where captions err one by one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.intervals import query_means
from tvilfm_plugin.analysis.statistics import Interval, PairedTest, identity_bootstrap, paired_randomisation
from tvilfm_plugin.description.questions import QUESTIONS, Answers, answered, best_question, probabilities, telling
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.evaluation.protocols import Labels, Protocol
from tvilfm_plugin.evaluation.ranking import per_query
from tvilfm_plugin.evaluation.report import aligned

LEAST = 0.2
"""Share of a person's captions that must name an attribute for the witness to know it."""


class Witness(NamedTuple):
    """How somebody answers: shares of wrong and "don't know", and whether questions come in a questionnaire's fixed order."""

    name: str
    wrong: float = 0.0
    unknown: float = 0.0
    fixed: bool = False


WITNESSES = (
    Witness("truthful"),
    Witness("20 % wrong", wrong=0.2),
    Witness("20 % don't know", unknown=0.2),
    Witness("truthful, fixed order", fixed=True),
)


def memory(captions: Iterable[str]) -> dict[str, str]:
    """Slot -> what most of a person's captions say of it; slots that few name are left out."""
    readings = [read(caption) for caption in captions]
    found = {}
    for slot in QUESTIONS:
        said = [telling(one, slot) for one in readings]
        counted = Counter(value for values in said for value in sorted(values))
        if counted and sum(map(bool, said)) >= LEAST * len(readings):
            found[slot] = counted.most_common(1)[0][0]
    return found


def interview(
    similarity: np.ndarray,
    answers: Mapping[str, Answers],
    remembered: Sequence[Mapping[str, str]],
    witness: Witness,
    steps: int,
    seed: int = 0,
) -> np.ndarray:
    """(steps + 1, Q, G) probabilities of the gallery images after every answer, the first before any, from (Q, G) similarities.

    Args:
        answers: what the G images would answer.
        remembered: per query, slot -> the true answer; a slot that is not there is answered by "don't know".
    """
    weights = np.repeat(probabilities(similarity)[None], steps + 1, axis=0)
    random = np.random.RandomState(seed)
    for q, known in enumerate(remembered):
        asked: list[str] = []
        now = weights[0, q]
        for step, (luck, pick) in enumerate(random.random_sample((steps, 2)), start=1):
            if witness.fixed:
                slot = next((slot for slot in QUESTIONS if slot in answers and slot not in asked), None)
            else:
                slot = getattr(best_question(answers, now, asked), "slot", None)
            if slot is not None:
                asked.append(slot)
                said = known.get(slot, "")
                others = [value for value in answers[slot].choices if value != said]
                if luck < witness.unknown:
                    said = ""
                elif luck < witness.unknown + witness.wrong:
                    said = others[int(pick * len(others))]
                now = answered(answers, now, slot, said)
            weights[step, q] = now
    return weights


class Curve(NamedTuple):
    """Of one witness: R-1 after 0 to N answers with 95 % intervals over people, as fractions, and the last step tested
    against asking in a fixed order (None for that itself)."""

    witness: str
    steps: list[Interval]
    against_fixed: PairedTest | None


class Curves:
    """R-1 of every witness, gathered draw by draw, of one or more trainings with the same queries."""

    def __init__(self, steps: int, seed: int = 0) -> None:
        self.steps, self.seed = steps, seed
        self.pids: np.ndarray | None = None
        self.found: dict[str, list[np.ndarray]] = {witness.name: [] for witness in WITNESSES}

    def add(
        self,
        similarity: np.ndarray,
        answers: Mapping[str, Answers],
        remembered: Sequence[Mapping[str, str]],
        query: Labels,
        gallery: Labels,
        protocol: Protocol,
    ) -> None:
        """One gallery draw; arguments as for `interview` and `per_query`."""
        if self.pids is not None and not np.array_equal(self.pids, query.pids):
            raise ValueError("The runs were tested on other queries than the first of them: name runs of one data set.")
        self.pids = query.pids
        for witness in WITNESSES:
            steps = interview(similarity, answers, remembered, witness, self.steps, self.seed)
            found = [per_query(-weights, query, gallery, protocol) for weights in steps]
            self.found[witness.name].append(np.array([np.where(one.valid, one.first_match_rank == 1, np.nan) for one in found]))

    def curves(self) -> list[Curve]:
        """Over all draws."""
        assert self.pids is not None
        means = {
            name: [query_means(np.array([draw[step] for draw in draws])[None]) for step in range(self.steps + 1)]
            for name, draws in self.found.items()
        }
        fixed = next(witness.name for witness in WITNESSES if witness.fixed)
        return [
            Curve(
                name,
                [identity_bootstrap(step, self.pids) for step in steps],
                None if name == fixed else paired_randomisation(means[fixed][-1], steps[-1], self.pids),
            )
            for name, steps in means.items()
        ]


def dialogue_table(curves: Sequence[Curve]) -> str:
    """A Markdown table in percent."""
    steps = range(len(curves[0].steps))
    cells = [["R-1 after answers", *map(str, steps), "last step against the fixed order"]]
    for curve in curves:
        shown = [f"{100 * one.mean:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]" for one in curve.steps]
        test = curve.against_fixed
        cells.append([curve.witness, *shown, "" if test is None else f"{100 * test.difference:+.1f} (p = {test.p_value:.4f})"])
    return "\n".join([*aligned(cells, names=1), "", "- Percent, 95 % intervals and paired randomisation over people."])

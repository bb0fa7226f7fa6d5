"""How far perfect matchers would get on a synthetic benchmark: what infrared alone, a caption alone and both can settle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tvilfm_plugin.synthetic.captioning import Statement, agrees
from tvilfm_plugin.synthetic.people import Person

_ERROR = 0.12  # how often the caption matcher expects a word to be wrong


class Ceilings(NamedTuple):
    """Rank-1 (fractions) of a matcher that sees every shape without error, one that reads the caption, one that does both."""

    chance: float
    shape: float
    caption: float
    both: float


def ceilings(people: Mapping[int, Person], captions: Mapping[int, Sequence[Statement]]) -> Ceilings:
    """Rank one candidate per person by what is known of the query, ties broken by chance.

    Args:
        people: identity -> person; queries and candidates.
        captions: identity -> what captions of that person say; each is one query.
    """
    group = Counter(person.shape for person in people.values())
    caption_hits, both_hits = [], []
    for pid, statements in captions.items():
        mates = [other for other, person in people.items() if person.shape == people[pid].shape]
        for statement in statements:
            score = {other: _score(statement, person) for other, person in people.items()}
            caption_hits.append(_tied_hit(score, pid, list(people)))
            both_hits.append(_tied_hit(score, pid, mates))
    return Ceilings(
        chance=1 / len(people),
        shape=sum(1 / group[person.shape] for person in people.values()) / len(people),
        caption=sum(caption_hits) / len(caption_hits),
        both=sum(both_hits) / len(both_hits),
    )


def _score(statement: Statement, person: Person) -> float:
    # A wrong word is one of several: the same three alternatives are assumed for every attribute.
    right, wrong = math.log(1 - _ERROR), math.log(_ERROR / 3)
    return sum(right if agrees(attribute, value, person) else wrong for attribute, value in statement.said.items())


def _tied_hit(score: Mapping[int, float], pid: int, candidates: Sequence[int]) -> float:
    best = max(score[other] for other in candidates)
    tied = [other for other in candidates if score[other] > best - 1e-9]
    return 1 / len(tied) if pid in tied else 0.0

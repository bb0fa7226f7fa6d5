"""From the members of a query to hits: the ensemble of Eq. 10 on plain arrays. Needs neither torch nor the host."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.records import EVERYTHING, Filter, Record


class Hit(NamedTuple):
    """One gallery image of a search.

    Attributes:
        path: the image file.
        pid, camid, time: identity, camera and time, if the gallery knows them.
        similarity: the ensemble score: the sum of the members' cosine similarities (Eq. 10).
        shares: the cosine similarity of each member; they add up to `similarity`.
    """

    path: str
    pid: int | None
    camid: int | None
    time: float | None
    similarity: float
    shares: dict[Modality, float]

    def __repr__(self) -> str:
        """One line: `0.8312 (ir 0.40, text 0.43) cam1/0007.jpg, person 7, camera 1`."""
        facts = (("person", self.pid), ("camera", self.camid), ("time", self.time))
        known = [f"{name} {value}" for name, value in facts if value is not None]
        shares = ", ".join(f"{member.value} {share:.2f}" for member, share in self.shares.items())
        return ", ".join([f"{self.similarity:.4f} ({shares}) {self.path}", *known])


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
        hits: best first.
        note: what must be said about it (a member that could not vote, words that do not fit), or "".
    """

    hits: list[Hit]
    note: str

    def __repr__(self) -> str:
        """One line per hit, then the note."""
        lines = [f"{rank}. {hit!r}" for rank, hit in enumerate(self.hits, start=1)] or ["no hit"]
        return "\n".join([*lines, *([f"Note: {self.note}."] if self.note else [])])


class Index(Protocol):
    """What searching needs of an index; `GalleryIndex` and the vector database have it."""

    def __len__(self) -> int: ...

    def nearest(self, query: np.ndarray, top: int, allowed: Filter = EVERYTHING) -> tuple[list[Record], np.ndarray]:
        """The best images of one (D,) query by inner product: k records, best first, and their (k, D) unit vectors."""
        ...


class MemberChoice(NamedTuple):
    """Who votes in a search, and how.

    Attributes:
        members: those who vote.
        filter_text: whether the fusion's filter text is the query's own text, because there is no other.
        note: what must be said about it, or "".
    """

    members: tuple[Modality, ...]
    filter_text: bool
    note: str


def choose_members(
    known: Sequence[Modality],
    *,
    image: bool,
    text: bool,
    infrared_text: bool,
    filters: bool = True,
    members: Collection[Modality | str] | None = None,
) -> MemberChoice:
    """Who can vote with what was given.

    Args:
        known: the members of the model's ensemble, in its order.
        image, text, infrared_text: what the query has.
        filters: whether the fusion subtracts a filter text (Eq. 7).
        members: those who are switched on; None: all.
    """
    names = ", ".join(m.value for m in known)
    asked = known if members is None else [members] if isinstance(members, str) else list(members)
    if strange := [m for m in asked if m not in list(Modality)]:
        raise ValueError(f"A search cannot ask {', '.join(map(repr, strange))}; the members of this model are {names}.")
    wanted = tuple(Modality(m) for m in asked)
    foreign = [m.value for m in wanted if m not in known]
    if foreign or not wanted:
        raise ValueError(f"A search cannot ask {', '.join(foreign) or 'nobody'}; the members of this model are {names}.")
    wanted = tuple(m for m in known if m in wanted)
    if not image and not text:
        raise ValueError("A search needs an infrared image, a text, or both.")
    needs = {Modality.IR: image, Modality.TEXT: text, Modality.FUSION: image and text}
    voting = tuple(m for m in wanted if needs[m])
    if not voting:
        given = " and ".join(name for name, there in (("an image", image), ("a text", text)) if there)
        raise ValueError(
            f"With {given} alone, {', '.join(m.value for m in wanted)} cannot vote: infrared needs an image, text a text, "
            "fusion both."
        )
    notes = []
    if len(voting) < len(wanted):
        lacking = "no text" if image else "no infrared image"
        notes.append(f"{lacking}: {', '.join(m.value for m in wanted if m not in voting)} left out")
    same = Modality.FUSION in voting and filters and not infrared_text
    if same:
        # As text source "self" of an evaluation: there the fusion row would repeat the infrared row.
        rule = "no text of the infrared image: the text filters itself, and fusion is exactly the infrared embedding"
        alone = voting == (Modality.FUSION,)
        voting = voting if alone else tuple(m for m in voting if m is not Modality.FUSION)
        notes.append(rule if alone else f"{rule}; it is left out")
    if infrared_text and Modality.FUSION not in voting:
        notes.append("the text of the infrared image is not used: it filters the fusion only")
    return MemberChoice(voting, same, "; ".join(notes))


def check_top(top: int) -> None:
    """Raise unless `top` is a number of hits."""
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise ValueError(f"A search returns one hit or more, not {top!r}.")


def check_threshold(threshold: float | None) -> None:
    """Raise unless `threshold` is a finite number or None."""
    good = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool) and np.isfinite(threshold)
    if threshold is not None and not good:
        raise ValueError(f"A threshold is a similarity (the sum of the members' cosines) or None, not {threshold!r}.")


def search_index(
    index: Index, queries: Mapping[Modality, np.ndarray], top: int = 10, allowed: Filter = EVERYTHING
) -> list[Hit]:
    """The best images of one query, by the sum of its members' similarities.

    One search serves all members: the sum of inner products with a gallery vector is that of the summed query (Eq. 10).

    Args:
        queries: the (D,) unit embedding of each member that votes.
        top: hits to return; an index or a filter with fewer images gives fewer.
        allowed: which images may be found.
    """
    return hits_and_vectors(index, queries, top, allowed)[0]


def hits_and_vectors(
    index: Index, queries: Mapping[Modality, np.ndarray], top: int, allowed: Filter
) -> tuple[list[Hit], np.ndarray]:
    """As `search_index`, and the (k, D) vectors of the hits."""
    check_top(top)
    members = list(queries)
    units = np.stack([np.asarray(queries[m], dtype=np.float32) for m in members])
    if not len(index):
        raise ValueError("The gallery is empty: call embed_gallery, or load an index.")
    records, vectors = index.nearest(units.sum(axis=0), top, allowed)
    # (k, M); from few vectors, so float64 costs nothing and the shares add up to the last digit.
    shares = vectors.astype(np.float64) @ units.T.astype(np.float64)
    hits = [
        Hit(*record, similarity=sum(row), shares=dict(zip(members, row, strict=True)))
        for record, row in zip(records, shares.tolist(), strict=True)
    ]
    return hits, vectors

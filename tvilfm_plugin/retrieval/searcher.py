"""What every retriever answers, whatever computes its vectors. Needs neither torch nor the host."""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from tvilfm_plugin.data.resize import Picture, picture_pixels
from tvilfm_plugin.description.questions import answers_read, answers_scored, sentences
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.evaluation.text_trust import UNFIT, TextTrust, trust
from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.files.text import is_blank
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.ask import CANDIDATES, Dialogue
from tvilfm_plugin.retrieval.hits import (
    Index,
    MemberChoice,
    SearchResult,
    check_threshold,
    check_top,
    choose_members,
    hits_and_vectors,
    search_index,
)
from tvilfm_plugin.retrieval.records import Filter, Records

Infrared = Picture | Sequence[Picture] | None
Members = Collection[Modality | str] | None
Queries = Mapping[Modality, np.ndarray]
"""The (D,) unit vector of each member that votes."""


class QueryPart(NamedTuple):
    """One picture of a query with its words, and who votes."""

    choice: MemberChoice
    infrared: Picture | None
    text: str | None
    filter_text: str | None


class QueryPlan(NamedTuple):
    """A query before anything is computed: a part per picture (one without pictures), what must be said of it, its words."""

    parts: list[QueryPart]
    note: str
    text: str | None
    infrared_text: str | None


class Searcher(ABC):
    """A model and a gallery that can be asked.

    Attributes:
        members: who can vote in a search with this model.
        has_text: whether the model has a text encoder.
        filters: whether the fusion subtracts a filter text (Eq. 7).
        index: the gallery, None before there is one.
        ir_window: what of an infrared picture with more than 8 bits becomes grey; None refuses such pictures.
        text_trust: judges whether words fit the picture of their query; None: nothing is said of it.
        weighs: whether words count as far as they fit (TEST.TEXT_TRUST), or a note says that they do not.
        known_tokens: ids that the text tower was stored with, where the others were left out; None: all.
    """

    index: Index | None = None
    ir_window: Window | None = None
    text_trust: TextTrust | None = None
    weighs: bool = False
    known_tokens: frozenset[int] | None = None
    _stated: dict[str, tuple[tuple[str, ...], np.ndarray]] | None = None

    members: tuple[Modality, ...]
    model_name: str
    has_text: bool
    filters: bool
    image_size: tuple[int, int]
    resample: str

    @abstractmethod
    def embed_each(self, parts: Sequence[QueryPart]) -> list[dict[Modality, np.ndarray]]:
        """Of each part, the (D,) unit embedding of each member that votes."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) unit embeddings of texts."""

    @abstractmethod
    def token_ids(self, text: str) -> set[int]:
        """Ids of a text, for the text encoder."""

    def pixels(self, picture: Picture, modality: Modality = Modality.RGB) -> np.ndarray:
        """(H, W, 3) uint8 at the model's size, prepared as the evaluator does."""
        window = self.ir_window if modality is Modality.IR else None
        return picture_pixels(picture, self.image_size, self.resample, window)

    def remark(self, members: tuple[Modality, ...]) -> str:
        """What else must be said of this model when these members vote, or ""."""
        return ""

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Words that the model's text tower was stored without: they say nothing to it."""
        if self.known_tokens is None:
            return []
        words = dict.fromkeys(word.strip(".,;:!?()\"'") for text in texts for word in text.split())
        return [word for word in words if word and not self.known_tokens.issuperset(self.token_ids(word))]

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than what the model reads of it."""
        return False

    def search(
        self,
        infrared: Infrared = None,
        text: str | None = None,
        infrared_text: str | None = None,
        top: int = 10,
        members: Members = None,
        *,
        allowed: Filter | None = None,
        threshold: float | None = None,
    ) -> SearchResult:
        """The gallery images that fit best.

        Args:
            infrared: the query image, or a list of images of one person (a tracklet), of which each member that sees images
                votes with the mean of its unit vectors.
            text: what a witness says, with colours.
            infrared_text: what the infrared image itself shows, in words, without colours: the filter of Eq. 7. Without it
                the text filters itself, as text source `self` of an evaluation: fusion is then the infrared embedding and
                is left out, which the result's note says.
            members: who votes: ir, text, fusion; None: everybody who can.
            allowed: cameras and times that may be found.
            threshold: the similarity (the sum over the members) that a hit needs; if no image has it, nobody is the answer,
                and the note says so. `tvilfm results thresholds` measures what thresholds do.
        """
        self._check(top, allowed, threshold)
        queries, note = self.embed_query(infrared, text, infrared_text, members)
        return self.find(queries, note, top, allowed=allowed, threshold=threshold)

    def _check(self, top: int, allowed: Filter | None, threshold: float | None = None) -> Index:
        """The gallery, where it can be asked for this."""
        if self.index is None:
            raise ValueError("There is no gallery yet: call embed_gallery or load_gallery first.")
        check_top(top)
        (allowed or Filter()).check()
        check_threshold(threshold)
        return self.index

    def find(
        self, queries: Queries, note: str = "", top: int = 10, *, allowed: Filter | None = None, threshold: float | None = None
    ) -> SearchResult:
        """The gallery images that fit an embedded query best; what `embed_query` returned first, the rest as in `search`."""
        index, allowed = self._check(top, allowed, threshold), allowed or Filter()
        hits = search_index(index, queries, top, allowed)
        records = getattr(index, "records", None)
        if not hits and not allowed.everything and isinstance(records, Records):
            note = "; ".join(filter(None, (note, allowed.nothing_found(records))))
        if threshold is not None and hits and hits[0].similarity < threshold:
            best = f"nobody: the most similar image has {hits[0].similarity:.4f}, less than the threshold {threshold:g}"
            note = "; ".join(filter(None, (note, best)))
        return SearchResult([hit for hit in hits if threshold is None or hit.similarity >= threshold], note)

    def embed_query(
        self, infrared: Infrared = None, text: str | None = None, infrared_text: str | None = None, members: Members = None
    ) -> tuple[dict[Modality, np.ndarray], str]:
        """The (D,) unit embedding of each member that votes, and what must be said about them; arguments as in `search`."""
        plan = self.plan(infrared, text, infrared_text, members)
        return self.finish(plan, self.embed_each(plan.parts))

    def plan(
        self, infrared: Infrared = None, text: str | None = None, infrared_text: str | None = None, members: Members = None
    ) -> QueryPlan:
        """Who votes, what has to be embedded, and what must be said about it; arguments as in `search`."""
        for name, words in (("text", text), ("infrared_text", infrared_text)):
            if words is not None and not isinstance(words, str):
                raise ValueError(f"{name} of a search is one text, not {type(words).__name__}.")
        text, infrared_text = (words if words and not is_blank(words) else None for words in (text, infrared_text))
        if text is not None and not self.has_text:
            raise ValueError(f"{self.model_name} has no text encoder: search by image only, or load a TVILFM model.")
        pictures: list[Picture | None] = []
        if isinstance(infrared, list | tuple):
            pictures = list(infrared)
            if not pictures:
                raise ValueError("The list of infrared images is empty: give one or more, or None to search by text.")
        elif infrared is not None:
            pictures = [cast(Picture, infrared)]
        given = {"image": bool(pictures), "text": text is not None, "infrared_text": infrared_text is not None}
        choice = choose_members(self.members, **given, filters=self.filters, members=members)
        filter_text = text if choice.filter_text else infrared_text
        parts = [QueryPart(choice, picture, text, filter_text) for picture in pictures or [None]]
        said = f"{len(pictures)} images of one person, as the mean of their vectors" if len(pictures) > 1 else ""
        unknown = self.unknown_words([words for words in (text, infrared_text) if words])
        unheard = f"this model knows nothing of {', '.join(map(repr, unknown))}" if unknown else ""
        cut = [self._read_up_to(words) for words in (text, infrared_text) if words and self.is_cut(words)]
        note = "; ".join(filter(None, (choice.note, said, unheard, self.remark(choice.members), *cut)))
        return QueryPlan(parts, note, text, infrared_text)

    def _read_up_to(self, text: str) -> str:
        words = text.split()
        read = bisect.bisect_left(range(1, len(words)), True, key=lambda n: self.is_cut(" ".join(words[:n])))
        return f'a text is read up to "{" ".join(words[:read][-4:]):.80}", the model does not hear its rest'

    def finish(self, plan: QueryPlan, found: Sequence[Mapping[Modality, np.ndarray]]) -> tuple[dict[Modality, np.ndarray], str]:
        """The unit vectors of a planned query, from those of its parts, and what must be said about them."""
        joined = dict(found[0]) if len(found) == 1 else {m: _mean_of_units([one[m] for one in found]) for m in found[0]}
        queries, doubt = self._weighed(joined, plan.text, plan.infrared_text)
        return queries, "; ".join(filter(None, (plan.note, doubt)))

    def _weighed(
        self, queries: dict[Modality, np.ndarray], text: str | None, infrared_text: str | None
    ) -> tuple[dict[Modality, np.ndarray], str]:
        """The queries with words as far as they fit the picture, and what must be said of them."""
        if self.text_trust is None or text is None or Modality.IR not in queries or len(queries) < 2:
            return queries, ""
        rows = self.embed_texts([text, *([infrared_text] if infrared_text else [])])
        caption = rows[1:] if infrared_text else None
        odds = self.text_trust.log_odds(queries[Modality.IR][None], rows[:1], caption, [text], [infrared_text or ""])
        fit = float(trust(odds, stakes=self.text_trust.stakes)[0])
        if self.weighs:
            queries = {m: vector if m is Modality.IR else fit * vector for m, vector in queries.items()}
        unfit = f"these words do not fit this picture (trust {fit:.2f})" if fit < UNFIT else ""
        return queries, "; ".join(filter(None, (unfit, f"words count {fit:.2f} times" if self.weighs else "")))

    # --- asking a witness --------------------------------------------------------------------------------------------

    def ask(
        self,
        infrared: Infrared = None,
        text: str | None = None,
        infrared_text: str | None = None,
        members: Members = None,
        *,
        allowed: Filter | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> Dialogue:
        """A search, and a dialogue with a witness about its best hits (`CANDIDATES`); arguments as in `search`.

        Args:
            captions: path -> caption of the gallery's images. Where one of the hits has none, the text encoder judges what
                all of them would answer.
        """
        self._check(CANDIDATES, allowed)
        queries, _ = self.embed_query(infrared, text, infrared_text, members)
        return self.ask_about(queries, allowed=allowed, captions=captions)

    def ask_about(
        self, queries: Queries, *, allowed: Filter | None = None, captions: Mapping[str, str] | None = None
    ) -> Dialogue:
        """As `ask`, of an embedded query: what `embed_query` returned first."""
        hits, vectors = hits_and_vectors(self._check(CANDIDATES, allowed), queries, CANDIDATES, allowed or Filter())
        said = [(captions or {}).get(hit.path, "") for hit in hits]
        if all(said):
            return Dialogue(hits, answers_read([read(caption) for caption in said]))
        if not self.has_text:
            raise ValueError(f"{self.model_name} has no text encoder: a witness can be asked only where images have captions.")
        if self._stated is None:
            known = {
                slot: {value: text for value, text in stated.items() if not self.unknown_words([text])}
                for slot, stated in sentences().items()
            }
            several = {slot: stated for slot, stated in known.items() if len(stated) > 1}
            self._stated = {slot: (tuple(one), self.embed_texts(list(one.values()))) for slot, one in several.items()}
        return Dialogue(hits, answers_scored(vectors, self._stated))


def _mean_of_units(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) unit vector in the direction of the mean of (D,) unit vectors."""
    mean = np.stack(vectors).astype(np.float64).mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise ValueError("The images of the query point into opposite directions, so they have no mean: is it one person?")
    return (mean / length).astype(np.float32)

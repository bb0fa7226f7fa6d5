"""What every retriever answers, whatever computes its vectors. Needs neither torch nor the host."""

from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np

from tvilfm_plugin.data.resize import Picture
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.hits import Ballot, Index, SearchResult, check_top, choose_members, search_index
from tvilfm_plugin.retrieval.records import Filter, Records


class Searcher(ABC):
    """A model and a gallery that can be asked.

    Attributes:
        index: the gallery, None before there is one.
    """

    index: Index | None = None

    @property
    @abstractmethod
    def members(self) -> tuple[Modality, ...]:
        """Who can vote in a search with this model."""

    @property
    @abstractmethod
    def model_name(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def has_text(self) -> bool:
        """Whether the model has a text encoder."""

    @property
    @abstractmethod
    def filters(self) -> bool:
        """Whether the fusion subtracts a filter text (Eq. 7)."""

    @abstractmethod
    def embed_members(
        self, ballot: Ballot, infrared: Picture | None, text: str | None, filter_text: str | None
    ) -> dict[Modality, np.ndarray]:
        """The (D,) unit embedding of each member of the ballot."""

    def remark(self, members: tuple[Modality, ...]) -> str:
        """What else must be said of this model when these members vote, or ""."""
        return ""

    def search(
        self,
        infrared: Picture | None = None,
        text: str | None = None,
        infrared_text: str | None = None,
        top: int = 10,
        members: Collection[Modality | str] | None = None,
        *,
        allowed: Filter | None = None,
    ) -> SearchResult:
        """The gallery images that fit best.

        Args:
            infrared: the query image.
            text: what a witness says, with colours.
            infrared_text: what the infrared image itself shows, in words, without colours: the filter of Eq. 7. Without it
                the text filters itself, as text source `self` of an evaluation: fusion is then the infrared embedding and
                is left out, which the result's note says.
            top: hits to return.
            members: who votes: ir, text, fusion; None: everybody who can.
            allowed: cameras and times that may be found.
        """
        if self.index is None:
            raise ValueError("There is no gallery yet: call embed_gallery or load_gallery first.")
        allowed = allowed or Filter()
        check_top(top)
        allowed.check()
        queries, note = self.embed_query(infrared, text, infrared_text, members)
        hits = search_index(self.index, queries, top, allowed)
        records = getattr(self.index, "records", None)
        if not hits and not allowed.everything and isinstance(records, Records):
            note = "; ".join(filter(None, (note, allowed.nothing_found(records))))
        return SearchResult(hits, note)

    def embed_query(
        self,
        infrared: Picture | None = None,
        text: str | None = None,
        infrared_text: str | None = None,
        members: Collection[Modality | str] | None = None,
    ) -> tuple[dict[Modality, np.ndarray], str]:
        """The (D,) unit embedding of each member that votes, and what must be said about them; arguments as in `search`."""
        for name, words in (("text", text), ("infrared_text", infrared_text)):
            if words is not None and not isinstance(words, str):
                raise ValueError(f"{name} of a search is one text, not {type(words).__name__}.")
        text, infrared_text = (words if words and words.strip() else None for words in (text, infrared_text))
        if text is not None and not self.has_text:
            raise ValueError(f"{self.model_name} has no text encoder: search by image only, or load a TVILFM model.")
        ballot = choose_members(
            self.members,
            image=infrared is not None,
            text=text is not None,
            infrared_text=infrared_text is not None,
            filters=self.filters,
            members=members,
        )
        queries = self.embed_members(ballot, infrared, text, text if ballot.filter_text else infrared_text)
        return queries, "; ".join(filter(None, (ballot.note, self.remark(ballot.members))))

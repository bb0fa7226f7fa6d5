"""The search of `retrieval.retriever.Retriever` with an exported model."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.data.resize import Picture, picture_pixels
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.hits import Index, SearchResult, choose_members, search_index
from tvilfm_plugin.retrieval.pictures import Unreadable, read_pictures
from tvilfm_plugin.retrieval.records import Filter
from tvilfm_plugin.runtime.model import OnnxModel
from tvilfm_plugin.runtime.vectors import Vectors

logger = logging.getLogger(__name__)


class OnnxRetriever:
    """An exported model and a gallery; same questions and same answers as `Retriever`.

    Attributes:
        model: the graphs.
        index: the gallery; set by `embed_gallery` or `load_gallery`, None before.
        unreadable: images that the last `embed_gallery` skipped.
    """

    def __init__(self, folder: str | Path | OnnxModel, *, batch: int = 64, threads: int = 0) -> None:
        """Args:
        folder: what tools/export_onnx.py wrote.
        batch: images per run of the network.
        threads: of onnxruntime; 0 = its own choice.
        """
        self.model = folder if isinstance(folder, OnnxModel) else OnnxModel(folder, threads=threads)
        self.batch = batch
        self.index: Index | None = None
        self.unreadable: list[Unreadable] = []

    @property
    def members(self) -> tuple[Modality, ...]:
        """Who can vote in a search with this model."""
        return self.model.members

    # --- gallery -----------------------------------------------------------------------------------------------------

    def embed_gallery(self, source: Any) -> Vectors:
        """Embed visible images, keep their vectors in memory and search them from now on.

        Args:
            source: a folder, a list of paths or of `Record`s, or a DataFrame with columns path[, pid, camid, time].
        """
        images = list_gallery(source)
        vectors, records = [np.empty((0, self.model.fingerprint.dim), np.float32)], []
        self.unreadable = []
        for start in range(0, len(images), self.batch):
            block = read_pictures(images[start : start + self.batch], self.model.image_size, self.model.resample)
            self.unreadable += block.unreadable
            records += block.records
            if block.records:
                cameras = [record.camid for record in block.records]
                vectors.append(self.model.images(np.stack(block.pixels), Modality.RGB, cameras)[1])
        for bad in self.unreadable:
            logger.warning("Skipped %s: %s", bad.path, bad.reason)
        index = Vectors(np.concatenate(vectors), records)
        self.index = index
        return index

    def load_gallery(self, index_file: str | Path) -> Index:
        """Search a stored index from now on, e.g. one that `Retriever` wrote with the same weights. Needs faiss-cpu."""
        from tvilfm_plugin.retrieval.index import GalleryIndex

        self.index = GalleryIndex.load(index_file, self.model.fingerprint)
        return self.index

    def embed_images(
        self, images: Sequence[Picture], modality: Modality = Modality.RGB, camids: Sequence[int | None] | None = None
    ) -> np.ndarray:
        """(N, D) unit vectors of images of one modality.

        Args:
            camids: camera numbers, for models that use them.
        """
        parts = []
        for start in range(0, len(images), self.batch):
            rows = slice(start, start + self.batch)
            cameras = None if camids is None else camids[rows]
            parts.append(self.model.images(np.stack([self.pixels(one) for one in images[rows]]), modality, cameras)[1])
        return np.concatenate(parts)

    def pixels(self, picture: Picture) -> np.ndarray:
        """(H, W, 3) uint8 at the model's size."""
        return picture_pixels(picture, self.model.image_size, self.model.resample)

    # --- searching ---------------------------------------------------------------------------------------------------

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
        """The gallery images that fit best; arguments and answer as in `Retriever.search`."""
        if self.index is None:
            raise ValueError("There is no gallery yet: call embed_gallery or load_gallery first.")
        queries, note = self.embed_query(infrared, text, infrared_text, members)
        return SearchResult(search_index(self.index, queries, top, allowed or Filter()), note)

    def embed_query(
        self,
        infrared: Picture | None = None,
        text: str | None = None,
        infrared_text: str | None = None,
        members: Collection[Modality | str] | None = None,
    ) -> tuple[dict[Modality, np.ndarray], str]:
        """The (D,) unit embedding of each member that votes, and what must be said about them; arguments as in `search`."""
        text, infrared_text = (words if words and words.strip() else None for words in (text, infrared_text))
        if text is not None and not self.model.has_text:
            raise ValueError("This export has no text encoder: search by image only, or export a TVILFM model.")
        ballot = choose_members(
            self.members,
            image=infrared is not None,
            text=text is not None,
            infrared_text=infrared_text is not None,
            filters=self.model.filters,
            members=members,
        )
        units: dict[Modality, np.ndarray] = {}
        raw: dict[Modality, np.ndarray] = {}
        if infrared is not None:
            raw[Modality.IR], units[Modality.IR] = self.model.images(self.pixels(infrared)[None], Modality.IR)
        if text is not None and set(ballot.members) != {Modality.IR}:
            own = text if ballot.filter_text else infrared_text
            said, embedded = self.model.texts([text, *([] if own is None else [own])])
            units[Modality.TEXT] = embedded[:1]
            if Modality.FUSION in ballot.members:
                filtering = None if own is None else said[1:2]
                units[Modality.FUSION] = self.model.fuse(raw[Modality.IR], said[:1], filtering)[1]
        return {m: units[m][0] for m in ballot.members}, ballot.note

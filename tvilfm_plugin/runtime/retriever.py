"""The search of `retrieval.retriever.Retriever` with an exported model."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.data.resize import Picture
from tvilfm_plugin.evaluation.text_trust import TextTrust
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.hits import Index, MemberChoice
from tvilfm_plugin.retrieval.pictures import Unreadable, check_any, read_pictures
from tvilfm_plugin.retrieval.searcher import QueryPart, Searcher
from tvilfm_plugin.runtime.model import OnnxModel
from tvilfm_plugin.runtime.vectors import Vectors

logger = logging.getLogger(__name__)


class OnnxRetriever(Searcher):
    """An exported model and a gallery; same questions and same answers as `Retriever`.

    Attributes:
        model: the graphs.
        index: the gallery; set by `embed_gallery` or `load_gallery`, None before.
        unreadable: images that the last `embed_gallery` skipped.
    """

    model_name = "This export"

    def __init__(self, folder: str | Path | OnnxModel, *, batch: int = 64, threads: int = 0) -> None:
        """
        Args:
            folder: what `tvilfm export` wrote.
            batch: images per run of the network.
            threads: of onnxruntime; 0 = its own choice.
        """
        self.model = folder if isinstance(folder, OnnxModel) else OnnxModel(folder, threads=threads)
        self.batch, self.ir_window = batch, self.model.ir_window
        self.image_size, self.resample = self.model.image_size, self.model.resample
        self.members, self.has_text, self.filters = self.model.members, self.model.has_text, self.model.filters
        self.unreadable: list[Unreadable] = []
        self.known_tokens, self.weighs = self.model.known_tokens, bool(self.model.facts.get("weighs"))
        if trusted := self.model.facts.get("text_trust"):
            self.text_trust = TextTrust.from_dict(trusted, str(self.model.folder))

    def __repr__(self) -> str:
        gallery = "no gallery" if self.index is None else repr(self.index)
        return f"OnnxRetriever({self.model.folder}, weights {self.model.fingerprint.weights[:12]}, {gallery})"

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
            block = read_pictures(images[start : start + self.batch], self.image_size, self.resample)
            self.unreadable += block.unreadable
            records += block.records
            if block.records:
                cameras = [record.camid for record in block.records]
                vectors.append(self.model.images(np.stack(block.pixels), Modality.RGB, cameras)[1])
        check_any(records, images)
        for bad in self.unreadable:
            logger.warning("Skipped %s: %s", bad.path, bad.reason)
        self.index = index = Vectors(np.concatenate(vectors), records)
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
            pixels = np.stack([self.pixels(one, modality) for one in images[rows]])
            parts.append(self.model.images(pixels, modality, cameras)[1])
        return np.concatenate(parts)

    # --- searching ---------------------------------------------------------------------------------------------------

    def token_ids(self, text: str) -> set[int]:
        return set(self.model.tokens([text])[0].tolist()) - {0}

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.texts(texts)[1]

    def is_cut(self, text: str) -> bool:
        return self.model.is_cut(text)

    def embed_each(self, parts: Sequence[QueryPart]) -> list[dict[Modality, np.ndarray]]:
        return [self._embed_members(*part) for part in parts]

    def _embed_members(
        self, choice: MemberChoice, infrared: Picture | None, text: str | None, filter_text: str | None
    ) -> dict[Modality, np.ndarray]:
        units: dict[Modality, np.ndarray] = {}
        raw = np.empty(0, np.float32)
        if infrared is not None:
            raw, units[Modality.IR] = self.model.images(self.pixels(infrared, Modality.IR)[None], Modality.IR)
        if text is not None and set(choice.members) != {Modality.IR}:
            said, embedded = self.model.texts([text, *([filter_text] if filter_text else [])])
            units[Modality.TEXT] = embedded[:1]
            if Modality.FUSION in choice.members:
                units[Modality.FUSION] = self.model.fuse(raw, said[:1], said[1:2] if filter_text else None)[1]
        return {m: units[m][0] for m in choice.members}

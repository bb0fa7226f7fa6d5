"""Retriever: an infrared image, words, or both in; ranked gallery images out."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.checkpoints.model_folder import find_pretrained
from tvilfm_plugin.data.resize import Picture
from tvilfm_plugin.data.tokenizer import is_cut
from tvilfm_plugin.engine import load_model
from tvilfm_plugin.engine.trained import config_of_run, weights_of_run
from tvilfm_plugin.evaluation.features import encode_texts
from tvilfm_plugin.evaluation.fingerprint import weights_sha256
from tvilfm_plugin.evaluation.flips import encode_rows, mirrored
from tvilfm_plugin.evaluation.text_trust import FILE, TextTrust
from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.building import BLOCK, Embedded, embed_in_memory, embed_to_file
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.pictures import Unreadable, read_pictures
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.saving import Source, save_model
from tvilfm_plugin.retrieval.searcher import QueryPart, Searcher

logger = logging.getLogger("fastreid." + __name__)

NORMALISATION = "neck in eval mode, then L2"


class Retriever(Searcher):
    """A trained model and a gallery. What it answers equals what the evaluator ranks (Eq. 7 and 10, the same necks).

    Attributes:
        model: in eval mode.
        index: the gallery; set by `embed_gallery` or `load_gallery`, None before.
        unreadable: images that the last `embed_gallery` skipped.
        fingerprint: of this model's vectors.
        source: where it was loaded from; None for one that was built here.
    """

    source: Source | None = None

    def __init__(
        self,
        model: Any,
        *,
        image_size: tuple[int, int],
        resample: str = "lanczos",
        flip: bool = False,
        batch: int = 64,
        ir_window: Window | None = None,
        mirrored: bool = False,
    ) -> None:
        """
        Args:
            model: a `VIBaseline` or `TVILFM`.
            image_size: (H, W) that images are resized to.
            resample: filter of the resizing.
            flip: average the features of image and mirror image, as TEST.FLIP.
            batch: images per pass of the network.
            ir_window: what of an infrared picture with more than 8 bits becomes grey; None refuses such pictures.
            mirrored: image and mirror image in the model's own form, as TEST.FLIP_FORM embeddings.
        """
        self.model = model.eval()
        self.members, self.model_name, self.has_text = tuple(model.members), type(model).__name__, bool(model.has_text)
        self.filters = getattr(getattr(model, "fusion", None), "filters", True)
        self.image_size, self.resample, self.flip, self.batch = image_size, resample, flip, batch
        self.ir_window, self.mirrored = ir_window, mirrored
        self.unreadable: list[Unreadable] = []
        self.known_tokens = None if model.known_tokens is None else frozenset(model.known_tokens.tolist())
        mean, std = (values.flatten().tolist() for values in (model.visual.pixel_mean, model.visual.pixel_std))
        mirror = ", flip" if flip else ", flip of embeddings" if mirrored else ""
        self.fingerprint = Fingerprint(
            weights=weights_sha256(model),
            dim=model.heads.embed(torch.zeros(2, model.visual.dim, device=model.device)).shape[1],
            normalisation=NORMALISATION,
            preprocessing=f"{image_size[0]}x{image_size[1]} {resample}, mean {mean}, std {std}{mirror}",
        )

    @classmethod
    def from_checkpoint(cls, config: str | Path, weights: str | Path, *, device: str = "", opts: Sequence[str] = ()) -> Self:
        """Load a trained model.

        Args:
            config: that of the run: OUTPUT_DIR/config.yaml, or a file in projects/*/configs.
            weights: e.g. OUTPUT_DIR/model_final.pth.
            device: "cpu", "cuda"; "" takes MODEL.DEVICE, or the CPU where there is no GPU.
            opts: `KEY VALUE` overrides.
        """
        cfg, model = load_model(config, weights, device=device, opts=opts)
        if cfg.TEST.AQE.ENABLED or cfg.TEST.RERANK.ENABLED:
            logger.warning("TEST.AQE and TEST.RERANK change an evaluation's ranking; a search does not use them")
        height, width = cfg.INPUT.SIZE_TEST
        made = cls(
            model,
            image_size=(height, width),
            resample=cfg.INPUT.RESAMPLE_TEST,
            flip=cfg.TEST.FLIP.ENABLED and not mirrored(cfg.TEST),
            mirrored=mirrored(cfg.TEST),
            batch=cfg.TEST.IMS_PER_BATCH,
            ir_window=Window.of(cfg.INPUT.IR_SCALING),
        )
        made.source = Source(cfg, Path(weights))
        file = Path(weights).parent / FILE
        made.text_trust, made.weighs = TextTrust.load(file, made.fingerprint.weights), bool(cfg.TEST.TEXT_TRUST)
        if made.weighs and made.has_text and made.text_trust is None:
            raise FileNotFoundError(
                f"TEST.TEXT_TRUST is {cfg.TEST.TEXT_TRUST}, but {file} is missing or of other weights. Evaluate the run once "
                "with that key, which writes it, or search with TEST.TEXT_TRUST ''."
            )
        return made

    def __repr__(self) -> str:
        gallery = "no gallery" if self.index is None else repr(self.index)
        size = "x".join(map(str, self.image_size))
        return f"Retriever({self.model_name} {self.fingerprint.weights[:12]}, images {size} on {self.model.device}, {gallery})"

    @classmethod
    def from_run(cls, run: str | Path, *, device: str = "", opts: Sequence[str] = ()) -> Self:
        """Load the model of a run folder, wherever it lies: its config.yaml and the weights that count.

        Args:
            run: OUTPUT_DIR of a finished training, or a copy of it.
            device: as in `from_checkpoint`.
            opts: `KEY VALUE` overrides.
        """
        run = Path(run)
        return cls.from_checkpoint(config_of_run(run), weights_of_run(run), device=device, opts=opts)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "", opts: Sequence[str] = ()) -> Self:
        """Load a model folder.

        Args:
            name: a folder that `save_pretrained` or `tvilfm export --format folder` wrote (or that of a run), "example" for
                the model that comes with the plugin, or "owner/name[@revision]" of the hub.
            device: as in `from_checkpoint`.
            opts: `KEY VALUE` overrides.
        """
        return cls.from_run(find_pretrained(name), device=device, opts=opts)

    def save_pretrained(self, out: str | Path, *, dtype: str = "float32", words: Iterable[str] = (), terms: str = "") -> None:
        """Write this model as one folder; arguments as in `retrieval.saving.save_model`. Nothing is sent anywhere."""
        if self.source is None:
            raise ValueError("This model was built here, so no config says what it is; save one that from_run loaded.")
        save_model(self.model, self.source, out, dtype=dtype, words=words, terms=terms)
        if self.text_trust is not None:
            stored = self.from_pretrained(out, device="cpu", opts=["TEST.TEXT_TRUST", ""]).fingerprint.weights
            replace(self.text_trust, weights_sha256=stored).save(Path(out) / FILE)

    # --- gallery -----------------------------------------------------------------------------------------------------

    def embed_gallery(
        self, source: Any, *, index_file: str | Path | None = None, kind: str = "flat", block: int = BLOCK
    ) -> GalleryIndex:
        """Embed visible images and search them from now on; unreadable ones are listed in `unreadable` and skipped.

        Args:
            source: a folder, a list of paths, or a DataFrame with columns path[, pid, camid, time].
            index_file: where the index is written; needed for a gallery that does not fit in memory, and after a crash the
                same call goes on behind the last whole block. None keeps the index in memory.
            kind: type of index: flat (exact), fp16, int8, refined, ivf, hnsw, pq.
            block: images between two writes.
        """
        images = list_gallery(source)
        if index_file is None:
            index, self.unreadable = embed_in_memory(images, self._embed_block, self.fingerprint, kind, block)
        else:
            index, self.unreadable = embed_to_file(images, self._embed_block, self.fingerprint, index_file, kind, block)
        for bad in self.unreadable:
            logger.warning(f"Skipped {bad.path}: {bad.reason}")
        self.index = index
        return index

    def load_gallery(self, index_file: str | Path) -> GalleryIndex:
        """Search a stored index from now on; one of other weights, width or preprocessing is refused."""
        self.index = index = GalleryIndex.load(index_file, self.fingerprint)
        return index

    def embed_images(
        self, images: Sequence[Picture], modality: Modality = Modality.RGB, camids: Sequence[int] | None = None
    ) -> np.ndarray:
        """(N, D) unit vectors of images of one modality.

        Args:
            camids: camera numbers, for models that use them.
        """
        pixels = [self.pixels(image, modality) for image in images]
        return _numpy(self.model.embed(self._encode(pixels, modality, camids)))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) unit vectors of texts; raises for a model without a text tower."""
        if not self.has_text:
            raise ValueError(f"{self.model_name} has no text encoder, so it embeds no words: load a TVILFM model.")
        with torch.no_grad():
            said = encode_texts(self.model, texts).to(self.model.device)
            return _numpy(self.model.embed(self.model.fusion.alone(said)))

    def _embed_block(self, images: Sequence[Record]) -> Embedded:
        pixels, records, unreadable = read_pictures(images, self.image_size, self.resample)
        if not records:
            return Embedded(np.empty((0, self.fingerprint.dim), np.float32), [], unreadable)
        camids = [record.camid for record in records if record.camid is not None]
        raw = self._encode(pixels, Modality.RGB, camids if len(camids) == len(records) else None)
        return Embedded(_numpy(self.model.embed(raw)), records, unreadable)

    def raw_features(self, images: Tensor, modality: Modality, camids: Tensor | None = None) -> Tensor:
        """(N, D) features of (N, 3, H, W) pixels on the model's device, before the neck."""
        encode = self.model.encode_mirrored if self.mirrored else self.model.encode_images
        return encode_rows(encode, images, modality, camids, self.flip)

    def _encode(self, pixels: Sequence[np.ndarray], modality: Modality, camids: Sequence[int] | None) -> Tensor:
        """Raw (N, D) features of (H, W, 3) images."""
        device, parts = self.model.device, []
        with torch.no_grad():
            for start in range(0, len(pixels), self.batch):
                rows = slice(start, start + self.batch)
                images = torch.from_numpy(np.stack(pixels[rows]).transpose(0, 3, 1, 2).copy()).to(device)
                cameras = None if camids is None else torch.tensor(camids[rows], device=device)
                raw = self.raw_features(images, modality, cameras).float()
                if not torch.isfinite(raw).all():
                    raise FloatingPointError(
                        "The model's features are not finite: its weights have diverged. Take an earlier checkpoint."
                    )
                parts.append(raw)
        return torch.cat(parts)

    # --- searching ---------------------------------------------------------------------------------------------------

    def remark(self, members: tuple[Modality, ...]) -> str:
        if members == (Modality.IR,) and getattr(self.model, "stage1", None) is not None:
            return "an evaluation's row without text passes pooling and neck of stage 1, a search does not"
        return ""

    def token_ids(self, text: str) -> set[int]:
        return set(self.model.tokenize([text])[0].tolist()) - {0}

    def is_cut(self, text: str) -> bool:
        return is_cut(text)

    def embed_each(self, parts: Sequence[QueryPart]) -> list[dict[Modality, np.ndarray]]:
        """See `Searcher.embed_each`: one pass of the visual part for all pictures, one of the text tower for all words."""
        pictures = [self.pixels(part.infrared, Modality.IR) for part in parts if part.infrared is not None]
        images = iter(self._encode(pictures, Modality.IR, None).split(1) if pictures else ())
        asked = [part.text is not None and set(part.choice.members) != {Modality.IR} for part in parts]
        words = dict.fromkeys(t for part, asks in zip(parts, asked, strict=True) if asks for t in part[2:] if t)
        found = []
        with torch.no_grad():
            said: Sequence[Tensor] = ()
            if words:
                said = encode_texts(self.model, list(words)).to(self.model.device).split(1)
            raw_of: dict[str | None, Tensor] = dict(zip(words, said, strict=True))
            for part, asks in zip(parts, asked, strict=True):
                raw = {} if part.infrared is None else {Modality.IR: next(images)}
                if asks:
                    text = raw_of[part.text]
                    raw[Modality.TEXT] = self.model.fusion.alone(text)
                    if Modality.FUSION in part.choice.members:
                        other = raw_of[part.filter_text] if part.filter_text else None
                        raw[Modality.FUSION] = self.model.fusion(raw[Modality.IR], text, other)
                found.append({m: _numpy(self.model.embed(raw[m]))[0] for m in part.choice.members})
        return found


def _numpy(vectors: Tensor) -> np.ndarray:
    return vectors.detach().float().cpu().numpy()

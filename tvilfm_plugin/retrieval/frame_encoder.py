"""Appearance features for trackers that hand over whole frames with their detections.

Two contracts in one object: `extract_embeddings(detections, frame)`, as Roboflow's `reid` defines it on detections of
`supervision`, and BoxMOT's encoder (`embedding_dim`, `requirements`, `encode(frames, detections)`). Neither package is needed.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.tracker import CropEncoder


class Requirements(NamedTuple):
    """What BoxMOT asks of an encoder: whether it needs masks."""

    masks: bool = False


class FrameEncoder:
    """Unit vectors of the boxes of frames: the cosine of two rows is their inner product.

    Boxes are cut to the frame. One that lies outside of it gives zeros, which resemble nobody: trackers want finite rows, one
    per box. Frames of an infrared camera may be grey, (h, w), or three times the same.
    """

    def __init__(self, retriever: Retriever, *, modality: Modality | str = Modality.RGB) -> None:
        """
        Args:
            retriever: holds the model; its gallery is not used.
            modality: what the camera sees: "rgb" or "ir".
        """
        self.retriever = retriever
        # `extract_embeddings` gets frames as OpenCV reads them, BoxMOT's are RGB.
        self._bgr, self._rgb = (CropEncoder(retriever, modality=modality, order=order) for order in ("bgr", "rgb"))

    def __repr__(self) -> str:
        return f"FrameEncoder({self.retriever!r}, modality={self._rgb.modality.value!r})"

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.retriever.fingerprint.dim

    @property
    def requirements(self) -> Any:
        """No masks; in the type of BoxMOT, which asks for its own, where it is loaded."""
        loaded = sys.modules.get("boxmot.reid.protocols")
        return getattr(loaded, "EncoderRequirements", Requirements)(masks=False)

    def extract_embeddings(self, detections: Any, frame: np.ndarray, *, batch_size: int = 0) -> np.ndarray:
        """(N, D) float32 of N detections.

        Args:
            detections: with `xyxy`, (N, 4) pixels.
            frame: (h, w, 3) uint8 in OpenCV's order of channels, or (h, w).
            batch_size: boxes at once; 0 = all (the retriever's own `batch` bounds a pass of the network).
        """
        return self._encode(self._bgr, np.asarray(detections.xyxy), frame, batch_size)

    def encode(self, frames: Sequence[Any], detections: Sequence[Any]) -> list[Tensor]:
        """One (N, D) float32 tensor per frame.

        Args:
            frames: each with `image`, a (3, h, w) uint8 tensor, RGB.
            detections: each with `geometry`: axis-aligned boxes, whose `values` are (N, 4) xyxy pixels.
        """
        if len(frames) != len(detections):
            raise ValueError(f"{len(frames)} frames have {len(detections)} sets of detections; one each is needed.")
        found = []
        for frame, one in zip(frames, detections, strict=True):
            boxes = one.geometry.values
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise ValueError(f"Boxes have shape {tuple(boxes.shape)}; (N, 4) xyxy is needed (no oriented boxes).")
            image = frame.image.permute(1, 2, 0).contiguous().numpy()
            found.append(torch.from_numpy(self._encode(self._rgb, boxes.numpy(), image, 0)))
        return found

    @staticmethod
    def _encode(encoder: CropEncoder, boxes: np.ndarray, frame: np.ndarray, batch: int) -> np.ndarray:
        if not np.isfinite(boxes).all():
            raise ValueError(f"{int((~np.isfinite(boxes)).any(axis=1).sum())} of {len(boxes)} boxes are not finite.")
        height, width = frame.shape[:2]
        corners = boxes.reshape(-1, 4).clip(0, [width, height, width, height]).astype(int)
        crops = [frame[y1:y2, x1:x2] for x1, y1, x2, y2 in corners]
        size = batch if batch > 0 else max(1, len(crops))
        blocks = [encoder(crops[n : n + size]) for n in range(0, len(crops), size)] or [encoder([])]
        return np.nan_to_num(np.concatenate(blocks), nan=0.0)

"""Appearance features for trackers: a batch of crops in, unit vectors out."""

from collections.abc import Sequence

import numpy as np

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever

ORDERS = ("rgb", "bgr")
EMPTY = ("nan", "skip", "raise")


class CropEncoder:
    """`encoder(crops)` -> (N, D) float32 unit vectors, as DeepSORT, StrongSORT, BoT-SORT and their kin expect.

    Cut the boxes out of the frame and give them all at once: `encoder([frame[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes])`.
    The cosine of two rows is their inner product, also of a visible and an infrared crop.
    """

    def __init__(
        self, retriever: Retriever, *, modality: Modality | str = Modality.RGB, order: str = "rgb", empty: str = "nan"
    ) -> None:
        """
        Args:
            retriever: holds the model; its gallery is not used.
            modality: what the camera sees: "rgb" or "ir".
            order: of the colour channels of crops: "rgb", or "bgr" as OpenCV reads frames.
            empty: what a box outside of the frame, of which nothing is left, gives: "nan" a row of NaN, so that rows and boxes
                stay aligned; "skip" no row; "raise" an error, and with it no row for anybody.
        """
        if order not in ORDERS:
            raise ValueError(f"Crops have their channels in the order {' or '.join(ORDERS)}, not {order!r}.")
        if Modality(modality) not in (Modality.RGB, Modality.IR):
            raise ValueError(f"A camera sees rgb or ir, not {modality}.")
        if empty not in EMPTY:
            raise ValueError(f"An empty crop gives {', '.join(EMPTY[:-1])} or {EMPTY[-1]}, not {empty!r}.")
        self.retriever = retriever
        self.modality = Modality(modality)
        self.order = order
        self.empty = empty

    def __repr__(self) -> str:
        return f"CropEncoder({self.retriever!r}, modality={self.modality.value!r}, order={self.order!r}, empty={self.empty!r})"

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """N crops, (h, w, 3), (h, w, 1) or (h, w) uint8 of any size -> (N, D); no crop gives (0, D).

        Raises:
            ValueError: a crop is no uint8 image, or is empty where `empty` is "raise"; the message says which.
        """
        images = [self._image(np.asarray(crop), n, len(crops)) for n, crop in enumerate(crops)]
        there = [image for image in images if image is not None]
        dim = self.retriever.fingerprint.dim
        found = self.retriever.embed_images(there, self.modality) if there else np.empty((0, dim), np.float32)
        if self.empty == "skip":
            return found
        rows = np.full((len(images), dim), np.nan, np.float32)
        rows[[n for n, image in enumerate(images) if image is not None]] = found
        return rows

    def _image(self, crop: np.ndarray, n: int, count: int) -> np.ndarray | None:
        """(h, w, 3) in the order of RGB, or (h, w); None: there is nothing in it."""
        grey = crop.ndim == 2 or (crop.ndim == 3 and crop.shape[2] == 1)
        counts = grey and self.modality is Modality.IR and self.retriever.ir_window is not None
        wrong = not (counts or crop.dtype == np.uint8) or not (grey or (crop.ndim == 3 and crop.shape[2] == 3))
        if wrong or (not crop.size and self.empty == "raise"):
            counted = " Counts of an infrared camera need one fixed window, INPUT.IR_SCALING."
            deep = counted if crop.dtype.kind in "uif" and wrong else ""
            raise ValueError(
                f"Crop {n} of {count} has shape {crop.shape} and type {crop.dtype}; (h, w, 3) or (h, w) uint8 with h and w of "
                f"at least 1 is needed.{deep} Clip boxes to the frame; empty='nan' or 'skip' deals with those outside of it."
            )
        if not crop.size:
            return None
        if grey:
            return crop.reshape(crop.shape[:2])
        return np.ascontiguousarray(crop[:, :, ::-1] if self.order == "bgr" else crop)

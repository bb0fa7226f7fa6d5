"""Appearance features for trackers: a batch of crops in, unit vectors out."""

from collections.abc import Sequence

import numpy as np

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever

ORDERS = ("rgb", "bgr")


class CropEncoder:
    """`encoder(crops)` -> (N, D) float32 unit vectors, as DeepSORT, StrongSORT, BoT-SORT and their kin expect.

    Cut the boxes out of the frame and give them all at once: `encoder([frame[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes])`.
    The cosine of two rows is their inner product, also of a visible and an infrared crop.
    """

    def __init__(self, retriever: Retriever, *, modality: Modality | str = Modality.RGB, order: str = "rgb") -> None:
        """
        Args:
            retriever: holds the model; its gallery is not used.
            modality: what the camera sees: "rgb" or "ir".
            order: of the colour channels of crops: "rgb", or "bgr" as OpenCV reads frames.
        """
        if order not in ORDERS:
            raise ValueError(f"Crops have their channels in the order {' or '.join(ORDERS)}, not {order!r}.")
        if Modality(modality) not in (Modality.RGB, Modality.IR):
            raise ValueError(f"A camera sees rgb or ir, not {modality}.")
        self.retriever = retriever
        self.modality = Modality(modality)
        self.order = order

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """N crops, (h, w, 3) uint8 of any size -> (N, D); no crop gives (0, D).

        Raises:
            ValueError: a crop is empty (a box outside of the frame) or no uint8 image; the message says which.
        """
        images = []
        for n, crop in enumerate(crops):
            crop = np.asarray(crop)
            if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or not crop.size:
                raise ValueError(
                    f"Crop {n} of {len(crops)} has shape {crop.shape} and type {crop.dtype}; (h, w, 3) uint8 with h and w of "
                    "at least 1 is needed. Clip boxes to the frame, and leave out those that nothing is left of."
                )
            images.append(np.ascontiguousarray(crop[:, :, ::-1] if self.order == "bgr" else crop))
        if not images:
            return np.empty((0, self.retriever.fingerprint.dim), np.float32)
        return self.retriever.embed_images(images, self.modality)

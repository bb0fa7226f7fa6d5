"""MIP's training samples: one view of an infrared and one of a visible image of the same person."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tvilfm_plugin.data.augment.modal import ModalAugmentation
from tvilfm_plugin.data.items import Item, count_identities, pair_labels
from tvilfm_plugin.data.paired import collate_pairs
from tvilfm_plugin.data.samplers.pairs import Pair


class ModalPairs(Dataset[dict[str, Any]]):
    """`dataset[Pair]` is a sample, `dataset[[Pair, ...]]` a batch.

    Everything random about them, but the noise in erased boxes, comes from the pairs' seeds.

    Attributes:
        num_classes: K, the number of training identities.
    """

    def __init__(
        self,
        rgb_images: Sequence[np.ndarray],
        ir_images: Sequence[np.ndarray],
        rgb_items: Sequence[Item],
        ir_items: Sequence[Item],
        augmentation: ModalAugmentation,
        batches_per_epoch: int,
        batch_size: int,
    ) -> None:
        """
        Args:
            rgb_images: (H, W, 3) uint8 visible images.
            ir_images: (H, W, 3) uint8 infrared images.
            rgb_items: path, identity (0..K-1) and camera of each visible image.
            ir_items: the same of each infrared image.
            augmentation: how the views are made.
            batches_per_epoch: batches that count as one epoch.
            batch_size: pairs in a batch, over all processes.
        """
        for kind, items, images in (("visible", rgb_items, rgb_images), ("infrared", ir_items, ir_images)):
            if len(items) != len(images):
                raise ValueError(f"Unequal numbers of {kind} items ({len(items)}) and images ({len(images)}).")
        self.num_classes = count_identities(rgb_items, ir_items)
        self.rgb_images, self.ir_images = rgb_images, ir_images
        self.rgb_items, self.ir_items = rgb_items, ir_items
        self.augmentation = augmentation
        self._length = batches_per_epoch * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, wanted: Pair | Sequence[Pair]) -> dict[str, Any]:
        """The sample of a pair; what `collate_pairs` makes of the samples of a sequence of pairs."""
        return self._sample(wanted) if isinstance(wanted, Pair) else collate_pairs([self._sample(pair) for pair in wanted])

    def _sample(self, pair: Pair) -> dict[str, Any]:
        labels = pair_labels(self.rgb_items[pair.rgb], self.ir_items[pair.ir])
        rng = random.Random(pair.seed)
        rgb, rgb_ops = self.augmentation(self.rgb_images[pair.rgb], rng)
        ir, ir_ops = self.augmentation(self.ir_images[pair.ir], rng)
        return {
            "rgb": torch.from_numpy(rgb),
            "ir": torch.from_numpy(ir),
            "rgb_ops": torch.tensor(rgb_ops),
            "ir_ops": torch.tensor(ir_ops),
        } | labels

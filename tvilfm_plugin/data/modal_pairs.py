"""MIP's training samples: one view of an infrared and one of a visible image of the same person."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from tvilfm_plugin.data.augment.modal import ModalAugmentation
from tvilfm_plugin.data.items import pair_labels
from tvilfm_plugin.data.paired import Pairs, collate_pairs
from tvilfm_plugin.data.samplers.pairs import Pair


class ModalPairs(Pairs):
    """Everything random about the samples, but the noise in erased boxes, comes from the pairs' seeds."""

    def __init__(self, *args: Any, augmentation: ModalAugmentation, **options: Any) -> None:
        """The arguments of `Pairs`, and how the views are made."""
        super().__init__(*args, **options)
        self.augmentation = augmentation

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

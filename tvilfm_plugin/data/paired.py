"""Training samples: two views of a visible image, one of an infrared image of the same person, and both captions."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from tvilfm_plugin.data.augment.caj import TrainAugmentation
from tvilfm_plugin.data.feature_bank import FeatureBank, view_rng
from tvilfm_plugin.data.items import Item, count_identities, pair_labels
from tvilfm_plugin.data.samplers.pairs import Pair
from tvilfm_plugin.data.tokenizer import END, end_of_text
from tvilfm_plugin.modality import Modality


class Pairs(Dataset[dict[str, Any]]):
    """Images and labels of both modalities, of `num_classes` people: `dataset[Pair]` is a sample, a list of them a batch."""

    def __init__(
        self,
        rgb_images: Sequence[np.ndarray],
        ir_images: Sequence[np.ndarray],
        rgb_items: Sequence[Item],
        ir_items: Sequence[Item],
        batches_per_epoch: int,
        batch_size: int,
    ) -> None:
        """(H, W, 3) uint8 images; path, identity (0..K-1) and camera of each; pairs in a batch of all processes."""
        for kind, items, images in (("visible", rgb_items, rgb_images), ("infrared", ir_items, ir_images)):
            if len(items) != len(images):
                raise ValueError(f"Unequal numbers of {kind} items ({len(items)}) and images ({len(images)}).")
        self.num_classes = count_identities(rgb_items, ir_items)
        self.rgb_images, self.ir_images = rgb_images, ir_images
        self.rgb_items, self.ir_items = rgb_items, ir_items
        self._length = batches_per_epoch * batch_size

    def __len__(self) -> int:
        return self._length


class PairedDataset(Pairs):
    """Two visible views, an infrared one and both captions, by the pairs' seeds; `banks` give features instead of pixels."""

    def __init__(
        self,
        rgb_images: Sequence[np.ndarray],
        ir_images: Sequence[np.ndarray],
        rgb_items: Sequence[Item],
        ir_items: Sequence[Item],
        rgb_tokens: "TokenTable | None",
        ir_tokens: "TokenTable | None",
        augmentation: TrainAugmentation,
        rephrase_prob: float,
        batches_per_epoch: int,
        batch_size: int,
        views: int = 0,
    ) -> None:
        """The arguments of `Pairs`, and:

        Args:
            rgb_tokens: captions of the visible images; None for samples without text.
            ir_tokens: captions of the infrared images; None for samples without text.
            augmentation: how the three views are made.
            rephrase_prob: probability that a caption is replaced by its rephrase, separately for both images (Eq. 3).
            views: an image has this many fixed augmentations, of which a sample takes one; 0: a new one every time.
        """
        super().__init__(rgb_images, ir_images, rgb_items, ir_items, batches_per_epoch, batch_size)
        if (rgb_tokens is None) != (ir_tokens is None):
            raise ValueError("Both kinds of images have captions or none: give rgb_tokens and ir_tokens, or neither.")
        for kind, items, tokens in (("visible", rgb_items, rgb_tokens), ("infrared", ir_items, ir_tokens)):
            if tokens is not None and len(tokens) != len(items):
                raise ValueError(f"Unequal numbers of {kind} items ({len(items)}) and captions ({len(tokens)}).")
        self.rgb_tokens, self.ir_tokens = rgb_tokens, ir_tokens
        self.augmentation = augmentation
        self.rephrase_prob = rephrase_prob
        self.views = views
        self.banks: tuple[FeatureBank, FeatureBank] | None = None

    def __getitem__(self, wanted: Pair | Sequence[Pair]) -> dict[str, Any]:
        """The sample of a pair; what `collate_pairs` makes of the samples of a sequence of pairs."""
        if isinstance(wanted, Pair):
            return self._sample(wanted, {})
        views = {} if self.banks else {"rgb": self.rgb_images, "rgb_aug": self.rgb_images, "ir": self.ir_images}
        blocks = {view: _block(len(wanted), images[0].shape) for view, images in views.items()}
        rows = {view: block.numpy() for view, block in blocks.items()}
        samples = [self._sample(pair, {view: block[row] for view, block in rows.items()}) for row, pair in enumerate(wanted)]
        return collate_pairs(samples, blocks, self.rgb_tokens.end if self.rgb_tokens is not None else END)

    def _sample(self, pair: Pair, out: Mapping[str, np.ndarray]) -> dict[str, Any]:
        labels = pair_labels(self.rgb_items[pair.rgb], self.ir_items[pair.ir])
        rng = random.Random(pair.seed)
        # Drawn first, and also without texts: so both stages see the same views of a pair, however often erasing draws.
        rephrase_rgb, rephrase_ir = rng.random() < self.rephrase_prob, rng.random() < self.rephrase_prob
        sample = self._seen(pair, rng, out) | labels
        if self.rgb_tokens is not None and self.ir_tokens is not None:
            sample["rgb_tokens"] = self.rgb_tokens.row(pair.rgb, rephrase_rgb)
            sample["ir_tokens"] = self.ir_tokens.row(pair.ir, rephrase_ir)
        return sample

    def _seen(self, pair: Pair, rng: random.Random, out: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The views of a pair: pixels and operations, or stored features."""
        if not self.views:
            return self.rgb_views(pair.rgb, rng, out) | self.ir_view(pair.ir, rng, out)
        of_rgb, of_ir = rng.randrange(self.views), rng.randrange(self.views)
        if self.banks is None:
            rgb_rng, ir_rng = view_rng(Modality.RGB, pair.rgb, of_rgb), view_rng(Modality.IR, pair.ir, of_ir)
            return self.rgb_views(pair.rgb, rgb_rng, out) | self.ir_view(pair.ir, ir_rng, out)
        rgb, ir = self.banks
        return {
            "rgb_features": rgb[pair.rgb, 2 * of_rgb],
            "rgb_aug_features": rgb[pair.rgb, 2 * of_rgb + 1],
            "ir_features": ir[pair.ir, of_ir],
        }

    def rgb_views(self, image: int, rng: random.Random, out: Mapping[str, np.ndarray] | None = None) -> dict[str, Tensor]:
        """Both views of a visible image, in memory of their own or `out`'s (3, H, W) uint8, and their device operations."""
        pixels, out = self.rgb_images[image], out or {}
        rgb, rgb_ops = self.augmentation.rgb(pixels, rng, out.get("rgb"))
        rgb_aug, rgb_aug_ops = self.augmentation.rgb_aug(pixels, rng, out.get("rgb_aug"))
        ops = torch.tensor((rgb_ops, rgb_aug_ops))
        return {"rgb": torch.from_numpy(rgb), "rgb_aug": torch.from_numpy(rgb_aug), "rgb_ops": ops[0], "rgb_aug_ops": ops[1]}

    def ir_view(self, image: int, rng: random.Random, out: Mapping[str, np.ndarray] | None = None) -> dict[str, Tensor]:
        """The view of an infrared image, and its operations; `out` as in `rgb_views`."""
        ir, ops = self.augmentation.ir(self.ir_images[image], rng, (out or {}).get("ir"))
        return {"ir": torch.from_numpy(ir), "ir_ops": torch.tensor(ops)}


def _block(count: int, shape: tuple[int, ...]) -> Tensor:
    """Memory for (count, 3, H, W) uint8 views of (H, W, 3) images; in a worker it is shared, so that sending copies nothing."""
    height, width, channels = shape
    block = torch.empty(count, channels, height, width, dtype=torch.uint8)
    return block if get_worker_info() is None else block.share_memory_()


class TokenTable:
    """Captions and rephrases of all images as two arrays: one row per distinct text.

    A list of tensors would be sent to every spawned worker tensor by tensor, each holding a file open.
    """

    def __init__(self, rows: np.ndarray, index: np.ndarray, end: int | None = END) -> None:
        """
        Args:
            rows: (S, L) ids of the distinct texts.
            index: (N, 2) rows of every image's caption and rephrase; -1 where there is no rephrase.
            end: id behind which nothing of a row matters; None: batches keep all of it.
        """
        self._rows, self._index, self.end = rows, index, end

    def __len__(self) -> int:
        return len(self._index)

    def row(self, image: int, rephrase: bool) -> Tensor:
        """(L,) int64 ids of the image's caption, or of its rephrase if it is wanted and there is one."""
        caption, rephrased = self._index[image]
        chosen = rephrased if rephrase and rephrased >= 0 else caption
        return torch.from_numpy(self._rows[chosen].astype(np.int64))


def collate_pairs(
    samples: Sequence[dict[str, Any]], stacked: Mapping[str, Tensor] | None = None, end: int | None = END
) -> dict[str, Any]:
    """Stack B samples; both token tensors are cut after the longest caption of the batch.

    The text feature is taken at the first end-of-text token and attention is causal: what is cut off could not matter.

    Args:
        stacked: what lies in one tensor already, by key.
        end: the end-of-text id; None: nothing is cut.

    Returns:
        images (B, 3, H, W) uint8, ops (B, 5), tokens (B, L), labels (B,) int64, paths as lists of B strings.
    """
    batch: dict[str, Any] = dict(stacked or {})
    for key in (key for key in samples[0] if key not in batch):
        values = [sample[key] for sample in samples]
        if isinstance(values[0], str):
            batch[key] = values
        else:
            # torch's own: in a worker it stacks straight into shared memory.
            batch[key] = default_collate(values)
    if "rgb_tokens" in batch and end is not None:
        length = 1 + max(int(end_of_text(batch[key], end).max()) for key in ("rgb_tokens", "ir_tokens"))
        for key in ("rgb_tokens", "ir_tokens"):
            batch[key] = batch[key][:, :length].contiguous()
    return batch

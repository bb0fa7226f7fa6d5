"""Test images as one list of rows: the queries, then the union of all gallery draws."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, default_collate

from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality


class EvalSet(Dataset[dict[str, Any]]):
    """Row n is query n, or gallery image n - `num_query`; `row` says so in every sample, whatever order samples come in."""

    def __init__(
        self,
        query_images: Sequence[np.ndarray],
        gallery_images: Sequence[np.ndarray],
        query_items: Sequence[Item],
        gallery_items: Sequence[Item],
        query_modality: Modality,
        gallery_modality: Modality,
    ) -> None:
        """(H, W, 3) uint8 images of Q queries and G gallery images; path, identity and camera of each."""
        for kind, images, items in (("query", query_images, query_items), ("gallery", gallery_images, gallery_items)):
            if len(images) != len(items):
                raise ValueError(f"{len(images)} {kind} images for {len(items)} {kind} items; give one image per item.")
        self.query_images, self.gallery_images = query_images, gallery_images
        self.query_items, self.gallery_items = query_items, gallery_items
        self.query_modality, self.gallery_modality = Modality(query_modality), Modality(gallery_modality)
        self.num_query = len(query_items)

    def __len__(self) -> int:
        return self.num_query + len(self.gallery_items)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """images (3, H, W) uint8, modality, row, targets (identity), camids, img_paths."""
        if not 0 <= row < len(self):
            raise IndexError(f"There is no row {row}; rows are 0..{len(self) - 1}, {self.num_query} of them queries.")
        query = row < self.num_query
        index = row if query else row - self.num_query
        image = (self.query_images if query else self.gallery_images)[index]
        item = (self.query_items if query else self.gallery_items)[index]
        return {
            # A copy: the memory map is read-only, which a tensor cannot be.
            "images": torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")),
            "modality": (self.query_modality if query else self.gallery_modality).value,
            "row": row,
            "targets": item.pid,
            "camids": item.camid,
            "img_paths": item.path,
        }


class ModalityBatchSampler(Sampler[list[int]]):
    """Batches of consecutive rows that never mix queries with gallery images.

    Each rank gets a contiguous share of the batches that a single process has, for a row's feature must not depend on the
    number of processes; over the ranks every row comes exactly once, none twice to fill up.
    """

    def __init__(self, eval_set: EvalSet, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"TEST.IMS_PER_BATCH must be at least 1, not {batch_size}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"Rank {rank} does not exist among {world_size} processes; ranks are 0..{world_size - 1}.")
        border, total = eval_set.num_query, len(eval_set)
        batches = [
            range(start, min(start + batch_size, end))
            for begin, end in ((0, border), (border, total))
            for start in range(begin, end, batch_size)
        ]
        self.batches = batches[len(batches) * rank // world_size : len(batches) * (rank + 1) // world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self.batches)


def collate_rows(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack N rows: images (N, 3, H, W) uint8; row, targets, camids (N,) int64; modality, img_paths lists of strings."""
    modalities = {sample["modality"] for sample in samples}
    if len(modalities) != 1:
        raise ValueError(f"A batch has one modality, not {sorted(modalities)}; sample rows with ModalityBatchSampler.")
    batch: dict[str, Any] = {
        key: default_collate([sample[key] for sample in samples]) for key in ("images", "row", "targets", "camids")
    }
    return batch | {key: [sample[key] for sample in samples] for key in ("modality", "img_paths")}

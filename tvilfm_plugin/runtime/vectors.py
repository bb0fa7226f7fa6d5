"""A gallery in memory, searched exactly with numpy alone; `retrieval.index.GalleryIndex` is the one for many images."""

from collections.abc import Sequence

import numpy as np

from tvilfm_plugin.retrieval.hits import check_top
from tvilfm_plugin.retrieval.records import EVERYTHING, Filter, Record, Records


class Vectors:
    """N gallery images: row n of the vectors is record n."""

    def __init__(self, vectors: np.ndarray, records: Sequence[Record]) -> None:
        """(N, D) float32 unit vectors, and the records of the same images."""
        if len(vectors) != len(records):
            raise ValueError(f"{len(vectors)} vectors for {len(records)} records: give one record per vector.")
        self.vectors = vectors
        self.records = Records.of(records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Vectors({len(self):,} images of {self.vectors.shape[1]} numbers)"

    def nearest(self, query: np.ndarray, top: int, allowed: Filter = EVERYTHING) -> tuple[list[Record], np.ndarray]:
        """See `retrieval.hits.Index`; equal images: the one that came first."""
        check_top(top)
        rows = np.flatnonzero(self.records.passing(allowed))
        best = rows[np.argsort(-(self.vectors[rows] @ query), kind="stable")[:top]]
        return [self.records[int(row)] for row in best], self.vectors[best]

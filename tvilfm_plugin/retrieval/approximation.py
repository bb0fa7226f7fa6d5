"""What an approximate index costs: its answers against those of a flat one."""

from typing import NamedTuple, Protocol

import faiss
import numpy as np

from tvilfm_plugin.retrieval.records import UNKNOWN, Records

SAMPLE, TOP = 200, 10
BLOCK = 16_384  # vectors that are read at a time


class Searched(Protocol):
    """What is compared: `index.GalleryIndex` has it."""

    kind: str
    records: Records

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, D) -> inner products and rows, best first."""
        ...


class ApproximationReport(NamedTuple):
    """Recall and Rank-1 of an index.

    Attributes:
        kind: its type.
        queries: how many were asked; gallery images, each of which does not count as its own hit.
        top: k of the recall.
        recall: mean share of flat's k best that the index finds.
        same_first: share of queries with the same best image.
        rank1, flat_rank1: share of queries whose best image shows the same person; None if identities are unknown.
    """

    kind: str
    queries: int
    top: int
    recall: float
    same_first: float
    rank1: float | None
    flat_rank1: float | None

    def __str__(self) -> str:
        persons = "" if self.rank1 is None else f", Rank-1 {100 * self.rank1:.2f} % (flat {100 * (self.flat_rank1 or 0):.2f} %)"
        return (
            f"Index {self.kind} against flat, {self.queries} gallery images as queries: recall@{self.top} "
            f"{100 * self.recall:.2f} %, same first hit {100 * self.same_first:.2f} %{persons}"
        )


def compare_with_flat(
    index: Searched, vectors: np.ndarray, *, queries: int = SAMPLE, top: int = TOP, seed: int = 0
) -> ApproximationReport:
    """Ask an index for the neighbours of `queries` of its own images, drawn from its exact (N, D) vectors."""
    rows = np.sort(np.random.default_rng(seed).choice(len(index), min(queries, len(index)), replace=False))
    asked = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    k = min(top, len(index) - 1)
    if k < 1:
        raise ValueError("An index of one image has no neighbours to compare: use flat, which is exact.")
    mine = _without(index.search(asked, k + 1)[1], rows, k)
    exact = _without(exact_neighbours(asked, vectors, k + 1), rows, k)
    recall = float(np.mean([len(set(a) & set(b)) / k for a, b in zip(mine.tolist(), exact.tolist(), strict=True)]))
    pids = index.records.pids
    known = pids[rows] != UNKNOWN
    right = [float((pids[found[known, 0]] == pids[rows[known]]).mean()) if known.any() else None for found in (mine, exact)]
    return ApproximationReport(index.kind, len(rows), k, recall, float((mine[:, 0] == exact[:, 0]).mean()), *right)


def exact_neighbours(queries: np.ndarray, vectors: np.ndarray, top: int) -> np.ndarray:
    """(Q, top) rows of (N, D) vectors, read in blocks, of the largest inner products with (Q, D) queries, best first."""
    best = faiss.ResultHeap(len(queries), top, keep_max=True)
    for start in range(0, len(vectors), BLOCK):
        rows = np.ascontiguousarray(vectors[start : start + BLOCK], dtype=np.float32)
        scores, found = faiss.knn(queries, rows, min(top, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, found + start)
    best.finalize()
    return best.I


def _without(found: np.ndarray, rows: np.ndarray, top: int) -> np.ndarray:
    """(Q, top + 1) -> (Q, top): each query's own row out, or, where it was not found, the last one."""
    own = found == rows[:, None]
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(found), top)

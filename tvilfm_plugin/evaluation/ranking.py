"""The only ranking code: CMC, mAP and mINP, per-query values, and the ranked lists that pictures show.

A full argsort is not needed. With the non-junk gallery images of a query ranked by (distance, gallery index), all three
metrics follow from two counts: how many images precede each match, and how many *identities* precede the first match.
Sorting the distances alone (values without indices, which runs in vector registers) and looking the matches up gives
the first, one minimum per identity the second. Both are exact only without ties, so the rows in which something ties
with a match are counted again, with keys that cannot tie: distance and gallery index in one integer.

Distances come as a matrix, or as `MinusInnerProduct`, which computes rows when they are asked for: a ranking of 20,000
queries in 200,000 images then needs no 16 GB.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.evaluation import chance
from tvilfm_plugin.evaluation.protocols import Labels, Protocol

BLOCK_ELEMENTS = 1 << 20  # distances that are worked on at once: bounds the memory at a few dozen MiB
PRODUCT_ROWS = 64  # queries whose distances are computed at once where they are not given


class RankMetrics(NamedTuple):
    """Fractions in [0, 1]. `cmc[k - 1]` is the share of queries whose first match is among the first k."""

    cmc: np.ndarray
    mAP: float
    mINP: float

    def rank(self, k: int) -> float:
        """R-k. Beyond its end the curve keeps its last value: a short gallery has no more to offer."""
        if k < 1:
            raise ValueError(f"Ranks count from 1, got {k}.")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


class PerQuery(NamedTuple):
    """One value per query, (Q,) each.

    A query without a match in its filtered gallery is not valid and counts in nothing.
    `first_match_rank` is 1-based and counts what the protocol's CMC counts (identities or images); 0 if not valid.
    `ap` and `inp` are NaN if not valid, so that a mean over everything cannot go unnoticed.
    """

    valid: np.ndarray
    first_match_rank: np.ndarray
    ap: np.ndarray
    inp: np.ndarray


class _Gallery(NamedTuple):
    """The gallery in identity order, so that a query's matches are one run of columns. Run i is identity `ids[i]`."""

    order: np.ndarray  # (G,) gallery index of each column; ascending inside a run
    labels: Labels  # in that order
    ids: np.ndarray  # (I,) distinct identities
    start: np.ndarray  # (I,) first column of each run
    size: np.ndarray  # (I,) columns of each run


class MinusInnerProduct(NamedTuple):
    """Distances -(query @ gallery.T) in float32, computed row by row where they are needed and never held in whole.

    Attributes:
        query: (Q, D).
        gallery: (G, D), on the same device.
    """

    query: Tensor
    gallery: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.gallery)

    def rows(self, rows: slice) -> np.ndarray:
        """(rows, G) of the matrix."""
        with torch.no_grad(), torch.autocast(self.query.device.type, enabled=False):
            dist = self.query[rows].float() @ self.gallery.float().T
            return dist.neg_().cpu().numpy()


Distances = np.ndarray | Tensor | MinusInnerProduct


def rank_metrics(dist: Distances, query: Labels, gallery: Labels, protocol: Protocol, max_rank: int = 20) -> RankMetrics:
    """CMC, mAP and mINP of one gallery under a benchmark's rules.

    Args:
        dist: (Q, G) distances, small is near, or what computes them; float64 is not rounded. Equal distances rank by
            gallery index.
        query: labels of the Q rows.
        gallery: labels of the G columns.
        protocol: which images a query ignores, and whether the CMC counts identities or images.
        max_rank: length of the CMC, cut to G, and to the number of gallery identities if it counts identities.

    Returns:
        Means over the valid queries. AP is the mean precision at a query's matches, INP the number of matches divided
        by the rank of the last one.
    """
    results = per_query(dist, query, gallery, protocol)
    return aggregate(results, cmc_length(gallery, protocol, max_rank))


def per_query(dist: Distances, query: Labels, gallery: Labels, protocol: Protocol) -> PerQuery:
    """What `rank_metrics` averages, for each of the Q queries; the arguments are the same."""
    dist, query, gallery = _check(dist, query, gallery)
    count = dist.shape[0]
    valid, first = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)
    ap, inp = np.full(count, np.nan), np.full(count, np.nan)
    runs = _by_identity(gallery)
    for rows, block in _blocks(dist):
        block = _filtered(block, rows, query, runs.labels, protocol, runs.order)
        valid[rows], first[rows], ap[rows], inp[rows] = _rank_block(block, query.pids[rows], runs, protocol.count_identities)
    return PerQuery(valid, first, ap, inp)


def aggregate(results: PerQuery, length: int) -> RankMetrics:
    """Means over the valid queries; `length` is the number of CMC entries (`cmc_length`)."""
    valid = results.valid
    if not valid.any():
        raise ValueError(
            f"None of the {len(valid)} queries has a match in its gallery after the protocol's junk images are "
            "removed, so there is nothing to average. Check that query and gallery identities come from the same "
            "split, and the camera numbers."
        )
    found = np.bincount(np.minimum(results.first_match_rank[valid], length + 1), minlength=length + 2)
    cmc = np.cumsum(found[1 : length + 1]) / valid.sum()
    return RankMetrics(cmc, float(results.ap[valid].mean()), float(results.inp[valid].mean()))


def cmc_length(gallery: Labels, protocol: Protocol, max_rank: int = 20) -> int:
    """Number of CMC entries: a curve over identities ends at the last identity, one over images at the last image."""
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}.")
    pids = np.asarray(gallery.pids)
    return min(max_rank, len(np.unique(pids)) if protocol.count_identities else len(pids))


def ranking(dist: Distances, query: Labels, gallery: Labels, protocol: Protocol, top: int) -> np.ndarray:
    """The first images of every query's ranking, in the very order that the metrics count.

    Args:
        dist: (Q, G) distances, or what computes them.
        query: labels of the Q rows.
        gallery: labels of the G columns.
        protocol: decides which images a query ignores.
        top: columns of the result.

    Returns:
        (Q, top) gallery indices after removal of the query's junk images, nearest first; -1 where nothing is left.
    """
    return nearest(dist, query, gallery, protocol, top)[0]


def nearest(dist: Distances, query: Labels, gallery: Labels, protocol: Protocol, top: int) -> tuple[np.ndarray, np.ndarray]:
    """`ranking` and the (Q, top) distances by which it ranked, infinite where nothing is left."""
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")
    dist, query, gallery = _check(dist, query, gallery)
    index = np.full((dist.shape[0], top), -1, dtype=np.int64)
    distance = np.full(index.shape, np.inf)
    columns, wanted = np.arange(dist.shape[1]), min(top, dist.shape[1])
    for rows, block in _blocks(dist):
        block = _filtered(block, rows, query, gallery, protocol)
        keys = _untied(block, columns)
        order = np.argpartition(keys, wanted - 1, axis=1)[:, :wanted]
        order = np.take_along_axis(order, np.argsort(np.take_along_axis(keys, order, axis=1), axis=1), axis=1)
        distance[rows, :wanted] = np.take_along_axis(block, order, axis=1)
        index[rows, :wanted] = np.where(np.isfinite(distance[rows, :wanted]), order, -1)
    return index, distance


def chance_metrics(query: Labels, gallery: Labels, protocol: Protocol) -> RankMetrics:
    """The level that guessing reaches: the expectation over all rankings of the same queries and gallery.

    Args:
        query: labels of the Q queries.
        gallery: labels of the G gallery images.
        protocol: as in `rank_metrics`.
    """
    query, gallery = _labels("query", query, len(query.pids)), _labels("gallery", gallery, len(gallery.pids))
    length = cmc_length(gallery, protocol)
    # The rules see labels only, so each pair of labels is asked once.
    kinds, number = _distinct(query)
    places, alike = _distinct(gallery)
    runs = _by_identity(places)
    cmc, mean_ap, mean_inp, total = np.zeros(length), 0.0, 0.0, 0
    for rows in _slices(len(number), max(1, BLOCK_ELEMENTS // max(1, len(alike)))):
        pids, camids, weight = kinds.pids[rows, None], kinds.camids[rows, None], number[rows]
        junk = np.broadcast_to(protocol.is_junk(pids, camids, runs.labels), (len(pids), len(alike)))
        sizes = np.add.reduceat(np.where(junk, 0, alike), runs.start, axis=1)
        own = np.minimum(np.searchsorted(runs.ids, pids[:, 0]), len(runs.ids) - 1)
        right = np.where(runs.ids[own] == pids[:, 0], sizes[np.arange(len(own)), own], 0)
        valid = right > 0
        sizes, own, right, weight = sizes[valid], own[valid], right[valid], weight[valid]
        if not len(right):
            continue
        images = sizes.sum(axis=1)
        total += int(weight.sum())
        mean_ap += float(weight @ chance.expected_ap(images, right))
        mean_inp += float(weight @ chance.expected_inp(images, right))
        if protocol.count_identities:
            sizes[np.arange(len(own)), own] = 0
            cmc += chance.identity_cmc(sizes, right, weight, length)
        else:
            cmc += weight @ chance.image_cmc(images, right, length)
    if not total:
        return aggregate(PerQuery(*(np.zeros(len(query.pids), dtype=kind) for kind in (bool, int, float, float))), length)
    return RankMetrics(cmc / total, mean_ap / total, mean_inp / total)


# --- one block of queries ---------------------------------------------------------------------------------------------
def _rank_block(
    dist: np.ndarray, pids: np.ndarray, runs: _Gallery, count_identities: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`PerQuery` of a block. `dist` (B, G): columns in identity order, junk at infinity."""
    own = np.minimum(np.searchsorted(runs.ids, pids), len(runs.ids) - 1)
    has_run = np.flatnonzero(runs.ids[own] == pids)
    row, column = _match_columns(has_run, own[has_run], runs)
    kept = np.isfinite(dist[row, column])
    row, column = row[kept], column[kept]

    if _ties_everywhere(dist):
        keys = _untied(dist, runs.order)
        before, _ = _count_below(keys, row, column)
        first = _nearer_identities(keys, own, runs) if count_identities else None
    else:
        before, shared = _count_below(dist, row, column)
        first = _nearer_identities(dist, own, runs) if count_identities else None
        tied = np.unique(row[shared])
        if len(tied):
            keys, position = _untied(dist[tied], runs.order), np.full(len(dist), -1)
            position[tied] = np.arange(len(tied))
            again = np.flatnonzero(position[row] >= 0)
            before[again], _ = _count_below(keys, position[row[again]], column[again])
            if first is not None:
                first[tied] = _nearer_identities(keys, own[tied], runs)

    matches = np.bincount(row, minlength=len(dist))
    valid = matches > 0
    total = matches[valid]
    end = np.cumsum(total)
    # Matches of all queries as one sorted array: the row number is the leading digit.
    ordered = np.sort(row * dist.shape[1] + before)
    row, before = ordered // dist.shape[1], ordered % dist.shape[1]
    precision = (np.arange(1, len(row) + 1) - np.repeat(end - total, total)) / (before + 1)

    rank, ap, inp = np.zeros(len(dist), dtype=np.int64), np.full(len(dist), np.nan), np.full(len(dist), np.nan)
    ap[valid] = np.bincount(row, precision, minlength=len(dist))[valid] / total
    inp[valid] = total / (before[end - 1] + 1)
    rank[valid] = 1 + (before[end - total] if first is None else first[valid])
    return valid, rank, ap, inp


def _match_columns(row: np.ndarray, run: np.ndarray, runs: _Gallery) -> tuple[np.ndarray, np.ndarray]:
    """All (row, column) pairs of the given rows with the columns of their runs, as two flat arrays."""
    size = runs.size[run]
    offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(row, size), np.repeat(runs.start[run], size) + offset


def _count_below(values: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many entries of their row of `values` are smaller than `values[row, column]`, and whether another is equal."""
    value, ordered = values[row, column], np.sort(values, axis=1)
    flat, base, width = ordered.reshape(-1), row * ordered.shape[1], ordered.shape[1]
    low = np.zeros(len(row), dtype=np.int64)
    # One binary search for all. Every value is in its row, so the answer lies in [low, low + width) and no step can
    # leave the row.
    while width > 1:
        half = width // 2
        low += half * (flat[base + low + (half - 1)] < value)
        width -= half
    following = np.minimum(low + 1, ordered.shape[1] - 1)
    return low, (following > low) & (flat[base + following] == value)


def _nearer_identities(values: np.ndarray, own: np.ndarray, runs: _Gallery) -> np.ndarray:
    """(B,) how many identities have a nearer image than the nearest of run `own`."""
    minima = np.minimum.reduceat(values, runs.start, axis=1)
    return np.count_nonzero(minima < np.take_along_axis(minima, own[:, None], axis=1), axis=1)


def _untied(dist: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(B, G) int64 without equal values in a row, ordered by (distance, index).

    Args:
        dist: (B, G) float32 or wider.
        index: (G,) gallery index of each column.
    """
    if dist.dtype == np.float32:
        # Adding 0 turns -0.0, which equals 0.0, into it. Positive floats are ordered as their bits read as an integer
        # are; of negative ones the order is reversed, which turning over all bits but the sign puts right.
        bits = (dist + np.float32(0)).view(np.int32)
        bits ^= (bits >> 31) & 0x7FFFFFFF
        keys = bits.astype(np.int64)
    else:
        # Wider numbers leave no room for the index, so the distinct ones of a row are numbered.
        order = np.argsort(dist, axis=1)
        ordered = np.take_along_axis(dist, order, axis=1)
        number = np.zeros(dist.shape, dtype=np.int64)
        np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=number[:, 1:])
        keys = np.empty_like(number)
        np.put_along_axis(keys, order, number, axis=1)
    keys <<= 32
    keys |= index
    return keys


def _ties_everywhere(dist: np.ndarray) -> bool:
    """Whether nearly every row will have ties: guessed from the first one, to save sorting all of them twice."""
    some = np.sort(dist[0])
    return bool(np.count_nonzero(some[1:] == some[:-1]) > len(some) / 8)


# --- preparation ------------------------------------------------------------------------------------------------------
def _by_identity(gallery: Labels) -> _Gallery:
    order = np.argsort(gallery.pids, kind="stable")
    labels = gallery.at(order)
    ids, start, size = np.unique(labels.pids, return_index=True, return_counts=True)
    return _Gallery(order, labels, ids, start, size)


def _distinct(labels: Labels) -> tuple[Labels, np.ndarray]:
    """The distinct pairs of identity and camera, in order, and how often each occurs."""
    (ids, pid), (cameras, camera) = (np.unique(part, return_inverse=True) for part in labels)
    pair, count = np.unique(pid * len(cameras) + camera, return_counts=True)
    return Labels(ids[pair // len(cameras)], cameras[pair % len(cameras)]), count


def _blocks(dist: np.ndarray | MinusInnerProduct) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their distances."""
    count, columns = dist.shape
    if not columns:
        return
    step = max(1, BLOCK_ELEMENTS // columns)
    if isinstance(dist, MinusInnerProduct):
        # A product of a few rows only would read the whole gallery for hardly any arithmetic.
        many = max(step, PRODUCT_ROWS)
        for start in range(0, count, many):
            computed = dist.rows(slice(start, start + many))
            yield from ((slice(start + r.start, start + r.stop), computed[r]) for r in _slices(len(computed), step))
    else:
        yield from ((rows, dist[rows]) for rows in _slices(count, step))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _filtered(
    block: np.ndarray, rows: slice, query: Labels, gallery: Labels, protocol: Protocol, order: np.ndarray | None = None
) -> np.ndarray:
    """A fresh copy of a block of distances, columns taken in `order`, with the junk images at infinity.

    `gallery` is already in that order.
    """
    if not np.isfinite(block).all():
        where = np.argwhere(~np.isfinite(block))[0]
        raise ValueError(
            f"The distance of query {rows.start + where[0]} to gallery image {where[1]} is {block[tuple(where)]}; a "
            "ranking needs finite distances. Look for non-finite features (an overflow in half precision, a "
            "diverged model)."
        )
    if block.dtype.itemsize < 4 or block.dtype.kind != "f":  # the junk needs an infinity; widening keeps the order
        block = block.astype(np.float32 if block.dtype.kind == "f" else np.float64)
    block = block.copy() if order is None else np.take(block, order, axis=1)
    junk = np.asarray(protocol.is_junk(query.pids[rows, None], query.camids[rows, None], gallery), dtype=bool)
    if junk.any():
        np.copyto(block, np.inf, where=junk)
    return block


def _check(dist: Distances, query: Labels, gallery: Labels) -> tuple[np.ndarray | MinusInnerProduct, Labels, Labels]:
    if isinstance(dist, Tensor):
        dist = dist.detach().cpu()
        dist = dist.numpy() if dist.dtype.itemsize >= 4 else dist.float().numpy()  # NumPy has no bfloat16
    if not isinstance(dist, MinusInnerProduct):
        dist = np.asarray(dist)
        if dist.ndim != 2:
            raise ValueError(f"Distances must be a (Q, G) matrix, got shape {dist.shape}.")
    return dist, _labels("query", query, dist.shape[0]), _labels("gallery", gallery, dist.shape[1])


def _labels(kind: str, labels: Any, expected: int) -> Labels:
    pids, camids = (np.asarray(part) for part in labels)
    if pids.shape != (expected,) or camids.shape != (expected,):
        raise ValueError(
            f"The distance matrix has {expected} {'rows' if kind == 'query' else 'columns'}, but the {kind} labels "
            f"have shapes {pids.shape} (identities) and {camids.shape} (cameras); both must be ({expected},)."
        )
    return Labels(pids, camids)

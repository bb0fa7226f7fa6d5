"""Re-ranking by shared neighbours: k-reciprocal, the cross-modal kinds, and one that needs no other queries.

Entry points: `rerank` (distances among queries and gallery images -> final distances, by a name of `KINDS`),
`rerank_by_gallery`, and `rerank_vectors` (unit rows, by TEST.RERANK.KIND). All kinds but the gallery's own are *transductive*:
they look at all queries at once, so their numbers belong in rows of their own. Letters: Q queries, G gallery images,
N = Q + G rows, queries first.

The kinds (the cross-modal ones as released for YYDS, slips included):

- `k-reciprocal`: neighbours among all N; fast-reid's `re_ranking` of the square roots of the distances.
- `constrained`: neighbours only in the gallery, then only among the queries; the mean of both Jaccard distances. In the local
  expansion a neighbour's position is not shifted behind the rows of the other set, so rows of that set are averaged.
- `divided`: every row lists the queries by distance, then the gallery; the gallery's positions are not shifted either, so only
  queries are ever neighbours.
- `extended`: k-reciprocal neighbours joined with those across the modality border; with `k3`, the local expansion takes
  k2 - k3 neighbours among the queries and k3 in the gallery (MA-LQE).
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

logger = logging.getLogger("fastreid." + __name__)

Array = np.ndarray
K_RECIPROCAL = "k-reciprocal"
GALLERY_ONLY = "gallery-only"


class Setting(NamedTuple):
    """Numbers of a re-ranking.

    Attributes:
        k1: neighbours of a row (k1 + 1 with itself).
        k2: rows that the local expansion averages; 1 = none.
        lam: share of the original distance in the result, 0..1.
        k3: of `extended` only: how many of the k2 come from the gallery; None = the k2 nearest of all.
    """

    k1: int
    k2: int
    lam: float
    k3: int | None = None

    def check(self) -> None:
        """Raise for numbers that no re-ranking has."""
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.lam <= 1 or (self.k3 is not None and not 0 <= self.k3 <= self.k2):
            raise ValueError(f"Re-ranking needs k1 and k2 of 1 or more, lam and k3 / k2 in 0..1; got {self}.")


def rerank(
    distance: Array, queries: int, kind: str, k1: int, k2: int, lam: float, k3: int | None = None, dtype: type = np.float64
) -> Array:
    """Final distances (Q, G) of a kind of `KINDS`.

    Args:
        distance: (N, N) distances, e.g. the mean over features of 1 - cosine; any scale.
        queries: Q, the first rows.
        kind: a name of `KINDS`.
        k1, k2, lam, k3: see `Setting`.
        dtype: of the neighbour vectors; float16 as released.
    """
    if kind not in KINDS:
        raise ValueError(f"TEST.RERANK.KIND is {kind!r}; choose {', '.join(KINDS)}.")
    if k3 is not None and kind != "extended":
        raise ValueError(f"k3 belongs to the kind extended, not to {kind}; leave it out.")
    count = len(distance)
    if distance.shape != (count, count) or not 0 < queries < count:
        raise ValueError(f"Re-ranking needs square distances of all rows, not {distance.shape} of {queries}.")
    setting = Setting(k1, k2, lam, k3)
    setting.check()
    scaled = _scaled(distance) if kind in (K_RECIPROCAL, "extended") else _scaled_by_block(distance, queries)
    jaccard = KINDS[kind](scaled, queries, setting, dtype)
    return (1 - lam) * jaccard + lam * scaled[:queries, queries:]


def _scaled(distance: Array) -> Array:
    """Every row divided by its maximum."""
    return distance / distance.max(axis=1, keepdims=True)


def _scaled_by_block(distance: Array, queries: int) -> Array:
    return np.block([[_scaled(block) for block in np.split(rows, [queries], axis=1)] for rows in np.split(distance, [queries])])


def reciprocal(to: Array, back: Array, row: int, count: int) -> Array:
    """The first `count` + 1 entries of a row's list `to[row]` that have the row among the first of their own list `back`."""
    forward = to[row, : count + 1]
    return forward[(back[forward, : count + 1] == row).any(axis=1)]


def _expanded(found: Array, rank: Array, k1: int) -> Array:
    """Neighbours joined with those of the neighbours, where two thirds of these are known already; ascending."""
    sets = [found]
    for candidate in found:
        theirs = reciprocal(rank, rank, int(candidate), int(np.around(k1 / 2)))
        if len(np.intersect1d(theirs, found)) > 2 / 3 * len(theirs):
            sets.append(theirs)
    return np.unique(np.concatenate(sets))


def _vectors(neighbours: list[Array], distance: Array, dtype: type) -> Array:
    """Rows of weights exp(-d) over the neighbours, each of sum 1 (a row without neighbours is zero)."""
    vectors: Array = np.zeros(distance.shape, dtype)
    for row, found in enumerate(neighbours):
        weights = np.exp(-distance[row, found])
        vectors[row, found] = weights / weights.sum()
    return vectors


def _jaccard(queries: Array, gallery: Array) -> Array:
    """(Q, n), (G, n) weights -> (Q, G) Jaccard distances, summed and kept in the weights' precision."""
    holders = [np.flatnonzero(column) for column in gallery.T]
    result = np.empty((len(queries), len(gallery)), queries.dtype)
    for row, weights in enumerate(queries):
        shared = np.zeros(len(gallery), queries.dtype)
        for column in np.flatnonzero(weights):
            shared[holders[column]] += np.minimum(weights[column], gallery[holders[column], column])
        result[row] = 1 - shared / (2 - shared)
    return result


def _averaged(vectors: Array, lists: Array) -> Array:
    """Local expansion: each row the mean of those that its list names."""
    return np.stack([vectors[some].mean(axis=0) for some in lists]).astype(vectors.dtype)


def _all_rows(distance: Array, rank: Array, queries: int, setting: Setting, dtype: type) -> Array:
    found = [_expanded(reciprocal(rank, rank, row, setting.k1), rank, setting.k1) for row in range(len(rank))]
    vectors = _vectors(found, distance, dtype)
    if setting.k2 != 1:
        vectors = _averaged(vectors, rank[:, : setting.k2])
    return _jaccard(vectors[:queries], vectors[queries:])


def _k_reciprocal(distance: Array, queries: int, setting: Setting, dtype: type) -> Array:
    return _all_rows(distance, _order(distance), queries, setting, dtype)


def _divided(distance: Array, queries: int, setting: Setting, dtype: type) -> Array:
    lists = np.concatenate([_order(distance[:, :queries]), _order(distance[:, queries:])], axis=1)
    return _all_rows(distance, lists, queries, setting, dtype)


def _constrained(distance: Array, queries: int, setting: Setting, dtype: type) -> Array:
    inside_gallery = _inside(distance, np.arange(queries), np.arange(queries, len(distance)), setting, dtype)
    inside_queries = _inside(distance, np.arange(queries, len(distance)), np.arange(queries), setting, dtype)
    return (inside_gallery + inside_queries.T) / 2


def _inside(distance: Array, others: Array, home: Array, setting: Setting, dtype: type) -> Array:
    """Jaccard distances (others, home) of neighbours that all belong to `home`."""
    across, within = distance[np.ix_(others, home)], distance[np.ix_(home, home)]
    to_home, to_others, rank = _order(across), _order(distance[np.ix_(home, others)]), _order(within)
    k1 = setting.k1
    of_others = [_expanded(reciprocal(to_home, to_others, row, k1), rank, k1) for row in range(len(others))]
    of_home = [_expanded(reciprocal(rank, rank, row, k1), rank, k1) for row in range(len(home))]
    vectors = np.concatenate([_vectors(of_others, across, dtype), _vectors(of_home, within, dtype)])
    if setting.k2 != 1:
        vectors = _averaged(vectors, np.concatenate([to_home, rank])[:, : setting.k2])
    return _jaccard(vectors[: len(others)], vectors[len(others) :])


def _extended(distance: Array, queries: int, setting: Setting, dtype: type) -> Array:
    k1, k2, k3 = setting.k1, setting.k2, setting.k3
    rank = _order(distance)
    to_gallery, to_queries = _order(distance[:queries, queries:]), _order(distance[queries:, :queries])
    neighbours = []
    for row in range(len(distance)):
        if row < queries:
            across = reciprocal(to_gallery, to_queries, row, k1) + queries
        else:
            across = reciprocal(to_queries, to_gallery, row - queries, k1)
        neighbours.append(_expanded(np.union1d(reciprocal(rank, rank, row, k1), across), rank, k1))
    vectors = _vectors(neighbours, distance, dtype)
    if k3 is not None:
        of_queries, of_gallery = _order(distance[:, :queries]), _order(distance[:, queries:]) + queries
        vectors = _averaged(vectors, np.concatenate([of_queries[:, : k2 - k3], of_gallery[:, :k3]], axis=1))
    elif k2 != 1:
        vectors = _averaged(vectors, rank[:, :k2])
    return _jaccard(vectors[:queries], vectors[queries:])


def _order(distance: Array) -> Array:
    return np.argsort(distance, axis=1, kind="stable")


KINDS: dict[str, Callable[[Array, int, Setting, type], Array]] = {
    K_RECIPROCAL: _k_reciprocal,
    "constrained": _constrained,
    "divided": _divided,
    "extended": _extended,
}


def rerank_by_gallery(q_g: Array, g_g: Array, k1: int, k2: int, lam: float) -> Array:
    """Final distances (Q, G) of k-reciprocal re-ranking in which a query meets the gallery alone, never another query.

    The gallery's lists and neighbour vectors are its own. A gallery image is a query's neighbour if it is among its k1 nearest
    and the query is nearer to it than its k1-th gallery neighbour. Distances of a row are scaled by its maximum in the gallery.

    Args:
        q_g: (Q, G) distances.
        g_g: (G, G) distances.
        k1, k2, lam: see `Setting`; the local expansion averages the query and its k2 - 1 nearest gallery images.
    """
    if q_g.shape[1:] != g_g.shape[1:] or g_g.shape[0] != g_g.shape[1]:
        raise ValueError(f"Distances {q_g.shape} to a gallery and {g_g.shape} within it do not belong together.")
    Setting(k1, k2, lam).check()
    within, across = _scaled(g_g), _scaled(q_g)
    rank = _order(within)
    reach = np.sort(g_g, axis=1)[:, min(k1, len(g_g) - 1)]
    found = [_expanded(reciprocal(rank, rank, row, k1), rank, k1) for row in range(len(rank))]
    gallery = _vectors(found, within, np.float64)
    nearest = _order(across)
    near = [some[q_g[row, some] < reach[some]] for row, some in enumerate(nearest[:, :k1])]
    queries = _vectors([_expanded(some, rank, k1) for some in near], across, np.float64)
    if k2 != 1:
        rows = zip(queries, nearest[:, : k2 - 1], strict=True)
        queries = np.stack([np.vstack([own, gallery[some]]).mean(axis=0) for own, some in rows])
        gallery = _averaged(gallery, rank[:, :k2])
    return (1 - lam) * _jaccard(queries, gallery) + lam * across


def rerank_vectors(query: Array, gallery: Array, kind: str, setting: Mapping[str, Any]) -> Array:
    """Final distances (Q, G) of unit rows, with 1 - cosine as the distance; logs what a query costs.

    Args:
        query, gallery: (Q, D), (G, D) unit rows.
        kind: of `KINDS`, or "gallery-only".
        setting: `k1`, `k2`, `lambda`.
    """
    began = time.perf_counter()
    numbers = (setting["k1"], setting["k2"], setting["lambda"])
    if kind == GALLERY_ONLY:
        final = rerank_by_gallery(_from_cosine(query, gallery), _from_cosine(gallery, gallery), *numbers)
    else:
        rows = np.concatenate([query, gallery])
        final = rerank(_from_cosine(rows, rows), len(query), kind, *numbers)
    each = 1000 * (time.perf_counter() - began) / len(query)
    logger.info(f"Re-ranking ({kind}): {each:.1f} ms per query, {len(query)} queries, {len(gallery)} gallery images")
    return final


def _from_cosine(a: Array, b: Array) -> Array:
    return (1 - a.astype(np.float64) @ b.T.astype(np.float64)).clip(min=0)

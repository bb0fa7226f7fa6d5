"""Slow literal twins of the evaluation code: one query at a time, one image at a time, nothing clever."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.evaluation.protocols import Labels, Protocol


class QueryResult(NamedTuple):
    """The ranking of one query without junk (gallery indices), and its numbers; None without a match."""

    ranking: list[int]
    first_match_rank: int | None
    ap: float | None
    inp: float | None


def rank_query(row: Sequence[float], pid: int, camid: int, gallery: Labels, protocol: Protocol) -> QueryResult:
    """Sort, drop junk, walk down the list."""
    junk = protocol.is_junk(np.array([[pid]]), np.array([[camid]]), gallery)
    junk = np.broadcast_to(junk, (1, len(row)))[0]
    order = sorted(range(len(row)), key=lambda g: (row[g], g))
    order = [g for g in order if not junk[g]]
    met, first, precisions, last = [], None, [], 0
    for position, g in enumerate(order, start=1):
        identity = int(gallery.pids[g])
        if identity not in met:
            met.append(identity)
        if identity == pid:
            if first is None:
                first = len(met) if protocol.count_identities else position
            precisions.append((len(precisions) + 1) / position)
            last = position
    if first is None:
        return QueryResult(order, None, None, None)
    return QueryResult(order, first, sum(precisions) / len(precisions), len(precisions) / last)


def rank_metrics(
    dist: np.ndarray, query: Labels, gallery: Labels, protocol: Protocol, max_rank: int = 20
) -> tuple[np.ndarray, float, float]:
    """Means over the queries that have a match."""
    distinct = len(set(gallery.pids.tolist())) if protocol.count_identities else len(gallery.pids)
    found = [
        rank_query(row.tolist(), int(pid), int(camid), gallery, protocol)
        for row, pid, camid in zip(dist, query.pids, query.camids, strict=True)
    ]
    found = [result for result in found if result.first_match_rank is not None]
    cmc = [np.mean([r.first_match_rank <= k for r in found]) for k in range(1, min(max_rank, distinct) + 1)]
    return np.array(cmc), float(np.mean([r.ap for r in found])), float(np.mean([r.inp for r in found]))

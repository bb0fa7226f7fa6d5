"""Rank-5 sheets: the same query asked of several systems (the paper's Fig. 6), and the queries that went worst."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.visualization.figures import headline
from tvilfm_plugin.visualization.rank_sheet import QueryRow
from tvilfm_plugin.visualization.stored import Ranked
from tvilfm_plugin.visualization.systems import System, check_same_queries


class Failure(NamedTuple):
    """A query, the rank of its first match in the drawn gallery, and the mean over all text seeds and draws."""

    query: int
    rank: int
    mean_rank: float


def comparison_rows(systems: Sequence[System], queries: Sequence[int]) -> list[QueryRow]:
    """Every query (a row of the query set) once per system, under a heading of its own, with the system's texts."""
    check_same_queries(systems)
    found = []
    for q in queries:
        for i, one in enumerate(systems):
            heading = one.ranked.describe(q) if i == 0 else ""
            found.append(one.ranked.drawn_row(q, one.name, heading, one.uses_filter))
    return found


def sheet_title(systems: Sequence[System]) -> str:
    """Data set, setting, and how every system was asked."""
    asked = ", ".join(f"{one.name}: {one.ranked.query_type}" for one in systems)
    card = systems[-1].ranked.card
    return f"{headline(card.dataset, card.setting, card.text_source)}. {asked}"


def failures(ranked: Ranked, count: int) -> list[Failure]:
    """The queries whose first match ranks worst on average over text seeds and gallery draws, worst first.

    The rank is what the protocol's CMC counts: identities or images. Equals stay in query order.
    """
    ranks = np.where(ranked.first_match_rank > 0, ranked.first_match_rank, np.nan).reshape(-1, len(ranked.query_pids))
    counts = np.flatnonzero(ranked.first_match_rank[0, 0] > 0)
    mean = np.nanmean(ranks[:, counts], axis=0)
    order = np.argsort(-mean, kind="stable")[:count]
    return [Failure(int(counts[i]), int(ranks[0, counts[i]]), float(mean[i])) for i in order]


def failure_rows(ranked: Ranked, found: Sequence[Failure], filtered: bool) -> list[QueryRow]:
    """The failed queries as rows of a sheet."""
    trials = ranked.first_match_rank.shape[0] * ranked.first_match_rank.shape[1]
    counted = "person" if ranked.card.cmc == "identities" else "image"
    return [
        ranked.drawn_row(
            one.query,
            f"rank {one.rank}",
            f"{ranked.describe(one.query)}: the right {counted} is at rank {one.rank} in this gallery, "
            f"at {one.mean_rank:.1f} on average over {trials} trials",
            filtered,
        )
        for one in found
    ]

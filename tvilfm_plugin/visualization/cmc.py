"""CMC curves with 95 % bands over identities."""

from collections.abc import Mapping, Sequence

from tvilfm_plugin.analysis.intervals import cmc_intervals
from tvilfm_plugin.analysis.statistics import Interval
from tvilfm_plugin.visualization.curves import Curve, of_intervals
from tvilfm_plugin.visualization.stored import Ranked

RANKS = 20
SHOWN = (1, 5, 10, 20)

Cmc = Sequence[Interval]
"""R-1, R-2, ... with their intervals over identities, as fractions."""


def cmc_of(ranked: Ranked, resamples: int = 10_000, seed: int = 0) -> Cmc:
    """The curve of one row: means over queries, text seeds and draws; the band says how it could move with other people."""
    return cmc_intervals(ranked.first_match_rank, ranked.query_pids, RANKS, resamples, seed)


def cmc_panel(found: Mapping[str, Cmc]) -> dict[str, Curve]:
    """Curves in percent."""
    return {name: of_intervals(list(range(1, len(cmc) + 1)), cmc) for name, cmc in found.items()}


def cmc_cells(found: Mapping[str, Cmc]) -> list[list[str]]:
    """The numbers of the picture as a table, in percent."""
    shown = [k for k in SHOWN if k <= min(len(cmc) for cmc in found.values())]
    cells = [["curve", *(f"R-{k} [95 % interval]" for k in shown)]]
    for name, cmc in found.items():
        cells.append([name, *(cmc[k - 1].in_percent() for k in shown)])
    return cells

"""The hits of a search as a rank sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tvilfm_plugin.visualization.rank_sheet import Hit, QueryRow, draw_rank_sheet


class Found(Protocol):
    """One gallery image of a search, as `retrieval.hits.Hit` is one."""

    @property
    def path(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def similarity(self) -> float: ...


class Way(NamedTuple):
    """One way of asking: its name, the infrared picture ("" = none), the texts (T_rgb, T_ir) and what was found, best first."""

    name: str
    image: str
    texts: tuple[str, str]
    found: Sequence[Found]


def draw_hits(
    found: Sequence[Found],
    out: Path,
    *,
    image: str = "",
    texts: tuple[str, str] = ("", ""),
    pid: int | None = None,
    note: str = "",
) -> Path:
    """Draw them to a PNG; without the query's identity nothing is marked right or wrong.

    Args:
        image: the infrared query's file; "" = words alone.
        texts: (T_rgb, T_ir) of the query.
        pid: its identity.
    """
    return draw_ways([Way("" if image else "words alone", image, texts, found)], out, pid=pid, title=note)


def draw_ways(ways: Sequence[Way], out: Path, *, pid: int | None = None, title: str = "") -> Path:
    """Draw what one person was looked for in several ways, a row each; arguments as in `draw_hits`."""
    blank = np.full((96, 48), 235, np.uint8)
    rows = []
    for way in ways:
        right = [None if pid is None or hit.pid is None else hit.pid == pid for hit in way.found]
        hits = [Hit(hit.path, same, hit.similarity) for hit, same in zip(way.found, right, strict=True)]
        rows.append(QueryRow(way.image or blank, way.texts, hits, way.name))
    return draw_rank_sheet(rows, out, title)

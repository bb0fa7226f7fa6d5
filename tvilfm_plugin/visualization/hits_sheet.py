"""The hits of a search as a rank sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

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
        found: best first.
        image: the infrared query's file; "" = words alone.
        texts: (T_rgb, T_ir) of the query.
        pid: its identity.
        note: what is said above the sheet.
    """
    blank = np.full((96, 48), 235, np.uint8)
    hits = [Hit(hit.path, None if pid is None or hit.pid is None else hit.pid == pid, hit.similarity) for hit in found]
    row = QueryRow(image or blank, texts, hits, "text alone" if not image else "")
    return draw_rank_sheet([row], out, note)

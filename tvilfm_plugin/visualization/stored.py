"""Pictures from what an evaluation stored: the ranking that gave the numbers is the one that is drawn."""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self

import numpy as np

from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard
from tvilfm_plugin.evaluation.stored_files import REMEDY, archive_of, read_described
from tvilfm_plugin.files.places import local
from tvilfm_plugin.visualization.figures import headline
from tvilfm_plugin.visualization.rank_sheet import Hit, Picture, QueryRow, draw_rank_sheet

logger = logging.getLogger("fastreid." + __name__)

BEST = 5


def evaluations(run: Path) -> list[Path]:
    """The stored evaluations of a run's output folder, one folder per data set."""
    found = sorted(path.parent for path in run.glob("evaluation/*/results.json"))
    if not found:
        raise FileNotFoundError(f"{run} holds no evaluation: expected {run}/evaluation/DATASET/results.json. {REMEDY}")
    return found


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One row of a stored evaluation as it was ranked.

    Attributes:
        label: `SETTING/TYPE` or `SETTING/TYPE@SOURCE`.
        query_paths, gallery_paths: image files.
        query_pids, query_camids, gallery_pids: (Q,), (Q,) and (G,) labels.
        top, similarity: (Q, top) best gallery images of the first text seed and draw, -1 where a query has fewer.
        first_match_rank: (text seeds, draws, Q) rank of the first right image (or person), 0 for a query without one.
        texts: (T_rgb, T_ir) of every query in the first text seed and draw; ("", "") for images alone.
    """

    label: str
    card: ProtocolCard
    query_paths: Sequence[str]
    gallery_paths: Sequence[str]
    query_pids: np.ndarray
    query_camids: np.ndarray
    gallery_pids: np.ndarray
    top: np.ndarray
    similarity: np.ndarray
    first_match_rank: np.ndarray
    texts: Sequence[tuple[str, str]]

    @classmethod
    def read(cls, folder: Path, label: str) -> Self:
        """A row of the evaluation in `folder`."""
        described = read_described(folder)
        if label not in described["cards"]:
            known = sorted({known.split("/", 1)[1] for known in described["cards"]})
            raise KeyError(f"{folder} has no query type {label.split('/', 1)[-1]!r}; it has {', '.join(known)}.")
        card = ProtocolCard(**described["cards"][label])
        with archive_of(folder) as stored:
            texts = [("", "")] * len(stored["query_pids"])
            if card.text_source != NO_TEXT:
                drawn = f"{card.setting}/{card.text_source}/{card.text_seeds[0]}"
                said, filtering = stored[f"{drawn}/rgb"][0], stored[f"{drawn}/ir"]
                texts = [(described["texts"][a], described["texts"][b]) for a, b in zip(said, filtering, strict=True)]
            return cls(
                label=label,
                card=card,
                query_paths=described["query_paths"],
                gallery_paths=described["gallery_paths"],
                query_pids=stored["query_pids"],
                query_camids=stored["query_camids"],
                gallery_pids=stored["gallery_pids"],
                top=stored[f"{label}/top"],
                similarity=stored[f"{label}/top_similarity"],
                first_match_rank=stored[f"{label}/first_match_rank"],
                texts=texts,
            )

    @property
    def query_type(self) -> str:
        """E.g. "ensemble"."""
        return self.label.split("/", 1)[1].split("@")[0]

    def spread(self, count: int) -> list[int]:
        """Queries that count in the first draw, evenly spread over all of them."""
        if count < 1:
            raise ValueError(f"Cannot draw {count} queries; draw one or more.")
        chosen = np.flatnonzero(self.first_match_rank[0, 0] > 0)
        return [int(q) for q in chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]]

    def row(self, q: int, label: str = "", heading: str = "", filtered: bool = True) -> QueryRow:
        """Query q with its best gallery images; with `filtered` the text of the infrared image is shown."""
        best = zip(self.top[q][:BEST], self.similarity[q][:BEST], strict=True)
        right = self.gallery_pids == self.query_pids[q]
        hits = [Hit(self.gallery_paths[g], bool(right[g]), float(s)) for g, s in best if g >= 0]
        rgb, ir = self.texts[q]
        return QueryRow(self.query_paths[q], (rgb, ir if filtered else ""), hits, label, heading)

    def drawn_row(self, q: int, label: str = "", heading: str = "", filtered: bool = True) -> QueryRow:
        """`row` with pictures that can be drawn on this machine: a missing one is a grey tile, and one line says so."""
        row = self.row(q, label, heading, filtered)
        hits = [hit._replace(image=_drawable(str(hit.image))) for hit in row.hits]
        return row._replace(image=_drawable(str(row.image)), hits=hits)

    def describe(self, q: int) -> str:
        """Which query it is: person, camera and file."""
        return f"person {self.query_pids[q]}, camera {self.query_camids[q]}, {PurePath(self.query_paths[q]).name}"


def _drawable(path: str) -> Picture:
    found = local(path)
    if os.path.isfile(found):
        return found
    _say_missing(os.path.dirname(path))
    return np.full((128, 64, 3), 200, np.uint8)


@functools.cache
def _say_missing(folder: str) -> None:
    """Once for each folder."""
    logger.warning(f"Pictures of {folder} are missing, their tiles grey: FASTREID_DATASETS says where the data sets lie.")


def draw_queries(folder: Path, query_type: str, count: int) -> Path:
    """The PNG, in `folder`, of evenly spread queries with the five best images of the first gallery draw."""
    setting = next(iter(read_described(folder)["cards"])).split("/", 1)[0]
    ranked = Ranked.read(folder, f"{setting}/{query_type}")
    rows = [ranked.drawn_row(q, f"person {ranked.query_pids[q]}") for q in ranked.spread(count)]
    title = f"{headline(ranked.card.dataset, setting, ranked.card.text_source)}: {query_type} query"
    return draw_rank_sheet(rows, folder / f"queries_{query_type.replace('@', '_')}.png", title)

"""Histograms of cosine distances between queries and gallery images of the same and of different people (Fig. 4, e-h)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tvilfm_plugin.evaluation.mer import minus_inner_product
from tvilfm_plugin.visualization.figures import BLUE, INK, VERMILION, Look, histogram, new_figure, style
from tvilfm_plugin.visualization.systems import System

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
LOOKS = (Look("same person", BLUE, "-", ""), Look("different people", VERMILION, "--", "////"))


class Distances(NamedTuple):
    """Cosine distances (1 - cosine, 0 to 2) of all pairs that the protocol ranks, of one person and of two."""

    same: np.ndarray
    different: np.ndarray

    @property
    def in_order(self) -> float:
        """Share of (same, different) pairs of pairs in which the same person is nearer (area under the ROC curve)."""
        from sklearn.metrics import roc_auc_score

        labels = np.r_[np.ones(len(self.same)), np.zeros(len(self.different))]
        return float(roc_auc_score(labels, -np.r_[self.same, self.different]))


def pair_distances(system: System, draw: int = 0) -> Distances:
    """The distances by which one gallery draw was ranked."""
    query, gallery, labels, columns = system.embeddings(draw)
    distance = 1 + minus_inner_product(query, gallery[columns]).numpy()
    drawn = labels.at(columns)
    asked = system.stored.query
    pids, camids = asked.pids[:, None], asked.camids[:, None]
    ranked = ~np.broadcast_to(system.stored.searched(system.label).protocol.is_junk(pids, camids, drawn), distance.shape)
    same = pids == drawn.pids[None]
    return Distances(distance[ranked & same], distance[ranked & ~same])


def build_histograms(found: Mapping[str, Distances], title: str) -> "Figure":
    """One panel per system, all on the same scale of distances; each histogram has area 1."""
    everything = [values for one in found.values() for values in one]
    low, high = min(v.min() for v in everything), max(v.max() for v in everything)
    figure = new_figure(2.9 * len(found) + 0.4, 3.5)
    # Densities of narrow and of wide histograms differ by orders: only the distances have one scale.
    axes = figure.subplots(1, len(found), sharex=True, squeeze=False)[0]
    for axis, (name, one) in zip(axes, found.items(), strict=True):
        edges = np.linspace(min(v.min() for v in one), max(v.max() for v in one), BINS + 1).tolist()
        for values, look in zip(one, LOOKS, strict=True):
            histogram(axis, values, edges, look, density=True)
        style(axis, name)
        axis.set_xlim(min(low, 0) - 0.02, high + 0.02)
        axis.set_xlabel(
            f"cosine distance\nmeans {one.same.mean():.3f} / {one.different.mean():.3f}\nin order {100 * one.in_order:.1f} %",
            fontsize=9,
        )
    axes[0].set_ylabel("density", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def histogram_cells(found: Mapping[str, Distances]) -> list[list[str]]:
    """The numbers of the picture as a table."""
    cells = [["system", "same person, mean ± sd", "different people, mean ± sd", "pairs", "in order"]]
    for name, (same, different) in found.items():
        spread = (f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" for values in (same, different))
        pairs = f"{len(same)} / {len(different)}"
        cells.append([name, *spread, pairs, f"{100 * Distances(same, different).in_order:.1f} %"])
    return cells

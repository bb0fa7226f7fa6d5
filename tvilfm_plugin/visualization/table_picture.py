"""A table as one picture: every row's mean with its interval, the published number beside it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvilfm_plugin.visualization.figures import BLUE, VERMILION, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("R-1", "mAP")


def build_table_picture(lines: Sequence[Any], dataset: str, title: str) -> "Figure":
    """A panel per metric, in it a row per `Line` (row and text source) of the first setting."""
    lines = [line for line in lines if line.setting == lines[0].setting]
    names = [f"{line.row.name}" + ("" if line.source == "none" else f" ({line.source})") for line in lines]
    figure = new_figure(9.0, 1.2 + 0.34 * len(lines))
    panels = figure.subplots(1, len(METRICS), sharey=True, squeeze=False)[0]
    places = np.arange(len(lines))[::-1]
    for panel, metric in zip(panels, METRICS, strict=True):
        for place, line in zip(places, lines, strict=True):
            over = line.over("training seeds", metric)
            interval = None if np.isnan(over.low) else [[over.mean - over.low], [over.high - over.mean]]
            panel.errorbar([over.mean], [place], xerr=interval, fmt="o", color=BLUE, capsize=3)
            if metric in (paper := line.paper(dataset)):
                panel.plot([paper[metric]], [place], "D", mfc="none", color=VERMILION)
        panel.set_xlabel(f"{metric}, percent")
        style(panel)
    panels[0].set_yticks(places, names)
    panels[0].plot([], [], "o", color=BLUE, label="ours, 95 % interval over training seeds")
    panels[0].plot([], [], "D", mfc="none", color=VERMILION, label="published (measured otherwise: see the table)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{title}, {dataset}, {lines[0].setting}", fontsize=10)
    return figure

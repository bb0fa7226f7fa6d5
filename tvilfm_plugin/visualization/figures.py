"""What all pictures share: colours, a figure that belongs to no window, and files that appear whole or not at all."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tvilfm_plugin.files.writing import atomic_file, make_folder

if TYPE_CHECKING:  # matplotlib is slow to import and only needed when something is drawn
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every kind of colour vision. Lightness differs too, so most survive grey print;
# whatever has to be told apart also differs in shape, dash or a written word.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, GRID = "#1a1a1a", "#666666", "#dddddd"
DPI = 150
FORMATS = ("png", "svg")


def shown_people(dataset: str) -> str:
    """A data set's name as the title of a picture: "Synthetic people (SYSU-MM01's layout)", "Tri-SYSU-MM01"."""
    return dataset.replace("synthetic (", "Synthetic people (", 1)


def headline(dataset: str, setting: str, source: str) -> str:
    """What a picture is about, from its protocol card: people, setting and text source."""
    return f"{shown_people(dataset)}, {setting}, text source {source}"


def new_figure(width: float, height: float, **options: Any) -> "Figure":
    """A figure of `width` x `height` inches that touches no global state; its layout keeps labels apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout=options.pop("layout", "constrained"), **options)
    FigureCanvasAgg(figure)
    return figure


def style(axes: "Axes", title: str = "") -> None:
    """The common look of a panel."""
    if title:
        axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


class Look(NamedTuple):
    """How one of several histograms is told apart: colour, line and hatching."""

    label: str
    colour: str
    dash: str
    hatch: str


def histogram(axis: "Axes", values: "np.ndarray", edges: Sequence[float], look: Look, density: bool = False) -> None:
    """An outlined, lightly filled histogram with a line at its mean."""
    label, colour, dash, hatch = look
    axis.hist(values, edges, density=density, color=colour, alpha=0.25, hatch=hatch, edgecolor=colour, linewidth=0)
    axis.hist(values, edges, density=density, histtype="step", color=colour, linestyle=dash, linewidth=1.5, label=label)
    axis.axvline(values.mean(), color=colour, linestyle=dash, linewidth=1)


def encoded(figure: "Figure", kind: str = "png") -> bytes:
    """The figure as a file of that kind; the same figure gives the same bytes."""
    import matplotlib

    file = io.BytesIO()
    # An SVG otherwise carries the date and random identifiers; letters as paths look the same everywhere.
    with matplotlib.rc_context({"svg.hashsalt": "tvilfm", "svg.fonttype": "path"}):
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)
    return file.getvalue()


def save_figure(figure: "Figure", out: str | Path) -> Path:
    """Write a figure as .png or .svg, all or nothing; its folder is made."""
    path = Path(out)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"A picture's file name ends in .png or .svg, not as {path.name!r} does.")
    content = encoded(figure, kind)
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.write(content)
    return path

"""Line charts: several curves in panels that share their scale, told apart by colour, marker and dash."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Okabe and Ito's colours; a reader without colour vision has the markers and dashes.
STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "-"),
    ("#009E73", "^", "--"),
    ("#CC79A7", "D", "-."),
    ("#E69F00", "v", ":"),
    ("#56B4E9", "P", "--"),
)
LEVELS = (("#1a1a1a", (0, (1, 2))), ("#767676", (0, (6, 3))))
INK = "#1a1a1a"
DPI = 150


class Curve(NamedTuple):
    """One curve: x, y and the half-length of the error bars (empty for none)."""

    x: Sequence[float]
    y: Sequence[float]
    sd: Sequence[float] = ()


def draw_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    out_png: str | Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draw one panel per entry, all with the same y axis; a curve looks the same in every panel.

    Args:
        panels: panel title -> curve name -> curve.
        levels: name -> height of a horizontal line in every panel, for what does not depend on x.

    Returns:
        The PNG, written all or nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not names:
        raise ValueError("There is nothing to draw: no panel has a curve.")
    if len(names) > len(STYLES) or len(levels or {}) > len(LEVELS):
        got = ", ".join([*names, *(levels or {})])
        raise ValueError(f"At most {len(STYLES)} curves and {len(LEVELS)} levels can be told apart, got {got}.")
    figure = Figure(figsize=(3.2 * len(panels) + 0.6, 3.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (panel, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            colour, marker, dash = STYLES[names.index(name)]
            axis.errorbar(
                curve.x, curve.y, yerr=curve.sd or None, label=name, color=colour, marker=marker, linestyle=dash,
                markersize=5, linewidth=1.6, capsize=2, elinewidth=0.8,
            )  # fmt: skip
        for (name, height), (colour, dashes) in zip((levels or {}).items(), LEVELS, strict=False):
            axis.axhline(height, color=colour, linestyle=dashes, linewidth=1.4, label=name)
        axis.set_title(panel, fontsize=10, color=INK)
        axis.set_xlabel(x_label, fontsize=9)
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_ylim(bottom=0)  # a cut axis would make every fall look steep
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(y_label, fontsize=9)
    labelled = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=min(6, len(labelled)), fontsize=9)
    figure.suptitle(title, fontsize=11, color=INK)
    out = Path(out_png)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    figure.savefig(part, format="png")
    part.replace(out)
    return out

"""Line charts: several curves in panels that share their scale, told apart by colour, marker and dash."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tvilfm_plugin.visualization import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What votes has one colour everywhere: the page's too (`retrieval/web_page.css`).
MEMBERS = ("infrared", "text", "fusion", "ensemble", "ensemble with trust")
# A reader without colour vision has the markers and dashes.
STYLES = (
    (figures.VERMILION, "s", "-"),
    (figures.BLUE, "o", "-"),
    (figures.GREEN, "^", "--"),
    (figures.PURPLE, "D", "-."),
    (figures.SKY, "v", ":"),
    (figures.ORANGE, "P", "--"),
)
LEVELS = ((figures.VERMILION, (0, (1, 2))), (figures.PURPLE, (0, (6, 3))))
BAND = "95 % over people"


class Curve(NamedTuple):
    """One curve: x, y, the half-length of the error bars and the ends of a band around it (each empty for none)."""

    x: Sequence[float]
    y: Sequence[float]
    sd: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def of_intervals(x: Sequence[float], intervals: Sequence[Sequence[float]]) -> Curve:
    """Means, lower and upper ends (as fractions) as a curve in percent."""
    mean, low, high = ([100 * one[n] for one in intervals] for n in range(3))
    return Curve(x, mean, low=low, high=high)


Panels = Mapping[str, Mapping[str, Curve]]
"""Panel title -> curve name -> curve."""


def build_curves(
    panels: Panels, *, title: str, x_label: str, y_label: str, levels: Mapping[str, float] | None = None, width: float = 3.2
) -> "Figure":
    """One panel per entry, all with the same y axis; a curve looks the same in every panel.

    Args:
        levels: name -> height of a horizontal line in every panel, for what does not depend on x.
        width: of a panel, in inches.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not names:
        raise ValueError("There is nothing to draw: no panel has a curve.")
    if len(names) > len(STYLES) or len(levels or {}) > len(LEVELS):
        got = ", ".join([*names, *(levels or {})])
        raise ValueError(f"At most {len(STYLES)} curves and {len(LEVELS)} levels can be told apart, got {got}.")
    from matplotlib.patches import Patch

    order = MEMBERS if set(names) <= set(MEMBERS) else names
    figure = figures.new_figure(width * len(panels) + 0.6, 3.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (panel, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            colour, marker, dash = STYLES[order.index(name)]
            axis.errorbar(
                curve.x, curve.y, yerr=curve.sd or None, label=name, color=colour, marker=marker, linestyle=dash,
                markersize=5, linewidth=1.6, capsize=2, elinewidth=0.8,
            )  # fmt: skip
            if curve.low:
                axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        for (name, height), (colour, dashes) in zip((levels or {}).items(), LEVELS, strict=False):
            axis.axhline(height, color=colour, linestyle=dashes, linewidth=1.4, label=name)
        figures.style(axis, panel)
        axis.set_xlabel(x_label, fontsize=9)
        if all(isinstance(x, int) for curve in curves.values() for x in curve.x):
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(bottom=0)  # a cut axis would make every fall look steep
    axes[0].set_ylabel(y_label, fontsize=9)
    labelled = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if any(curve.low for curves in panels.values() for curve in curves.values()):
        labelled[BAND] = Patch(color=figures.GREY, alpha=0.3, linewidth=0)
    columns = max(1, min(len(labelled), int((width * len(panels) + 0.6) / 1.5)))
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=columns, fontsize=9)
    figure.suptitle(title, fontsize=11, color=figures.INK)
    return figure

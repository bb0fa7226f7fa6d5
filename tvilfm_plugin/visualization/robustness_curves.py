"""What bad text does, drawn from what `tvilfm results robustness` stored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from tvilfm_plugin.evaluation.report import NO_TEXT
from tvilfm_plugin.files.json import checked, read_json
from tvilfm_plugin.visualization.curves import Curve, build_curves
from tvilfm_plugin.visualization.figures import headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMPTY = "empty text"
OF = {"wrong person": "of the queries", "colours swapped": "of the colour words", "attributes dropped": "of the attributes"}
QUERIES = ("text", "fusion", "ensemble", "ensemble with trust")


class _Point(TypedDict):
    """A row of such a file; further keys are not looked at."""

    kind: str
    share: float
    query: str
    mAP: float
    mAP_low: float
    mAP_high: float


class _Robustness(TypedDict):
    card: dict[str, Any]
    points: list[_Point]


def stored_robustness(folder: Path) -> list[Path]:
    """The results that `tvilfm results robustness` left in a stored evaluation."""
    return sorted(folder.glob("robustness_*.json"))


def read_robustness(path: Path, weights: str) -> dict[str, Any]:
    """The protocol card and points of one file, whose weights must be those of the evaluation beside it."""
    described: dict[str, Any] = read_json(path)
    checked(described, _Robustness, str(path))
    if described["card"].get("weights_sha256") != weights:
        renewed = "`tvilfm results robustness RUN` renews it"
        raise ValueError(f"{path} is of other weights than the evaluation beside it: {renewed}.")
    return described


def robustness_panels(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """mAP over the damaged share, one panel per kind of damage."""
    found: dict[str, dict[str, Curve]] = {}
    for kind in dict.fromkeys(p["kind"] for p in points if p["kind"] not in (NO_TEXT, EMPTY)):
        of_kind = [p for p in points if p["kind"] == kind]
        curves = found[f"{kind}, % {OF[kind]}" if kind in OF else kind] = {}
        for name in QUERIES:
            some = [p for p in of_kind if p["query"] == name]
            if some:
                shares, low, high = ([p[key] for p in some] for key in ("share", "mAP_low", "mAP_high"))
                curves[name] = Curve([100 * share for share in shares], [p["mAP"] for p in some], low=low, high=high)
    return found


def build_robustness(described: Mapping[str, Any]) -> "Figure":
    """Curves of every query type over the damaged share, with the image alone and the empty text as levels."""
    points, card = described["points"], described["card"]
    image = next(p for p in points if p["kind"] == NO_TEXT)
    empty = next(p for p in points if p["kind"] == EMPTY and p["query"] == "ensemble")
    return build_curves(
        robustness_panels(points),
        title=headline(card["dataset"], card["setting"], card["text_source"]),
        x_label="damaged, %",
        y_label="mAP, %",
        levels={f"{image['query']} alone": image["mAP"], "ensemble, empty text": empty["mAP"]},
    )


def robustness_cells(described: Mapping[str, Any]) -> list[list[str]]:
    """R-1 / mAP of the points in percent, a row per damage and a column per query type."""
    points = described["points"]
    queries = list(dict.fromkeys(p["query"] for p in points))
    found: dict[tuple[str, float], dict[str, str]] = {}
    for p in points:
        found.setdefault((p["kind"], p["share"]), {})[p["query"]] = f"{p['R1']:.2f} / {p['mAP']:.2f}"
    cells = [["damage", "share", *(f"{query}, R-1 / mAP" for query in queries)]]
    for (kind, share), row in found.items():
        share_shown = "" if kind == NO_TEXT else f"{100 * share:.0f} %"
        cells.append([kind, share_shown, *(row.get(query, "") for query in queries)])
    return cells

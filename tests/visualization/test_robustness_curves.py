import json

import pytest

from tvilfm_plugin.analysis import robustness as measured
from tvilfm_plugin.visualization import robustness_curves as curves


def described():
    points = [measured.Point("none", 0.0, "infrared", 20.0, 25.0, 24.0, 26.0, 0.0)]
    for share in (0.0, 1.0):
        for query, start in (("fusion", 47.0), ("ensemble", 49.0), (measured.TRUSTED, 46.0)):
            points.append(measured.Point(measured.WRONG, share, query, start + 1, start - 30 * share, 10.0, 60.0, 1.0))
    points.append(measured.Point(measured.EMPTY, 1.0, "ensemble", 18.0, 17.5, 16.0, 19.0, 0.0))
    card = {"dataset": "Tri-SYSU-MM01", "setting": "all", "text_source": "witness", "weights_sha256": "abc"}
    return {"card": card, "points": measured.as_table(points)}


def test_stored_points_become_curves_and_levels(tmp_path):
    assert curves.EMPTY == measured.EMPTY and curves.QUERIES[-1] == measured.TRUSTED
    path = tmp_path / "robustness_all_witness.json"
    path.write_text(json.dumps(described()))
    assert curves.stored_robustness(tmp_path) == [path]
    found = curves.read_robustness(path, "abc")
    with pytest.raises(ValueError, match=r"of other weights than the evaluation beside it: `tvilfm results robustness"):
        curves.read_robustness(path, "abd")
    panels = curves.robustness_panels(found["points"])
    assert set(curves.OF) == {measured.WRONG, measured.SWAPPED, measured.DROPPED}
    (panel,) = panels
    assert panel == "wrong person, % of the queries" and list(panels[panel]) == list(curves.QUERIES[1:])
    assert panels[panel]["ensemble"].x == [0, 100] and panels[panel]["ensemble"].y == [49, 19]
    assert panels[panel]["ensemble"].low == [10, 10] and panels[panel]["ensemble"].high == [60, 60]
    (axis,) = curves.build_robustness(found).axes
    heights = [line.get_ydata()[0] for line in axis.lines if line.get_label() in ("infrared alone", "ensemble, empty text")]
    assert heights == pytest.approx([25.0, 17.5])
    cells = curves.robustness_cells(found)
    assert cells[0] == ["damage", "share", *(f"{query}, R-1 / mAP" for query in ("infrared", *curves.QUERIES[1:]))]
    assert cells[1] == ["none", "", "20.00 / 25.00", "", "", ""]
    assert cells[3] == [measured.WRONG, "100 %", "", "48.00 / 17.00", "50.00 / 19.00", "47.00 / 16.00"]
    assert cells[4] == [measured.EMPTY, "100 %", "", "", "18.00 / 17.50", ""] and len(cells) == 5

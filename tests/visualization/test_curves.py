import re
from pathlib import Path

import matplotlib.image
import pytest

import tvilfm_plugin
from tvilfm_plugin.visualization.curves import BAND, STYLES, Curve, build_curves
from tvilfm_plugin.visualization.figures import save_figure


def draw(tmp_path, **panels):
    figure = build_curves(panels, title="t", x_label="x", y_label="y", levels={"level": 2.0})
    return save_figure(figure, tmp_path / "new" / "c.png")


def test_a_chart_is_drawn(tmp_path):
    line = Curve([0, 50, 100], [3.0, 2.0, 1.0], [0.1, 0.2, 0.1])
    out = draw(tmp_path, one={"a": line, "b": Curve([0, 100], [1, 1])}, two={"b": line})
    pixels = matplotlib.image.imread(out)
    assert pixels.shape[1] > pixels.shape[0] > 300 and [p.name for p in out.parent.iterdir()] == ["c.png"]
    # Both curves' colours are in the picture.
    shades = {tuple(int(round(255 * v)) for v in p) for p in pixels[..., :3].reshape(-1, 3)[::3]}
    for colour, _, _ in STYLES[:2]:
        assert tuple(bytes.fromhex(colour[1:])) in shades


def test_what_cannot_be_told_apart_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(tmp_path, one={})
    with pytest.raises(ValueError, match="told apart"):
        draw(tmp_path, one={str(n): Curve([0], [0]) for n in range(len(STYLES) + 1)})


def test_bands_and_whole_numbers():
    curve = Curve([1, 2, 3], [10, 20, 30], low=[5, 15, 25], high=[12, 22, 32])
    figure = build_curves({"": {"a": curve}}, title="t", x_label="k", y_label="y")
    (axis,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", BAND]
    (band,) = axis.collections[-1].get_paths()
    assert {tuple(point) for point in band.vertices} >= {(1, 5), (2, 15), (3, 25), (1, 12), (3, 32)}
    assert all(tick == int(tick) for tick in axis.get_xticks()) and axis.get_ylim()[0] == 0


def test_a_member_has_one_colour_in_every_picture_and_on_the_page():
    css = (Path(tvilfm_plugin.__file__).parent / "retrieval" / "web_page.css").read_text()
    keys = {"infrared": "ir", "text": "text", "fusion": "fusion"}
    page = {name: re.search(rf"--{key}: (#\w+)", css)[1] for name, key in keys.items()}
    for names in (["fusion", "text", "infrared"], ["ensemble", "fusion", "infrared", "text"]):
        panel = {name: Curve([0, 1], [1, 2]) for name in names}
        (axis,) = build_curves({"": panel}, title="t", x_label="k", y_label="y").axes
        drawn = {line.get_label(): line[0].get_color().lower() for line in axis.containers}
        assert list(drawn) == names and drawn.items() >= page.items()

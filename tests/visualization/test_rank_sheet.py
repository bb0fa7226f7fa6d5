import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvilfm_plugin.visualization import rank_sheet
from tvilfm_plugin.visualization.rank_sheet import RIGHT, WRONG, Hit, QueryRow, build_figure, draw_rank_sheet

LONG = "a person in a very long coat with stripes, worth $5 or $6, " * 9


def picture(height=72, width=36, grey=False):
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)


def rows():
    hits = [Hit(picture(60 + k, 36), k % 2 == 0, 2.5 - 0.1 * k) for k in range(5)]
    return [
        QueryRow(picture(grey=True), ("a man in a red coat", "a man in a coat"), hits, "person 3, camera 3"),
        QueryRow(picture(grey=True), (LONG, LONG), hits, "a label that is much longer than its column"),
        QueryRow(picture(grey=True), ("", "x" * 300), hits[:2], ""),
        QueryRow(picture(40, 60) / 255, ("short", LONG), [], "no hits"),
    ]


def boxes(figure):
    """Pixel boxes of all texts and of the images as they are drawn."""
    figure.canvas.draw()
    texts = {f"{i}: {text.get_text()}": text.get_window_extent() for i, text in enumerate(figure.texts)}
    return texts, [axes.get_window_extent() for axes in figure.axes]


@pytest.mark.parametrize("title", ["", "short", "a title that needs more than one line of the sheet " * 4])
def test_nothing_overlaps_and_everything_is_inside(title):
    figure = build_figure(rows(), title)
    texts, images = boxes(figure)
    for (name, one), (other, two) in itertools.combinations(texts.items(), 2):
        assert not overlap(one, two), (name, other)
    for (name, text), image in itertools.product(texts.items(), images):
        assert not overlap(text, image), name
    for one, two in itertools.combinations(images, 2):
        assert not overlap(one, two)
    width, height = figure.canvas.get_width_height()
    for box in [*texts.values(), *images]:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def overlap(one, two, slack=1.0):
    """By more than a pixel in both directions; line boxes include room for accents."""
    return min(one.x1, two.x1) - max(one.x0, two.x0) > slack and min(one.y1, two.y1) - max(one.y0, two.y0) > slack


def test_right_and_wrong_differ_in_colour_and_symbol():
    figure = build_figure(rows()[:1])
    marked = [axes for axes in figure.axes if axes.texts]
    assert [axes.texts[0].get_text() for axes in marked] == [m.symbol for m in (RIGHT, WRONG, RIGHT, WRONG, RIGHT)]
    assert RIGHT.symbol != WRONG.symbol and RIGHT.colour != WRONG.colour
    from matplotlib.colors import to_hex

    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in marked]
    assert frames == [m.colour.lower() for m in (RIGHT, WRONG, RIGHT, WRONG, RIGHT)]


def test_texts_and_scores_are_on_the_sheet_and_a_dollar_is_no_formula():
    text = " ".join(t.get_text() for t in build_figure([QueryRow(picture(), ("costs $5 or $6", ""), [], "")], "T").texts)
    assert "costs $5 or $6" in text and rank_sheet.TEXT_HEADINGS[0] in text and rank_sheet.TEXT_HEADINGS[1] not in text
    drawn = [t.get_text() for t in build_figure(rows()).texts]
    assert "2.50" in drawn and "rank 5" in drawn and "a man in a red coat" in drawn
    assert any(line.endswith(" …") for line in drawn)


def test_picture_is_written_whole_from_files_and_leaves_nothing_behind(tmp_path):
    for name in ("query", "hit"):
        Image.fromarray(picture(grey=name == "query")).save(tmp_path / f"{name}.jpg")
    row = QueryRow(tmp_path / "query.jpg", ("", ""), [Hit(str(tmp_path / "hit.jpg"), True, 0.5)], "q")
    path = draw_rank_sheet([row], tmp_path / "new" / "sheet.png", "one query")
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 100
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_an_error_leaves_the_old_picture_alone(tmp_path):
    path = draw_rank_sheet(rows()[:1], tmp_path / "sheet.png")
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        draw_rank_sheet([QueryRow("missing.jpg", ("", ""), [])], path)
    with pytest.raises(ValueError, match="at least one query"):
        draw_rank_sheet([], path)
    with pytest.raises(ValueError, match="Cannot draw pixels of shape"):
        draw_rank_sheet([QueryRow(np.zeros((3, 4, 2), np.uint8), ("", ""), [])], path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_importing_the_module_does_not_import_matplotlib():
    body = ast.parse(Path(rank_sheet.__file__).read_text()).body
    names = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not [name for name in names if name.startswith(("matplotlib", "PIL"))]

import pytest
from PIL import Image

from tvilfm_plugin.visualization import figures
from tvilfm_plugin.visualization.figures import encoded, headline, new_figure, save_figure


def picture():
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], [0, 1], label="a < b")
    return figure


def test_the_suffix_decides_and_the_file_is_whole(tmp_path):
    png = save_figure(picture(), tmp_path / "new" / "a.png")
    svg = save_figure(picture(), tmp_path / "new" / "a.SVG")
    with Image.open(png) as image:
        assert image.size == (300, 150)
    assert svg.read_text().lstrip().startswith("<?xml") and "<path" in svg.read_text()
    assert sorted(path.name for path in png.parent.iterdir()) == ["a.SVG", "a.png"]
    with pytest.raises(ValueError, match="ends in .png or .svg, not as 'b.jpg' does"):
        save_figure(picture(), tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize("kind", figures.FORMATS)
def test_the_same_figure_gives_the_same_bytes(kind):
    assert encoded(picture(), kind) == encoded(picture(), kind)


def test_a_title_says_whether_the_people_are_synthetic():
    drawn = headline("synthetic (SYSU-MM01's layout)", "all", "witness")
    assert drawn == "Synthetic people (SYSU-MM01's layout), all, text source witness"
    assert headline("Tri-LLCM", "all", "oracle") == "Tri-LLCM, all, text source oracle"

"""The demonstration's own parts: whose colours are new, what counts as right, and one short run of everything."""

from pathlib import Path

from tvilfm_plugin.captioning.demo import DemoOptions, run_demo, score_colours, withheld_people
from tvilfm_plugin.captioning.sources import Source, SourceSet
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.synthetic import Spec, make_synthetic


def person(split: str, upper: str, lower: str, pattern: str = "plain") -> dict[str, object]:
    palette = {"upper": upper, "lower": lower, "second": "orange", "trim": "brown"}
    return {"split": split, "palette": palette, "shape": {"pattern": pattern, "lower_pattern": "plain"}}


def test_a_third_of_the_test_people_wear_new_colours() -> None:
    people = {
        "1": person("train", "red", "blue"), "2": person("train", "red", "blue"), "3": person("train", "black", "white"),
        "4": person("test", "red", "blue"), "5": person("test", "black", "white"), "6": person("test", "black", "white"),
    }  # fmt: skip
    assert withheld_people({"people": people}) == {3}
    assert withheld_people({"people": people}, share=1.0) == {1, 2, 3}


def test_what_counts_as_right() -> None:
    people = {
        "1": person("train", "red", "blue"), "2": person("test", "red", "blue"), "3": person("test", "grey", "pink", "tartan"),
    }  # fmt: skip
    said = {
        "a/2/1": "a man in a red shirt and blue jeans",
        "a/2/2": "a man in a red shirt and jeans",  # a colour left out is not right
        "a/2/3": "a man in a green shirt and blue jeans",  # the light of this image made it green
        "a/3/1": "a man in a red and grey shirt, pink skirt",  # there is no red in it
        "a/3/2": "a man in an orange checked shirt, pink skirt",  # the tartan's other colour
    }
    seen = {"a/2/3": {"upper": "green"}}
    facts = {"people": people, "images": {key: {"seen": seen.get(key, {})} for key in said}}
    sources = tuple(Source(key, "", int(key.split("/")[1]), "test") for key in said)
    images = SourceSet("x", Path(), Modality.RGB, sources, str)
    scores = score_colours(facts, images, said, ())
    assert (scores["all"].right, scores["all"].named, scores["all"].drawn, scores["all"].people) == (8, 9, 10, 2)
    assert scores["all"].main == 7
    assert (scores["known colours"].right, scores["known colours"].drawn) == (5, 6)
    assert (scores["new colours"].right, scores["new colours"].main, scores["new colours"].people) == (3, 2, 1)
    assert scores["person"].right == 7


def test_one_short_run_gives_a_data_set_that_loads(tmp_path: Path) -> None:
    spec = Spec("sysu", ids=16, test_ids=6, images_rgb=4, images_ir=2, test_images_rgb=4, test_images_ir=2, height=48)
    made = make_synthetic(spec, tmp_path / "people", progress=False)
    report = run_demo(made, tmp_path / "captioned", DemoOptions(12, 2, 4, 2, control=True))
    assert report["infrared"]["captions"] == 16 * 2 and report["colours"]["all"]["people"] == 6
    assert report["colours"]["all, given"]["accuracy"] > 0.6 > report["colours"]["all"]["accuracy"], "four steps teach nothing"
    named, true = report["attributes"]["visible, given"]["sex"]
    assert 0.6 < named < 1 and 0.6 < true < 1, "a caption leaves out some, and one in eight errs"
    assert "upper_colour" not in report["attributes"]["infrared"]
    dataset = TriSYSUMM01(str(tmp_path), "captioned", verbose=False)
    first = dataset.train_rgb[0].path
    assert dataset.captions[Modality.RGB][dataset.relative(first)].text
    assert f"{named:.1%}, {true:.1%}" in (tmp_path / "captioned/captioners/report.md").read_text()

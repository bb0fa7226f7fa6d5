"""A synthetic benchmark on disk: the true layouts, read back by the real loaders, all or nothing."""

import hashlib
import json
import runpy
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from tvilfm_plugin.data.datasets.llcm import TriLLCM
from tvilfm_plugin.data.datasets.regdb import TriRegDB
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.data.text_sources import draw_query_texts
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.synthetic import writer
from tvilfm_plugin.synthetic.captioning import agrees
from tvilfm_plugin.synthetic.writer import Spec, draw_identities, looks_in, make_synthetic, plan, take

SMALL = {"ids": 14, "test_ids": 6, "height": 32, "test_images_rgb": 9}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    return {
        layout: make_synthetic(Spec(layout, **SMALL), root / layout, progress=False) for layout in ("sysu", "regdb", "llcm")
    }


def digest(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(("layout", "cls"), [("sysu", TriSYSUMM01), ("regdb", TriRegDB), ("llcm", TriLLCM)])
def test_the_real_loaders_read_it(trees: dict[str, Path], layout: str, cls: type) -> None:
    data = cls(root=str(trees[layout].parent), folder=layout, verbose=False)
    spec = Spec(layout, **SMALL)
    assert data.warnings == []
    assert data.num_classes == spec.ids - spec.test_ids
    assert len(data.train_rgb) == data.num_classes * spec.images_rgb
    assert len(data.train_ir) == data.num_classes * spec.images_ir
    assert {item.pid for item in data.query} == set(draw_identities(spec).test_ids) == {item.pid for item in data.gallery}
    for modality, items in ((Modality.RGB, data.train_rgb + data.visible_pool), (Modality.IR, data.train_ir + data.query)):
        captions = [data.captions[modality][data.relative(item.path)] for item in items]
        assert all(caption.text and caption.rephrase for caption in captions)
        assert all(
            data.captions[modality][data.relative(item.path)].text
            in {c.text for c in data.captions[modality].of_person(item.pid)}
            for item in data.query
            if modality is Modality.IR
        )
    with Image.open(data.query[0].path) as image:
        assert image.size == (16, 32)


@pytest.mark.parametrize(("layout", "cls"), [("sysu", TriSYSUMM01), ("regdb", TriRegDB), ("llcm", TriLLCM)])
def test_every_person_has_a_phrase_for_source_human(trees: dict[str, Path], layout: str, cls: type) -> None:
    data = cls(root=str(trees[layout].parent), folder=layout, verbose=False)
    file = trees[layout] / "Text" / "human_phrases.txt"
    texts = draw_query_texts("human", data, data.settings[0].name, 0, human=str(file))
    assert len(file.read_text().splitlines()) == SMALL["ids"]
    said = dict(line.split("\t") for line in file.read_text().splitlines())
    assert [texts.table[n] for n in texts.rgb[0]] == [said[str(item.pid)] for item in data.query]


def test_captions_and_truth_belong_to_the_image(trees: dict[str, Path]) -> None:
    facts = json.loads((trees["sysu"] / "attributes.json").read_text())
    file = trees["sysu"] / "Text" / "Blip_RGB" / "caption_dict_Blip_RGB.json"
    texts = {key.removeprefix("datasets/sysu/"): value["description"] for key, value in json.loads(file.read_text()).items()}
    spec = Spec("sysu", **SMALL)
    people = draw_identities(spec).people
    for path, truth in facts["images"].items():
        assert (trees["sysu"] / path).is_file()
        person = people[truth["identity"]]
        assert sorted(truth["wrong"]) == sorted(a for a, value in truth["said"].items() if not agrees(a, value, person))
        colour = truth["said"].get("upper colour")
        if path in texts and colour:
            assert colour in texts[path]
    photo = take(plan(spec, draw_identities(spec))[0], people[1], spec)
    assert texts[photo.shot.path] == photo.text
    assert {"chance", "shape", "caption", "both"} == set(facts["ceilings"])


def test_captions_name_nothing_that_the_picture_hides(trees: dict[str, Path]) -> None:
    hidden = 0
    for layout in ("sysu", "llcm"):
        for truth in json.loads((trees[layout] / "attributes.json").read_text())["images"].values():
            assert not {attribute.split()[0] for attribute in truth["said"]} & set(truth["hidden"])
            hidden += len(truth["hidden"])
    assert hidden > 30


def test_annotations_say_what_each_pixel_shows(trees: dict[str, Path], tmp_path: Path) -> None:
    spec = Spec(
        "own", ids=5, test_ids=4, height=48, images_rgb=1, images_ir=1, test_images_rgb=2, test_images_ir=1, annotations=True
    )
    out = make_synthetic(spec, tmp_path / "own", progress=False)
    table = json.loads((out / "annotations" / "views.json").read_text())
    facts = json.loads((out / "attributes.json").read_text())["images"]
    assert set(table["images"]) == set(facts)
    names = {number: name for name, number in table["slots"].items()}
    for path, view in table["images"].items():
        with Image.open((out / "annotations" / path).with_suffix(".png")) as mask, Image.open(out / path) as image:
            assert mask.mode == "L" and mask.size == image.size and image.mode == "RGB"
            assert {names[value] for _, value in mask.getcolors()} <= set(view["areas"])
        assert abs(sum(view["areas"].values()) - 1.0) < 1e-4
        assert 14.0 <= view["camera"]["height"] <= 36.0 and 38.0 < view["camera"]["distance"] < 90.0
        assert "shoes" in facts[path]["hidden"] or view["areas"]["shoes"] > 0.001
    assert "--annotations" in (out / "README.md").read_text()
    assert not (trees["sysu"] / "annotations").exists()


def test_same_spec_same_bytes_whatever_the_number_of_workers(trees: dict[str, Path], tmp_path: Path) -> None:
    again = make_synthetic(Spec("sysu", **SMALL), tmp_path / "again", workers=2, progress=False)
    assert digest(again) == digest(trees["sysu"])
    other = make_synthetic(Spec("sysu", **SMALL, seed=1), tmp_path / "other", progress=False)
    assert digest(other)["cam1/0001/0001.jpg"] != digest(again)["cam1/0001/0001.jpg"]


def test_a_made_benchmark_is_kept_and_other_folders_are_refused(
    trees: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_write", lambda *_: pytest.fail("drawn again"))
    assert make_synthetic(Spec("sysu", **SMALL), trees["sysu"]) == trees["sysu"]
    with pytest.raises(FileExistsError, match="is not the benchmark"):
        make_synthetic(Spec("sysu", **SMALL, seed=1), trees["sysu"])


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_captions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(Spec("sysu", **SMALL), tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    out = make_synthetic(Spec("llcm", ids=5, test_ids=4, height=32, test_images_rgb=9), tmp_path / "out", progress=False)
    assert (out / "idx" / "test_id.txt").is_file() and list(tmp_path.iterdir()) == [out]


def test_regdb_has_ten_splits_of_whole_blocks(trees: dict[str, Path]) -> None:
    spec = Spec("regdb", **SMALL)
    people, tests = draw_identities(spec).people, set()
    for trial in range(1, 11):
        lists = {}
        for split in ("train", "test"):
            lines = (trees["regdb"] / "idx" / f"{split}_visible_{trial}.txt").read_text().splitlines()
            lists[split] = {int(line.split("/")[1]): int(line.split()[1]) for line in lines}
            assert sorted(lists[split].values()) == list(range(len(lists[split])))
        assert not set(lists["train"]) & set(lists["test"]) and len(lists["train"]) + len(lists["test"]) == spec.ids
        assert len(lists["test"]) == spec.test_ids
        assert not {people[p].block for p in lists["train"]} & {people[p].block for p in lists["test"]}
        tests.add(frozenset(lists["test"]))
    assert len(tests) > 1 or len(Counter(p.block for p in people.values())) < 4


def test_gallery_draws_leave_images_for_witnesses() -> None:
    spec = Spec("sysu")
    per_camera = defaultdict(int)
    drawn = draw_identities(spec)
    for shot in plan(spec, drawn):
        if shot.pid in set(drawn.test_ids) and not shot.camera.infrared:
            per_camera[shot.pid, shot.camera.number] += 1
    assert set(per_camera.values()) == {6}  # ten draws of one of six leave one in all but 16 %


def test_train_and_test_people_are_different_and_on_grids_of_their_own() -> None:
    drawn = draw_identities(Spec("sysu", ids=40, test_ids=12))
    test = [drawn.people[pid] for pid in drawn.test_ids]
    train = [person for pid, person in drawn.people.items() if pid not in set(drawn.test_ids)]
    assert not {p.looks for p in test} & {p.looks for p in train}
    assert not {p.block for p in test} & {p.block for p in train}
    assert list(drawn.people) == list(range(1, 41))


def test_looks_are_read_back(trees: dict[str, Path], tmp_path: Path) -> None:
    assert looks_in(trees["llcm"]) == {person.looks for person in draw_identities(Spec("llcm", **SMALL)).people.values()}
    with pytest.raises(FileNotFoundError, match="no synthetic benchmark"):
        looks_in(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "market"}, "choices are sysu, regdb, llcm, own"),
        ({"test_ids": 464}, "both splits"),
        ({"wrong": 1.5}, "must lie in"),
        ({"images_ir": -1}, "give a number of images"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec(**{"layout": "sysu", **change})


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tool = Path(__file__).parents[2] / "tools" / "make_synthetic.py"
    options = ["--layout", "llcm", "--ids", "9", "--test-ids", "4", "--height", "32", "--test-images-rgb", "9"]
    monkeypatch.setattr(sys, "argv", [str(tool), *options, "--out", str(tmp_path / "llcm")])
    runpy.run_path(str(tool), run_name="__main__")
    first = capsys.readouterr().out
    assert "9 people (4 test)" in first and "wrong" in first
    runpy.run_path(str(tool), run_name="__main__")
    assert "already" in capsys.readouterr().out

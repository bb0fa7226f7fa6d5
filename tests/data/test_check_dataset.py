import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_trees

from tvilfm_plugin.data.captions import NOTHING
from tvilfm_plugin.data.datasets import check
from tvilfm_plugin.data.datasets.check import check_dataset

WRITERS = {"sysu": tiny_trees.write_sysu, "regdb": tiny_trees.write_regdb, "llcm": tiny_trees.write_llcm}
TOOL = Path(__file__).parents[2] / "tools" / "check_dataset.py"


@pytest.mark.parametrize("key", WRITERS)
def test_a_complete_tree_is_ok_but_not_the_published_size(tmp_path, key):
    WRITERS[key](tmp_path, size=None)
    assert check_dataset(key, str(tmp_path), published=False).ok
    report = check_dataset(key, str(tmp_path))
    assert not report.ok and not report.problems
    assert {d.what for d in report.differences} >= {"ids", "RGB", "IR"}


def test_counts(tmp_path):
    tiny_trees.write_sysu(tmp_path, size=None)
    counts = check_dataset("sysu", str(tmp_path)).counts
    assert [counts["train", what] for what in ("ids", "RGB", "IR", "RGB texts", "IR texts")] == [5, 60, 30, 60, 30]
    assert [counts["test", what] for what in ("ids", "RGB", "IR", "gallery")] == [3, 36, 18, 12]
    assert [counts["total", what] for what in ("ids", "RGB", "IR", "texts")] == [8, 96, 48, 144]


def test_the_published_size_is_ok_and_unjudged_totals_do_not_count(tmp_path, monkeypatch):
    tiny_trees.write_sysu(tmp_path, size=None)
    published = {("train", "ids"): 5, ("train", "RGB"): 60, ("total", "IR"): 99}
    monkeypatch.setitem(check.PUBLISHED, "sysu", published)
    report = check_dataset("sysu", str(tmp_path))
    assert report.ok and "differs, not judged" in report.to_text()


def test_every_missing_file_and_caption_is_named(tmp_path):
    base = tiny_trees.write_regdb(tmp_path, size=None)
    gone = next((base / "Thermal" / "40").iterdir())
    gone.unlink()
    for file in (base / "Text" / "Blip_RGB").glob("caption_*.json"):
        captions = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in captions.items() if "Visible/171/" not in key}))
    report = check_dataset("regdb", str(tmp_path), published=False)
    assert report.missing == [str(gone)]
    assert sorted(report.uncaptioned) == sorted(map(str, (base / "Visible" / "171").iterdir()))
    text = report.to_text(limit=2)
    assert "4 images without a caption" in text and "... and 2 more" in text and "NOT OK" in text


def test_entries_that_nothing_uses_are_counted_by_reason(tmp_path):
    base = tiny_trees.write_regdb(tmp_path, size=None)
    names = base / "Text" / "Blip_RGB" / "id_caption_map_Blip_RGB.json"
    persons = json.loads(names.read_text())
    for entries, extra in zip(persons.values(), ([None, 5], [None, {"a": 1}, "nan"]), strict=False):
        entries += extra
    names.write_text(json.dumps(persons))
    texts = base / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json"
    captions = json.loads(texts.read_text())
    captions[f"/elsewhere/{next(iter(captions))}"] = {"description": "a text of its own"}
    list(captions.values())[1]["aug_description"] = "None"
    texts.write_text(json.dumps(captions))
    report = check_dataset("regdb", str(tmp_path), published=False)
    assert dict(report.left_out) == {
        (str(names), "null in the place of a text"): 2,
        (str(names), "a number in the place of a text"): 1,
        (str(names), "an object in the place of a text"): 1,
        (str(names), NOTHING): 1,
        (str(texts), NOTHING): 1,
        (str(texts), "another text of an image, under another prefix"): 1,
    }
    lines = report.to_text().splitlines()
    assert any(line.split() == ["2", *["null", "in", "the", "place", "of", "a", "text"], str(names)] for line in lines)


@pytest.mark.parametrize(
    "key, file", [("sysu", "cam6/0002/0002.jpg"), ("llcm", "test_vis/cam4/0021/0021_c04_s001_f100_vis.jpg")]
)
def test_a_file_that_only_its_caption_tells_of(tmp_path, key, file):
    base = WRITERS[key](tmp_path, size=None)
    (base / file).unlink()
    (missing,) = check_dataset(key, str(tmp_path), published=False).missing
    assert Path(missing).name == Path(file).name


def test_identities_of_one_kind_and_absent_files_are_problems(tmp_path):
    base = tiny_trees.write_sysu(tmp_path, size=None, captions=False)
    for camera in (3, 6):
        for file in (base / f"cam{camera}" / "0012").iterdir():
            file.unlink()
    report = check_dataset("sysu", str(tmp_path), published=False)
    assert any("1 test identities have no infrared image: 12" in problem for problem in report.problems)
    assert any("No rgb caption files" in problem for problem in report.problems)
    assert len(check_dataset("sysu", str(tmp_path), published=False, text=False).problems) == 1
    (base / "exp" / "val_id.txt").unlink()
    assert "val_id.txt" in check_dataset("sysu", str(tmp_path)).to_text()
    assert "no folder" in check_dataset("llcm", str(tmp_path)).to_text()
    with pytest.raises(ValueError, match="choices are sysu, regdb, llcm"):
        check_dataset("market", str(tmp_path))


def test_unreadable_images_are_named_on_demand(tmp_path):
    base = tiny_trees.write_regdb(tmp_path)
    assert check_dataset("regdb", str(tmp_path), published=False, decode=True).ok
    broken = next((base / "Visible" / "5").iterdir())
    broken.write_bytes(broken.read_bytes()[:200])
    report = check_dataset("regdb", str(tmp_path), published=False, decode=True)
    assert len(report.broken) == 1 and report.broken[0].startswith(str(broken))


def test_the_command(tmp_path, monkeypatch, capsys):
    tiny_trees.write_llcm(tmp_path, size=None)
    out = tmp_path / "lists" / "report.txt"
    command = [sys.executable, str(TOOL), "llcm", "--root", str(tmp_path)]
    bad = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert bad.returncode == 1 and "DIFFERS: train ids: 3, published 713" in bad.stdout, bad.stderr
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    assert runpy.run_path(str(TOOL))["main"](["llcm", "--any-size", "--out", str(out)]) == 0
    assert "OK: complete" in capsys.readouterr().out and "OK: complete" in out.read_text()


def test_texts_in_the_place_of_others_are_said(tmp_path):
    base = tiny_trees.write_sysu(tmp_path, size=None) / "Text"
    rgb, ir = (base / f"Blip_{kind}" / f"caption_dict_Blip_{kind}.json" for kind in ("RGB", "IR"))
    swapped = rgb.read_text(), ir.read_text()
    ir.write_text(swapped[0]), rgb.write_text(swapped[1])
    notes = " ".join(check_dataset("sysu", str(tmp_path), published=False).notes)
    assert "48 captions of" in notes and "96 captions of" in notes and "is it the other kind's file?" in notes
    rgb.write_text(swapped[0]), ir.write_text(swapped[1])
    persons = base / "Blip_RGB" / "id_caption_map_Blip_RGB.json"
    texts = json.loads(persons.read_text())
    persons.write_text(json.dumps(dict(zip(texts, reversed(texts.values()), strict=True))))
    report = check_dataset("sysu", str(tmp_path), published=False)
    assert "the texts of 8 identities in" in " ".join(report.notes) and report.ok
    persons.write_text(json.dumps(texts | {"6": [" ", "\u200b"]}))
    report = check_dataset("sysu", str(tmp_path), published=False)
    assert report.problems == [f"1 test identities have no captions in {persons}: 6."]


def test_what_training_warns_of_is_a_note(tmp_path):
    base = tiny_trees.write_llcm(tmp_path, size=None)
    labels = base / "idx" / "train_nir.txt"
    labels.write_text(labels.read_text().replace(" 2\n", " 9\n"))
    report = check_dataset("llcm", str(tmp_path), published=False)
    assert report.ok and "2 training identities with 8 images have images of one kind only (2, 9)" in " ".join(report.notes)

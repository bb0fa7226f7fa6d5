"""Own data as data sets: the splits, the texts, the rules that the keys choose, and what is refused."""

import csv
import json
import pickle
import unicodedata

import numpy as np
import pytest
from tiny_trees import write_captions, write_own, write_sysu

pytest.importorskip("fastreid")

from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.captioning.sources import find_sources
from tvilfm_plugin.data.datasets import own
from tvilfm_plugin.data.datasets.check_own import check_own
from tvilfm_plugin.data.datasets.own import TriFolder, TriTable
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.data.image_table import identity_number, scan_folder
from tvilfm_plugin.data.items import draw_gallery, gallery_groups
from tvilfm_plugin.data.text_sources import draw_query_texts
from tvilfm_plugin.evaluation.protocols import LLCM, MIP, REGDB, SYSU
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.gallery_list import list_gallery

KINDS = (TriTable, TriFolder)
ANNA, BERT = identity_number("anna"), identity_number("bert")


def change(base, function) -> None:
    """Rewrite table.csv row by row (a dict), dropping rows for which nothing is returned."""
    with open(base / "table.csv", encoding="utf-8", newline="") as stream:
        rows = [row for row in map(function, csv.DictReader(stream)) if row]
    with open(base / "table.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_both_conventions_give_the_same_data(tmp_path, kind):
    write_own(tmp_path, size=None)
    data = DATASET_REGISTRY.get(kind.__name__)(root=str(tmp_path), verbose=False)
    assert data.train_ids == sorted([1, 4, ANNA]) and data.num_classes == 3
    assert (len(data.train_rgb), len(data.train_ir), len(data.query), len(data.visible_pool)) == (12, 6, 6, 12)
    assert {item.pid for item in data.train_rgb} == {0, 1, 2} and {item.camid for item in data.train_ir} == {3}
    assert {item.pid for item in data.query} == {6, 25, BERT} and not data.warnings
    assert data.key == f"{kind.key}/own" and data.protocol is LLCM and data.settings[0].name == "all"
    groups = gallery_groups(data.visible_pool, {1, 2})
    for number, draw in enumerate(data.settings[0].draws):
        expected = [data.visible_pool[n].path for n in draw_gallery(groups, 1, number)]
        assert [data.gallery[n].path for n in draw] == expected
    bank = data.captions[Modality.RGB]
    caption = bank[data.relative(data.train_rgb[0].path)]
    assert caption.text.startswith("a person in a") and caption.rephrase == f"Rephrased: {caption.text}"
    assert len(bank.of_person(BERT)) == 4
    again = pickle.loads(pickle.dumps(data))
    assert again.query == data.query and again.relative(again.query[0].path) == data.relative(data.query[0].path)


@pytest.mark.parametrize("kind", KINDS)
def test_accents_may_be_written_in_two_ways(tmp_path, kind):
    """The table and the captions composed (NFC), the disk as macOS has it (NFD): the same pictures, texts and gallery."""
    name = "andr\u00e9"
    base = write_own(tmp_path, train_ids=("1", name), test_ids=("6", "zo\u00eb"), size=None)
    for folder in [path for path in base.rglob("*") if path.is_dir() and not path.name.isascii()]:
        folder.rename(folder.with_name(unicodedata.normalize("NFD", folder.name)))
    change(base, lambda row: row | {"rephrase": ""})
    (base / "Text" / "RGB").mkdir(parents=True)
    rephrased = {f"train/visible/{name}/1/0.jpg": {"description": "a man", "aug_description": "Somebody."}}
    (base / "Text" / "RGB" / "caption_dict_RGB.json").write_text(json.dumps(rephrased))
    data = kind(root=str(tmp_path), verbose=False)
    assert data.train_ids == sorted([1, identity_number(name)]) and check_own(kind.key, str(tmp_path)).ok
    bank = data.captions[Modality.RGB]
    said = [bank[data.relative(item.path)] for item in data.train_rgb]
    assert all(one.text for one in said) and (kind is TriFolder or [one.rephrase for one in said].count("Somebody.") == 1)
    assert {one.path for one in list_gallery(base / "table.csv")} == {item.path for item in data.visible_pool}
    (base / "captions.csv").write_text(f"path,caption\ntrain/visible/{name}/1/9.jpg,nobody\n", encoding="utf-8")
    assert any("there is no image" in one for one in scan_folder(base).problems)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_listed_is_read_once_and_anew_for_the_next(tmp_path, monkeypatch, kind):
    write_own(tmp_path, size=None)
    read, scan, table = [], own.scan_folder, own.read_table
    monkeypatch.setattr(own, "scan_folder", lambda folder: read.append(folder) or scan(folder))
    monkeypatch.setattr(own, "read_table", lambda file: read.append(file) or table(file))
    images = len(kind(root=str(tmp_path), verbose=False).train_rgb)
    assert len(read) == 1 and not own._HELD
    check_own(kind.key, str(tmp_path))
    assert len(read) == 2 and not own._HELD
    for place in tmp_path.glob("own/train/visible/1"):
        place.rename(tmp_path / "elsewhere")
    change(tmp_path / "own", lambda row: None if "train/visible/1/" in row["path"] else row)
    (tmp_path / "own" / "captions.csv").write_text("path,caption\n")
    assert len(kind(root=str(tmp_path), verbose=False, text=False).train_rgb) < images


@pytest.mark.parametrize("source", ["witness", "oracle", "self", "wrong"])
def test_text_sources_work_on_it(tmp_path, source):
    write_own(tmp_path, size=None)
    data = TriTable(root=str(tmp_path), draws=2, verbose=False)
    texts = draw_query_texts(source, data, "all", 0)
    assert texts.rgb.shape == (2, 6) and (texts.rgb >= 0).all()


def test_rules_shots_and_held_out_images(tmp_path):
    write_own(tmp_path, size=None, per_cell=3)
    root = str(tmp_path)
    assert TriTable(root=root, rules="SYSU-MM01", verbose=False).protocol is SYSU
    assert TriTable(root=root, rules="SYSU-MM01", protocol="mip", verbose=False).protocol is MIP
    two = TriTable(root=root, shots=(1, 2), draws=3, verbose=False)
    sizes = [(s.name, s.shots, len(s.draws), len(s.draws[0])) for s in two.settings]
    assert sizes == [("all", 1, 3, 6), ("all-2shot", 2, 3, 12)]
    whole = TriTable(root=root, shots=(0,), rules="RegDB", held_out=2, verbose=False)
    assert whole.protocol is REGDB and [s.name for s in whole.settings] == ["every-image"]
    assert len(whole.settings[0].draws) == 1 and len(whole.gallery) == 18 - 2 * 3
    assert "not every test image" in whole.note and whole.gallery_source == "every test image but 2 per identity"
    assert draw_query_texts("witness", whole, "every-image", 0).rgb.shape == (1, 9)
    reverse = TriTable(root=root, direction="visible-to-infrared", text=False, verbose=False)
    assert {item.camid for item in reverse.gallery} == {3} and len(reverse.query) == 18
    for shots in ((), (-1,), (0, 1)):
        with pytest.raises(ValueError, match=r"DATASETS.SHOTS is .* or \(0,\) for one gallery of every image"):
            TriTable(root=root, shots=shots, verbose=False)
    with pytest.raises(ValueError, match="rules 'mine' .DATASETS.RULES.; choices are SYSU-MM01, RegDB, LLCM"):
        TriTable(root=root, rules="mine", verbose=False)
    write_sysu(tmp_path, size=None)
    with pytest.raises(ValueError, match="choices are none but its own"):
        TriSYSUMM01(root=root, rules="LLCM", verbose=False)


def test_validation_people_train_unless_an_epoch_is_chosen_on_them(tmp_path):
    base = write_own(tmp_path, size=None)
    change(base, lambda row: row | {"split": "val"} if row["identity"] == "4" else row)
    assert TriTable(root=str(tmp_path), verbose=False).train_ids == sorted([1, 4, ANNA])
    held = TriTable(root=str(tmp_path), validation=True, split="val", verbose=False)
    assert held.train_ids == sorted([1, ANNA]) and {item.pid for item in held.query} == {4}


def test_without_captions(tmp_path):
    base = write_own(tmp_path, size=None, captions=False)
    for kind in KINDS:
        assert kind(root=str(tmp_path), text=False, verbose=False).captions == {}
        with pytest.raises(FileNotFoundError, match="own data: fill the column 'caption'.*or train without text"):
            kind(root=str(tmp_path), verbose=False)
    sources = find_sources("folder", str(tmp_path), Modality.IR, split="train")
    assert [s.key for s in sources.sources][:2] == ["train/infrared/1/3/0.jpg", "train/infrared/1/3/1.jpg"]
    assert {s.pid for s in sources.sources} == {1, 4, ANNA} and len(sources.known) == 12
    for modality, name in ((Modality.RGB, "RGB"), (Modality.IR, "IR")):
        known = find_sources("table", str(tmp_path), modality).sources
        write_captions(base / "Text", name, {s.key: s.pid for s in known}, "", lambda pid, key: f"{pid % 100} on {key}")
    data = TriTable(root=str(tmp_path), verbose=False)
    assert data.captions[Modality.IR]["train/infrared/1/3/0.jpg"].text == "1 on train/infrared/1/3/0.jpg"
    assert len(data.captions[Modality.RGB].of_person(BERT)) == 4
    change(base, lambda row: row | {"caption": "by hand"} if row["path"] == "train/infrared/1/3/0.jpg" else row)
    bank = TriTable(root=str(tmp_path), verbose=False).captions[Modality.IR]
    assert bank["train/infrared/1/3/0.jpg"].text == "by hand" and bank["train/infrared/1/3/1.jpg"].text.startswith("1 on")


def test_absolute_paths(tmp_path):
    base = write_own(tmp_path, size=None)
    moved = tmp_path / "moved"
    moved.mkdir()
    change(base, lambda row: row | {"path": str(base / row["path"])})
    (base / "table.csv").rename(moved / "table.csv")
    data = TriTable(root=str(tmp_path), folder="moved", verbose=False)
    assert data.query[0].path.startswith(str(base)) and data.key == "table/moved"
    assert data.captions[Modality.IR][data.relative(data.query[0].path)].text


def test_what_is_refused(tmp_path):
    base = write_own(tmp_path, size=None)
    root = str(tmp_path)
    change(base, lambda row: row | {"modality": "sepia"} if row["identity"] == "4" else row)
    with pytest.raises(ValueError, match=r"(?s)6 rows of .*table.csv cannot be .*  line 8.*and 1 more.*check --dataset table"):
        TriTable(root=root, verbose=False)
    change(base, lambda row: row if row["identity"] != "4" else None)
    twice = (base / "table.csv").read_text()
    (base / "table.csv").write_text(twice + twice.splitlines()[1].replace(",1,", ",3,", 1) + "\n")
    with pytest.raises(ValueError, match=r"0.jpg is listed as person 1 and as person 3 \(1 such\); keep one"):
        TriTable(root=root, verbose=False)
    (base / "table.csv").write_text(twice)
    gone = base / "test/visible/6/1/0.jpg"
    gone.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 30 listed images are missing"):
        TriTable(root=root, verbose=False)
    (base / "table.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no table.csv, table.jsonl, table.parquet. docs/own_data.md"):
        TriTable(root=root, verbose=False)
    with pytest.raises(FileNotFoundError, match="no folder other in"):
        TriFolder(root=root, folder="other", verbose=False)


def test_two_names_of_one_number(tmp_path, monkeypatch):
    write_own(tmp_path, size=None)
    monkeypatch.setattr("tvilfm_plugin.data.datasets.own.identity_number", lambda name: 5)
    with pytest.raises(ValueError, match="line 14: 'anna' and '1' get the same number 5; rename one"):
        TriTable(root=str(tmp_path), verbose=False)


def test_a_changed_table_is_read_again(tmp_path):
    base = write_own(tmp_path, size=None)
    before = TriTable(root=str(tmp_path), verbose=False)
    change(base, lambda row: row if row["identity"] != "25" else None)
    after = TriTable(root=str(tmp_path), verbose=False)
    assert np.array_equal(sorted({i.pid for i in before.query} - {i.pid for i in after.query}), [25])

"""Text-person data sets and ORBench in their true layout: read, counted, aligned on, captioned from, and ranked."""

import json

import numpy as np
import pytest
import torch
from oracles_modeling import small_model, write_tower
from PIL import Image

from tvilfm_plugin.captioning.pairs import read_pairs, split_pairs
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.data.datasets.check_text import check_text_person
from tvilfm_plugin.data.text_person import LAYOUTS, ListQuery, read_captioned, read_query_lists
from tvilfm_plugin.files.json import JsonError
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.query_lists import rank_lists
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.synthetic.real_albums import align_text_person
from tvilfm_plugin.synthetic.text_alignment import AlignmentSpec

NOISE = np.random.default_rng(5)
COLOURS = ("red", "blue", "green", "black", "white", "pink", "grey", "brown")


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE.integers(0, 256, (20, 10, 3), dtype=np.uint8)).save(path)


def write_cuhk(root):
    """reid_raw.json: {split, captions, file_path, processed_tokens, id}; folders by where the pictures came from."""
    entries = []
    for pid in range(1, 9):
        split = "train" if pid <= 5 else "val" if pid <= 7 else "test"
        for shot, place in enumerate(("cam_a", "CUHK03")):
            name = f"{place}/{pid:03d}_{shot}.jpg"
            picture(root / "CUHK-PEDES/imgs" / name)
            said = [f"A person in a {COLOURS[pid - 1]} coat. ", f"Somebody wears {COLOURS[pid - 1]} and shoes {shot}."]
            entries.append({"split": split, "captions": said, "file_path": name, "processed_tokens": [["a"]], "id": pid})
    (root / "CUHK-PEDES/reid_raw.json").write_text(json.dumps(entries))


def write_icfg(root):
    entries = []
    for pid in range(6):
        split = "train" if pid < 4 else "test"
        for shot in range(3):
            name = f"{split}/{pid:04d}/{pid:04d}_{shot:03d}_01_0303morning_0008_0.jpg"
            picture(root / "ICFG-PEDES/imgs" / name)
            said = [f"the {COLOURS[pid]} jacket of number {shot}"]
            entries.append({"split": split, "captions": said, "file_path": name, "processed_tokens": [], "id": pid})
    (root / "ICFG-PEDES/ICFG-PEDES.json").write_text(json.dumps(entries))


def write_rstp(root):
    entries = []
    for pid in range(5):
        split = "train" if pid < 3 else "val" if pid == 3 else "test"
        for shot in range(5):
            name = f"{pid:04d}_c{shot + 1}_{shot:04d}.jpg"
            picture(root / "RSTPReid/imgs" / name)
            entries.append({"id": pid, "img_path": name, "captions": ["one text", "another text"], "split": split})
    (root / "RSTPReid/data_captions.json").write_text(json.dumps(entries))


def write_orbench(root):
    """train_annos.json and test_gallery_and_queries.json; vis/ and nir/ below the data set's folder."""
    home = root / "ORBench"
    train = [{"id": pid, "file_path": f"vis/{pid:04d}/a.jpg", "caption": f"a {COLOURS[pid]} hat"} for pid in range(1, 4)]
    lists = {"RGB_GALLERY": [], "NIR": [], "TEXT": [], "CP": [], "NIR+TEXT": [], "TEXT+NIR": [], "NIR+SK": []}
    for entry in train:
        picture(home / entry["file_path"])
    for pid in range(11, 16):
        for shot in range(3):
            visible, infrared = f"vis/{pid:04d}/{shot}.jpg", f"nir/{pid:04d}/{shot}.jpg"
            picture(home / visible), picture(home / infrared)
            text = f"somebody in {COLOURS[pid - 10]}, seen {shot} times"
            lists["RGB_GALLERY"].append([pid, visible])
            lists["NIR"].append([pid, infrared])
            lists["TEXT"].append([pid, text])
            lists["NIR+TEXT"].append([pid, infrared, text])
            lists["TEXT+NIR"].append([pid, text, f"nir/{pid:04d}/{(shot + 1) % 3}.jpg"])
            lists["CP"].append([pid, f"cp/{pid:04d}/0.jpg"])
    lists["NIR+SK"] = [[11, "nir/0011/0.jpg", "sk/0011/0.jpg"]]
    (home / "train_annos.json").write_text(json.dumps(train))
    (home / "test_gallery_and_queries.json").write_text(json.dumps(lists))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for write in (write_cuhk, write_icfg, write_rstp, write_orbench):
        write(root)
    return root


def test_images_captions_and_splits(root):
    images = read_captioned("cuhk-pedes", str(root))
    assert len(images) == 16 and images[0].captions[0] == "A person in a red coat." and images[0].pid == 1
    assert [image.split for image in images].count("val") == 4 and images[1].path.endswith("imgs/CUHK03/001_1.jpg")
    assert {len(i.captions) for i in read_captioned("icfg-pedes", str(root))} == {1}
    assert {len(i.captions) for i in read_captioned("rstpreid", str(root))} == {2}
    assert read_captioned("orbench", str(root))[0][1:] == (1, "train", ("a blue hat",))


def test_the_check_counts_each(root, capsys):
    for key, counts in (
        ("cuhk-pedes", {("train", "ids"): 5, ("train", "RGB"): 10, ("val", "ids"): 2, ("test", "texts"): 4}),
        ("icfg-pedes", {("train", "ids"): 4, ("train", "texts"): 12, ("test", "RGB"): 6}),
        ("rstpreid", {("train", "RGB"): 15, ("val", "texts"): 10, ("test", "ids"): 1}),
        ("orbench", {("train", "ids"): 3, ("gallery", "RGB"): 15, ("NIR", "IR"): 15, ("TEXT+NIR", "texts"): 15}),
    ):
        report = check_text_person(key, str(root), published=False, decode=True)
        assert report.ok and counts.items() <= report.counts.items(), report.to_text()
        assert main(["data", "check", "--dataset", key, "--root", str(root), "--any-size"]) == 0
        assert "OK: complete" in capsys.readouterr().out
    assert "CP: 15 queries by what no model here sees" in check_text_person("orbench", str(root)).to_text()
    report = check_text_person("cuhk-pedes", str(root))
    assert not report.ok and "DIFFERS: train RGB: 10, published 34054" in report.to_text()
    assert {difference.published for difference in report.differences} == set(LAYOUTS["cuhk-pedes"].published.values())


def test_what_is_missing_or_wrong_is_named(root, tmp_path):
    write_cuhk(tmp_path)
    (tmp_path / "CUHK-PEDES/imgs/cam_a/003_0.jpg").unlink()
    entries = json.loads((tmp_path / "CUHK-PEDES/reid_raw.json").read_text())
    entries[0]["captions"], entries[-1]["id"] = [], 1
    (tmp_path / "CUHK-PEDES/reid_raw.json").write_text(json.dumps(entries))
    report = check_text_person("cuhk-pedes", str(tmp_path), published=False)
    assert [path[-11:] for path in report.missing] == ["a/003_0.jpg"] and len(report.uncaptioned) == 1
    assert report.problems == ["1 persons are in training and test: 1."]
    wrong = (({"id": "7"}, "id a text"), ({"captions": 3}, "captions a number"), ({"file_path": None}, "file_path is null"))
    for change, said in wrong:
        (tmp_path / "CUHK-PEDES/reid_raw.json").write_text(json.dumps([entries[1] | change]))
        with pytest.raises(JsonError, match=f"entry 1.*{said}"):
            read_captioned("cuhk-pedes", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder.*RSTPReid"):
        read_captioned("rstpreid", str(tmp_path))
    write_orbench(tmp_path)
    file = tmp_path / "ORBench/test_gallery_and_queries.json"
    lists = json.loads(file.read_text())
    wrong = (({"NIR+TEXT": [[11, "nir/a.jpg"]]}, r"expected \[person, NIR, TEXT\]"), ({"RGB_GALLERY": []}, "nothing to search"))
    for change, said in wrong:
        file.write_text(json.dumps(lists | change))
        with pytest.raises(JsonError, match=said):
            read_query_lists(str(tmp_path))


def test_captioners_train_with_the_sets_own_splits_and_people(root):
    home = root / "CUHK-PEDES"
    pairs = read_pairs(home / "reid_raw.json", image_key="file_path", text_key="captions", root=home / "imgs")
    train, validation = split_pairs(pairs, 0.05, 0)
    assert {pair.person for pair in train} == set("12345") and {pair.person for pair in validation} == set("67")
    assert len(train[0].texts) == 2


def test_a_text_tower_is_aligned_on_real_people(root, tmp_path, capsys):
    arch = write_tower(tmp_path)
    spec = AlignmentSpec(arch, people=100, held_out=2, images=2, height=32, steps=3, batch_size=8)
    found = align_text_person(spec, "icfg-pedes", tmp_path / "icfg.pt", root=str(root), progress=False)
    assert found.people == 2 and found.chance == 1 / 2  # held out of its training people: it has no validation split
    facts = json.loads((tmp_path / "icfg.json").read_text())
    assert "aligned on 2 people of icfg-pedes" in facts["note"] and facts["held_out"]["people"] == 2
    state = torch.load(tmp_path / "icfg.pt", weights_only=True)
    assert "token_embedding.weight" in state and state["logit_scale"].isfinite()
    words = ["pretrain", "align-text", "--dataset", "cuhk-pedes", "--root", str(root), "--arch", arch, "--steps", "2"]
    assert main([*words, "--out", str(tmp_path / "tower.pt")]) == 0
    assert "captions of 2 people of cuhk-pedes never seen" in capsys.readouterr().out


# --- ORBench ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    torch.manual_seed(0)
    return Retriever(small_model("TVILFM", write_tower(tmp_path_factory.mktemp("tower"))), image_size=(48, 24), batch=4)


def literal(similarity, query, gallery):
    """R-1, R-5 and mAP in percent, query by query, as the benchmark's own code defines them: every image counts."""
    first, fifth, aps = [], [], []
    for row, pid in zip(similarity, query, strict=True):
        right = [gallery[n] == pid for n in sorted(range(len(row)), key=lambda n: -row[n])]
        places = [place for place, hit in enumerate(right, start=1) if hit]
        first.append(right[0]), fifth.append(any(right[:5]))
        aps.append(sum(n / place for n, place in enumerate(places, start=1)) / len(places))
    return 100 * np.mean(first), 100 * np.mean(fifth), 100 * np.mean(aps)


def test_lists_are_ranked_as_the_literal_metric_says(root, retriever):
    lists = read_query_lists(str(root))
    assert lists.queries["TEXT+NIR"][0] == ListQuery(11, str(root / "ORBench/nir/0011/1.jpg"), "somebody in blue, seen 0 times")
    report, values, notes = rank_lists(retriever, lists)
    assert set(values) == {"NIR", "TEXT", "NIR+TEXT", "TEXT+NIR"} and len(notes) == 2 and "CP: 15 queries" in notes[0]
    gallery = retriever.embed_images([path for _, path in lists.gallery])
    pids = [pid for pid, _ in lists.gallery]
    for name, queries in lists.queries.items():
        units = np.zeros((len(queries), gallery.shape[1]), np.float32)
        if queries[0].infrared:
            units += retriever.embed_images([query.infrared for query in queries], Modality.IR)
        if queries[0].text:
            units += retriever.embed_texts([query.text for query in queries])
        r1, r5, mean_ap = literal(units @ gallery.T, [query.pid for query in queries], pids)
        draw = values[name]["draws"][0]
        assert draw["mAP"] == pytest.approx(mean_ap, abs=1e-9) and draw["cmc"][0] == pytest.approx(r1, abs=1e-9)
        assert draw["cmc"][4] == pytest.approx(r5, abs=1e-9)
    card = values["NIR+TEXT"]["card"]
    assert card["cmc"] == "images" and card["text_source"] == "query list" and card["direction"] == "infrared+text-to-visible"
    assert "## ORBench, TEXT+NIR" in report and values["NIR"]["card"]["text_source"] == "none"


def test_words_search_a_gallery_of_both_kinds(root, retriever):
    lists = read_query_lists(str(root))
    _, values, notes = rank_lists(retriever, lists, both=True)
    assert set(values) == {"TEXT"} and values["TEXT"]["card"]["direction"] == "text-to-both"
    assert any("NIR: 15 queries left out, the gallery holds its images" in note for note in notes)
    texts = retriever.embed_texts([query.text for query in lists.queries["TEXT"]])
    gallery = [retriever.embed_images([path for _, path in lists.gallery])]
    infrared = list(dict.fromkeys(query.infrared for query in lists.queries["NIR"]))
    gallery.append(retriever.embed_images(infrared, Modality.IR))
    pids = [pid for pid, _ in lists.gallery] + [query.pid for query in lists.queries["NIR"]]
    expected = literal(texts @ np.concatenate(gallery).T, [query.pid for query in lists.queries["TEXT"]], pids)
    assert values["TEXT"]["draws"][0]["mAP"] == pytest.approx(expected[2], abs=1e-9)
    with pytest.raises(ValueError, match="has no query list CP; choices are NIR, TEXT"):
        rank_lists(retriever, lists, ["CP"])

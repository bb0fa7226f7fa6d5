"""Reading pairs in every format, and making infrared pairs."""

import json
from pathlib import Path

import pytest
from tiny_trees import write_sysu

from tvilfm_plugin.captioning.colour_filter import has_colour
from tvilfm_plugin.captioning.pairs import TextPair, make_ir_pairs, read_pairs, split_pairs
from tvilfm_plugin.captioning.rows import read_descriptions
from tvilfm_plugin.captioning.sources import find_sources
from tvilfm_plugin.modality import Modality


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps([{"file": "1.jpg", "said": ["x", "y"]}, {"file": "2.jpg", "said": "z"}])),
        ("b.json", json.dumps({"1.jpg": ["x", "y"], "2.jpg": {"said": "z"}})),
        ("c.jsonl", '{"file": "1.jpg", "said": "x"}\n\n{"file": "2.jpg", "said": " z "}\n{"file": "1.jpg", "said": "y"}\n'),
        ("d.csv", '\ufefffile,said,more\n1.jpg,x,0\n2.jpg,z,0\n1.jpg,"y",1\n'),
    ],
)
def test_formats(images: Path, name: str, content: str) -> None:
    (images / name).write_text(content, encoding="utf-8")
    pairs = read_pairs(images / name, image_key="file", text_key="said")
    assert {Path(pair.image).name: pair.texts for pair in pairs} == {"1.jpg": ("x", "y"), "2.jpg": ("z",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"file": "1.jpg", "text": "x"}]', "--text-key"),
        ("a.json", '[{"image": "1.jpg", "caption": 3}]', "neither a text nor a list"),
        ("a.json", '["x"]', "neither a list of objects"),
        ("a.txt", "x", "are read from .json, .jsonl and .csv"),
        ("a.json", "[]", "holds no pair"),
        ("a.json", '[{"image": "1.jpg", "caption": "x", "split": ["train"]}]', "'split' is a list"),
        ("a.json", '[{"image": "1.jpg", "caption": "x", "id": 1}, {"image": "1.jpg", "caption": "y", "id": 2}]', "keep one"),
    ],
)
def test_mistakes_are_named(images: Path, name: str, content: str, message: str) -> None:
    (images / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_pairs(images / name)
    (images / "gone.json").write_text('{"3.jpg": "x"}')
    with pytest.raises(FileNotFoundError, match="1 of 1 images"):
        read_pairs(images / "gone.json")


def test_pairs_obey_id_and_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = []
    for n in range(40):
        (tmp_path / f"{n}.jpg").touch()
        split = "test" if n >= 30 else "train"
        listed.append({"id": n // 2, "file_path": f"{n}.jpg", "captions": ["a man"], "split": split})
    (tmp_path / "a.json").write_text(json.dumps(listed))
    pairs = read_pairs(tmp_path / "a.json", image_key="file_path", text_key="captions")
    train, validation = split_pairs(pairs, 0.05, 0)
    assert len(train) == 28 and len(validation) == 2 and not {p.person for p in train} & {p.person for p in validation}
    assert all(int(pair.person) < 15 for pair in train + validation) and "10 of split 'test'" in caplog.text
    assert split_pairs(pairs, 0, 0) == (pairs[:30], [])
    declared = [pair._replace(split="val") if pair.person == "3" else pair for pair in pairs]
    assert [pair.person for pair in split_pairs(declared, 0.5, 0)[1]] == ["3", "3"]
    # A number of its own for every image is no person's.
    (tmp_path / "b.json").write_text(json.dumps([{**one, "id": n} for n, one in enumerate(listed)]))
    assert {p.person for p in read_pairs(tmp_path / "b.json", image_key="file_path", text_key="captions")} == {""}
    split_pairs([TextPair("x/1.jpg", ("a",)), TextPair("x/2.jpg", ("b",))], 0.5, 0)
    assert "Give --validation a file" in caplog.text


def test_infrared_pairs_are_of_the_same_training_person(tmp_path: Path) -> None:
    write_sysu(tmp_path)
    rgb, ir = (find_sources("sysu", str(tmp_path), modality) for modality in (Modality.RGB, Modality.IR))
    file = rgb.text_folder / "caption_dict_Blip_RGB.json"
    captions = {rgb.relative(path): text for path, text in read_descriptions(file).items()}
    pairs = make_ir_pairs(rgb, ir, captions, per_image=2)
    train = [source for source in ir.sources if source.split == "train"]
    assert len(pairs) == len(train) == 5 * 6
    own = {s.pid: {captions[r.key] for r in rgb.sources if r.pid == s.pid} for s in train}
    raw = make_ir_pairs(rgb, ir, captions, per_image=2, colour_filter="none")
    for pair, unfiltered in zip(pairs, raw, strict=True):
        assert set(unfiltered["caption"]) <= own[int(pair["image"].split("/")[1])]
        assert not any(map(has_colour, pair["caption"])) and all(map(has_colour, unfiltered["caption"]))
    assert make_ir_pairs(rgb, ir, captions, per_image=2) == pairs
    with pytest.raises(ValueError, match="No training person"):
        make_ir_pairs(rgb, ir, {})

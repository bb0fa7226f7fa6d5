"""The model and the pictures that come with the plugin: the cheapest run from end to end."""

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastreid")

from fastreid.modeling import build_model

from tvilfm_plugin.checkpoints.loading import load_weights
from tvilfm_plugin.checkpoints.model_folder import read_description
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.config import read_config
from tvilfm_plugin.files.json import read_json
from tvilfm_plugin.files.shipped import find_config
from tvilfm_plugin.modeling.text_encoder import build_text_encoder
from tvilfm_plugin.retrieval.example import KINDS, LIST, PICTURES, example_set, ranks, telling, three_ways
from tvilfm_plugin.retrieval.retriever import Retriever

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example():
    return example_set()


@pytest.fixture(scope="module")
def retriever(example):
    made = Retriever.from_pretrained("example", device="cpu")
    made.embed_gallery(example.gallery)
    return made


def test_the_shipped_model_finds_whom_its_list_says(example, retriever):
    found = ranks(retriever, example)
    assert found == read_json(PICTURES / LIST)["ranks"]
    first = {kind: sum(one[kind] == 1 for one in found) for kind in KINDS}
    assert first["both"] > max(first["infrared alone"], first["words alone"])
    # The one that is shown needs both, and somebody else's words lead away from it.
    query = example.queries[number := telling(found)]
    assert found[number] | {"both": 1} == found[number] and min(found[number][kind] for kind in KINDS[:2]) > 1
    other = next(one for one in example.queries if one.person != query.person)
    misled = three_ways(retriever, query._replace(text=other.text))["both"].hits
    assert misled[0].pid != query.person


def test_its_people_are_in_no_training(example):
    described = read_description(PICTURES.parent, verify=True)
    (trained,) = described["provenance"]["trained_on"]
    draw = read_json(PICTURES / LIST)["draw"]
    assert trained["dataset"] == "synthetic people, " + ", ".join(f"{name} {value}" for name, value in draw.items())
    people = {record.pid for record in example.gallery}
    assert not people & set(trained["identities"]) and people >= {query.person for query in example.queries}
    size = sum(path.stat().st_size for path in PICTURES.parent.rglob("*") if path.is_file())
    assert size < 9.5e6 and sum(path.stat().st_size for path in PICTURES.iterdir()) < 1.5e6


def test_both_stages_of_a_training_start_from_it(retriever):
    cfg = read_config(find_config("synthetic_stage1.yml"), ["MODEL.DEVICE", "cpu", "MODEL.HEADS.NUM_CLASSES", 5])
    first = build_model(cfg)
    loaded = load_weights(first, cfg.MODEL.WEIGHTS, may_differ=("heads.classifier.",))
    assert loaded.kept == ["heads.classifier.weight"] and loaded.provenance.trained_on[0].dataset.startswith("synthetic people")
    trained, started = retriever.model.state_dict(), first.state_dict()
    assert all(torch.equal(started[name], trained[name]) for name in started if not name.startswith("heads.classifier."))

    cfg.merge_from_file(str(find_config("synthetic.yml")))
    assert cfg.MODEL.WEIGHTS == ""
    tower = build_text_encoder(cfg.MODEL.TEXT.ARCH, cfg.MODEL.TEXT.WEIGHTS, 256)
    assert all(torch.equal(value, trained[f"text.{name}"]) for name, value in tower.state_dict().items())


def test_search_example_says_and_draws_it(tmp_path, capsys):
    assert main(["search", "--example", "--out", str(tmp_path / "found.png")]) == 0
    said = capsys.readouterr().out
    assert "60 visible pictures of 30 synthetic people" in said
    assert all(re.search(rf"\n{kind}:\n\| +rank \|", said) for kind in KINDS)
    assert (tmp_path / "found.png").stat().st_size > 10_000
    assert main(["search", "--example", "13"]) == 2
    assert "queries 1 to 12, not 13" in capsys.readouterr().err


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "['chartreuse']" in said and all(f"{kind}: R-1" in said for kind in KINDS)
    assert (tmp_path / "found.png").is_file()

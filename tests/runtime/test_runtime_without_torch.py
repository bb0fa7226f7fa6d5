"""The runtime in a process that has numpy, Pillow, onnxruntime and a tokenizer, and nothing else of ours."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles_modeling import small_model, write_tower
from PIL import Image

from tvilfm_plugin.export.writing import export_retriever
from tvilfm_plugin.retrieval.records import Filter, Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.runtime import OnnxRetriever
from tvilfm_plugin.runtime.vectors import Vectors

ROOT = Path(__file__).parents[2]
FORBIDDEN = (
    "torch", "torchvision", "fastreid", "yacs", "open_clip", "timm", "transformers", "faiss", "pandas", "tqdm", "scipy",
    "sklearn", "matplotlib",
)  # fmt: skip
SEARCHES = [
    {"infrared": "q.png", "text": "a man in a red coat", "infrared_text": "a man in a coat"},
    {"infrared": "q.png", "text": "a woman's blue hat"},
    {"infrared": "q.png"},
    {"text": "a boy with an orange bag"},
    {"infrared": "q.png", "text": "a man in a red coat", "infrared_text": "a man in a coat", "members": ["fusion"], "top": 2},
]
SCRIPT = """
import importlib.machinery, json, sys

find = importlib.machinery.PathFinder.find_spec
hide = lambda name, *rest: None if name.split(".")[0] in {forbidden} else find(name, *rest)
importlib.machinery.PathFinder.find_spec = hide
import tvilfm_plugin
from tvilfm_plugin.runtime import OnnxRetriever

retriever = OnnxRetriever("export", threads=1)
retriever.embed_gallery("gallery")
answers = []
for search in json.loads(sys.argv[1]):
    found = retriever.search(**search)
    answers.append([found.note, [[hit.path, hit.similarity, hit.shares] for hit in found.hits]])
try:
    tvilfm_plugin.TriTrainer
except ModuleNotFoundError as error:
    assert error.name == "torch", error
loaded = sorted({{name.split(".")[0] for name in sys.modules}} & set({forbidden}))
print(json.dumps([answers, [bad.path for bad in retriever.unreadable], loaded]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A gallery, a query and an export in one folder; and the retriever that was exported."""
    folder, noise = tmp_path_factory.mktemp("place"), np.random.default_rng(2)
    (folder / "gallery").mkdir()
    for number in range(7):
        Image.fromarray(noise.integers(0, 256, (60, 33, 3), dtype=np.uint8)).save(folder / "gallery" / f"{number}.png")
    Image.fromarray(noise.integers(0, 256, (50, 20), dtype=np.uint8)).save(folder / "q.png")
    torch.manual_seed(1)
    retriever = Retriever(small_model("TVILFM", write_tower(folder)), image_size=(48, 24), batch=3, flip=True)
    export_retriever(retriever, folder / "export")
    return folder, retriever


def test_it_searches_as_torch_does(place, monkeypatch):
    folder, retriever = place
    (folder / "gallery" / "broken.png").write_bytes(b"no picture")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = textwrap.dedent(SCRIPT).format(forbidden=FORBIDDEN)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(SEARCHES)], env=env, capture_output=True, text=True, cwd=folder, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers, unreadable, loaded = json.loads(done.stdout.splitlines()[-1])
    assert unreadable == ["gallery/broken.png"] and not loaded
    monkeypatch.chdir(folder)
    retriever.embed_gallery("gallery")
    for search, (note, hits) in zip(SEARCHES, answers, strict=True):
        expected = retriever.search(**search)
        assert note == expected.note
        assert [path for path, _, _ in hits] == [hit.path for hit in expected.hits] and len(hits) == search.get("top", 7)
        for (_, similarity, shares), hit in zip(hits, expected.hits, strict=True):
            assert similarity == pytest.approx(hit.similarity, abs=1e-5) and sum(shares.values()) == pytest.approx(similarity)
            assert shares == pytest.approx({member.value: share for member, share in hit.shares.items()}, abs=1e-5)


def test_its_vectors_and_those_of_torch_may_be_compared(place, tmp_path, monkeypatch):
    folder, retriever = place
    monkeypatch.chdir(folder)
    file = tmp_path / "gallery.index"
    retriever.embed_gallery([f"gallery/{number}.png" for number in range(7)]).save(file)
    runtime = OnnxRetriever("export")
    with pytest.raises(ValueError, match="There is no gallery yet"):
        runtime.search(text="a man")
    index = runtime.load_gallery(file)
    assert len(index) == 7 and len(runtime.search(infrared="q.png", top=3).hits) == 3
    own = runtime.embed_images([f"gallery/{number}.png" for number in range(7)])
    assert np.allclose(own, index.vectors(np.arange(7)), atol=1e-5)


def test_what_it_cannot_do_it_says(place):
    runtime = OnnxRetriever(place[0] / "export")
    with pytest.raises(ValueError, match="needs an infrared image, a text, or both"):
        runtime.embed_query(text="  ")
    with pytest.raises(ValueError, match="are no image"):
        runtime.embed_query(infrared=np.zeros((4, 4), np.float32))
    runtime.has_text = False
    with pytest.raises(ValueError, match="no text encoder"):
        runtime.embed_query(text="a man")
    raw = np.zeros((1, runtime.model.fingerprint.dim), np.float32)
    with pytest.raises(ValueError, match="subtracts the text of the infrared image"):
        runtime.model.fuse(raw, raw, None)


def test_vectors_rank_exactly_and_filter():
    units = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    index = Vectors(units, [Record(f"{n}.png", camid=n % 2) for n in range(4)])
    records, vectors = index.nearest(np.array([0.1, 1, 0], np.float32), 3)
    assert [record.path for record in records] == ["1.png", "2.png", "0.png"] and (vectors == units[[1, 2, 0]]).all()
    assert [r.path for r in index.nearest(np.array([0.1, 1, 0], np.float32), 3, Filter(cameras=[0]))[0]] == ["2.png", "0.png"]
    with pytest.raises(ValueError, match="4 vectors for 1 records"):
        Vectors(units, [Record("a.png")])

"""Models of every kind as ONNX graphs: the same features, the same hits, complete or absent."""

import copy
import hashlib
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from flipped_bits import FLIPS, flipped
from hypothesis import given, settings
from hypothesis import strategies as st
from mip_models import small_config
from PIL import Image

from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.evaluation.text_trust import TextTrust
from tvilfm_plugin.export import parity, writing
from tvilfm_plugin.export.graphs import FusionGraph, Graph, known_cameras, to_onnx
from tvilfm_plugin.export.writing import ParityError, export_retriever
from tvilfm_plugin.files.json import digest_of
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.registries import FUSION_REGISTRY
from tvilfm_plugin.retrieval.hits import Hit
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.runtime.model import ExportError, OnnxModel
from tvilfm_plugin.runtime.retriever import OnnxRetriever

SIZE = (48, 24)


@pytest.fixture(scope="module")
def retriever(small_retriever):
    """One that weighs words, and knows few."""
    made, none = copy.copy(small_retriever), [0.0] * small_retriever.fingerprint.dim
    made.known_tokens, made.weighs = frozenset(tokenize(["a man in a red coat"])[0].tolist()), True
    made.text_trust = TextTrust(
        infrared=none, text=none, caption=none, slots={}, both=[-1, 1, 1, 0], picture=[-1, 1], people=2, weights_sha256=""
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine noisy visible and three infrared pictures of another size than the network's."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    for kind, count in (("visible", 9), ("infrared", 3)):
        (folder / kind).mkdir()
        for number in range(count):
            pixels = noise.integers(0, 256, (70, 31, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def exported(retriever, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    report = export_retriever(retriever, folder, gallery=pictures / "visible", queries=pictures / "infrared")
    assert report.ok and report.largest < 1e-5
    assert (report.queries, report.gallery, report.same_top, report.overlap) == (3, 9, 3, 1.0)
    assert {name.rsplit(" ", 1)[0] for name in report.relative} == {"infrared", "visible", "text", "fusion"}
    return folder


def test_trust_and_unknown_words_travel(retriever, exported, pictures):
    runtime = OnnxRetriever(exported)
    for caption in (None, "a man in a coat"):
        query = (pictures / "infrared/0.png", "a man in a red sombrero", caption)
        (ours, note), (theirs, same) = runtime.embed_query(*query), retriever.embed_query(*query)
        assert note == same and "knows nothing of 'sombrero'" in note and "words count 0." in note
        assert all(np.allclose(ours[m], theirs[m], atol=1e-5) for m in theirs)
        assert 0.1 < np.linalg.norm(ours[Modality.TEXT]) < 0.9


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text())


def test_the_folder_says_what_it_holds(exported, small_retriever):
    facts = facts_of(exported)
    assert facts["image_size"] == list(SIZE) and facts["members"] == ["ir", "text", "fusion"] and facts["cameras"] is None
    assert facts["fusion"] == {"name": "FilteredAdd", "filters": True}
    assert facts["fingerprint"] == small_retriever.fingerprint.to_dict() and facts["parity"]["ok"]
    named = [*facts["graphs"].values(), facts["tokenizer"]]
    assert {entry["file"] for entry in named} | {"export.json"} == {path.name for path in exported.iterdir()}
    for entry in named:
        assert hashlib.sha256((exported / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    for name, entry in facts["graphs"].items():
        onnx.checker.check_model(str(exported / entry["file"]), full_check=True)
        session = onnxruntime.InferenceSession(str(exported / entry["file"]), providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == ["raw", "unit"], name
        assert not any(isinstance(one.shape[0], int) for one in session.get_inputs()), f"{name}: the batch is fixed"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_of_images_and_any_length_of_text(exported, small_retriever, count):
    model = OnnxModel(exported)
    pixels = np.random.default_rng(count).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    for modality in (Modality.IR, Modality.RGB):
        raw, unit = model.images(pixels, modality)
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            expected = small_retriever.model.encode_images(images, modality)
            assert np.allclose(raw, expected, rtol=1e-4, atol=1e-5)
            assert np.allclose(unit, small_retriever.model.embed(expected), atol=1e-5)
    texts = ["a man", "a very tall woman in a long green coat and with a bag"][:count] + ["x"] * (count - 2)
    with torch.no_grad():
        expected = small_retriever.model.encode_text(tokenize(texts))
    assert np.allclose(model.texts(texts)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(FUSION_REGISTRY._obj_map) - {"LateJoin"}))
def test_every_fusion_of_the_registry(name, small_retriever):
    torch.manual_seed(3)
    model = copy.copy(small_retriever.model)
    model.fusion = FUSION_REGISTRY.get(name)(dim=model.visual.dim).eval()
    for parameter in model.fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    names = ("ir", "text", "ir_text") if model.fusion.filters else ("ir", "text")
    rows = torch.export.Dim("rows", min=1, max=64)
    inputs = {one: torch.rand(2, model.visual.dim) for one in names}
    example = Graph(FusionGraph(model), inputs, dict.fromkeys(names, {0: rows}))
    session = onnxruntime.InferenceSession(to_onnx(example), providers=["CPUExecutionProvider"])
    given = {one: torch.randn(3, model.visual.dim) for one in names}
    raw, unit = session.run(["raw", "unit"], {one: value.numpy() for one, value in given.items()})
    with torch.no_grad():
        expected = model.fusion(given["ir"], given["text"], given.get("ir_text"))
        assert np.allclose(raw, expected, rtol=1e-4, atol=1e-5) and np.allclose(unit, model.embed(expected), atol=1e-5)


def test_mip_with_known_and_unknown_cameras(tmp_path):
    torch.manual_seed(4)
    mip = Retriever(MIP(small_config(CAMERAS=3, FIRST_CAMERA=2, DEPTH=2, PARTS=1)), image_size=(64, 32))
    report = export_retriever(mip, tmp_path)
    assert report.ok and "infrared cameras unit" in report.relative and report.queries == 0
    assert known_cameras(mip.model) == (2, 3) and facts_of(tmp_path)["cameras"] == {"first": 2, "number": 3}
    model = OnnxModel(tmp_path)
    assert model.members == (Modality.IR,) and not model.has_text
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    mixed = model.images(pixels, Modality.IR, [2, None, 4])[0]
    known, unknown = model.images(pixels, Modality.IR, [2, 3, 4])[0], model.images(pixels, Modality.IR)[0]
    assert np.allclose(mixed[[0, 2]], known[[0, 2]], atol=1e-5) and np.allclose(mixed[1], unknown[1], atol=1e-5)
    assert not np.allclose(mixed[1], known[1], atol=1e-3)
    with pytest.raises(ValueError, match=r"knows the cameras 2..4, not \[7\]"):
        model.images(pixels, Modality.IR, [2, 7, 3])
    with pytest.raises(ValueError, match="no text encoder"):
        model.texts(["a man"])


# --- complete or absent ----------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """The graphs of a second export, without exporting again: their content does not matter here."""
    made = []

    def fake(graph):
        made.append(graph)
        return f"graph {len(made)}".encode()

    monkeypatch.setattr(writing, "to_onnx", fake)
    return made


def test_an_export_that_differs_leaves_the_old_one(exported, small_retriever, tmp_path, quick, monkeypatch):
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "mine.txt").write_text("not of the export")
    (tmp_path / "text-0123456789ab.onnx").write_text("left by a killed run")
    before = facts_of(tmp_path)
    wrong = parity.Parity({"text raw": 0.5})
    monkeypatch.setattr(writing, "_compare", lambda *_: wrong)
    with pytest.raises(ParityError, match=r"text raw +5.0e-01"):
        export_retriever(small_retriever, tmp_path)
    raw, _ = OnnxModel(tmp_path).texts(["a man"])
    assert facts_of(tmp_path) == before and raw.shape == (1, small_retriever.model.visual.dim)
    monkeypatch.setattr(writing, "_compare", lambda *_: parity.Parity({"text raw": 0.0}))
    export_retriever(small_retriever, tmp_path)
    after = facts_of(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {entry["file"] for entry in before["graphs"].values()} and "mine.txt" in left
    assert "text-0123456789ab.onnx" not in left
    assert {entry["file"] for entry in after["graphs"].values()} <= left


def test_what_is_no_export_is_refused(exported, tmp_path):
    with pytest.raises(ExportError, match="has no export.json"):
        OnnxModel(tmp_path)
    facts = facts_of(exported)
    (tmp_path / "export.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(ExportError, match="format 99, this version reads 2"):
        OnnxModel(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps(facts))
    with pytest.raises(ExportError, match="text-.*onnx is missing|tokenizer-.*json is missing"):
        OnnxModel(tmp_path).texts(["a man"])
    (tmp_path / facts["graphs"]["visible"]["file"]).write_bytes(b"changed")
    with pytest.raises(ExportError, match="was changed: the export is not complete"):
        OnnxModel(tmp_path).images(np.zeros((1, *SIZE, 3), np.uint8), Modality.RGB)


@pytest.fixture(scope="module")
def copied(exported, tmp_path_factory):
    return shutil.copytree(exported, tmp_path_factory.mktemp("copied") / "export")


def answers_of(folder: Path) -> list[np.ndarray]:
    model = OnnxModel(folder, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    seen, read, said = model.images(pixels, Modality.IR), model.images(pixels, Modality.RGB), model.texts(["a man", "red"])
    return [*seen, *read, *said, *model.fuse(seen[0], said[0], said[0])]


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["export", "infrared", "visible", "text", "fusion", "tokenizer"]), flips=FLIPS)
def test_flipped_bits_are_refused_with_the_files_name_or_change_nothing(exported, copied, kind, flips):
    (file,) = copied.glob(f"{kind}*")
    content = file.read_bytes()
    file.write_bytes(flipped(content, flips))
    try:
        found = answers_of(copied)
    except ExportError as error:
        assert kind in str(error)
    else:
        assert all(map(np.array_equal, found, answers_of(exported)))
    finally:
        file.write_bytes(content)


WRONG = [
    (("image_size",), [48]), (("image_size", 0), True), (("resample",), "nearest"), (("members",), []), (("members", 0), "x"),
    (("graphs", "visible"), None), (("graphs", "text", "file"), "../../etc/passwd"), (("graphs", "fusion", "sha256"), "x"),
    (("tokenizer", "special"), [1]), (("tokenizer", "end"), "49407"), (("fusion", "filters"), 1), (("cameras",), "x"),
    (("fingerprint", "dim"), 0), (("ir_scaling",), "x"), (("tokenizer",), None), (("fusion",), None), (("pixels",), "BGR"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_a_fact_that_no_exporter_writes_is_refused(exported, tmp_path, place, value):
    facts = facts_of(exported)
    inner = facts
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    for digest in [facts["digest"], digest_of(facts)][: 1 if place == ("pixels",) else 2]:  # also of one who forges the digest
        (tmp_path / "export.json").write_text(json.dumps(facts | {"digest": digest}))
        with pytest.raises(ExportError, match=r"export\.json.*Export the model again"):
            OnnxModel(tmp_path)


@pytest.mark.parametrize("name", ["visible", "tokenizer"])
def test_a_file_that_is_none_of_ours_is_named_whatever_its_digest(exported, tmp_path, name):
    facts, content = facts_of(exported), b"no such file"
    entry = facts["tokenizer"] if name == "tokenizer" else facts["graphs"][name]
    for one in [facts["tokenizer"], *facts["graphs"].values()]:
        (tmp_path / one["file"]).write_bytes((exported / one["file"]).read_bytes())
    (tmp_path / entry["file"]).write_bytes(content)
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "export.json").write_text(json.dumps(facts | {"digest": digest_of(facts)}))
    with pytest.raises(ExportError, match=rf"{name}-.*(cannot read or run it|no tokenizer that can be read)"):
        answers_of(tmp_path)


def test_parity_counts_a_ranking_that_differs():
    report = parity.Parity({"text raw": 1e-6}, queries=3, gallery=9, same_top=2, overlap=0.9)
    assert not report.ok and "the same in 2 of 3 searches (common images 90.00%)" in str(report) and "NOT OK" in str(report)
    tied = parity.Parity({"text raw": 1e-6}, queries=3, gallery=9, same_top=2, ties=1)
    assert tied.ok and "in 1 of the others only images that are equally near, within 1e-05, change places" in str(tied)
    assert parity.Parity({"text raw": 2e-4}).ok is False and parity.Parity({"text raw": 9e-5}).ok is True


def test_only_equally_near_images_may_change_places():
    hits = lambda **near: [Hit(path, None, None, None, similarity, {}) for path, similarity in near.items()]
    torch_says = hits(a=1.5, b=0.9, c=0.9 - 1e-7)
    assert parity.tied(torch_says, hits(a=1.5, c=0.9, b=0.9 - 1e-7))
    assert parity.tied(torch_says, hits(a=1.5, b=0.9, d=0.9)), "the last place is a tie with the image behind it"
    assert not parity.tied(torch_says, hits(a=1.5, c=0.9, b=0.8))


def test_the_command(trained, tmp_path, monkeypatch, capsys, quick):
    seen = {}

    def remember(retriever, exported, *rest):
        seen["members"] = retriever.members
        return parity.Parity({"text raw": 0.0})

    monkeypatch.setattr(writing, "_compare", remember)
    command = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "export_onnx.py"))["main"]
    words = ["--config-file", str(trained / "config.yaml"), "--weights", str(trained / "model_final.pth")]
    assert command([*words, "--out", str(tmp_path / "a")]) == 0
    assert "OK" in capsys.readouterr().out and len(seen["members"]) == 3
    digest = hashlib.sha256((trained / "model_final.pth").read_bytes()).hexdigest()
    assert facts_of(tmp_path / "a")["weights_file"] == {"name": "model_final.pth", "sha256": digest}
    monkeypatch.setattr(writing, "_compare", lambda *_: parity.Parity({"text raw": 1.0}))
    assert command([*words, "--out", str(tmp_path / "b")]) == 1
    assert "differs from the model" in capsys.readouterr().out and not (tmp_path / "b" / "export.json").exists()

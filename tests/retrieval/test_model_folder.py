"""One folder: bit-equal to the checkpoint, taken by search, evaluation, training and export, and never half of one model."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import weights

pytest.importorskip("fastreid")

from tvilfm_plugin.checkpoints.loading import read_checkpoint
from tvilfm_plugin.checkpoints.model_folder import find_pretrained
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.files.json import JsonError
from tvilfm_plugin.files.weights import WeightsError
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever

TEXTS = ("a man in a red jacket", "a woman in a blue coat")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, noise = tmp_path_factory.mktemp("gallery"), np.random.default_rng(1)
    for number in range(5):
        Image.fromarray(noise.integers(0, 256, (60, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "model"
    assert main(["export", str(trained), "--format", "folder", "--out-dir", str(out)]) == 0
    return out


def features(retriever: Retriever, pictures) -> list[torch.Tensor]:
    paths = sorted(map(str, pictures.iterdir()))
    found = [torch.from_numpy(retriever.embed_images(paths, modality)) for modality in (Modality.RGB, Modality.IR)]
    queries, _ = retriever.embed_query(paths[0], *TEXTS)
    return [*found, *(torch.from_numpy(queries[member]) for member in Modality if member in queries)]


def test_features_are_the_checkpoints_bit_by_bit(folder, trained, pictures):
    ours, theirs = Retriever.from_pretrained(folder, device="cpu"), Retriever.from_run(trained, device="cpu")
    assert ours.fingerprint == theirs.fingerprint and ours.members == theirs.members
    pairs = list(zip(features(ours, pictures), features(theirs, pictures), strict=True))
    assert len(pairs) == 5 and all(torch.equal(a, b) for a, b in pairs)
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    kept = load_file(folder / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in weights(trained / "model_final.pth").items() if name in kept)


def test_the_folder_says_what_it_is(folder, trained, tiny):
    described = json.loads((folder / "config.json").read_text())
    assert described["architecture"] == "TVILFM" and described["preprocessing"]["image_size"] == [48, 24]
    assert described["tower"]["text_cfg"]["width"] == 32 and described["members"] == ["ir", "text", "fusion"]
    protocol = described["protocol"]["TriSYSUMM01"]
    assert protocol["cards"]["all/ensemble"]["text_source"] == "witness" and len(protocol["intervals"]["all/text"]["mAP"]) == 3
    assert described["provenance"]["trained_on"][0]["dataset"] == "sysu"
    assert str(tiny.folder) not in (folder / "config.json").read_text() + (folder / "README.md").read_text()
    # Whoever may read the card may read the weights.
    assert len({(folder / name).stat().st_mode for name in ("README.md", "config.json", "model.safetensors")}) == 1
    card = (folder / "README.md").read_text()
    front = card.split("---")[1]
    assert "library_name: tvilfm-plugin" in front and "SYSU-MM01" in card and described["weights"]["sha256"] in card
    assert "text source: witness" in card and "95 % interval" in card and "no deployed system knows" in card


def test_evaluation_search_and_training_take_it(folder, tiny, trained, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with tiny.environment():
        assert main(["eval", str(folder), "TEST.DRAWS", "1", "DATASETS.MODES", "('all',)"]) == 0
    stored = json.loads((tmp_path / "logs/model/evaluation/TriSYSUMM01/results.json").read_text())
    first = json.loads((trained / "evaluation/TriSYSUMM01/results.json").read_text())
    assert stored["cards"]["all/ensemble"]["weights_sha256"] == first["cards"]["all/ensemble"]["weights_sha256"]
    assert stored["cards"]["all/ensemble"]["epoch_rule"] == "last epoch"
    monkeypatch.setattr("tvilfm_plugin.files.shipped.PRETRAINED", folder.parent)
    words = ["search", folder.name, "--gallery", str(pictures), "--text", TEXTS[0], "--top", "2"]
    assert main(words) == 0 and ".png" in capsys.readouterr().out
    tiny("tuned", "MODEL.WEIGHTS", folder, "SOLVER.MAX_EPOCH", 1, "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", 0)
    run = json.loads((tiny.folder / "tuned" / "run.json").read_text())
    described = json.loads((folder / "config.json").read_text())
    assert run["identity"]["inputs"]["MODEL.WEIGHTS"] == described["weights"]["sha256"]


def test_without_a_protocol_there_are_features_and_no_numbers(trained, tiny, pictures, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    Retriever.from_run(run, device="cpu").save_pretrained(tmp_path / "bare")
    assert json.loads((tmp_path / "bare/config.json").read_text())["protocol"] is None
    assert "refuses them" in (tmp_path / "bare/README.md").read_text()
    assert len(Retriever.from_pretrained(tmp_path / "bare", device="cpu").embed_gallery(str(pictures))) == 5
    with tiny.environment():
        assert main(["eval", str(tmp_path / "bare"), "--out-dir", str(tmp_path / "out")]) == 2
    assert "came without a protocol" in capsys.readouterr().err


def test_half_precision_and_the_words_of_some_texts(folder, pictures, tmp_path):
    full = Retriever.from_pretrained(folder, device="cpu")
    full.save_pretrained(tmp_path / "small", dtype="float16", words=TEXTS)
    small = Retriever.from_pretrained(tmp_path / "small", device="cpu")
    sizes = [(one / "model.safetensors").stat().st_size for one in (folder, tmp_path / "small")]
    assert sizes[1] < sizes[0] / 10  # of this model most is the token embedding
    for a, b in zip(features(small, pictures), features(full, pictures), strict=True):
        assert not torch.equal(a, b) and torch.allclose(a, b, atol=5e-3)
    assert small.fingerprint != full.fingerprint
    small.embed_gallery(str(pictures))
    assert "knows" not in small.search(text=TEXTS[1]).note
    assert "knows nothing of 'sombrero'" in small.search(text="a man in a sombrero").note
    card = (tmp_path / "small/README.md").read_text()
    assert "float16, words: those of 2 texts" in card and full.fingerprint.weights[:12] in card
    small.save_pretrained(tmp_path / "again")
    again = Retriever.from_pretrained(tmp_path / "again", device="cpu")
    assert again.fingerprint == small.fingerprint and again.unknown_words(["a sombrero"]) == ["sombrero"]


def test_what_is_damaged_or_elsewhere_is_refused(folder, trained, tmp_path, monkeypatch):
    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["heads.neck.weight"] += 1
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(WeightsError, match="is not the file that config.json describes"):
        read_checkpoint(broken)
    described = json.loads((broken / "config.json").read_text())
    for change, said in (({"format": 2}, "has format 2"), ({"members": 3}, "members"), ({"protocol": 1}, "protocol")):
        (broken / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(JsonError, match=said):
            read_checkpoint(broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(JsonError, match="describes no model of ours"):
        read_checkpoint(broken / "model.safetensors")
    with pytest.raises(ValueError, match="is the folder of a run"):
        Retriever.from_run(trained, device="cpu").save_pretrained(trained)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="nobody/nothing is neither in the hub library's cache"):
        find_pretrained("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="no owner/name of the hub"):
        find_pretrained("nothing")


def test_a_model_of_the_hub_is_taken_from_the_librarys_cache(folder, tmp_path, monkeypatch):
    """As the hub library lays it out: refs/REVISION names the snapshot."""
    repository = tmp_path / "models--somebody--tri"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    retriever = Retriever.from_pretrained("hf://somebody/tri", device="cpu")
    assert retriever.fingerprint == Retriever.from_pretrained(folder, device="cpu").fingerprint

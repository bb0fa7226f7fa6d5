"""A dialogue with a witness about the hits of a search, and words that do not fit the picture."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastreid")

from tvilfm_plugin.cli.main import main
from tvilfm_plugin.description.questions import answers_read
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.text_trust import FILE, TextTrust
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.ask import Dialogue
from tvilfm_plugin.retrieval.hits import Hit
from tvilfm_plugin.retrieval.retriever import Retriever

CAPTIONS = ("a man in a red shirt", "a man in a blue shirt", "a woman in a green shirt", "a woman in a white coat")


def hits(similarities):
    return [Hit(f"{n}.png", n, None, None, s, {Modality.IR: s}) for n, s in enumerate(similarities)]


def test_answers_bring_the_right_image_forward():
    dialogue = Dialogue(hits([0.9, 0.8, 0.8, 0.6]), answers_read([read(caption) for caption in CAPTIONS]))
    assert [hit.pid for hit in dialogue.hits] == [0, 1, 2, 3]
    question = dialogue.question()
    assert question is not None and question.slot == "upper_colour" and len(question.choices) == 4
    with pytest.raises(ValueError, match="does not answer"):
        dialogue.answer(question.slot, "a Thursday")
    dialogue.answer(question.slot, "emerald green, I think")
    assert dialogue.hits[0].pid == 2 and dialogue.said == {"upper_colour": "green"}
    before = dialogue.weights
    again = dialogue.question()
    assert again is not None and again.slot != "upper_colour"
    dialogue.answer(again.slot, "don't know")
    np.testing.assert_array_equal(dialogue.weights, before)
    assert Dialogue(hits([0.5]), answers_read([read(CAPTIONS[0])])).question() is None


@pytest.fixture(scope="module")
def gallery(stored):
    return [os.path.normpath(stored.gallery_paths[column]) for column in stored.draws["all"][0]]


def test_the_command_asks_and_takes_answers_from_a_pipe(trained, gallery, tmp_path, capsys, monkeypatch):
    listed = tmp_path / "gallery.csv"
    rows = [f"{path},{CAPTIONS[n % len(CAPTIONS)]}" for n, path in enumerate(gallery)]
    listed.write_text("\n".join(["path,caption", *rows]), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Thursday\nwhite\ndon't know\n"))
    assert main(["search", str(trained), "--gallery", str(listed), "--text", "a man", "--ask"]) == 0
    text = capsys.readouterr().out
    assert "What colour is the upper garment? (" in text and "'Thursday' does not answer" in text
    best = text.split(" rank |")[2].splitlines()[2]  # after the first answer
    assert CAPTIONS[gallery.index(best.split("|")[-2].strip()) % len(CAPTIONS)] == CAPTIONS[3]
    # Without captions the text encoder judges.
    monkeypatch.setattr(sys, "stdin", io.StringIO("?\n"))
    assert main(["search", str(trained), "--gallery", str(Path(gallery[0]).parent), "--text", "a man", "--ask", "1"]) == 0
    assert "don't know)" in capsys.readouterr().out


def test_a_query_that_cannot_be_read_costs_no_gallery(trained, gallery, tmp_path, capsys):
    words = ["search", str(trained), "--gallery", str(Path(gallery[0]).parent), "--index", str(tmp_path / "gallery.index")]
    assert main([*words, "--image", str(tmp_path / "missing.jpg")]) == 2
    assert "missing.jpg" in capsys.readouterr().err and not (tmp_path / "gallery.index").exists()


def test_a_picture_alone_asks_as_well_and_no_gallery_is_said(trained, stored, gallery):
    retriever = Retriever.from_checkpoint(trained / "config.yaml", trained / "model_final.pth")
    with pytest.raises(ValueError, match="no gallery yet"):
        retriever.ask(text="a man")
    retriever.embed_gallery(gallery)
    dialogue = retriever.ask(stored.query_paths[0])
    question = dialogue.question()
    assert question is not None
    dialogue.answer(question.slot, question.choices[0])
    assert sorted(hit.path for hit in dialogue.hits) == sorted(gallery)


@pytest.fixture(scope="module")
def trusting(tiny, trained):
    """The trained run, evaluated with trust in words."""
    run = tiny.folder / "trusting"
    run.mkdir()
    for name in ("config.yaml", "model_final.pth"):
        shutil.copy(trained / name, run / name)
    results = tiny("trusting", "--eval-only", "MODEL.WEIGHTS", run / "model_final.pth", "TEST.TEXT_TRUST", "single")
    return run, results


def test_an_evaluation_with_trust_says_so_and_ranks_again_alike(trusting, trained):
    run, results = trusting
    folder = next(run.glob("evaluation/*"))
    plain, stored = json.loads((trained / "returned.json").read_text()), StoredEvaluation.load(folder)
    assert results["all/infrared/mAP"] == pytest.approx(plain["all/infrared/mAP"])
    assert results["all/text/mAP"] == pytest.approx(plain["all/text/mAP"])  # single members are as they were
    assert "TEST.TEXT_TRUST single, learned on 4 training people" in stored.card("all/ensemble").note
    assert "TEXT_TRUST" not in stored.card("all/infrared").note
    text = stored.text("all", "witness", 0)
    weights = stored.trust(text.rgb[0], text.ir)
    assert weights.shape == (len(stored.query_paths),) and weights.min() >= 0 and weights.max() <= 1
    for label in stored.cards:
        for of_draws in stored.evaluate(label):
            assert all(trial.metrics.mAP >= 0 for trial in of_draws)
    again = np.mean([[trial.metrics.mAP for trial in of_draws] for of_draws in stored.evaluate("all/ensemble")])
    assert 100 * again == pytest.approx(results["all/ensemble/mAP"])


def test_the_retriever_weighs_words_or_says_that_they_do_not_fit(trusting, stored, gallery, tmp_path):
    run, _ = trusting
    opts = ["TEST.TEXT_TRUST", "single"]  # the config of the run was written with it, too
    retriever = Retriever.from_checkpoint(run / "config.yaml", run / "model_final.pth", opts=opts)
    retriever.embed_gallery(gallery)
    said = Retriever.from_checkpoint(run / "config.yaml", run / "model_final.pth", opts=["TEST.TEXT_TRUST", ""])
    said.embed_gallery(gallery)
    query, text = stored.query_paths[0], stored.text("all", "witness", 0)
    words, own = stored.texts[text.rgb[0][0]], stored.texts[text.ir[0]]
    weight = float(StoredEvaluation.load(next(run.glob("evaluation/*"))).trust(text.rgb[0], text.ir)[0])
    weighed, plain = (one.search(query, words, own, 1) for one in (retriever, said))
    assert f"words count {weight:.2f} times" in weighed.note and "words count" not in plain.note
    said.save_pretrained(tmp_path / "folder", dtype="float16")
    travelled = Retriever.from_pretrained(tmp_path / "folder", opts=opts)
    assert travelled.fingerprint != said.fingerprint and travelled.text_trust.both == retriever.text_trust.both
    # What trust says of words that cannot fit: a calibration that trusts nothing.
    never = {**json.loads((run / FILE).read_text()), "both": [-9, 0, 0, 0], "picture": [-9, 0]}
    said.text_trust = TextTrust.from_dict(never, "here")
    for caption in (own, None):
        assert "these words do not fit this picture (trust 0.00)" in said.search(query, words, caption).note
    assert "do not fit" not in said.search(query).note and "do not fit" not in said.search(text=words).note
    (tmp_path / "model_final.pth").write_bytes((run / "model_final.pth").read_bytes())
    with pytest.raises(FileNotFoundError, match="Evaluate the run once"):
        Retriever.from_checkpoint(run / "config.yaml", tmp_path / "model_final.pth", opts=opts)

"""Methods through the trainer: trained, evaluated by the protocol, stored, and evaluated again to the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from golden_methods import small_roberta
from tiny_runs import ROOT

from tvilfm_plugin.data.words import RobertaTokenizer
from tvilfm_plugin.evaluation.evaluator import load_evaluation

SMALL = ("SOLVER.MAX_EPOCH", 2, "SOLVER.IMS_PER_BATCH", 8, "INPUT.SIZE_TRAIN", "[64,24]", "INPUT.SIZE_TEST", "[64,24]")


def method_config(tiny, folder, method):
    config = folder / "method.yml"
    small = tiny.stage1.read_text().split("\n", 1)[1]
    config.write_text(f"_BASE_: {ROOT}/configs/Base-{method}.yml\n{small}")
    return config


def run_twice(tiny, name, config, *words):
    """Results of a training and of its evaluation anew, which must be equal."""
    results = tiny(name, *words, config=config)
    assert results and all(value == value for value in results.values())
    weights = tiny.folder / name / "model_final.pth"
    again = tiny(f"{name}_again", "--eval-only", *words, "MODEL.WEIGHTS", str(weights), config=config)
    assert dict(again) == pytest.approx(dict(results))
    return results


@pytest.mark.parametrize("method", ["DDAG", "MMN"])
def test_trained_and_evaluated_again(tiny, tmp_path, method):
    run_twice(tiny, f"{method}_run", method_config(tiny, tmp_path, method), *SMALL)


def test_yyds_on_our_captions(tiny, tmp_path):
    """Every text source has a row, the one without text and `self` included; stored parts rank again to the same numbers."""
    flip = ("TEST.FLIP.ENABLED", True, "TEST.FLIP_FORM", "embeddings")
    config = method_config(tiny, tmp_path, "YYDS")
    results = tiny("YYDS_run", *SMALL, *flip, config=config)
    rows = {name.rsplit("/", 1)[0] for name in results if name.startswith("all/")}
    assert {"all/infrared", "all/text", "all/fusion", "all/ensemble", "all/ensemble@self", "all/fusion@self"} <= rows
    stored = load_evaluation(tiny.folder / "YYDS_run" / "evaluation" / "TriSYSUMM01")
    for label in ("all/ensemble", "all/fusion@self", "all/text"):
        trials = stored.evaluate(label)
        again = 100 * np.mean([trial.metrics.mAP for draws in trials for trial in draws])
        assert again == pytest.approx(results[f"{label}/mAP"], abs=1e-3)


COLOURS = {1: "red", 2: "blue", 4: "gray", 6: "white", 7: "black", 12: "green", 25: "pink"}


def write_tokenizer(folder):
    """RoBERTa's tokenizer with single bytes for words."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = ["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values(), "<mask>"]
    (Path(folder) / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (Path(folder) / "merges.txt").write_text("#version: 0.2\n")


def test_yyds_on_roberta_and_phrases_alone(tiny, tmp_path):
    """A local folder, phrases by identity in training and test, no caption file; the authors' cut and padding."""
    roberta = small_roberta(tmp_path / "roberta")
    write_tokenizer(roberta)
    said = RobertaTokenizer(roberta)(["red", "a" * 200])
    assert said.shape == (2, 77) and said[0, 0] == 0 and said[0, 4] == 2 and said[0, 5] == 1 and said[1, -1] == 2
    cut = RobertaTokenizer(roberta, released=True)
    assert cut(["red", "a" * 30]).shape == (2, 20) and cut(["red"])[0, 5:].tolist() == [0] * 15 and cut(["a" * 30])[0, -1] != 2
    assert cut.decode(cut(["red coat"])[0].tolist()) == "red coat"
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("".join(f"{pid}\ta man with a {colour} coat\n" for pid, colour in COLOURS.items()))
    words = (
        "MODEL.TEXT.ARCH", "roberta", "MODEL.TEXT.WEIGHTS", roberta, "MODEL.YYDS.TEXT", "released",
        "INPUT.HUMAN_TEXTS", str(phrases), "TEST.HUMAN_TEXTS", str(phrases), "TEST.TEXT_SOURCES", "('human',)",
    )  # fmt: skip
    captions = tiny.folder / "data" / "SYSU-MM01"
    hidden = [path.rename(path.with_suffix(".hidden")) for path in captions.rglob("*.json")]
    try:
        results = tiny("YYDS_phrases", *SMALL, *words, config=method_config(tiny, tmp_path, "YYDS"))
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".json"))
    assert hidden and "all/ensemble/mAP" in results

"""Captions said in other words by a real language model, through the command; the guards keep what says the same."""

import json

import real_parts
from tiny_captioning import write_two_coloured
from tiny_runs import ROOT

from tvilfm_plugin.captioning.guards import objection
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.modality import Modality

# Captions that neither labelled file of tests/captioning holds.
SEED, EACH = 18, 24


def test_a_small_chat_model_through_captions_rephrase(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "captioning"))
    from write_answers import captions

    write_two_coloured(tmp_path, people=10)
    base = tmp_path / "SYSU-MM01"
    kept = {}
    for modality, camera in (("rgb", "cam1"), ("ir", "cam3")):
        keys = sorted(path.relative_to(base).as_posix() for path in base.glob(f"{camera}/*/*.jpg"))
        words = [text for kind, text in captions(SEED, 2 * EACH) if kind == modality]
        asked = dict(zip(keys, words, strict=False))
        file = tmp_path / f"{modality}.json"
        file.write_text(json.dumps(asked))
        out = tmp_path / modality
        # Ten people have twelve training images of a camera: each is asked about once, and once more if it is refused.
        status = main(
            ["captions", "rephrase", "--dataset", "sysu", "--root", str(tmp_path), "--modality", modality,
             "--captions", str(file), "--llm", str(real_parts.smollm2()), "--out-dir", str(out), "--retries", "1",
             "--max-new-tokens", "70"]
        )  # fmt: skip
        assert status == 0
        rows = [json.loads(line) for path in out.glob("rows/rephrases/*.jsonl") for line in path.read_text().splitlines()]
        rows = [row for row in rows if "rephrase" in row]
        kept[modality] = [(row["caption"], row["rephrase"]) for row in rows if row["rephrase"]]
        with capsys.disabled():
            print(f"\n{modality}: {len(kept[modality])} of {len(rows)} captions have a rephrase")
            for pair in kept[modality]:
                print("   ", *pair, sep="\n      ")
        assert len(rows) == 12
        assert not [pair for pair in kept[modality] if objection(*pair, Modality(modality))]
    assert sum(map(len, kept.values())) >= 1

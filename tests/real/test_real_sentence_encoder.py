"""A real sentence encoder on what a real language model wrote (tests/captioning): faithful answers pass, many others do not."""

import json
from pathlib import Path

import pytest
import real_parts

pytest.importorskip("transformers")

from tvilfm_plugin.captioning.sentence_encoder import SentenceFence

ANSWERS = Path(__file__).parents[1] / "captioning"


def test_faithful_answers_pass_and_most_others_do_not():
    fence = SentenceFence(str(real_parts.sentence_encoder()))
    rows = [json.loads(line) for name in ("answers", "held_out") for line in (ANSWERS / f"{name}.jsonl").open(encoding="utf-8")]
    refused = {label: [bool(fence.objection(row["caption"], row["answer"])) for row in rows if row["faithful"] is label]
               for label in (True, False)}  # fmt: skip
    print({label: f"{sum(some)} of {len(some)} refused" for label, some in refused.items()})
    assert not any(refused[True]) and sum(refused[False]) > 0.5 * len(refused[False])
    same = "A pedestrian wears blue trousers and a red shirt."
    assert fence.similarity("a person in a red shirt and blue trousers", same) > 0.7
    assert fence.objection("a person in a red shirt", "The quick fox jumps.").startswith("says something else: similarity 0.")

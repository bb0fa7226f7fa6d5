"""Methods through the trainer: trained, evaluated by the protocol, stored, and evaluated again to the same numbers."""

import pytest
from tiny_runs import ROOT


@pytest.mark.parametrize("method", ["DDAG", "MMN"])
def test_trained_and_evaluated_again(tiny, tmp_path, method):
    config = tmp_path / "method.yml"
    small = tiny.stage1.read_text().split("\n", 1)[1]
    config.write_text(f"_BASE_: {ROOT}/configs/Base-{method}.yml\n{small}")
    words = ("SOLVER.MAX_EPOCH", 2, "SOLVER.IMS_PER_BATCH", 8, "INPUT.SIZE_TRAIN", "[64,24]", "INPUT.SIZE_TEST", "[64,24]")
    results = tiny(f"{method}_run", *words, config=config)
    assert results and all(value == value for value in results.values())
    weights = tiny.folder / f"{method}_run" / "model_final.pth"
    again = tiny(f"{method}_again", "--eval-only", *words, "MODEL.WEIGHTS", str(weights), config=config)
    assert dict(again) == pytest.approx(dict(results))

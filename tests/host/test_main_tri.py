"""An unmodified script of the stock shape trains both stages and evaluates with modality ensemble retrieval."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import rows, weights

pytest.importorskip("fastreid")

from tvilfm_plugin.__main__ import main

TESTS = Path(__file__).parents[1]
SHORT = ["SOLVER.MAX_EPOCH", "1", "TEST.DRAWS", "1", "DATASETS.MODES", "('all',)"]


def test_the_stock_script_trains_both_stages_and_evaluates(tiny):
    out = tiny.folder / "stock"
    words = [str(TESTS / "stock_script.py"), "--config-file", str(tiny.config)]
    env = {**os.environ, "FASTREID_DATASETS": str(tiny.folder / "data"), "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tvilfm_plugin", *words, "OUTPUT_DIR", str(out), *SHORT],
        cwd=tiny.folder, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Warning" not in done.stderr, done.stderr
    assert len(weights(out / "model_final.pth")) > len(weights(out / "stage1" / "model_final.pth"))
    table = (out / "evaluation" / "TriSYSUMM01" / "table.md").read_text()
    assert all(f"| {query} " in table for query in ("infrared", "text", "fusion", "ensemble"))
    last = rows(out)[-1]
    assert "all/ensemble/R-1" in last

    # --eval-only, too; the script loads the weights itself.
    again = tiny.folder / "stock-evaluated"
    with tiny.environment():
        words += ["--eval-only", "MODEL.WEIGHTS", str(out / "model_final.pth")]
        assert main([*words, "OUTPUT_DIR", str(again), *SHORT]) == 0
    results = json.loads((again / "evaluation" / "TriSYSUMM01" / "results.json").read_text())["results"]
    assert {name: last[name] for name in results} == results

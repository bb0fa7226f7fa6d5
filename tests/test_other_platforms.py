"""As on Windows and macOS, without fcntl, processor affinity, positioned writes and forks: train, evaluate, search."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("fastreid")
ROOT = Path(__file__).parents[1]
SCRIPT = """
    import multiprocessing, os, sys

    sys.modules["fcntl"] = None  # an import of it fails
    for name in ("sched_getaffinity", "pwrite", "pread", "fork", "forkpty"):
        if hasattr(os, name):
            delattr(os, name)
    multiprocessing.context._concrete_contexts.pop("fork", None)
    multiprocessing.set_start_method("spawn")

    from pathlib import Path

    import tvilfm_plugin
    from tiny_runs import TinyRuns

    home = Path("tiny").absolute()
    TinyRuns(home)("run", "TEST.STORE", "True")
    run = home / "run"
    from tvilfm_plugin.retrieval.retriever import Retriever

    retriever = Retriever.from_checkpoint(run / "config.yaml", run / "model_final.pth")
    gallery = home / "data/SYSU-MM01/cam1"
    index = retriever.embed_gallery(gallery, index_file="g.index")
    assert next(run.glob("evaluation/*/table.md")).stat().st_size and len(index) == len(list(gallery.rglob("*.jpg")))
    found = retriever.search(infrared=next((home / "data/SYSU-MM01/cam3").rglob("*.jpg")), text="a man in red", top=3)
    assert len(found.hits) == 3
    print("trained, evaluated, searched")
"""


def test_nothing_of_one_platform_is_needed(tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], env=env, capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0 and done.stdout.endswith("trained, evaluated, searched\n"), done.stderr[-3000:]

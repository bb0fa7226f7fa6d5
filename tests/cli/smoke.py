"""The installed package, from any folder: the command, the example, a tiny benchmark, training, evaluation, results, a search.

`python smoke.py [FOLDER]` runs everything in FOLDER (default: the current one) and stops at the first command that fails.
"""

import contextlib
import io
import json
import os
import shlex
import sys
from pathlib import Path

from tvilfm_plugin.cli.main import main

TOWER = {
    "embed_dim": 32,
    "quick_gelu": True,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
SMALL = """MODEL.DEVICE cpu STAGE1.MODEL.WEIGHTS ''
MODEL.BACKBONE.FEAT_DIM 64 MODEL.BACKBONE.SMALL_WIDTH 8 MODEL.BACKBONE.SMALL_BLOCKS (1,1,1,1)
MODEL.TEXT.ARCH tower.json MODEL.TEXT.WEIGHTS checkpoint INPUT.SIZE_TRAIN (48,24) INPUT.SIZE_TEST (48,24)
DATALOADER.NUM_WORKERS 0 SEED 1 SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0 SOLVER.IMS_PER_BATCH 8 SOLVER.AMP.ENABLED False
TEST.EVAL_PERIOD 1 TEST.DRAWS 2"""


def run(command: str) -> str:
    """`tvilfm` with these words, in this process; its output."""
    print(f"$ tvilfm {command}", flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = main(shlex.split(command))
    if status:
        raise SystemExit(f"status {status}\n{said.getvalue()[-3000:]}")
    return said.getvalue()


def smoke(folder: Path) -> None:
    """All of it."""
    folder = folder.resolve()
    os.chdir(folder)
    os.environ["FASTREID_DATASETS"] = str(folder / "data")
    (folder / "tower.json").write_text(json.dumps(TOWER), encoding="utf-8")
    assert "Found at rank 1, of 12 queries" in run("search --example --out example.png")
    assert run("--version").startswith("tvilfm ")
    assert "IMS_PER_BATCH" in run("config sysu.yml")
    people = "--ids 12 --test-ids 4 --images-rgb 4 --images-ir 2 --test-images-rgb 8 --test-images-ir 2 --height 48"
    assert "12 people" in run(f"data make --layout sysu {people} --workers 1 --out-dir data/synthetic")
    run(f"train synthetic.yml --out-dir run {SMALL}")
    run("eval run")
    assert "ensemble" in run("results show run --queries 2")
    gallery, query = (next(folder.glob(f"data/synthetic/{camera}/*")) for camera in ("cam1", "cam3"))
    words = f"search run --gallery {shlex.quote(gallery.as_posix())} --text 'a man in a red jacket'"
    assert "cam1" in run(f"{words} --image {shlex.quote(next(query.glob('*')).as_posix())} --out found.png")
    assert (folder / "found.png").stat().st_size > 1000
    print("It works.")


if __name__ == "__main__":
    smoke(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

"""docs/own_data.md does what it says: its commands run in their order, on its synthetic people, with a small network."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT, TOWER, forget_logging

pytest.importorskip("fastreid")

DOCUMENT = ROOT / "docs" / "own_data.md"
# Size and length only: what is trained on what, and how it is evaluated, is the document's.
SMALL = shlex.split("""MODEL.DEVICE cpu MODEL.BACKBONE.PRETRAIN False MODEL.BACKBONE.FEAT_DIM 64 MODEL.BACKBONE.SMALL_WIDTH 8
MODEL.BACKBONE.SMALL_BLOCKS (1,1,1,1) MODEL.DUAL_STREAM.BASE build_small_resnet_backbone MODEL.TEXT.ARCH tower.json
MODEL.TEXT.WEIGHTS checkpoint INPUT.SIZE_TRAIN (48,24) INPUT.SIZE_TEST (48,24) DATALOADER.NUM_WORKERS 0 SEED 1
SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0 SOLVER.AMP.ENABLED False TEST.EVAL_PERIOD 1""")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder that looks like the checkout, to be written in."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("tools", "projects", "configs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tower.json").write_text(json.dumps(TOWER))
    return folder


def run(words: list[str]) -> None:
    """A command of the document, in this process: a new one would import torch again."""
    python, script, *rest = words
    assert python == "python" and script.startswith("tools/")
    if script.endswith("train_net.py"):
        # What the document sets itself comes last.
        at = next((n for n, word in enumerate(rest) if word.split(".")[0].isupper()), len(rest))
        rest = [*rest[:at], *SMALL, *rest[at:]]
    before = sys.argv
    sys.argv = [script, *rest]
    forget_logging()
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as leaving:
        assert not leaving.code, f"{' '.join(words)} ended with {leaving.code}"
    finally:
        forget_logging()
        sys.argv = before


def test_the_tutorial_from_pictures_to_a_search(workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    monkeypatch.delenv("FASTREID_DATASETS", raising=False)
    said = []
    for words in commands():
        run(words)
        said.append(capsys.readouterr().out)
    assert sum("OK: complete" in text for text in said) == 3
    for folder in ("own_table", "own_table/stage1", "own_table_stage1"):
        assert (workshop / "logs/tvilfm" / folder / "model_final.pth").is_file(), folder
    table = (workshop / "logs/tvilfm/own_table_every/evaluation/TriTable/table.md").read_text()
    assert "every-image" in table and "witness" in table
    assert (workshop / "found.png").is_file() and "datasets/own/test/visible/" in said[-1]
    (search,) = blocks("python")
    exec(compile(search, str(DOCUMENT), "exec"), {})
    hits = capsys.readouterr().out.splitlines()
    assert len(hits) == 5 and all("datasets/own/test/visible/" in line and "'fusion'" in line for line in hits)


def test_every_file_that_the_tutorial_names_exists():
    links = re.findall(r"\]\(([^)#]+)", DOCUMENT.read_text(encoding="utf-8"))
    assert links and not [link for link in links if not (DOCUMENT.parent / link).is_file()]
    configs = {word for words in commands() for word in words if word.endswith(".yml")}
    assert configs and all(Path(ROOT, config).is_file() for config in configs)

"""Both stages at the smallest size that still is the real thing, trained by tools/train_net.py in this process."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.engine import default_argument_parser
from fastreid.utils import logger as host_logger
from run_scripts import ROOT, load_tool
from tiny_trees import write_llcm, write_own, write_regdb, write_sysu

from tvilfm_plugin.host import replacing

TOWER = {
    "embed_dim": 32,
    "quick_gelu": True,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
# What makes any of our configs small: overrides that both stages get.
SMALL = """
MODEL:
  DEVICE: cpu
  BACKBONE: {FEAT_DIM: 64, PRETRAIN: False, SMALL_WIDTH: 8, SMALL_BLOCKS: [1, 1, 1, 1]}
  DUAL_STREAM: {BASE: build_small_resnet_backbone}
  TEXT: {ARCH: TOWER, WEIGHTS: ""}
INPUT: {SIZE_TRAIN: [48, 24], SIZE_TEST: [48, 24]}
DATALOADER: {NUM_INSTANCE: 2, NUM_WORKERS: 0}
DATASETS: {NAMES: [TriSYSUMM01], TESTS: [TriSYSUMM01]}
SEED: 3
SOLVER: {AMP: {ENABLED: False}, IMS_PER_BATCH: 8, BASE_LR: 0.002, MAX_EPOCH: 2, WARMUP_EPOCHS: 1, STEPS: [1], LOG_PERIOD: 2}
TEST: {DRAWS: 2, EVAL_PERIOD: 2, IMS_PER_BATCH: 16, TEXT_SOURCES: [witness, oracle, self, wrong], TEXT_SEEDS: [0, 1]}
"""


def write_configs(folder: Path) -> Path:
    """stage1.yml, stage2.yml and the text tower's description in `folder`; returns stage2.yml."""
    tower = folder / "tower.json"
    tower.write_text(json.dumps(TOWER))
    small = SMALL.replace("TOWER", str(tower))
    (folder / "stage1.yml").write_text(f"_BASE_: {ROOT}/configs/Base-VI.yml\n{small}")
    config = folder / "stage2.yml"
    config.write_text(f"_BASE_: {ROOT}/configs/Base-TVILFM.yml\nTVILFM: {{STAGE1: stage1.yml}}\n{small}")
    return config


def forget_logging() -> None:
    """As in a new process: the logger has no handlers yet, and the set-up forgets that it ran."""
    log = logging.getLogger("fastreid")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    replacing.original(host_logger, "setup_logger").cache_clear()


class TinyRuns:
    """Runs on a small SYSU-MM01 tree: 4 training and 3 test persons, 5 batches an epoch, 2 epochs a stage.

    RegDB, LLCM and own data lie beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = write_configs(folder)
        data = folder / "data"
        write_sysu(data, train_ids=(1, 4), val_ids=(2, 7), test_ids=(6, 12, 25), per_cell=2)
        write_regdb(data, train_ids=(193, 5, 40, 2))
        write_llcm(data, train_ids=(1, 3, 8, 9))
        write_own(data, train_ids=("1", "3", "anna", "9"))
        self.tool = load_tool("train_net")

    @property
    def stage1(self) -> Path:
        return self.config.with_name("stage1.yml")

    def __call__(self, name: str, *options: object, config: Path | None = None, trainer: type | None = None) -> Any:
        """`train_net.py --config-file ... OUTPUT_DIR <folder>/<name>`; options starting with -- go before the overrides.

        Args:
            config: stage2.yml by default.
            trainer: instead of TriTrainer.

        Returns:
            what `main` returns.
        """
        flags = [str(o) for o in options if str(o).startswith("--")]
        pairs = [str(o) for o in options if not str(o).startswith("--")]
        words = ["--config-file", str(config or self.config), *flags, "OUTPUT_DIR", str(self.folder / name), *pairs]
        with self.environment(), replacing.lend(self.tool, TriTrainer=trainer or self.tool.TriTrainer):
            return self.tool.main(default_argument_parser().parse_args(words))

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """The data sets of this folder and a fresh log, for a while."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTREID_DATASETS", str(self.folder / "data"))
            forget_logging()
            try:
                yield
            finally:
                forget_logging()


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The model's tensors in a checkpoint."""
    return torch.load(path, weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(out: Path) -> list[dict[str, float]]:
    """The lines of metrics.json."""
    return [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]

"""Whether a run can start: asked before anything is written, so that a wrong word leaves an older run as it is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.config.check import check_config
from tvilfm_plugin.config.names import registered
from tvilfm_plugin.data.loaders import build_dataset, is_tri, reads_captions
from tvilfm_plugin.files.text import read_text
from tvilfm_plugin.files.writing import make_folder, write_text
from tvilfm_plugin.modeling.registration import uses_text


def check_ready(cfg: CfgNode, training: bool) -> None:
    """Raise where the config, a data set (that of the evaluation included) or OUTPUT_DIR of a Tri- run is not as it must be.

    Args:
        training: whether the config is to be trained, else evaluated.
    """
    trained = set(cfg.DATASETS.NAMES) if training else set()
    names = trained | set(cfg.DATASETS.TESTS)
    if not any(is_tri(name) for name in names & set(registered("DATASET"))):
        return  # the host's own, or a script's, which may still register it
    ours = sorted(name for name in names if is_tri(name))
    check_config(cfg, training)
    tested = uses_text(cfg) and cfg.DATASETS.DIRECTION == "infrared-to-visible" and reads_captions(cfg, training=False)
    for name in ours:
        learned = name in trained and uses_text(cfg) and reads_captions(cfg, training=True)
        build_dataset(cfg, name, learned or name in cfg.DATASETS.TESTS and tested, verbose=False)
    make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")


@contextlib.contextmanager
def ready(cfg: CfgNode, training: bool) -> Iterator[None]:
    """Around fast-reid's set-up, which writes OUTPUT_DIR: `check_ready` comes first, and an evaluation's config.yaml goes.

    That of a run that is evaluated goes on saying how it was trained; the log says what was evaluated.
    """
    check_ready(cfg, training)
    if training:
        yield
        return
    config, trained = (Path(cfg.OUTPUT_DIR) / name for name in ("config.yaml", "run.json"))
    before = read_text(config) if comm.is_main_process() and trained.is_file() and config.is_file() else ""
    yield
    if before:
        write_text(config, before)

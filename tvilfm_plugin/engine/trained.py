"""Models that are trained already."""

import os
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.engine.epoch_rule import finished_weights
from tvilfm_plugin.engine.trainer import TriTrainer
from tvilfm_plugin.host.devices import usable_device
from tvilfm_plugin.modeling.text_encoder import FROM_CHECKPOINT


def load_model(
    config: str | os.PathLike[str], weights: str | os.PathLike[str], *, device: str = "", opts: Sequence[str] = ()
) -> tuple[CfgNode, Any]:
    """A trained model in eval mode, and its config.

    Args:
        config: that of the run: OUTPUT_DIR/config.yaml, or the file that it was trained with.
        weights: a checkpoint.
        device: instead of MODEL.DEVICE; without a GPU the CPU.
        opts: `KEY VALUE` overrides.
    """
    cfg = get_cfg()
    cfg.merge_from_file(os.fspath(config))
    cfg.merge_from_list(list(opts))
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.TEXT.WEIGHTS = FROM_CHECKPOINT
    cfg.MODEL.WEIGHTS = os.fspath(weights)
    cfg.MODEL.DEVICE = str(usable_device(device or cfg.MODEL.DEVICE))
    model = TriTrainer.build_model(cfg)
    TriTrainer.load_for_test(cfg, model)
    cfg.freeze()
    return cfg, model.eval()


def load_run(run: str | os.PathLike[str], *, device: str = "", opts: Sequence[str] = ()) -> tuple[CfgNode, Any]:
    """The trained model of a run by its folder alone, and its config; the folder may have been moved or copied.

    Args:
        run: OUTPUT_DIR of a finished training.
        device: instead of MODEL.DEVICE; without a GPU the CPU.
        opts: `KEY VALUE` overrides.
    """
    folder = os.fspath(run)
    config = os.path.join(folder, "config.yaml")
    if not os.path.isfile(config):
        what = "has no config.yaml, which a training writes" if os.path.isdir(folder) else "is no folder"
        raise FileNotFoundError(f"{folder!r} is no run: it {what}. Name the OUTPUT_DIR of a training.")
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.OUTPUT_DIR = folder
    weights = finished_weights(cfg)
    if not weights:
        found = ", ".join(sorted(name for name in os.listdir(folder) if name.endswith(".pth"))) or "none"
        raise FileNotFoundError(
            f"The run in {folder!r} is not finished: it has no final weights (checkpoints: {found}). Train it to its end with "
            "--resume, or load a checkpoint with load_model."
        )
    return load_model(config, weights, device=device, opts=["OUTPUT_DIR", folder, *opts])

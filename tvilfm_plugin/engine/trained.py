"""Models that are trained already."""

import os
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from tvilfm_plugin.config import get_cfg
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

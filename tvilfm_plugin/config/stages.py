"""The config of stage 1 that belongs to one of stage 2."""

import os
from typing import Any

from fastreid.config import CfgNode

from tvilfm_plugin.config.nodes import flat, get_cfg

# What a dual stream is made of; stage 2 goes on with the very modules of stage 1.
_VISUAL_PART = (
    "MODEL.BACKBONE.", "MODEL.DUAL_STREAM.", "MODEL.HEADS.POOL_LAYER", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD",
    "INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST",
)  # fmt: skip
_DUAL_STREAM = "build_dual_stream_backbone"


def visual_part(cfg: CfgNode, stage1: CfgNode) -> list[Any]:
    """What a stage-2 config says otherwise about its dual stream than the file of its stage 1, as KEY VALUE words.

    So a config names its backbone once, for both stages. Only stage 1 may start from ImageNet weights. Other visual parts
    (MIP) are described in full by the config of their own stage 1.
    """
    if not cfg.MODEL.BACKBONE.NAME == stage1.MODEL.BACKBONE.NAME == _DUAL_STREAM:
        return []
    before = flat(stage1)
    words: list[Any] = []
    for name, value in flat(cfg).items():
        if name.startswith(_VISUAL_PART) and ".PRETRAIN" not in name and value != before[name]:
            words += [name, value]
    return words


def stage1_config(cfg: CfgNode) -> CfgNode:
    """The config of stage 1 that belongs to a stage-2 config.

    It is read from the file `TVILFM.STAGE1`, with the dual stream of `cfg`; the overrides of the run follow, then those
    written `STAGE1.KEY`. Results go to `OUTPUT_DIR/stage1`; device and seed are those of the run, also where they were set
    in code.
    """
    if not os.path.isfile(cfg.TVILFM.STAGE1):
        raise FileNotFoundError(
            f"TVILFM.STAGE1 names {cfg.TVILFM.STAGE1!r}, which does not exist. Name the stage-1 config relative to the file "
            "that names it, or give finished stage-1 weights in MODEL.WEIGHTS."
        )
    stage1 = get_cfg()
    stage1.merge_from_file(cfg.TVILFM.STAGE1)
    meta_architecture = stage1.MODEL.META_ARCHITECTURE
    stage1.merge_values(visual_part(cfg, stage1), "stage 2's config")
    stage1.merge_from_list(list(cfg.TVILFM.OVERRIDES))
    stage1.MODEL.META_ARCHITECTURE = meta_architecture
    stage1.MODEL.DEVICE, stage1.SEED = cfg.MODEL.DEVICE, cfg.SEED
    stage1.merge_from_list(list(cfg.TVILFM.STAGE1_OVERRIDES))
    stage1.TVILFM.STAGE1 = ""
    stage1.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "stage1")
    stage1.freeze()
    return stage1

"""MIP models for tests: any size, any variant, golden weights."""

from typing import Any

import golden_inputs_mip as inputs
import numpy as np
import torch
from fastreid.config import CfgNode
from torch import Tensor

from tvilfm_plugin.checkpoints.released_mip import from_official, official_names
from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.modeling.mip.mip import MIP

RELEASED = {"BLOCKS": 10, "QUERY": "zeros", "IAEL_WEIGHT": 0.0}
SMALL = {"WIDTH": 32, "DEPTH": 4, "HEADS": 4, "PATCH": 8, "STRIDE": 6, "MODALITY_PROMPTS": 3, "INSTANCE_PROMPTS": 5, "BANK": 6}
DETERMINISTIC = {"DROP_PATH": 0.0, "PROMPT_DROPOUT": 0.0}


def mip_config(size: tuple[int, int] = (256, 128), classes: int = 395, **mip: Any) -> CfgNode:
    """A config of MIP; `mip` overrides keys of MODEL.MIP."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "MIP"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5] * 3
    cfg.MODEL.HEADS.NUM_CLASSES = classes
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = list(size)
    for key, value in mip.items():
        assert key in cfg.MODEL.MIP, key
        cfg.MODEL.MIP[key] = value
    return cfg


def small_config(**mip: Any) -> CfgNode:
    """32 wide, three blocks before the branches, images of 64 x 32, 10 x 5 patches, 6 identities."""
    return mip_config((64, 32), 6, **{**SMALL, **mip})


def golden_model(**mip: Any) -> MIP:
    """A full-size model with golden weights, and without its random layers."""
    model = MIP(mip_config(**{**DETERMINISTIC, **mip}))
    names = {theirs for name in model.state_dict() for theirs in official_names(name)}
    official = {name: torch.from_numpy(value) for name, value in inputs.official_weights(names).items()}
    found = from_official(official, {name: value.shape for name, value in model.state_dict().items()})
    assert not found.missing and not found.misshapen and not found.unused
    model.load_state_dict(found.state)
    return model


def rows(batch: inputs.Images) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels (B, 3, H, W) uint8, modality labels, camera numbers (from 1) and identities of a golden batch."""
    images = torch.from_numpy(inputs.pixels(batch).transpose(0, 3, 1, 2).copy())
    return images, torch.tensor(batch.modality), torch.tensor(batch.cameras) + 1, torch.tensor(batch.pids)


def training_batch(batch: inputs.Images) -> dict[str, Any]:
    """A golden batch, infrared rows first, as the trainer's batch."""
    images, labels, camids, pids = rows(batch)
    ir, rgb = labels == 0, labels == 1
    assert torch.equal(pids[ir], pids[rgb])
    named = {"ir": images[ir], "rgb": images[rgb], "ir_camids": camids[ir], "rgb_camids": camids[rgb]}
    return named | {"targets": pids[ir]}


def deviation(found: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """Largest difference, relative to the largest expected value."""
    a, b = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (found, expected))
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max() / np.abs(b).max())

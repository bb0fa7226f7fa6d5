"""The two stages as the configs of the paper build them, at random, and batches of the real sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.modeling.meta_arch import build_model
from torch import Tensor, nn

from tvilfm_plugin.config import read_config
from tvilfm_plugin.data.tokenizer import END, START
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.dual_stream import STREAMS

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = [
    "MODEL.BACKBONE.FEAT_DIM", 64, "MODEL.BACKBONE.SMALL_WIDTH", 8, "MODEL.DUAL_STREAM.BASE", "build_small_resnet_backbone",
    "MODEL.TEXT.ARCH", str(CONFIGS / "text" / "tiny.json"), "INPUT.SIZE_TRAIN", [96, 48], "INPUT.SIZE_TEST", [96, 48],
]  # fmt: skip


def build(stage: int, smoke: bool) -> tuple[Any, Any]:
    """Config and model of a stage, on the CPU, with the BN statistics of some images."""
    torch.manual_seed(0)
    cfg = read_config(CONFIGS / ("Base-VI.yml" if stage == 1 else "Base-TVILFM.yml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, "MODEL.HEADS.NUM_CLASSES", 395])
    cfg.merge_from_list(["MODEL.TEXT.WEIGHTS", "checkpoint", *(SMALL if smoke else [])])
    model = build_model(cfg)
    _calibrate(model, images(cfg, 4, 0))
    return cfg, model.train()


@torch.no_grad()
def _calibrate(model: Any, pixels: Tensor) -> None:
    """Give every BN the statistics of some images: with those of its first state, deep random networks overflow."""
    layers = [layer for layer in model.visual.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    model.visual(dict.fromkeys(STREAMS, pixels))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def images(cfg: Any, count: int, seed: int) -> Tensor:
    """(N, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *cfg.INPUT.SIZE_TRAIN), generator=generator, dtype=torch.uint8)


def tokens(count: int, seed: int) -> Tensor:
    """(N, 77) ids with the lengths of real captions: 36 on average, hardly one above 60."""
    rng = np.random.RandomState(seed)
    ids = np.zeros((count, 77), np.int64)
    for row, length in zip(ids, np.clip(rng.normal(36, 9, count).round().astype(int), 12, 77), strict=True):
        row[:length] = [START, *rng.randint(300, 40000, length - 2), END]
    return torch.from_numpy(ids)


def visual_gmac(model: Any, size: tuple[int, int]) -> float:
    """Multiplications of one image's convolutions, in 1e9."""
    total = 0

    def count(layer: nn.Conv2d, args: tuple, output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    training = model.visual.training
    with torch.no_grad():
        model.visual.eval()({Modality.RGB: torch.zeros(1, 3, *size)})
    model.visual.train(training)
    for hook in hooks:
        hook.remove()
    return total / 1e9


def text_gmac(model: Any, positions: int) -> float:
    """Multiplications of the blocks' linear layers, in 1e9; attention itself is 2 % more and not counted."""
    weights = sum(p.numel() for p in model.text.transformer.parameters() if p.ndim == 2)
    return positions * weights / 1e9

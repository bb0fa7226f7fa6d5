"""From the config to the visual part: any registered backbone, doubled at the stem, with a pooling layer behind it."""

import logging
from pathlib import Path

import torch
from fastreid.layers import pooling
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import use_portable_sync_bn
from tvilfm_plugin.modeling.dual_stream import DualStream
from tvilfm_plugin.modeling.registries import choose
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder, VisualEncoder

logger = logging.getLogger("fastreid." + __name__)


@BACKBONE_REGISTRY.register()
def build_dual_stream_backbone(cfg: CfgNode) -> DualStream:
    """MODEL.DUAL_STREAM.BASE with one stem per modality.

    The base is built, and its ImageNet weights are loaded, before the stem is copied: both stems start from them.
    """
    stream = cfg.MODEL.DUAL_STREAM
    if stream.BASE == cfg.MODEL.BACKBONE.NAME:
        raise ValueError(f"MODEL.DUAL_STREAM.BASE cannot be {stream.BASE} itself; name the backbone to be doubled.")
    builder = choose(BACKBONE_REGISTRY, stream.BASE, "MODEL.DUAL_STREAM.BASE")
    cfg = _without_download(cfg)
    base = builder(cfg)
    if cfg.MODEL.BACKBONE.PRETRAIN:
        _check_loaded(base, cfg.MODEL.BACKBONE.PRETRAIN_PATH)
    return DualStream(use_portable_sync_bn(base), stem=stream.STEM, style=stream.STYLE, fold=stream.FOLD_BN)


def build_visual_encoder(cfg: CfgNode) -> VisualEncoder:
    """MODEL.BACKBONE.NAME as a visual encoder: a dual stream gets MODEL.HEADS.POOL_LAYER, an encoder stays as it is."""
    backbone = build_backbone(cfg)
    if isinstance(backbone, VisualEncoder):
        return backbone
    if not isinstance(backbone, DualStream):
        raise TypeError(
            f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} has one stem for all modalities. Put its name into "
            "MODEL.DUAL_STREAM.BASE and set MODEL.BACKBONE.NAME build_dual_stream_backbone."
        )
    name = cfg.MODEL.HEADS.POOL_LAYER
    if name not in pooling.__all__:
        raise KeyError(f"MODEL.HEADS.POOL_LAYER is {name!r}; fast-reid has {', '.join(pooling.__all__)}.")
    height, width = cfg.INPUT.SIZE_TRAIN
    pool = getattr(pooling, name)()
    return DualStreamEncoder(
        backbone=backbone,
        pool=pool,
        dim=cfg.MODEL.BACKBONE.FEAT_DIM or _measured_dim(backbone, pool, (height, width)),
        image_size=(height, width),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


@torch.no_grad()
def _measured_dim(backbone: DualStream, pool: nn.Module, image_size: tuple[int, int]) -> int:
    """D, from one image: what FEAT_DIM 0 stands for."""
    modes = {module: module.training for module in backbone.modules()}
    maps = backbone.eval()({Modality.RGB: torch.zeros(1, 3, *image_size)})[Modality.RGB]
    for module, mode in modes.items():
        module.training = mode
    return (pool(maps) if maps.ndim == 4 else maps).flatten(1).shape[1]


def with_dim(cfg: CfgNode, dim: int) -> CfgNode:
    """The config for what is built behind a visual encoder of width D: FEAT_DIM says it, also where it was 0."""
    if dim == cfg.MODEL.BACKBONE.FEAT_DIM:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.FEAT_DIM = dim
    return cfg


def _without_download(cfg: CfgNode) -> CfgNode:
    """Pretrained weights come from a local file or not at all: fast-reid would import a downloader and fetch them."""
    backbone = cfg.MODEL.BACKBONE
    if not backbone.PRETRAIN or backbone.PRETRAIN_PATH:
        if backbone.PRETRAIN and not Path(backbone.PRETRAIN_PATH).is_file():
            raise FileNotFoundError(
                f"MODEL.BACKBONE.PRETRAIN_PATH {backbone.PRETRAIN_PATH!r} is no file. Give the ImageNet weights' local "
                "file, or set MODEL.BACKBONE.PRETRAIN False to start at random."
            )
        return cfg
    logger.warning(
        "MODEL.BACKBONE.PRETRAIN is True, but MODEL.BACKBONE.PRETRAIN_PATH names no file: the backbone starts at RANDOM. "
        "The published numbers need ImageNet weights; download the backbone's file and name it in PRETRAIN_PATH."
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    return cfg


def _check_loaded(base: nn.Module, path: str) -> None:
    """The host loads non-strictly: a foreign file would load nothing, silently."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("model", "state_dict", "model_state"):
        content = content.get(wrapper, content)
    own = base.state_dict()
    loaded = set()
    for name, value in content.items():
        # The hosts of some backbones take "module." or "module.encoder." off: what counts is what arrived.
        for found in {name, name.partition(".")[2], name.partition(".")[2].partition(".")[2]} & own.keys():
            if isinstance(value, Tensor) and own[found].shape == value.shape and torch.equal(own[found].cpu(), value):
                loaded.add(found)
    if not loaded:
        raise ValueError(
            f"No tensor of {path!r} fits {type(base).__name__}: the file has {', '.join(list(content)[:3])} ..., the "
            f"backbone {', '.join(list(own)[:3])} ... Give weights of MODEL.DUAL_STREAM.BASE at MODEL.BACKBONE.DEPTH."
        )
    weights = [n for n in own if not n.endswith("num_batches_tracked")]
    found = sum(n in loaded for n in weights)
    logger.info(f"Backbone weights from {path}: {found} of {len(weights)} tensors; the others stay at random")

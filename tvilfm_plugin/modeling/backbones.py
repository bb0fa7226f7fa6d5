"""From the config to the visual part: any registered backbone, doubled at the stem, with a pooling layer behind it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fastreid.layers import pooling
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.files.listing import some
from tvilfm_plugin.files.shipped import weights_file
from tvilfm_plugin.files.weights import WeightsError, below, read_tensors
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbone_layouts import load_backbone
from tvilfm_plugin.modeling.distributed import synchronised, use_portable_sync_bn
from tvilfm_plugin.modeling.dual_stream import DualStream
from tvilfm_plugin.modeling.methods.deen import DEENTrunk
from tvilfm_plugin.modeling.methods.yyds import YYDSTrunk
from tvilfm_plugin.modeling.published_weights import fetch
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
    base = _with_weights(builder, stream.BASE, cfg)
    if stream.TRUNK != "plain":
        trunk = YYDSTrunk if stream.TRUNK.startswith("YYDS") else DEENTrunk
        base = trunk(base, reduced=stream.TRUNK.endswith("-reduced"), half_maps=stream.HALF_MAPS)
        base = synchronised(base, cfg.MODEL.BACKBONE.NORM)
    doubled = DualStream(use_portable_sync_bn(base), stem=stream.STEM, style=stream.STYLE, fold=stream.FOLD_BN)
    if stream.WEIGHTS:
        _start_from(doubled, stream.WEIGHTS)
    return doubled


def _start_from(doubled: DualStream, name: str) -> None:
    """Give a dual stream the stems and the trunk of another model; a second trunk (YYDS) gets the trunk's, too."""
    path = weights_file(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"MODEL.DUAL_STREAM.WEIGHTS {name!r} is neither a file nor a model folder, nor a model that comes with the plugin."
        )
    given = below(read_tensors(path), "visual.backbone.")
    own = doubled.state_dict()
    wrong = [key for key, value in given.items() if key not in own or own[key].shape != value.shape]
    if wrong or not given:
        raise WeightsError(
            f"{str(path)!r} has no dual stream of this base ({some(wrong, 3) if wrong else 'no visual.backbone.*'}): set "
            "MODEL.DUAL_STREAM.BASE and the backbone's keys as its training did."
        )
    second = {key: given[trunk] for key in own if (trunk := key.replace("base.colour.module.", "base.")) in given}
    doubled.load_state_dict({**given, **second}, strict=False)
    logger.info(f"Stems and trunk from {path}: {len(given)} tensors; the rest of the model starts at random")


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
    encoder = DualStreamEncoder(
        backbone=backbone,
        pool=pool,
        dim=getattr(backbone.base, "dim", 0) or cfg.MODEL.BACKBONE.FEAT_DIM or _measured_dim(backbone, pool, (height, width)),
        image_size=(height, width),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    encoder.fill = cfg.INPUT.CAJ.ERASING_FILL
    return encoder


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


def pretrained_file(cfg: CfgNode, builder: str) -> Path:
    """The file of MODEL.BACKBONE.PRETRAIN_PATH or, without one, of the published weights."""
    backbone = cfg.MODEL.BACKBONE
    if backbone.PRETRAIN_PATH:
        path = Path(backbone.PRETRAIN_PATH)
        if not path.is_file():
            raise FileNotFoundError(
                f"MODEL.BACKBONE.PRETRAIN_PATH {str(path)!r} is no file. Give the ImageNet weights' local file, leave it empty "
                "to fetch the published ones, or set MODEL.BACKBONE.PRETRAIN False to start at random."
            )
        return path
    kinds = ("se_" if backbone.WITH_SE else "") + ("ibn_" if backbone.WITH_IBN else "")
    return fetch(builder, kinds + backbone.DEPTH)


def _with_weights(builder: Callable[[CfgNode], nn.Module], name: str, cfg: CfgNode) -> Any:
    """A backbone with the weights that the config asks for.

    fast-reid's builders load non-strictly, each in a form of its own, and download; here they start at random and are filled. A
    builder of somebody else's reads MODEL.BACKBONE.PRETRAIN_PATH itself, and what arrived is checked.
    """
    if not cfg.MODEL.BACKBONE.PRETRAIN:
        return builder(cfg)
    path = pretrained_file(cfg, name)
    cfg = cfg.clone()
    cfg.defrost()
    foreign = not builder.__module__.startswith("fastreid.")
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = foreign, str(path)
    base = builder(cfg)
    state = read_tensors(path)
    if foreign:
        _check_arrived(base, state, path)
    else:
        count = load_backbone(base, state, name, str(path))
        weights = [n for n in base.state_dict() if not n.endswith("num_batches_tracked")]
        logger.info(f"Backbone weights from {path}: {count} of {len(weights)} tensors")
    return base


def _check_arrived(base: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """A builder that does not read the file, or reads another model's non-strictly, would start at random and say nothing."""
    sizes = {(value.shape, float(value.float().sum())) for value in state.values() if value.ndim > 1}
    weights = {name: value for name, value in base.state_dict().items() if value.ndim > 1}
    if not any((value.shape, float(value.float().sum())) in sizes for value in weights.values()):
        raise WeightsError(
            f"No tensor of {str(path)!r} is in the {type(base).__name__} that was built: the file has {some(state, 3)}, the "
            f"backbone {some(weights, 3)}. Give weights of MODEL.DUAL_STREAM.BASE at MODEL.BACKBONE.DEPTH, or let its builder "
            "read MODEL.BACKBONE.PRETRAIN_PATH."
        )

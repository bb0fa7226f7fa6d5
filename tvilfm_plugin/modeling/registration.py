"""Importing this module puts everything of ours into fast-reid's registries, and does nothing else."""

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from yacs.config import CfgNode

import tvilfm_plugin.data.modal_loader  # noqa: F401  (MIP's sampler and augmentation)
from tvilfm_plugin.modeling.backbones import build_dual_stream_backbone
from tvilfm_plugin.modeling.identity_head import IdentityHead
from tvilfm_plugin.modeling.methods.models import DDAG, DEEN, MMN
from tvilfm_plugin.modeling.methods.yyds_model import YYDS
from tvilfm_plugin.modeling.mip.build import build_mip_backbone
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.registries import FUSION_REGISTRY, LOSS_REGISTRY
from tvilfm_plugin.modeling.small_resnet import build_small_resnet_backbone
from tvilfm_plugin.modeling.tvilfm import TVILFM
from tvilfm_plugin.modeling.vi_baseline import VIBaseline

__all__ = [
    "DDAG",
    "DEEN",
    "FUSION_REGISTRY",
    "LOSS_REGISTRY",
    "MIP",
    "MMN",
    "TVILFM",
    "IdentityHead",
    "YYDS",
    "VIBaseline",
    "build_dual_stream_backbone",
    "build_mip_backbone",
    "build_small_resnet_backbone",
    "reads_own_text",
    "uses_text",
]


def uses_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` has a text encoder."""
    return bool(getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), "has_text", False))


def reads_own_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` reads the caption of an infrared image beside that of a visible one."""
    return bool(getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), "reads_own_text", True))

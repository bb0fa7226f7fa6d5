"""Importing this module puts everything of ours into fast-reid's registries, and does nothing else."""

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from yacs.config import CfgNode

import tvilfm_plugin.data.modal_loader
import tvilfm_plugin.modeling.backbones
import tvilfm_plugin.modeling.identity_head
import tvilfm_plugin.modeling.methods.models
import tvilfm_plugin.modeling.methods.yyds_model
import tvilfm_plugin.modeling.mip.mip
import tvilfm_plugin.modeling.registries
import tvilfm_plugin.modeling.small_resnet
import tvilfm_plugin.modeling.tvilfm  # noqa: F401


def uses_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` has a text encoder."""
    return bool(getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), "has_text", False))


def reads_own_text(cfg: CfgNode) -> bool:
    """Whether the model of `cfg` reads the caption of an infrared image beside that of a visible one."""
    return bool(getattr(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), "reads_own_text", True))

"""The neck and the classifier that all modalities share."""

import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.modeling.necks import bn_neck, frozen_bias_neck, small_classifier


@REID_HEADS_REGISTRY.register()
class IdentityHead(nn.Module):
    """A BN neck (N, D) (with trainable bias, as released for TVI-LFM) and a bias-free classifier (N, D) -> (N, K)."""

    @configurable
    def __init__(self, *, dim: int, num_classes: int, norm: str = "BN", neck_bias: bool = True) -> None:
        """Args:
        num_classes: K, the training identities; 0 if the head is only to embed.
        norm: "BN", or "syncBN" for statistics over all processes.
        neck_bias: whether the neck's bias trains; False: it stays 0, and the weight starts around 1 (AGW, CAJ).
        """
        super().__init__()
        self.neck = (bn_neck if neck_bias else frozen_bias_neck)(dim, norm)
        self.classifier = small_classifier(dim, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, object]:
        heads = cfg.MODEL.HEADS
        if heads.EMBEDDING_DIM:
            raise ValueError(
                f"MODEL.HEADS.EMBEDDING_DIM is {heads.EMBEDDING_DIM}, but IdentityHead does not reduce: text and images "
                "share the backbone's width. Set it to 0."
            )
        return {
            "dim": cfg.MODEL.BACKBONE.FEAT_DIM,
            "num_classes": heads.NUM_CLASSES,
            "norm": heads.NORM,
            "neck_bias": heads.NECK_BIAS,
        }

    def embed(self, raw: Tensor) -> Tensor:
        """Raw features (N, D) -> unit embeddings (N, D), which retrieval compares."""
        return F.normalize(self.neck(raw), dim=1)

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw features (N, D) -> unit embeddings (N, D) and logits (N, K)."""
        after = self.neck(raw)
        return F.normalize(after, dim=1), self.classifier(after)

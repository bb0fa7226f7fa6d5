"""MIP as a model: prompted transformer, five branches, four losses."""

from collections.abc import Mapping
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from tvilfm_plugin.data.augment.modal import erase_and_gray
from tvilfm_plugin.data.modal_loader import build_mip_train_loader
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import gather_rows
from tvilfm_plugin.modeling.losses import identity_loss
from tvilfm_plugin.modeling.mip.build import build_mip_backbone, build_mip_heads
from tvilfm_plugin.modeling.mip.encoder import Branches, MIPEncoder
from tvilfm_plugin.modeling.mip.heads import MIPHeads
from tvilfm_plugin.modeling.mip.losses import (
    branch_mean,
    modality_shared_enhancement,
    prompt_identity_loss,
    soft_margin_triplet,
)
from tvilfm_plugin.modeling.mip.optim import build_mip_scheduler, mip_param_groups
from tvilfm_plugin.modeling.mip.prompts import modality_labels
from tvilfm_plugin.modeling.vi_baseline import Batch, VIBaseline

# Infrared first, as the authors' batches.
ROWS = (Modality.IR, Modality.RGB)


@META_ARCH_REGISTRY.register()
class MIP(VIBaseline):
    """Modality- and instance-aware visual prompt learning.

    In evaluation it is a `VIBaseline`: raw features (N, 5 * D), `encode_images`, `embed`; images alone, no text.

    Attributes:
        visual: pixels -> five vectors.
        heads: necks and classifiers.
        epoch: the trainer's, from 0; whoever trains sets it with `set_epoch`.
    """

    visual: MIPEncoder
    heads: MIPHeads  # type: ignore[assignment]

    # What the trainer takes from here instead of TVI-LFM's.
    build_train_loader = staticmethod(build_mip_train_loader)
    param_groups = staticmethod(mip_param_groups)

    @staticmethod
    def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> dict[str, LRScheduler] | None:
        """The cosine with restarts; None leaves the schedule to the trainer."""
        return build_mip_scheduler(cfg, optimizer) if cfg.SOLVER.COSINE_PERIOD else None

    @configurable
    def __init__(
        self,
        *,
        visual: MIPEncoder,
        heads: MIPHeads,
        triplet_weight: float = 1.0,
        msel_weight: float = 0.5,
        msel_epoch: int = 10,
        iael_weight: float = 0.5,
        gather: bool = False,
    ) -> None:
        """Args:
        visual: encodes both kinds of images.
        heads: necks and classifiers.
        triplet_weight: of the batch-hard soft-margin triplet loss; 0 = off.
        msel_weight: of the modality-shared enhancement loss; 0 = off.
        msel_epoch: the first epoch that has it, counted from 1.
        iael_weight: of the identity loss on instance prompts; 0 = off.
        gather: compute the losses over the rows of all processes.
        """
        super().__init__(visual=visual, heads=heads, losses={}, gather=gather)  # type: ignore[arg-type]
        self.triplet_weight = triplet_weight
        self.msel_weight = msel_weight
        self.msel_epoch = msel_epoch
        self.iael_weight = iael_weight
        self.epoch = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        mip = cfg.MODEL.MIP
        visual = build_mip_backbone(cfg)
        return {
            "visual": visual,
            "heads": build_mip_heads(cfg, visual),
            "triplet_weight": mip.TRIPLET_WEIGHT,
            "msel_weight": mip.MSEL_WEIGHT,
            "msel_epoch": mip.MSEL_EPOCH,
            "iael_weight": mip.IAEL_WEIGHT,
            "gather": cfg.MODEL.LOSSES.GATHER,
        }

    def set_epoch(self, epoch: int) -> None:
        """Tell the model which epoch begins, counted from 0: MSEL joins later."""
        self.epoch = epoch

    def forward(self, batch: Batch | Tensor) -> dict[str, Tensor] | Tensor:
        """Training: a `ModalPairs` batch -> scalar losses. Evaluation: as `VIBaseline`.

        Args:
            batch: in training, `ir, rgb` (B, 3, H, W) pixels, `ir_camids, rgb_camids, targets` (B,), optionally
                `ir_draws, rgb_draws` (B, 5+); row b of both modalities is the same person.

        Returns:
            `loss_identity, loss_triplet, loss_msel, loss_iael` -> () as far as they are on; or (N, 5 * D) unit embeddings.
        """
        if not self.training or isinstance(batch, Tensor):
            return super().forward(batch)
        self._check_batch(batch)
        described, labels = self._described(batch)
        return self.evaluate_losses(described, batch["targets"].repeat(len(ROWS)), labels)

    def _needed_keys(self, batch: Batch) -> tuple[str, ...]:
        cameras = ("ir_camids", "rgb_camids") if self.visual.embedding.camera is not None else ()
        return ("ir", "rgb", "targets", *cameras)

    def _described(self, batch: Mapping[str, Any]) -> tuple[Branches, Tensor]:
        """The vectors of all rows, infrared first, and their modality labels."""
        images = self.visual.normalise(torch.cat([batch[m.value] for m in ROWS]))
        if "ir_draws" in batch:
            images = erase_and_gray(images, torch.cat([batch[f"{m.value}_draws"] for m in ROWS]))
        labels = modality_labels({m: len(batch[m.value]) for m in ROWS}, images.device)
        cameras = None
        if self.visual.embedding.camera is not None:
            cameras = torch.cat([batch[f"{m.value}_camids"] for m in ROWS])
        return self.visual.describe(images, labels, cameras), labels

    def evaluate_losses(self, described: Branches, pids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses that are on in this epoch.

        Args:
            described: of N images.
            pids: (N,) training identities.
            labels: (N,) modality.
        """
        logits = self.heads(described.features)
        prompt_logits = self.heads.prompt_logits(described.prompts) if self.heads.prompt_necks else []
        features = described.features
        if self.gather:
            features, pids, labels = gather_rows(features), gather_rows(pids), gather_rows(labels)
            logits = [gather_rows(rows) for rows in logits]
            prompt_logits = [gather_rows(rows) for rows in prompt_logits]
        branches = features.unbind(1)
        losses = {"loss_identity": branch_mean([identity_loss(rows, pids) for rows in logits])}
        if self.triplet_weight:
            losses["loss_triplet"] = self.triplet_weight * branch_mean([soft_margin_triplet(rows, pids) for rows in branches])
        if self.msel_weight and self.epoch + 1 >= self.msel_epoch:
            msel = branch_mean([modality_shared_enhancement(rows, pids, labels) for rows in branches])
            losses["loss_msel"] = self.msel_weight * msel
        if prompt_logits:
            losses["loss_iael"] = self.iael_weight * prompt_identity_loss(prompt_logits, pids)
        return losses

"""MIP as a model: prompted transformer, five branches, four losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from tvilfm_plugin.data.augment.modal import erase_and_gray
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import gather_rows
from tvilfm_plugin.modeling.mip.build import build_mip_backbone
from tvilfm_plugin.modeling.mip.encoder import Branches, MIPEncoder
from tvilfm_plugin.modeling.mip.heads import MIPHeads
from tvilfm_plugin.modeling.mip.prompts import modality_labels
from tvilfm_plugin.modeling.registries import WeightedLoss, choose_losses, weighted_losses
from tvilfm_plugin.modeling.vi_baseline import Batch, VIBaseline
from tvilfm_plugin.registries import choose

# Infrared first, as the authors' batches.
ROWS = (Modality.IR, Modality.RGB)
LOSSES = ("identity", "triplet", "msel", "iael")


@META_ARCH_REGISTRY.register()
class MIP(VIBaseline):
    """Modality- and instance-aware visual prompt learning; whoever trains it tells the epoch, from 0 (`set_epoch`).

    In evaluation it is a `VIBaseline`: raw features (N, 5 * D), `encode_images`, `embed`; images alone, no text.
    """

    visual: MIPEncoder
    heads: MIPHeads  # type: ignore[assignment]

    @configurable
    def __init__(
        self,
        *,
        visual: MIPEncoder,
        heads: MIPHeads,
        losses: Mapping[str, WeightedLoss],
        msel_epoch: int = 10,
        gather: bool = False,
    ) -> None:
        """Args:
        losses: name -> function and weight (0 = off), of "identity", "triplet", "msel" and "iael", or others.
        msel_epoch: the first epoch that has MSEL, counted from 1.
        gather: compute the losses over the rows of all processes.
        """
        super().__init__(visual=visual, heads=heads, losses=losses, gather=gather)  # type: ignore[arg-type]
        self.msel_epoch = msel_epoch
        self.epoch = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        mip = cfg.MODEL.MIP
        visual = build_mip_backbone(cfg)
        # fast-reid's defaults mean that nothing was chosen.
        head = "MIPHeads" if cfg.MODEL.HEADS.NAME == "EmbeddingHead" else cfg.MODEL.HEADS.NAME
        names = LOSSES if tuple(cfg.MODEL.LOSSES.NAME) == ("CrossEntropyLoss",) else tuple(cfg.MODEL.LOSSES.NAME)
        own = {"triplet": mip.TRIPLET_WEIGHT, "msel": mip.MSEL_WEIGHT, "iael": mip.IAEL_WEIGHT}
        return {
            "visual": visual,
            "heads": choose(REID_HEADS_REGISTRY, head, "MODEL.HEADS.NAME")(cfg, visual),
            "losses": choose_losses(names, cfg.MODEL.LOSSES.WEIGHTS or [own.get(name, 1.0) for name in names]),
            "msel_epoch": mip.MSEL_EPOCH,
            "gather": cfg.MODEL.LOSSES.GATHER,
        }

    def set_epoch(self, epoch: int) -> None:
        """Tell the model which epoch begins, counted from 0: MSEL joins later."""
        self.epoch = epoch

    def forward(self, batch: Batch | Tensor) -> dict[str, Tensor] | Tensor:
        """Training: a `ModalPairs` batch -> scalar losses. Evaluation: as `VIBaseline`.

        Args:
            batch: in training, `ir, rgb` (B, 3, H, W) pixels, `ir_camids, rgb_camids, targets` (B,), optionally
                `ir_ops, rgb_ops` (B, 5+); row b of both modalities is the same person.

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
        if "ir_ops" in batch:
            images = erase_and_gray(images, torch.cat([batch[f"{m.value}_ops"] for m in ROWS]))
        labels = modality_labels({m: len(batch[m.value]) for m in ROWS}, images.device)
        cameras = None
        if self.visual.embedding.camera is not None:
            cameras = torch.cat([batch[f"{m.value}_camids"] for m in ROWS])
        return self.visual.describe(images, labels, cameras), labels

    def evaluate_losses(self, described: Branches, pids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses that are on in this epoch."""
        logits = self.heads(described.features)
        prompt_logits = self.heads.prompt_logits(described.prompts) if self.heads.prompt_necks else []
        features = described.features
        if self.gather:
            features, pids, labels = gather_rows(features), gather_rows(pids), gather_rows(labels)
            logits = [gather_rows(rows) for rows in logits]
            prompt_logits = [gather_rows(rows) for rows in prompt_logits]
        more = {"labels": labels, "prompt_logits": prompt_logits}
        on = {name: loss for name, loss in self.losses.items() if loss.weight and self._joined_yet(name, prompt_logits)}
        return weighted_losses(on, features, logits, pids, more)

    def _joined_yet(self, name: str, prompt_logits: Sequence[Tensor]) -> bool:
        return (name != "msel" or self.epoch + 1 >= self.msel_epoch) and (name != "iael" or bool(prompt_logits))

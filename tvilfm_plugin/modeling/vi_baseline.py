"""Stage 1: the visible-infrared backbone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.heads import build_heads
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.evaluation.ensemble import pack
from tvilfm_plugin.evaluation.mer import batch_norm_affine
from tvilfm_plugin.modality import Embeddings, Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder, with_dim
from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.identity_head import IdentityHead
from tvilfm_plugin.modeling.registries import WeightedLoss, choose_losses, evaluate_losses
from tvilfm_plugin.modeling.visual_encoder import VisualEncoder

logger = logging.getLogger("fastreid." + __name__)

Batch = Mapping[str, Any]


@META_ARCH_REGISTRY.register()
class VIBaseline(nn.Module):
    """Dual-stream backbone, pooling, shared neck and classifier; rows [visible view 1; visible view 2; infrared].

    Attributes:
        visual: pixels -> raw features.
        heads: raw features -> unit embeddings and logits, for every modality.
        losses: name -> function and weight.
        members: the modalities whose similarities a query sums.
        has_text: whether queries may carry text.
        stage1: pooling and neck of the search without text where they are not these; None here.
        rates: beginnings of parameters' names -> the part whose learning rate is theirs ("heads", "visual", "text"), where the
            name says another.
    """

    rates: Mapping[str, str] = {}

    has_text = False
    _rule_is_named = False
    members: tuple[Modality, ...] = (Modality.IR,)

    @configurable
    def __init__(
        self,
        *,
        visual: VisualEncoder,
        heads: IdentityHead,
        losses: Mapping[str, WeightedLoss],
        gather: bool = False,
        rgb_views: int = 2,
    ) -> None:
        """`gather`: losses over the rows of all processes; a step trains on 1 or 2 `rgb_views` (visible views)."""
        super().__init__()
        self.visual = visual
        self.heads = heads
        self.losses = dict(losses)
        self.gather = gather
        self.rgb_views = ("rgb", "rgb_aug")[:rgb_views]
        self.stage1: nn.Module | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        visual, heads = cls._built(cfg)
        return {
            "visual": visual,
            "heads": heads,
            "losses": choose_losses(cfg.MODEL.LOSSES.NAME, cfg.MODEL.LOSSES.WEIGHTS),
            "gather": cfg.MODEL.LOSSES.GATHER,
            "rgb_views": cfg.INPUT.CAJ.VIEWS,
        }

    @classmethod
    def _built(cls, cfg: CfgNode) -> tuple[VisualEncoder, nn.Module]:
        """Visual part and head."""
        visual = build_visual_encoder(cfg)
        return visual, build_heads(with_dim(cfg, visual.dim))

    @property
    def device(self) -> torch.device:
        """Where the images must be."""
        return self.visual.pixel_mean.device

    @property
    def known_tokens(self) -> Tensor | None:
        """Ids that the text tower was stored with, where the others were left out; None: all, or there is no tower."""
        return getattr(getattr(self, "text", None), "known_tokens", None)

    # --- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch | Tensor) -> dict[str, Tensor] | Tensor:
        """Training: a `PairedDataset` batch -> scalar losses. Evaluation: images -> what the stock evaluator compares.

        Args:
            batch: in training, `rgb, rgb_aug, ir` (B, 3, H, W) pixels, `targets` (B,), optionally `<view>_ops` (B, 5+);
                in evaluation, `images` (N, 3, H, W) with `modality` (one, or one per image; visible if absent), or the
                images alone, which are then visible.

        Returns:
            `loss_<name>` -> (); or (N, M*D) packed embeddings (Eq. 11), float32.
        """
        if isinstance(batch, Tensor):
            batch = {"images": batch}
        if not self.training:
            self._name_the_rule()
            with full_precision(self.device):
                return self._packed(batch)
        self._check_batch(batch)
        features, copies = self._training_rows(batch)
        _, logits = self.heads(features)
        return evaluate_losses(self.losses, features, logits, batch["targets"].repeat(copies), self.gather, copies)

    def _name_the_rule(self) -> None:
        """Our evaluator encodes parts and never comes here: who calls this ranks by a rule of their own."""
        if not self._rule_is_named:
            self._rule_is_named = True
            logger.info(
                "Packed embeddings (Eq. 11): their cosine is the ensemble similarity, but fast-reid's own evaluator ranks the "
                "union of all gallery draws by the Market rule, not by the data set's protocol (MEREvaluator does)."
            )

    def _training_rows(self, batch: Batch) -> tuple[Tensor, int]:
        """Raw features (n*B, D) that the losses see, and n: row b of every block is the same person."""
        views = self._visual_rows(batch)
        return torch.cat([views[Modality.RGB], views[Modality.IR]]), len(self.rgb_views) + 1

    def _visual_rows(self, batch: Batch) -> Embeddings:
        """RGB: (2B, D), view 1 then view 2 (or view 1 alone); IR: (B, D); one pass through the trunk."""
        return self.visual.encode(*self._views(batch))

    def _views(self, batch: Batch) -> tuple[Embeddings, Embeddings | None, Embeddings | None]:
        """Images, cameras and channel operations per modality; the last two None where the batch has none."""
        views: dict[Modality, tuple[str, ...]] = {Modality.RGB: self.rgb_views, Modality.IR: ("ir",)}
        images = {m: torch.cat([batch[name] for name in names]) for m, names in views.items()}
        camids = {m: _joined(batch, [f"{m.value}_camids"] * len(names)) for m, names in views.items()}
        ops = {m: _joined(batch, [f"{name}_ops" for name in names]) for m, names in views.items()}
        return (
            images,
            {m: rows for m, rows in camids.items() if rows is not None} or None,
            {m: rows for m, rows in ops.items() if rows is not None} or None,
        )

    def _check_batch(self, batch: Batch) -> None:
        missing = [key for key in self._needed_keys(batch) if key not in batch]
        if missing:
            raise KeyError(
                f"{type(self).__name__} trains on batches of PairedDataset; this one lacks {', '.join(missing)}."
                + (" The data set must be built with its captions." if any("tokens" in key for key in missing) else "")
            )

    def _needed_keys(self, batch: Batch) -> tuple[str, ...]:
        return (*self.rgb_views, "ir", "targets")

    # --- evaluation --------------------------------------------------------------------------------------------------

    def encode_images(self, images: Tensor, modality: Modality, camids: Tensor | None = None, amp: bool = False) -> Tensor:
        """Raw features of images of one modality, in float32.

        Args:
            images: (N, 3, H, W) pixels 0..255, uint8 or float.
            camids: (N,) camera numbers, for encoders that use them.
            amp: compute in half precision where autocast does (TEST.AMP).

        Returns:
            (N, D), before the neck.
        """
        modality = Modality(modality)
        with torch.autocast(self.device.type, enabled=amp):
            cameras = None if camids is None else {modality: camids}
            return self.visual.encode({modality: images}, cameras)[modality].float()

    def encode_mirrored(self, images: Tensor, modality: Modality, camids: Tensor | None = None, amp: bool = False) -> Tensor:
        """(N, D) features whose embedding is the mean of the unit embeddings of images and mirror images, normalised again.

        CAJ's flip test; the neck is undone, so that whoever embeds the features applies it once.
        """
        pair = [self.embed(self.encode_images(x, modality, camids, amp)) for x in (images, images.flip(dims=[3]))]
        scale, shift = (value.to(pair[0].device) for value in batch_norm_affine(self.heads.neck))
        return (torch.nn.functional.normalize(pair[0] + pair[1], dim=1) - shift) / scale

    def embed(self, raw: Tensor) -> Tensor:
        """Raw features (N, D) of any modality -> unit embeddings (N, D)."""
        with full_precision(raw.device):
            return self.heads.embed(raw.float())

    def _packed(self, batch: Batch) -> Tensor:
        """(N, M*D): an image alone is its unit embedding M times, so two such rows have the cosine of the images."""
        images = batch["images"]
        packed = None
        for modality, rows in rows_by_modality(batch.get("modality", Modality.RGB), len(images)).items():
            camids = batch.get("camids")
            raw = self.encode_images(images[rows], modality, camids[rows] if isinstance(camids, Tensor) else None)
            part = self._packed_rows(batch, modality, rows, raw)
            packed = images.new_empty(len(images), part.shape[1], dtype=part.dtype) if packed is None else packed
            packed[rows] = part
        if packed is None:
            raise ValueError("A batch without images cannot be embedded.")
        return packed

    def _packed_rows(self, batch: Batch, modality: Modality, rows: Tensor | slice, raw: Tensor) -> Tensor:
        return pack({Modality.RGB: self.embed(raw)}, self.members)


def rows_by_modality(modality: str | Modality | Sequence[str], count: int) -> dict[Modality, Tensor | slice]:
    """Which rows of a batch belong to which modality, of all `count` rows or one for each."""
    if isinstance(modality, str):
        return {Modality(modality): slice(None)} if count else {}
    if len(modality) != count:
        raise ValueError(f"{len(modality)} modalities for {count} images.")
    names = [Modality(name) for name in modality]
    if len(set(names)) == 1:
        return {names[0]: slice(None)}
    return {m: torch.tensor([row for row, name in enumerate(names) if name is m]) for m in dict.fromkeys(names)}


def _joined(batch: Batch, names: Sequence[str]) -> Tensor | None:
    """The named tensors below each other, or None if the batch has none of them."""
    present = [name for name in names if isinstance(batch.get(name), Tensor)]
    if present and len(present) < len(names):
        raise KeyError(f"The batch has {', '.join(present)}, but not {', '.join(set(names) - set(present))}.")
    return torch.cat([batch[name] for name in names]) if present else None

"""Stage 2: text and fusion join a frozen visible-infrared backbone (IFS)."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.evaluation.ensemble import pack
from tvilfm_plugin.modality import Embeddings, Modality
from tvilfm_plugin.modeling.fusion import Fusion
from tvilfm_plugin.modeling.identity_head import IdentityHead
from tvilfm_plugin.modeling.registries import FUSION_REGISTRY, WeightedLoss, choose
from tvilfm_plugin.modeling.rows import modality_joint
from tvilfm_plugin.modeling.text_encoder import TextEncoder, build_text_encoder
from tvilfm_plugin.modeling.vi_baseline import Batch, VIBaseline
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder, VisualEncoder
from tvilfm_plugin.registries import ROWS_REGISTRY

Rows = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

QUERY_MEMBERS = (Modality.IR, Modality.TEXT, Modality.FUSION)
# What a batch has in the place of pixels where the features are stored (`data.feature_bank`).
STORED = ("rgb_features", "rgb_aug_features", "ir_features")
IR_NECKS = ("shared", "stage1")


class Stage1Copy(nn.Module):
    """Pooling and neck as stage 1 left them. They never train; without text, query and gallery may pass them (released)."""

    pool: nn.Module
    neck: nn.Module

    def __init__(self, pool: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.pool = copy.deepcopy(pool)
        self.neck = copy.deepcopy(neck)
        self.requires_grad_(False)


def _checked_members(members: Sequence[Modality | str]) -> tuple[Modality, ...]:
    chosen = tuple(Modality(m) for m in members)
    if not chosen or set(chosen) - set(QUERY_MEMBERS) or len(set(chosen)) < len(chosen):
        known = ", ".join(m.value for m in QUERY_MEMBERS)
        raise ValueError(f"TVILFM.MEMBERS is {tuple(members)}; choose one or more of {known}, each once.")
    return chosen


@META_ARCH_REGISTRY.register()
class TVILFM(VIBaseline):
    """Text encoder, fusion, neck and classifier are trained beside a visual part that is frozen after stage 1.

    Attributes:
        tokenize: N strings -> (N, L) ids for `encode_text`.
        text: token ids -> raw features of the visual width.
        fusion: infrared, text and filter text, all raw -> raw.
        frozen: whether the visual part is.
        stage1: what the search without text passes instead of pooling and neck; None: nothing else.
    """

    has_text = True
    tokenize = staticmethod(tokenize)

    @configurable
    def __init__(
        self,
        *,
        visual: VisualEncoder,
        text: TextEncoder,
        fusion: Fusion,
        heads: IdentityHead,
        losses: Mapping[str, WeightedLoss],
        members: Sequence[Modality | str] = QUERY_MEMBERS,
        rows: Rows = modality_joint,
        frozen: bool = True,
        freeze_bn: bool = True,
        ir_neck: str = "shared",
        gather: bool = False,
    ) -> None:
        """Args:
        visual: of stage 1.
        text: encodes both texts of a sample.
        fusion: makes the fused query feature.
        members: the modalities that vote in the ensemble (Eq. 10).
        rows: makes the rows of the joint loss: MJL (Eq. 8), or another of ROWS_REGISTRY.
        frozen: the visual part does not train. False: "from scratch" of the ablation.
        freeze_bn: frozen BN layers use and keep their running statistics; False: batch statistics, drifting buffers.
        ir_neck: pooling and neck of the search without text: "shared", or a copy of "stage1"'s.
        """
        super().__init__(visual=visual, heads=heads, losses=losses, gather=gather)
        if text.dim != visual.dim:
            raise ValueError(f"Text features have {text.dim} numbers and visual features {visual.dim}; they are added.")
        self.members = _checked_members(members)
        self.text = text
        self.fusion = fusion
        self.rows = rows
        self.frozen = frozen
        self.freeze_bn = freeze_bn
        if frozen:
            self.visual.requires_grad_(False)
        if ir_neck not in IR_NECKS:
            raise ValueError(f"TVILFM.IR_NECK is {ir_neck!r}; choices are {', '.join(IR_NECKS)}.")
        if ir_neck == "stage1":
            if not frozen or not isinstance(visual, DualStreamEncoder):
                raise ValueError(
                    "TVILFM.IR_NECK stage1 copies the pooling and neck of a frozen dual stream; "
                    f"{'there is no stage 1 from scratch' if not frozen else f'{type(visual).__name__} has no pooling'}. "
                    "Set it to shared."
                )
            self.stage1 = Stage1Copy(visual.pool, heads.neck)
        self.train(self.training)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        del arguments["rgb_views"]  # the joint rows need both
        dim = arguments["visual"].dim
        text = build_text_encoder(cfg.MODEL.TEXT.ARCH, cfg.MODEL.TEXT.WEIGHTS, dim)
        text.pack &= cfg.MODEL.TEXT.PACK
        return arguments | {
            "text": text,
            "fusion": choose(FUSION_REGISTRY, cfg.TVILFM.FUSION, "TVILFM.FUSION")(dim=dim),
            "members": cfg.TVILFM.MEMBERS,
            "rows": choose(ROWS_REGISTRY, cfg.TVILFM.ROWS, "TVILFM.ROWS"),
            "frozen": not cfg.TVILFM.FROM_SCRATCH,
            "freeze_bn": cfg.TVILFM.FREEZE_BN,
            "ir_neck": cfg.TVILFM.IR_NECK,
        }

    def train(self, mode: bool = True) -> Self:
        """Frozen means frozen: in training, too, the visual part stays in eval mode (unless `freeze_bn` is off)."""
        super().train(mode)
        if self.frozen and self.freeze_bn:
            self.visual.eval()
        if self.stage1 is not None:
            self.stage1.eval()
        return self

    def keep_stage1(self) -> None:
        """Copy the present pooling and neck: to be called when stage 1's weights have been loaded."""
        if isinstance(self.stage1, Stage1Copy):
            assert isinstance(self.visual, DualStreamEncoder)
            self.stage1.pool.load_state_dict(self.visual.pool.state_dict())
            self.stage1.neck.load_state_dict(self.heads.neck.state_dict())

    # --- training ----------------------------------------------------------------------------------------------------

    def _training_rows(self, batch: Batch) -> tuple[Tensor, int]:
        with torch.no_grad() if self.frozen else contextlib.nullcontext():
            views = self._visual_rows(batch)
        rgb, ir = views[Modality.RGB], views[Modality.IR]
        text, ir_text = self._texts(batch["rgb_tokens"], batch["ir_tokens"] if self.fusion.filters else None)
        fused = self.fusion(ir, text, ir_text)
        rows = self.rows(rgb, ir, fused, text)
        return rows, len(rows) // len(ir)

    def _visual_rows(self, batch: Batch) -> Embeddings:
        if STORED[0] not in batch:
            return super()._visual_rows(batch)
        if not self.frozen:
            raise ValueError("The batch has stored features, but the visual part trains: set TVILFM.BANK.VIEWS 0.")
        rgb, rgb_aug, ir = (batch[name] for name in STORED)
        return {Modality.RGB: torch.cat([rgb, rgb_aug]), Modality.IR: ir}

    def _needed_keys(self, batch: Batch) -> tuple[str, ...]:
        seen = (*STORED, "targets") if STORED[0] in batch else super()._needed_keys(batch)
        return (*seen, "rgb_tokens", *(("ir_tokens",) if self.fusion.filters else ()))

    def _texts(self, rgb_tokens: Tensor, ir_tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Raw features (B, D) of both texts, from one call of the encoder."""
        if ir_tokens is None:
            return self.text(rgb_tokens), None
        length = max(rgb_tokens.shape[1], ir_tokens.shape[1])
        both = torch.cat([F.pad(tokens, (0, length - tokens.shape[1])) for tokens in (rgb_tokens, ir_tokens)])
        text, ir_text = self.text(both).chunk(2)
        return text, ir_text

    # --- evaluation --------------------------------------------------------------------------------------------------

    def encode_text(self, tokens: Tensor, amp: bool = False) -> Tensor:
        """Token ids (N, L) -> raw features (N, D), in float32; `amp` as in `encode_images`."""
        with torch.autocast(tokens.device.type, enabled=amp):
            return self.text(tokens).float()

    def encode_images_both_ways(
        self, images: Tensor, modality: Modality, camids: Tensor | None = None, amp: bool = False
    ) -> Tensor:
        """(N, 2D): the raw features of `encode_images` beside those of stage 1's pooling, from one pass of the backbone."""
        assert isinstance(self.stage1, Stage1Copy) and isinstance(self.visual, DualStreamEncoder)
        with torch.autocast(self.device.type, enabled=amp):
            maps = self.visual.maps({modality: images})[modality]
            vectors = [self.visual.vectors(maps, pool).float() for pool in (self.visual.pool, self.stage1.pool)]
        return torch.cat(vectors, dim=1)

    def _packed_rows(self, batch: Batch, modality: Modality, rows: Tensor | slice, raw: Tensor) -> Tensor:
        """Infrared rows with `rgb_tokens` and `ir_tokens` (N, L) are queries: their members' unit embeddings side by side.

        Every other image is its unit embedding M times. So the cosine of query and gallery row is the ensemble
        similarity (Eq. 11), and that of two images (a query without text) their own.
        """
        if modality is not Modality.IR or batch.get("rgb_tokens") is None:
            return super()._packed_rows(batch, modality, rows, raw)
        ir_tokens = batch.get("ir_tokens")
        if ir_tokens is None and self.fusion.filters and Modality.FUSION in self.members:
            raise KeyError(
                f"{type(self.fusion).__name__} needs ir_tokens beside rgb_tokens: the captions of the infrared images."
            )
        query = {Modality.IR: raw}
        if set(self.members) != {Modality.IR}:
            text, ir_text = self._texts(batch["rgb_tokens"][rows], None if ir_tokens is None else ir_tokens[rows])
            query[Modality.TEXT] = text
            if Modality.FUSION in self.members:
                query[Modality.FUSION] = self.fusion(raw, text, ir_text)
        return pack({m: self.embed(query[m]) for m in self.members}, self.members)

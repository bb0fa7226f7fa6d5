"""YYDS as a model: DEEN's images, a sentence, and the joint relation of both."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.data.words import Tokenizer, choose_tokenizer
from tvilfm_plugin.evaluation.flips import mirrored
from tvilfm_plugin.evaluation.fusion import JointEnd, LateJoin
from tvilfm_plugin.modality import ByModality, Embeddings, Modality
from tvilfm_plugin.modeling.distributed import full_precision, synchronised
from tvilfm_plugin.modeling.methods.deen import BRANCHES
from tvilfm_plugin.modeling.methods.models import Described, PackedBaseline
from tvilfm_plugin.modeling.methods.text_losses import colour_phrases, overlap_targets
from tvilfm_plugin.modeling.methods.yyds import ClipSentence, JointRelation, RobertaSentence, Sentence, YYDSHead
from tvilfm_plugin.modeling.necks import PackedHead
from tvilfm_plugin.modeling.text_encoder import build_text_encoder
from tvilfm_plugin.modeling.vi_baseline import Batch
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder

ROBERTA = "roberta"


class RelationEncoder(DualStreamEncoder):
    """Vectors (N, 4D) of branches and colour map, and what the joint `relation` (None without) needs, (N, 2D)."""

    relation: JointRelation | None

    @classmethod
    def of(cls, visual: DualStreamEncoder, joint: bool) -> "RelationEncoder":
        """A dual-stream encoder with the relation."""
        encoder = cls.around(visual)
        encoder.relation = JointRelation(visual.dim // (BRANCHES + 1)) if joint else None
        return encoder

    def forward(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """See `VisualEncoder.forward`; (N_m, 4D [+ 2D])."""
        encoded = {}
        for m, maps in self.maps(images, ops).items():
            vectors = [self.vectors(maps, self.pool)]
            if self.relation is not None:
                vectors.append(self.relation.image_part(self.of_branches(maps)))
            encoded[m] = torch.cat([rows.float() if rows.dtype.itemsize < 4 else rows for rows in vectors], dim=1)
        return encoded

    @staticmethod
    def of_branches(maps: Tensor) -> Tensor:
        """(N, 4D, h, w) -> (N, 3D, h, w), without the colour map."""
        return maps[:, : maps.shape[1] * BRANCHES // (BRANCHES + 1)]


@META_ARCH_REGISTRY.register()
class YYDS(PackedBaseline):
    """YYDS on MODEL.DUAL_STREAM.TRUNK YYDS or YYDS-reduced; rows [v; i] of branch 0, then of branches 1 and 2.

    Of a query, TVILFM.MEMBERS says what is compared: `ir` DEEN's six, `text` the sentence, `fusion` the joint feature.

    Attributes:
        text: token ids -> sentence features of a branch's width.
        tokenizer: whose ids these are.
    """

    has_text = True
    reads_own_text = False
    heads: YYDSHead
    visual: RelationEncoder

    @configurable
    def __init__(
        self,
        *,
        text: Sentence,
        tokenizer: Tokenizer,
        members: Sequence[str] = ("ir", "text", "fusion"),
        unit_features: bool = False,
        colour_rate: str = "visual",
        **parts: Any,
    ) -> None:
        """Args:
        text: of the captions of visible images.
        unit_features: the metric losses see L2-normalised features.
        colour_rate: whose learning rate the second trunk has, "visual" or "heads".
        """
        super().__init__(**parts)
        self.text = text
        self.tokenizer = tokenizer
        self.members = tuple(Modality(m) for m in members)
        if Modality.FUSION in self.members and self.visual.relation is None:
            raise ValueError("Without MODEL.YYDS.JOINT there is no joint feature: leave fusion out of TVILFM.MEMBERS.")
        self.unit_features = unit_features
        self.rates = {
            "text.projection.": "heads",
            "visual.backbone.base.colour.": colour_rate,
            # As released; the paper does not say.
            "heads.joint_neck.": "visual",
            "heads.classifier.joint.": "visual",
        }

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        return parts | {
            "text": build_sentence(cfg, parts["heads"].dim),
            "tokenizer": choose_tokenizer(cfg.MODEL),
            "members": cfg.TVILFM.MEMBERS,
            "unit_features": cfg.MODEL.YYDS.UNIT_FEATURES,
            "colour_rate": cfg.MODEL.YYDS.COLOUR_LR,
        }

    @classmethod
    def build_parts(cls, cfg: CfgNode, visual: DualStreamEncoder) -> tuple[DualStreamEncoder, PackedHead]:
        """With the joint relation; a head for branches, colour and joint feature."""
        if not cfg.MODEL.DUAL_STREAM.TRUNK.startswith("YYDS"):
            raise ValueError("YYDS needs its trunk: set MODEL.DUAL_STREAM.TRUNK YYDS, or YYDS-reduced for RegDB.")
        joint, heads = cfg.MODEL.YYDS.JOINT, cfg.MODEL.HEADS
        head = YYDSHead(
            dim=visual.dim // (BRANCHES + 1),
            num_classes=heads.NUM_CLASSES,
            norm=heads.NORM,
            joint=joint,
            logits=cfg.MODEL.YYDS.JOINT_LOGITS,
            mirrors=2 if mirrored(cfg.TEST) else 1,
        )
        encoder = RelationEncoder.of(visual, joint)
        if encoder.relation is not None:
            encoder.relation = synchronised(encoder.relation, cfg.MODEL.BACKBONE.NORM)  # type: ignore[assignment]
        return encoder, head

    @property
    def fusion(self) -> LateJoin:
        """What joins a query's stored row with a text."""
        return LateJoin(dim=self.heads.packed_dim, width=self.heads.dim, end=self._end).train(self.training)

    @property
    def _end(self) -> JointEnd | None:
        return None if self.visual.relation is None else self.visual.relation.end

    # --- training ----------------------------------------------------------------------------------------------------

    def _needed_keys(self, batch: Batch) -> tuple[str, ...]:
        return (*super()._needed_keys(batch), "rgb_tokens")

    def _visual_rows(self, batch: Batch) -> Embeddings:
        """Maps (B, 4D, h, w) per modality: batch statistics of the joint relation need them."""
        images, _, ops = self._views(batch)
        return self.visual.maps(images, ops)

    def described(self, raw: Embeddings, batch: Batch) -> Described:
        """See `PackedBaseline.described`; `raw` are the maps."""
        tokens, pids, blocks = batch["rgb_tokens"], batch["targets"], 2 * BRANCHES
        vectors = torch.cat([self.visual.vectors(raw[m], self.visual.pool) for m in (Modality.RGB, Modality.IR)])
        branches, colour = vectors.split([3 * self.heads.dim, self.heads.dim], dim=1)
        features, logits = self.heads(branches)
        colour, text = self.heads.colour(colour.chunk(2)[0]), self.text(tokens)
        more: dict[str, Any] = {"branches": BRANCHES}
        relation = self.visual.relation
        if relation is not None:
            # One modality after the other, each by its own batch statistics.
            pairs = ((raw[Modality.RGB], colour), (raw[Modality.IR], text))
            joint = torch.cat([relation(self.visual.of_branches(maps), said) for maps, said in pairs])
            more["joint_logits"] = self.gathered(self.heads.joint(joint), 2)
            more["joint"] = self.gathered(self._for_metrics(joint), 2)
        more |= {"colour": self.gathered(self._for_metrics(colour), 1), "text": self.gathered(self._for_metrics(text), 1)}
        rows = (self._for_metrics(features), logits, pids.repeat(blocks))
        gathered = tuple(self.gathered(x, blocks) for x in rows)
        more["overlap"] = self._overlap(tokens, pids)  # reads ids, for which a GPU would wait: behind all that is queued
        return (*gathered, more)  # type: ignore[return-value]

    def _for_metrics(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=1) if self.unit_features else rows

    def _overlap(self, tokens: Tensor, pids: Tensor) -> Tensor:
        """How much the colours of the batch's captions overlap, (B, B)."""
        if self.gather:
            # Batches are cut to their own longest caption.
            tokens = self.gathered(F.pad(tokens, (0, self.tokenizer.length - tokens.shape[1])), 1)
        return overlap_targets([colour_phrases(self.tokenizer.decode(row)) for row in tokens.tolist()], self.gathered(pids, 1))

    # --- evaluation --------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """N strings -> (N, L) ids for `encode_text`."""
        return self.tokenizer(texts)

    def encode_text(self, tokens: Tensor, amp: bool = False) -> Tensor:
        """Token ids (N, L) -> raw sentence features (N, D), in float32; `amp` as in `encode_images`."""
        with torch.autocast(tokens.device.type, enabled=amp):
            return self.text(tokens).float()

    def _finished(self, raw: Tensor, modality: Modality, mirror: Tensor | None = None) -> Tensor:
        with full_precision(raw.device):
            return self.heads.rows(raw, modality, mirror, self._end)

    def _packed_rows(self, batch: Batch, modality: Modality, rows: Tensor | slice, raw: Tensor) -> Tensor:
        """An infrared row with `rgb_tokens` (N, L) is a query; its cosine with a visible row is the sum of what is compared."""
        if modality is not Modality.IR or batch.get("rgb_tokens") is None:
            return self.embed(raw)
        text, fusion = self.encode_text(batch["rgb_tokens"][rows]), self.fusion
        query = {Modality.IR: raw, Modality.TEXT: fusion.alone(text)}
        if Modality.FUSION in self.members:
            query[Modality.FUSION] = fusion(raw, text)
        return F.normalize(torch.stack([self.embed(query[m]) for m in self.members]).sum(dim=0), dim=1)


def build_sentence(cfg: CfgNode, dim: int) -> Sentence:
    """The text encoder that MODEL.TEXT names, with a projection to width D."""
    text, how = cfg.MODEL.TEXT, cfg.MODEL.YYDS
    options = {"frozen": how.FROZEN_TEXT, "dropout": how.TEXT_DROPOUT}
    if text.ARCH == ROBERTA:
        return RobertaSentence(_roberta(text.WEIGHTS), dim, masked=how.TEXT == "masked", **options)
    encoder = build_text_encoder(text.ARCH, text.WEIGHTS, None)
    encoder.pack &= text.PACK
    return ClipSentence(encoder, dim, **options)


def _roberta(name: str) -> nn.Module:
    from transformers import RobertaConfig, RobertaModel

    try:
        if torch.get_default_device().type == "meta":  # names and shapes are asked for
            return RobertaModel(RobertaConfig.from_pretrained(name), add_pooling_layer=False)
        return RobertaModel.from_pretrained(name, add_pooling_layer=False)  # type: ignore[no-any-return]
    except OSError as error:
        raise FileNotFoundError(
            f"MODEL.TEXT.WEIGHTS {name!r} has no RoBERTa: name a local folder with config.json, model.safetensors and the "
            f"tokenizer's files, or a model on the hub that can be fetched, e.g. roberta-base ({str(error).splitlines()[0]})."
        ) from None

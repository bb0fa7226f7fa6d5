"""DEEN, MMN and DDAG as models: a visual part, a head that packs, and losses by name.

AGW and CAJ are `VIBaseline`s; YYDS is in `yyds_model`.
"""

from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.modality import ByModality, Embeddings, Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder
from tvilfm_plugin.modeling.distributed import full_precision, synchronised
from tvilfm_plugin.modeling.methods import named_losses  # noqa: F401  (puts them into the registry)
from tvilfm_plugin.modeling.methods.ddag import STRIPES as PARTS
from tvilfm_plugin.modeling.methods.ddag import PartHead, graph_weight
from tvilfm_plugin.modeling.methods.deen import BRANCHES, BranchHead
from tvilfm_plugin.modeling.methods.mmn import STRIPES, MiddleImages, Projection, StripeHeads
from tvilfm_plugin.modeling.methods.stripes import Stripes
from tvilfm_plugin.modeling.necks import PackedHead
from tvilfm_plugin.modeling.registries import gathered_blocks, weighted_losses
from tvilfm_plugin.modeling.vi_baseline import Batch, VIBaseline
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder, VisualEncoder

Described = tuple[Any, Any, Tensor, dict[str, Any]]
"""What the losses get: features, logits, identities of the rows, and what some of them ask for by name."""


class PackedBaseline(VIBaseline):
    """A `VIBaseline` whose head packs: what evaluation keeps of an image are finished rows (N, W).

    A method says in `described` what its losses see.
    """

    heads: PackedHead  # type: ignore[assignment]

    @classmethod
    def _built(cls, cfg: CfgNode) -> tuple[VisualEncoder, nn.Module]:
        visual = build_visual_encoder(cfg)
        if not isinstance(visual, DualStreamEncoder):
            raise TypeError(f"{cls.__name__} needs a dual stream: set MODEL.BACKBONE.NAME build_dual_stream_backbone.")
        return cls.build_parts(cfg, visual)

    @classmethod
    def build_parts(cls, cfg: CfgNode, visual: DualStreamEncoder) -> tuple[DualStreamEncoder, PackedHead]:
        """The visual part as the method needs it, and the head."""
        raise NotImplementedError

    def forward(self, batch: Batch | Tensor) -> dict[str, Tensor] | Tensor:
        """As `VIBaseline.forward`; evaluation gives (N, W) rows."""
        if not self.training or isinstance(batch, Tensor):
            return super().forward(batch)
        self._check_batch(batch)
        return weighted_losses(self.losses, *self.described(self._visual_rows(batch), batch))

    def described(self, raw: Embeddings, batch: Batch) -> Described:
        """Raw features (n_m * B, D) per modality and the batch that they are of -> what the losses get."""
        raise NotImplementedError

    def gathered(self, rows: Tensor, blocks: int) -> Tensor:
        """(blocks * B, ...) of this process, or of all with `gather`; the blocks stay together."""
        return gathered_blocks(rows, blocks) if self.gather else rows

    def encode_images(self, images: Tensor, modality: Modality, camids: Tensor | None = None, amp: bool = False) -> Tensor:
        """Finished rows (N, W) of images of one modality; arguments as of `VIBaseline.encode_images`."""
        return self._finished(super().encode_images(images, modality, camids, amp), Modality(modality))

    def encode_mirrored(self, images: Tensor, modality: Modality, camids: Tensor | None = None, amp: bool = False) -> Tensor:
        """Finished rows (N, W) by the method's own flip test: blocks of both images averaged, not normalised again."""
        pair = [super(PackedBaseline, self).encode_images(x, modality, camids, amp) for x in (images, images.flip(dims=[3]))]
        return self._finished(pair[0], Modality(modality), pair[1])

    def _finished(self, raw: Tensor, modality: Modality, mirror: Tensor | None = None) -> Tensor:
        with full_precision(raw.device):
            return self.heads.pack(raw, modality, mirror)


@META_ARCH_REGISTRY.register()
class DEEN(PackedBaseline):
    """DEEN on MODEL.DUAL_STREAM.TRUNK DEEN or DEEN-reduced; rows [v; i] of branch 0, then of branches 1 and 2."""

    heads: BranchHead

    @classmethod
    def build_parts(cls, cfg: CfgNode, visual: DualStreamEncoder) -> tuple[DualStreamEncoder, PackedHead]:
        """The trunk's three branches are the visual part's already."""
        if cfg.MODEL.DUAL_STREAM.TRUNK == "plain":
            raise ValueError("DEEN needs its trunk: set MODEL.DUAL_STREAM.TRUNK DEEN, or DEEN-reduced for RegDB.")
        return visual, BranchHead(dim=visual.dim, num_classes=cfg.MODEL.HEADS.NUM_CLASSES, norm=cfg.MODEL.HEADS.NORM)

    def described(self, raw: Embeddings, batch: Batch) -> Described:
        blocks = 2 * BRANCHES
        features, logits = self.heads(torch.cat([raw[Modality.RGB], raw[Modality.IR]]))
        every = batch["targets"].repeat(blocks)
        return (*(self.gathered(rows, blocks) for rows in (features, logits, every)), {"branches": BRANCHES})  # type: ignore[return-value]


class MiddleEncoder(DualStreamEncoder):
    """A dual stream that also makes middle images: raw features (N, 2SD), the image's stripes and the middle image's."""

    middle: MiddleImages

    @classmethod
    def of(cls, visual: DualStreamEncoder) -> "MiddleEncoder":
        """A dual-stream encoder of D numbers with middle images and stripes."""
        encoder = cls.around(visual, pool=Stripes(STRIPES, cut="equal"), dim=STRIPES * visual.dim)
        encoder.middle = MiddleImages()
        return encoder

    def maps(self, images: ByModality, ops: ByModality | None = None) -> Embeddings:
        """(2N_m, C, h, w) per modality: of the images, then of their middle images."""
        return self.backbone(self.middle.beside(self.prepare(images, ops)))

    def forward(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """See `VisualEncoder.forward`; (N_m, 2SD)."""
        rows = super().forward(images, camids, ops)
        return {m: torch.cat(both.chunk(2), dim=1) for m, both in rows.items()}


@META_ARCH_REGISTRY.register()
class MMN(PackedBaseline):
    """MMN; rows [v; v'; i; i'] of every stripe.

    Attributes:
        projection: between the middle features and their distance. It trains; released code leaves it at random
            (FIXED_PROJECTION).
    """

    heads: StripeHeads

    @configurable
    def __init__(self, *, fixed_projection: bool = False, **parts: Any) -> None:
        """`fixed_projection`: the projection stays as it starts (preset released)."""
        super().__init__(**parts)
        width = self.visual.dim // STRIPES
        self.projection = Projection(width).requires_grad_(not fixed_projection)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return super().from_config(cfg) | {"fixed_projection": cfg.TVILFM.PRESET == "released"}

    @classmethod
    def build_parts(cls, cfg: CfgNode, visual: DualStreamEncoder) -> tuple[DualStreamEncoder, PackedHead]:
        """With middle images; a head per stripe."""
        heads = cfg.MODEL.HEADS
        encoder = MiddleEncoder.of(visual)
        encoder.middle = synchronised(encoder.middle, cfg.MODEL.BACKBONE.NORM)  # type: ignore[assignment]
        return encoder, StripeHeads(dim=visual.dim, num_classes=heads.NUM_CLASSES, norm=heads.NORM)

    def described(self, raw: Embeddings, batch: Batch) -> Described:
        """See `PackedBaseline.described`; features and logits are lists, one entry per stripe."""
        rows = torch.cat([half for m in (Modality.RGB, Modality.IR) for half in raw[m].chunk(2, dim=1)])
        logits = [self.gathered(one, 4) for one in self.heads(rows)]
        features = list(self.gathered(rows, 4).chunk(STRIPES, dim=1))
        return features, logits, self.gathered(batch["targets"].repeat(4), 4), {"projection": self.projection}


@META_ARCH_REGISTRY.register()
class DDAG(PackedBaseline):
    """DDAG; rows [v; i]. The graph's loss joins in the second epoch, weighted by the first's other losses.

    Attributes:
        others: (4,) buffer: epoch, sum of the other losses in it, its steps, and their mean in the epoch before (-1: none).
    """

    heads: PartHead
    others: Tensor

    @configurable
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.register_buffer("others", torch.tensor([0.0, 0.0, 0.0, -1.0]))

    @classmethod
    def build_parts(cls, cfg: CfgNode, visual: DualStreamEncoder) -> tuple[DualStreamEncoder, PackedHead]:
        """With the mean of the map and its stripes in the place of the pooling."""
        head = PartHead(dim=visual.dim, num_classes=cfg.MODEL.HEADS.NUM_CLASSES, norm=cfg.MODEL.HEADS.NORM)
        visual.pool, visual.dim = Stripes(PARTS, whole=True), (1 + PARTS) * visual.dim
        return visual, head

    def set_epoch(self, epoch: int) -> None:
        """Tell the model which epoch begins, counted from 0."""
        began, total, steps, _ = self.others.tolist()
        if epoch != began:
            self.others.copy_(torch.tensor([float(epoch), 0.0, 0.0, total / steps if steps else -1.0]))

    def described(self, raw: Embeddings, batch: Batch) -> Described:
        rows, both = torch.cat([raw[Modality.RGB], raw[Modality.IR]]), batch["targets"].repeat(2)
        features, logits, part_logits = self.heads(rows)
        features, logits, part_logits, both = (self.gathered(x, 2) for x in (features, logits, part_logits, both))
        return features, logits, both, {"part_logits": part_logits, "graph_log_prob": self.heads.graph(features, both)}

    def forward(self, batch: Batch | Tensor) -> dict[str, Tensor] | Tensor:
        """As `PackedBaseline.forward`; `loss_graph_identity` carries its weight of this epoch."""
        losses = super().forward(batch)
        if isinstance(losses, dict) and "loss_graph_identity" in losses:
            with torch.no_grad():
                rest = torch.stack([v.float() for name, v in losses.items() if name != "loss_graph_identity"]).sum()
                self.others[1] += rest
                self.others[2] += 1
            losses["loss_graph_identity"] = graph_weight(self.others[3]) * losses["loss_graph_identity"]
        return losses

"""YYDS's parts beside DEEN's: sentence encoders, a trunk that also sees colours, the joint relation, the head.

Letters: N rows, D width of a branch, L tokens, h w positions of a map. A visible image carries v2t, what its text should look
like; an infrared query carries a text; either, joined with the image's maps, gives the joint feature (N, 2D).
"""

import copy
from collections import OrderedDict
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.evaluation.fusion import JointEnd
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.dual_stream import OneStream
from tvilfm_plugin.modeling.methods.deen import BRANCHES, BranchHead, DEENTrunk, side_by_side
from tvilfm_plugin.modeling.necks import NeckAffine, frozen_bias_neck, small_classifier, unit_length
from tvilfm_plugin.modeling.text_encoder import TextEncoder

LOGITS = ("classifier", "raw")
SENTENCE_END = 2


class Projection(nn.Module):
    """Linear, LayerNorm: (..., inputs) -> (..., D)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer_norm(self.fc(rows))


class Sentence(nn.Module):
    """A text encoder and a projection: token ids (N, L) -> (N, D)."""

    def __init__(self, encoder: nn.Module, inputs: int, dim: int, *, frozen: bool = True, dropout: bool = False) -> None:
        """Args:
        encoder: gives `inputs` numbers.
        frozen: the encoder does not train.
        dropout: a frozen encoder keeps its dropout in training (as released).
        """
        super().__init__()
        self.encoder = encoder.requires_grad_(not frozen)
        self.projection = Projection(inputs, dim)
        self.frozen, self.dropout = frozen, dropout

    def train(self, mode: bool = True) -> Self:
        """Frozen means frozen: without dropout, unless it is wanted."""
        super().train(mode)
        if self.frozen and not self.dropout:
            self.encoder.eval()
        return self


class ClipSentence(Sentence):
    """This toolkit's CLIP tower: its feature at the end-of-text token, projected."""

    def __init__(self, encoder: TextEncoder, dim: int, **how: bool) -> None:
        super().__init__(encoder, encoder.dim, dim, **how)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) CLIP ids -> (N, D)."""
        return self.projection(self.encoder(tokens))


class RobertaSentence(Sentence):
    """transformers' RobertaModel: the mean over a sentence's projected tokens."""

    def __init__(self, encoder: nn.Module, dim: int, *, masked: bool = True, **how: bool) -> None:
        """`masked`: mean over the tokens; else over all positions, padding included (released)."""
        super().__init__(encoder, encoder.config.hidden_size, dim, **how)  # type: ignore[union-attr, arg-type]
        self.masked = masked

    def words(self, ids: Tensor) -> Tensor:
        """(N, L) ids -> (N, L, D) projected tokens; attention sees no padding."""
        return self.projection(self.encoder(input_ids=ids, attention_mask=_until_the_end(ids)).last_hidden_state)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) ids, padded behind the end with whatever -> (N, D)."""
        if not self.masked:
            return self.words(tokens).mean(dim=1)
        mask = _until_the_end(tokens)
        longest = int(mask.sum(dim=1).max())
        weights = mask[:, :longest, None]
        words = self.words(tokens[:, :longest])
        return (words * weights.to(words.dtype)).sum(dim=1) / weights.sum(dim=1)


def _until_the_end(ids: Tensor) -> Tensor:
    """(N, L) 1 up to the first end of a sentence (everywhere in a row that was cut before it), 0 behind."""
    ends = (ids == SENTENCE_END).long()
    return (ends.cumsum(dim=1) - ends == 0).long()


class YYDSTrunk(DEENTrunk):
    """DEEN's trunk, and a second one (`colour`; zeros for infrared rows) on the visible stem's output: what texts name."""

    def __init__(self, base: nn.Module, **how: Any) -> None:
        super().__init__(base, **how)
        second = OrderedDict((name, copy.deepcopy(self.get_submodule(name))) for name in self.stages)
        self.colour = OneStream(Modality.RGB, nn.Sequential(second))
        self.dim = (BRANCHES + 1) * self.dim // BRANCHES

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4D, h, w): the branches' maps and the colour map side by side."""
        stem = self.stem(images)
        maps = side_by_side(self.branches(stem))
        return torch.cat([maps, self.colour(stem).to(maps.dtype)], dim=1)


class JointRelation(nn.Module):
    """Maps of an image, read per position and for the text, joined at the `end` with a colour feature: the joint feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.visual_1 = nn.Sequential(nn.Conv2d(BRANCHES * dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU())
        self.visual_2 = nn.Sequential(nn.Conv2d(BRANCHES * dim, dim // 2, 1), nn.ReLU(), nn.Conv2d(dim // 2, dim, 1))
        self.end = JointEnd(dim)

    def forward(self, maps: Tensor, colour: Tensor) -> Tensor:
        """(N, 3D, h, w) and (N, D) -> (N, 2D)."""
        return self.end(self.visual_1(maps), self.visual_2(maps).mean(dim=(2, 3)), colour)

    def image_part(self, maps: Tensor) -> Tensor:
        """(N, 3D, h, w) -> (N, 2D): all that `JointEnd.join` needs of an image."""
        return torch.cat([self.visual_1(maps).mean(dim=(2, 3)), self.visual_2(maps).mean(dim=(2, 3))], dim=1)


class YYDSHead(BranchHead):
    """DEEN's head, the projection of the colour map, neck (bias frozen at 0) and classifier of the joint feature.

    A row of retrieval is that of `evaluation.fusion.LateJoin`.

    Attributes:
        colour: (N, D) mean of the colour map -> (N, D), v2t.
        joint_neck: of the joint feature; None without the joint relation.
        classifier: "identity", and "joint".
    """

    def __init__(
        self, *, dim: int, num_classes: int, norm: str = "BN", joint: bool = True, logits: str = "classifier", mirrors: int = 1
    ) -> None:
        """Args:
        joint: whether there is a joint relation.
        logits: "classifier"; or "raw", the released defect: the joint feature's own numbers stand for classes.
        mirrors: images that a row of retrieval is made of, 1, or 2 with the mirror image.
        """
        if logits not in LOGITS:
            raise ValueError(f"MODEL.YYDS.JOINT_LOGITS is {logits!r}; choose {' or '.join(LOGITS)}.")
        super().__init__(dim=BRANCHES * dim, num_classes=num_classes, norm=norm)
        self.dim, self.logits, self.mirrors = dim, logits, mirrors
        self.colour = Projection(dim, dim)
        classifiers: dict[str, nn.Module] = {"identity": self.classifier}
        self.joint_neck = frozen_bias_neck(2 * dim, norm) if joint else None
        if self.joint_neck is not None:
            classifiers["joint"] = small_classifier(2 * dim, num_classes)
            if logits == "raw":
                for part in (self.joint_neck, classifiers["joint"]):
                    part.requires_grad_(False)
        self.classifier = nn.ModuleDict(classifiers)  # type: ignore[assignment]
        self.compared = (9 if joint else 7) * dim + 2
        self.packed_dim = self.compared + (2 * dim * mirrors if joint else 0)

    def classify(self, rows: Tensor) -> Tensor:
        """(3N, D) after the neck -> (3N, K)."""
        return self.classifier["identity"](rows)  # type: ignore[index]

    def joint(self, joint: Tensor) -> Tensor:
        """(N, 2D) -> (N, K), or (N, 2D) where the logits are raw; the neck's statistics follow in either case."""
        assert self.joint_neck is not None
        after = self.joint_neck(joint)
        return joint if self.logits == "raw" else self.classifier["joint"](after)  # type: ignore[index]

    def rows(self, raw: Tensor, modality: Modality, mirror: Tensor | None, end: JointEnd | None) -> Tensor:
        """(N, 4D [+ 2D]) vectors of an image, of `RelationEncoder`, -> (N, W) rows; `mirror` as in `PackedHead.pack`.

        A visible row is as long as a query's three members together could ask: DEEN's six blocks weigh the root of 6 each,
        because a query's six are divided by it.
        """
        visible = modality is Modality.RGB
        images = [raw] if mirror is None else [raw, mirror]
        blocks = torch.stack([self._blocks(one, visible, end) for one in images]).mean(dim=0)
        row = unit_length(blocks, (36 + 1 + (end is not None)) ** 0.5 if visible else 6**0.5, visible)
        parts = torch.cat([one[:, 4 * self.dim :] for one in images] * (self.mirrors // len(images)), dim=1)
        return torch.cat([row, torch.zeros_like(parts) if visible else parts], dim=1)

    def _blocks(self, raw: Tensor, visible: bool, end: JointEnd | None) -> Tensor:
        """(N, compared - 2): the six, then what a text is compared with (zeros of a query)."""
        three, colour, part = raw.split([3 * self.dim, self.dim, raw.shape[1] - 4 * self.dim], dim=1)
        six = self.units(three).flatten(1)
        if not visible:
            return F.pad(six, (0, self.compared - 2 - six.shape[1]))
        colour = self.colour(colour)
        joint = [] if end is None else [F.normalize(end.join(part, colour), dim=1)]
        return torch.cat([6**0.5 * six, F.normalize(colour, dim=1), *joint], dim=1)

    @property
    def neck(self) -> NeckAffine:
        """What is not compared is taken away; the rest stays."""
        plain = super().neck
        return plain._replace(weight=F.pad(plain.weight[: self.compared], (0, self.packed_dim - self.compared)))

    def embed(self, raw: Tensor) -> Tensor:
        """(N, W) rows, or sums of them -> unit rows."""
        return F.normalize(raw * self.neck.weight, dim=1)

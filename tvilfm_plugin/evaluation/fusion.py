"""Fusion of an infrared feature with text; `registries.FUSION_REGISTRY` names the classes for the config."""

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """Makes one query feature of an infrared feature and text, all raw, i.e. before the neck.

    Attributes:
        filters: whether the text of the infrared image is used at all; if not, it is not encoded in training.
        answers_self: whether a fused query says anything beside its members where both texts are the same (source `self`).
    """

    filters = True
    answers_self = False

    def __init__(self, *, dim: int) -> None:
        """Args:
        dim: D, for fusions with weights.
        """
        super().__init__()
        self.dim = dim

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None) -> Tensor:
        """Row n is the same person in every argument.

        Args:
            ir: (B, D) features of infrared images.
            text: (B, D) features of captions of visible images, with colours.
            ir_text: (B, D) features of captions of the infrared images, without colours; None only if not `filters`.

        Returns:
            (B, D).
        """
        raise NotImplementedError

    def alone(self, text: Tensor) -> Tensor:
        """Raw text features (B, D) as a member of their own, in the place where a gallery image is compared with text."""
        return text

    def comparable(self, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (Q, D) and (G, D) as query expansion and re-ranking compare them, a query also with a query."""
        return query, gallery

    @classmethod
    def restored(cls, dim: int, state: Mapping[str, Tensor]) -> Self:
        """A fusion of this width with stored weights."""
        fusion = cls(dim=dim)
        fusion.load_state_dict(dict(state))
        return fusion


class Add(Fusion):
    """f_F = f_ir + f_T(T_rgb): ablation B."""

    filters = False

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None = None) -> Tensor:
        return ir + text


class FilteredAdd(Fusion):
    """Semantic filtered fusion (SFF, Eq. 7): f_F = f_ir + f_T(T_rgb) - f_T(T_ir).

    What both texts say, the infrared image shows as well; what is left of the text is its colours.
    """

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None) -> Tensor:
        if ir_text is None:
            raise ValueError(
                "FilteredAdd subtracts the text of the infrared image, but there is none. Give ir_tokens beside "
                "rgb_tokens, or choose TVILFM.FUSION Add."
            )
        return ir + text - ir_text


class JointEnd(nn.Module):
    """The end of YYDS's joint relation. In evaluation it is affine in an image's maps, so their means are enough."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.text_1 = nn.Linear(dim, dim)
        self.text_2 = nn.Linear(dim, dim)
        self.joint = nn.Sequential(nn.Conv2d(2 * dim, 2 * dim, 1), nn.BatchNorm2d(2 * dim))

    def forward(self, visual: Tensor, for_text: Tensor, colour: Tensor) -> Tensor:
        """Maps (N, D, h, w), their word to the text (N, D) and a colour feature (N, D) -> (N, 2D)."""
        visual = visual * (1 + self.text_1(colour))[:, :, None, None]
        text = self.text_2(colour) * (1 + torch.sigmoid(for_text))
        both = torch.cat([visual, text[:, :, None, None].expand_as(visual)], dim=1)
        return (both + self.joint(both)).mean(dim=(2, 3))

    def join(self, image: Tensor, colour: Tensor) -> Tensor:
        """The means of maps and word side by side, (N, 2D), and (N, D) -> (N, 2D): what `forward` gives in evaluation."""
        mean, for_text = image.chunk(2, dim=1)
        return self(mean[:, :, None, None], for_text, colour)


class LateJoin(Fusion):
    """YYDS's query: an infrared image's stored row joined with a text.

    A row has DEEN's six unit vectors (6D), a colour feature (D), the joint feature (2D, absent without `end`), two numbers that
    complete a length (the first of a visible image, the second of a query), and, of an infrared image, what `JointEnd.join`
    needs of it (2D) or of it and its mirror image (4D). Every part but a member's own is zero; what lies behind the two numbers
    is not compared.
    """

    filters = False
    answers_self = True
    width: Tensor

    def __init__(self, *, dim: int, width: int = 0, end: JointEnd | None = None) -> None:
        """Args:
        dim: numbers of a row.
        width: D; 0: not known yet.
        end: None: there is no joint relation.
        """
        super().__init__(dim=dim)
        self.end = end
        self.register_buffer("width", torch.tensor(width))

    @classmethod
    def restored(cls, dim: int, state: Mapping[str, Tensor]) -> Self:
        """See `Fusion.restored`; the width is part of the state."""
        width = int(state["width"])
        fusion = cls(dim=dim, width=width, end=JointEnd(width) if any(name.startswith("end.") for name in state) else None)
        fusion.load_state_dict(dict(state))
        return fusion

    def alone(self, text: Tensor) -> Tensor:
        """See `Fusion.alone`; (B, D) -> (B, row)."""
        before = 6 * int(self.width)
        return F.pad(text, (before, self.dim - before - text.shape[1]))

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None = None) -> Tensor:
        """Rows (B, row) of infrared images and raw text (B, D) -> rows with the joint feature alone."""
        if self.end is None:
            raise ValueError("This YYDS has no joint relation: leave fusion out of TVILFM.MEMBERS.")
        d = int(self.width)
        parts = ir[:, 9 * d + 2 :].split(2 * d, dim=1)
        joint = torch.stack([F.normalize(self.end.join(part, text), dim=1) for part in parts]).mean(dim=0)
        lack = (1 - joint.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
        row = torch.cat([joint, torch.zeros_like(lack), lack], dim=1)
        return F.pad(row, (7 * d, self.dim - 7 * d - row.shape[1]))

    def comparable(self, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        """Every feature that the queries have weighs the same in both, so that the inner product is the mean of their cosines.

        A query's six have the length of one feature, a gallery image's that of thirty-six.
        """
        d = int(self.width)
        scale = query.new_zeros(self.dim)
        scale[: 6 * d], scale[6 * d : 9 * d] = 6**0.5, 1
        asked = (query != 0).any(dim=0)
        return F.normalize(query * scale, dim=1), F.normalize(gallery * torch.where(asked & (scale > 0), 1 / scale, 0), dim=1)


FUSIONS: dict[str, type[Fusion]] = {"Add": Add, "FilteredAdd": FilteredAdd, "SFF": FilteredAdd, "LateJoin": LateJoin}
"""By the name that a config gives them; SFF is the paper's."""

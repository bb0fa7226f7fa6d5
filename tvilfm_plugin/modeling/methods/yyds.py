"""YYDS's parts beside DEEN's: the sentence encoder, the colour feature of a visible image, the joint relation.

Letters: N rows, D width of a branch, L tokens, h w positions of a map. A visible image carries v2t, what its text should look
like; an infrared query carries a text; either, joined with the image's maps, gives the joint feature (N, 2D).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.losses import at_least_float32, hard_triplet, identity_loss
from tvilfm_plugin.modeling.methods.necks import frozen_bias_neck, small_classifier

LOGITS = ("classifier", "raw")


class Projection(nn.Module):
    """Linear, LayerNorm: (..., inputs) -> (..., D)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer_norm(self.fc(rows))


class RobertaSentence(nn.Module):
    """A frozen RoBERTa and a projection: the mean over a sentence's projected tokens.

    Attributes:
        encoder: a transformers RobertaModel; it never trains and stays in evaluation mode.
        projection: of every token.
    """

    def __init__(self, encoder: nn.Module, dim: int, *, masked: bool = True) -> None:
        """Args:
        encoder: see above; its `config.hidden_size` is the width.
        dim: D.
        masked: mean over the tokens. False: over all positions, padding included (released).
        """
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.projection = Projection(encoder.config.hidden_size, dim)  # type: ignore[union-attr, arg-type]
        self.masked = masked

    def train(self, mode: bool = True) -> "RobertaSentence":
        """Frozen means frozen: without dropout."""
        super().train(mode)
        self.encoder.eval()
        return self

    def words(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, L) ids and their 0/1 mask -> (N, L, D) projected tokens."""
        with torch.no_grad():
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.projection(hidden)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, L) ids and their 0/1 mask -> (N, D)."""
        words = self.words(ids, mask)
        if not self.masked:
            return words.mean(dim=1)
        weights = mask[:, :, None].to(words.dtype)
        return (words * weights).sum(dim=1) / weights.sum(dim=1)


class ColourFeature(nn.Module):
    """Visible-to-text: a second trunk on the visible stem's output, mean pooling, projection."""

    def __init__(self, trunk: nn.Module, width: int, dim: int) -> None:
        """Args:
        trunk: (N, C, H / 4, W / 4) -> (N, width, h, w).
        width: of its output.
        dim: D.
        """
        super().__init__()
        self.trunk = trunk
        self.projection = Projection(width, dim)

    def forward(self, stem: Tensor) -> Tensor:
        """What the visible stem gives, (N, C, H / 4, W / 4) -> (N, D), v2t."""
        return self.projection(self.trunk(stem).mean(dim=(2, 3)))


class JointRelation(nn.Module):
    """An image's maps and a colour feature -> the joint feature.

    In evaluation everything behind the scaled maps is affine, so the joint feature follows from two vectors of the image
    (`image_part`) and any colour feature (`join`); training needs the maps for its batch statistics.

    Attributes:
        visual_1, visual_2: what the maps say, per position and for the text.
        text_1, text_2: what the colour feature says.
        joint: convolution and norm of the two together.
    """

    def __init__(self, dim: int, branches: int = 3) -> None:
        """Args:
        dim: D.
        branches: maps of D channels side by side.
        """
        super().__init__()
        self.visual_1 = nn.Sequential(nn.Conv2d(branches * dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU())
        self.text_1 = nn.Linear(dim, dim)
        self.visual_2 = nn.Sequential(nn.Conv2d(branches * dim, dim // 2, 1), nn.ReLU(), nn.Conv2d(dim // 2, dim, 1))
        self.text_2 = nn.Linear(dim, dim)
        self.joint = nn.Sequential(nn.Conv2d(2 * dim, 2 * dim, 1), nn.BatchNorm2d(2 * dim))

    def forward(self, maps: Tensor, colour: Tensor) -> Tensor:
        """(N, branches * D, h, w) and (N, D) -> (N, 2D)."""
        visual = self.visual_1(maps) * (1 + self.text_1(colour))[:, :, None, None]
        text = self._text(self.visual_2(maps).mean(dim=(2, 3)), colour)
        both = torch.cat([visual, text[:, :, None, None].expand_as(visual)], dim=1)
        return (both + self.joint(both)).mean(dim=(2, 3))

    def image_part(self, maps: Tensor) -> Tensor:
        """(N, branches * D, h, w) -> (N, 2D): all that `join` needs of an image."""
        return torch.cat([self.visual_1(maps).mean(dim=(2, 3)), self.visual_2(maps).mean(dim=(2, 3))], dim=1)

    def join(self, image: Tensor, colour: Tensor) -> Tensor:
        """`image_part` (N, 2D) and (N, D) -> (N, 2D); what `forward` gives in evaluation."""
        mean, for_text = image.chunk(2, dim=1)
        both = torch.cat([mean * (1 + self.text_1(colour)), self._text(for_text, colour)], dim=1)
        return both + self.joint(both[:, :, None, None]).flatten(1)

    def _text(self, for_text: Tensor, colour: Tensor) -> Tensor:
        return self.text_2(colour) * (1 + torch.sigmoid(for_text))


class JointHead(nn.Module):
    """Neck (bias frozen at 0) and classifier of the joint feature."""

    def __init__(self, *, dim: int, num_classes: int, norm: str = "BN", logits: str = "classifier") -> None:
        """Args:
        dim: 2D.
        num_classes: K.
        norm: "BN" or "syncBN".
        logits: "classifier"; or "raw", the released defect: the feature's own numbers stand for classes.
        """
        super().__init__()
        if logits not in LOGITS:
            raise ValueError(f"The joint logits are {logits!r}; choose {' or '.join(LOGITS)}.")
        self.logits = logits
        self.neck = frozen_bias_neck(dim, norm)
        self.classifier = small_classifier(dim, num_classes)
        if logits == "raw":
            self.requires_grad_(False)

    def forward(self, joint: Tensor) -> Tensor:
        """(N, 2D) -> (N, K), or (N, 2D) where the logits are raw; the neck's statistics follow in either case."""
        after = self.neck(joint)
        return joint if self.logits == "raw" else self.classifier(after)


def joint_losses(joint: Tensor, logits: Tensor, pids: Tensor) -> tuple[Tensor, Tensor]:
    """Half the cross entropy and half the hard triplet of the joint features; rows [visible; infrared], (N,) pids."""
    with full_precision(joint.device):
        return identity_loss(logits, pids) / 2, hard_triplet(at_least_float32(joint), pids) / 2


def pack(six: Tensor, colour: Tensor | None = None, joint: Tensor | None = None) -> Tensor:
    """DEEN's six unit blocks beside the colour and joint features -> rows of length sqrt(blocks), (N, 6D [+ D] [+ 2D]).

    The inner product of a query's and a gallery image's row is the sum of their similarities.

    Args:
        six: (N, 6, D) unit vectors.
        colour: (N, D), t of a query or v2t of a visible image.
        joint: (N, 2D).
    """
    others = [F.normalize(rows, dim=1) for rows in (colour, joint) if rows is not None]
    return torch.cat([six.flatten(1), *others], dim=1)

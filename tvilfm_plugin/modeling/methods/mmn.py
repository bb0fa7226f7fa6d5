"""MMN's parts: middle images of either modality, a head per stripe, and the projection that compares the middle features.

Letters: N images, D width of a stripe, S stripes (4), K training identities. The raw feature of an image is (N, 2SD): the
stripes of the image, then those of its middle image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modality import ByModality, Embeddings, Modality
from tvilfm_plugin.modeling.dual_stream import STREAMS
from tvilfm_plugin.modeling.losses import hard_triplet
from tvilfm_plugin.modeling.methods.losses import centre_distance
from tvilfm_plugin.modeling.necks import PackedHead, frozen_bias_neck, small_classifier

STRIPES = 4
START = 0.333


class _Encode(nn.Module):
    """One modality's image -> one plane."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, 1, 1)
        self.fc = nn.Conv2d(1, 1, 1)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(F.relu(self.fc(F.relu(self.encode(images)))))


class MiddleImages(nn.Module):
    """Images of a modality between both: encoded per modality into one plane, decoded to three by shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m.value: _Encode() for m in STREAMS})
        self.decode = nn.Conv2d(1, 3, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, START)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, images: ByModality) -> Embeddings:
        """(N_m, 3, H, W) normalised images per modality -> (N_m, 3, H, W) middle images."""
        return {m: F.relu(self.decode(self.encoders[m.value](rows))) for m, rows in images.items()}

    def beside(self, images: ByModality) -> Embeddings:
        """(2N_m, 3, H, W) per modality: the images, then their middle images."""
        middle = self(images)
        return {m: torch.cat([rows, middle[m]]) for m, rows in images.items()}


class StripeHeads(PackedHead):
    """Per stripe a neck (bias frozen at 0) and a bias-free classifier."""

    longest = 2.0

    def __init__(self, *, dim: int, num_classes: int, norm: str = "BN") -> None:
        super().__init__()
        self.packed_dim = STRIPES * dim + 2
        self.necks = nn.ModuleList(frozen_bias_neck(dim, norm) for _ in range(STRIPES))
        self.classifier = nn.ModuleList(small_classifier(dim, num_classes) for _ in range(STRIPES))

    def forward(self, vectors: Tensor) -> list[Tensor]:
        """(N, SD) stripes side by side -> per stripe, (N, K) logits."""
        rows = zip(self._after(vectors), self.classifier, strict=True)
        return [classify(row) for row, classify in rows]

    def _after(self, vectors: Tensor) -> list[Tensor]:
        return [neck(row) for neck, row in zip(self.necks, vectors.chunk(len(self.necks), dim=1), strict=True)]

    def units(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 2SD) -> two (N, SD) unit rows after the necks: of the images and of their middle images."""
        image, middle = (F.normalize(torch.cat(self._after(half), dim=1), dim=1) for half in raw.chunk(2, dim=1))
        return image, middle

    def blocks(self, raw: Tensor, modality: Modality) -> Tensor:
        """(N, 2SD) -> (N, SD) sums of both unit rows: the inner product of two is the sum of the four similarities."""
        return sum(self.units(raw))  # type: ignore[return-value]


class Projection(nn.Sequential):
    """(B, D) -> (B, 256) between the centre distance and the features; it normalises by the batch also in evaluation."""

    def __init__(self, dim: int, width: int = 256) -> None:
        super().__init__(
            nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.BatchNorm1d(width)
        )

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(F.normalize(rows, dim=1))


def pair_triplet(rgb: Tensor, rgb_middle: Tensor, ir: Tensor, ir_middle: Tensor, pids: Tensor) -> Tensor:
    """Mean of the hard triplet over the four pairs of a visible and an infrared (B, D) block; (B,) pids are those of each."""
    both = pids.repeat(2)
    pairs = [(v, i) for v in (rgb, rgb_middle) for i in (ir, ir_middle)]
    return torch.stack([hard_triplet(torch.cat(pair), both) for pair in pairs]).mean()


def middle_distance(projection: nn.Module, rgb_middle: Tensor, ir_middle: Tensor) -> Tensor:
    """The centre distance of projected middle features (B, D) of both modalities, projected (and normalised) together."""
    return centre_distance(*projection(torch.cat([rgb_middle, ir_middle])).chunk(2))

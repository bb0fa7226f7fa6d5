"""From pixels to one vector per image: what the models know of the visual part."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from tvilfm_plugin.data.augment.caj import FILL, apply_channel_ops
from tvilfm_plugin.modality import ByModality, Embeddings, Modality
from tvilfm_plugin.modeling.dual_stream import DualStream

# Images that are encoded at once on a CPU where none of them sees another. More leave the caches.
ROWS_AT_ONCE = 16


class VisualEncoder(nn.Module, ABC):
    """Visible and infrared images -> raw features of one width.

    Attributes:
        image_size: (H, W) that the encoder is meant for.
        pixel_mean, pixel_std: (1, 3, 1, 1) buffers on the scale of 0..255, not stored in checkpoints.
        fill: what an erased pixel becomes, in normalised values.
    """

    fill: Sequence[float] = FILL

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, *, dim: int, image_size: tuple[int, int], pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        super().__init__()
        self.dim = dim
        self.image_size = image_size
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, -1, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels (N, 3, H, W), uint8 or float, 0..255 -> normalised float32; the argument stays as it is."""
        return (images - self.pixel_mean).div_(self.pixel_std)

    def prepare(self, images: ByModality, ops: ByModality | None) -> Embeddings:
        """Normalise, then erase and mix channels where there are ops (CAJ acts on normalised values)."""
        normal = {m: self.normalise(rows) for m, rows in images.items()}
        return normal | {m: apply_channel_ops(normal[m], rows, self.fill) for m, rows in (ops or {}).items()}

    @abstractmethod
    def forward(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """Raw features, i.e. before the neck.

        Args:
            images: (N_m, 3, H, W) pixels 0..255, uint8 or float, per modality.
            camids: (N_m,) camera numbers, for encoders that use them.
            ops: (N_m, 5+) channel operations of training images, from `data.augment`.

        Returns:
            (N_m, D) per modality.
        """

    def encode(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """`forward`; evaluated on a CPU, a few images at a time take less time and far less memory."""
        if self.training or torch.is_grad_enabled() or self.pixel_mean.device.type != "cpu":
            return self(images, camids, ops)

        def some(of: ByModality | None, m: Modality, at: slice) -> dict[Modality, Tensor] | None:
            return {m: of[m][at]} if of and m in of else None

        encoded: Embeddings = {}
        for m, rows in images.items():
            blocks = [slice(at, at + ROWS_AT_ONCE) for at in range(0, max(len(rows), 1), ROWS_AT_ONCE)]
            encoded[m] = torch.cat([self({m: rows[at]}, some(camids, m, at), some(ops, m, at))[m] for at in blocks])
        return encoded


class DualStreamEncoder(VisualEncoder):
    """A dual-stream backbone and a pooling layer. Bases that give vectors (N, D) already are not pooled."""

    def __init__(
        self,
        *,
        backbone: DualStream,
        pool: nn.Module,
        dim: int,
        image_size: tuple[int, int],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(dim=dim, image_size=image_size, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.backbone = backbone
        self.pool = pool

    @classmethod
    def around(cls, visual: "DualStreamEncoder", *, pool: nn.Module | None = None, dim: int = 0) -> Self:
        """The parts of another encoder, with another pooling and width where they are given."""
        mean = [0.0] * visual.pixel_mean.numel()
        encoder = cls(
            backbone=visual.backbone,
            pool=pool or visual.pool,
            dim=dim or visual.dim,
            image_size=visual.image_size,
            pixel_mean=mean,
            pixel_std=mean,
        )
        encoder.pixel_mean, encoder.pixel_std, encoder.fill = visual.pixel_mean, visual.pixel_std, visual.fill
        return encoder

    def forward(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """See `VisualEncoder.forward`; cameras are not used."""
        return {m: self.vectors(maps, self.pool) for m, maps in self.maps(images, ops).items()}

    def maps(self, images: ByModality, ops: ByModality | None = None) -> Embeddings:
        """What the pooling gets: (N_m, C, h, w) per modality; the arguments as in `forward`."""
        return self.backbone(self.prepare(images, ops))

    def vectors(self, maps: Tensor, pool: nn.Module) -> Tensor:
        """(N, C, h, w) -> (N, D) by a pooling of this width."""
        vectors = pool(maps).flatten(1) if maps.ndim == 4 else maps
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"The backbone gives {tuple(maps.shape)} and the pooling {tuple(vectors.shape)}, but "
                f"MODEL.BACKBONE.FEAT_DIM says {self.dim} numbers per image. Set FEAT_DIM to the backbone's output channels."
            )
        return vectors

"""Fill the feature banks of a training set from a frozen visual encoder."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.data.feature_bank import FeatureBank, filled_bank, view_rng
from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.visual_encoder import VisualEncoder

# Goes up when the same weights and images would give other features.
BANK_VERSION = 1
VISIBLE, INFRARED = ("rgb", "rgb_aug"), ("ir",)


def fill_banks(
    visual: VisualEncoder, dataset: PairedDataset, folder: Path, dtype: str, max_gb: float
) -> tuple[FeatureBank, FeatureBank]:
    """All views of all training images through the encoder in eval mode, in float32; or from the folder.

    Args:
        visual: with the weights of stage 1; frozen, so that its features hold for the whole training.
        dataset: on image caches; its `views` say how many views an image has.
        folder: where the banks lie. Runs with the same weights, images and augmentation share them.
        max_gb: raise if both banks together are larger.

    Returns:
        (N_rgb, 2k, D), the two views of a draw beside each other, and (N_ir, k, D).
    """
    wanted = (
        (Modality.RGB, VISIBLE, dataset.rgb_images, dataset.rgb_items),
        (Modality.IR, INFRARED, dataset.ir_images, dataset.ir_items),
    )
    shapes = [(len(items), dataset.views * len(names), visual.dim) for _, names, _, items in wanted]
    size = sum(int(np.prod(shape)) for shape in shapes) * np.dtype(dtype).itemsize / 1e9
    if size > max_gb:
        raise ValueError(
            f"{dataset.views} stored views of {sum(shape[0] for shape in shapes)} images take {size:.2f} GB of {dtype}, more "
            f"than TVILFM.BANK.MAX_GB {max_gb:g}. Raise it, lower TVILFM.BANK.VIEWS, or store float16."
        )
    weights = _weights(visual)
    banks = []
    for (modality, names, images, items), shape in zip(wanted, shapes, strict=True):
        if not isinstance(images, ImageCache):
            raise TypeError(f"Features are stored for images of an ImageCache, whose state has a name, not {type(images)}.")
        cameras = [item.camid for item in items]
        what = f"{BANK_VERSION} {weights} {images.path.name} {_described(dataset.augmentation)} {dtype} {cameras}"
        fingerprint = hashlib.sha256(what.encode()).hexdigest()[:20]
        path = folder / f"features-{modality.value}-{shape[1]}x{shape[2]}-{fingerprint}.npy"
        encode = _Encoder(visual, dataset, modality, names, items)
        banks.append(filled_bank(path, shape, dtype, encode))
    return banks[0], banks[1]


class _Encoder:
    """(first, end) -> (end - first, V, D): the views of some images of one modality."""

    def __init__(
        self, visual: VisualEncoder, dataset: PairedDataset, modality: Modality, names: Sequence[str], items: Sequence[Item]
    ) -> None:
        self.visual, self.dataset, self.modality, self.names, self.items = visual, dataset, modality, names, items

    @torch.inference_mode()
    def __call__(self, first: int, end: int) -> np.ndarray:
        draw = self.dataset.rgb_views if self.modality is Modality.RGB else self.dataset.ir_view
        samples = [
            draw(image, view_rng(self.modality, image, view))
            for image in range(first, end)
            for view in range(self.dataset.views)
        ]
        device = self.visual.pixel_mean.device
        camids = torch.tensor([item.camid for item in self.items[first:end]]).repeat_interleave(self.dataset.views).to(device)
        training = self.visual.training
        self.visual.eval()
        with full_precision(device):
            rows = [self._features(_stacked(samples, name), _stacked(samples, f"{name}_ops"), camids) for name in self.names]
        self.visual.train(training)
        # (images * views, names, D): the names of one view lie beside each other.
        return torch.stack(rows, dim=1).view(end - first, -1, self.visual.dim).numpy()

    def _features(self, images: Tensor, ops: Tensor, camids: Tensor) -> Tensor:
        m, device = self.modality, camids.device
        return self.visual.encode({m: images.to(device)}, {m: camids}, {m: ops.to(device)})[m].float().cpu()


def _stacked(samples: Sequence[dict[str, Tensor]], key: str) -> Tensor:
    return torch.stack([sample[key] for sample in samples])


def _described(value: Any) -> str:
    """A description that is the same in every process; `repr` would write where a function lies in memory."""
    if isinstance(value, functools.partial):
        return f"{value.func.__qualname__}{value.args}{sorted(value.keywords.items())}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}({', '.join(_described(getattr(value, f.name)) for f in dataclasses.fields(value))})"
    return value.__qualname__ if callable(value) else repr(value)


def _weights(visual: VisualEncoder) -> str:
    """Hash of everything that turns pixels into features; mean and deviation of the pixels are in no state dict."""
    digest = hashlib.sha256(f"{type(visual).__name__} {visual.image_size}".encode())
    everything = visual.state_dict() | {"pixel_mean": visual.pixel_mean, "pixel_std": visual.pixel_std}
    for name, value in sorted(everything.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""MIP's sampler and augmentation, from a fast-reid config."""

from collections.abc import Sequence

from yacs.config import CfgNode

from tvilfm_plugin.data.augment.caj import CropFlip
from tvilfm_plugin.data.augment.modal import ModalAugmentation
from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.loaders import crop_and_flip, pair_options, sampler_options
from tvilfm_plugin.data.modal_pairs import ModalPairs
from tvilfm_plugin.data.samplers.modal import ModalPairSampler
from tvilfm_plugin.registries import AUGMENTATION_REGISTRY, SAMPLER_REGISTRY, register


@register(SAMPLER_REGISTRY, "ModalPairSampler")
def modal_pairs(cfg: CfgNode, data: TriDataset, seed: int) -> ModalPairSampler:
    """Pairs as MIP draws them (the authors' 64 images are 32 pairs)."""
    return ModalPairSampler(**sampler_options(cfg, data, seed), padding=cfg.DATALOADER.MODAL_PADDING)


@register(AUGMENTATION_REGISTRY, "MIP")
def mip_pairs(cfg: CfgNode, data: TriDataset, text: bool, batches_per_epoch: int) -> ModalPairs:
    """One view of either image, jittered or blurred, erased and made grey; images alone."""
    if text:
        raise ValueError("INPUT.AUGMENTATION MIP makes images alone; a model with text needs INPUT.AUGMENTATION CAJ.")
    _check_cameras(cfg, [*data.train_rgb, *data.train_ir])
    pad, flip_prob = crop_and_flip(cfg)
    low, high = cfg.INPUT.BLUR_SIGMA
    augmentation = ModalAugmentation(crop=CropFlip(pad=pad, flip_prob=flip_prob), blur_sigma=(low, high))
    return ModalPairs(**pair_options(cfg, data, batches_per_epoch), augmentation=augmentation)


def _check_cameras(cfg: CfgNode, items: Sequence[Item]) -> None:
    """A camera outside the table would stop a GPU with an unreadable message."""
    mip = cfg.MODEL.MIP
    cameras = sorted({item.camid for item in items})
    table = range(mip.FIRST_CAMERA, mip.FIRST_CAMERA + mip.CAMERAS)
    if mip.CAMERAS > 1 and not set(cameras) <= set(table):
        raise ValueError(
            f"The training images come from cameras {cameras}, but MODEL.MIP.CAMERAS {mip.CAMERAS} and FIRST_CAMERA "
            f"{mip.FIRST_CAMERA} allow {list(table)}. Set both to the data set's."
        )

"""Assembly of MIP's training batches from a fast-reid config."""

from collections.abc import Sequence

from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.compat import usable_device
from tvilfm_plugin.data.augment.caj import CropFlip
from tvilfm_plugin.data.augment.modal import ModalAugmentation
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.loaders import TrainLoader, build_dataset, image_cache
from tvilfm_plugin.data.modal_pairs import ModalPairs
from tvilfm_plugin.data.samplers.modal import ModalPairSampler


def build_mip_train_loader(cfg: CfgNode, seed: int) -> TrainLoader:
    """Batches of `SOLVER.IMS_PER_BATCH` infrared-visible pairs (the authors' 64 images are 32 pairs), drawn as MIP does.

    Args:
        seed: seed of the modal sampler and, through it, of every augmentation.
    """
    if len(cfg.DATASETS.NAMES) != 1:
        raise ValueError(f"DATASETS.NAMES must name one Tri- data set, not {tuple(cfg.DATASETS.NAMES)}.")
    data = build_dataset(cfg, cfg.DATASETS.NAMES[0], False)
    if comm.is_main_process():
        data.show_train()
    _check_cameras(cfg, [*data.train_rgb, *data.train_ir])
    world = comm.get_world_size()
    sampler = ModalPairSampler(
        [item.pid for item in data.train_rgb],
        [item.pid for item in data.train_ir],
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_instances=cfg.DATALOADER.NUM_INSTANCE,
        padding=cfg.DATALOADER.MODAL_PADDING,
        seed=seed,
        rank=comm.get_rank(),
        world_size=world,
    )
    pairs = ModalPairs(
        image_cache(cfg, data, data.train_rgb, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.RESAMPLE_TRAIN),
        image_cache(cfg, data, data.train_ir, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.RESAMPLE_TRAIN),
        data.train_rgb,
        data.train_ir,
        augmentation=ModalAugmentation(
            crop=CropFlip(pad=cfg.INPUT.PADDING.SIZE), blur_sigma=(cfg.INPUT.BLUR_SIGMA[0], cfg.INPUT.BLUR_SIGMA[1])
        ),
        batches_per_epoch=sampler.batches_per_epoch,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
    )
    return TrainLoader(
        pairs,  # type: ignore[arg-type]
        sampler,  # type: ignore[arg-type]
        cfg.SOLVER.IMS_PER_BATCH // world,
        cfg.DATALOADER.NUM_WORKERS,
        usable_device(cfg.MODEL.DEVICE),
        data,
    )


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

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_trees import write_regdb, write_sysu
from yacs.config import CfgNode

import tvilfm_plugin.data.modal_loader  # noqa: F401  (registers the sampler and the augmentation)
from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.data.augment.modal import ModalAugmentation
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.loaders import TrainLoader, build_train_loader
from tvilfm_plugin.data.modal_pairs import ModalPairs
from tvilfm_plugin.data.samplers.pairs import Pair


def images(count: int) -> list[np.ndarray]:
    return [np.random.RandomState(n).randint(0, 256, (24, 12, 3), dtype=np.uint8) for n in range(count)]


def pairs(ir_pids: tuple[int, ...] = (0, 1)) -> ModalPairs:
    rgb = [Item("a", 0, 1), Item("b", 1, 2)]
    ir = [Item(f"i{n}", pid, 3) for n, pid in enumerate(ir_pids)]
    return ModalPairs(images(2), images(len(ir)), rgb, ir, 7, 4, augmentation=ModalAugmentation())


def test_sample() -> None:
    data = pairs()
    assert len(data) == 28 and data.num_classes == 2
    sample = data[Pair(1, 1, 5)]
    assert sample["rgb"].shape == sample["ir"].shape == (3, 24, 12) and sample["rgb"].dtype is torch.uint8
    assert sample["rgb_ops"].shape == (5,) and sample["rgb_ops"].dtype is torch.int64
    assert (sample["targets"], sample["rgb_camids"], sample["ir_camids"], sample["ir_path"]) == (1, 2, 3, "i1")
    again = data[Pair(1, 1, 5)]
    assert all(torch.equal(sample[k], again[k]) for k in ("rgb", "ir", "rgb_ops", "ir_ops"))
    assert not torch.equal(sample["rgb"], data[Pair(1, 1, 6)]["rgb"])


def test_errors() -> None:
    with pytest.raises(ValueError, match="must show one person"):
        pairs()[Pair(0, 1, 0)]
    with pytest.raises(ValueError, match="numbered 0..2"):
        pairs((0, 7))


def mip_loader(cfg: CfgNode, seed: int) -> TrainLoader:
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.INPUT.AUGMENTATION = "ModalPairSampler", "MIP"
    cfg.INPUT.PADDING.ENABLED = cfg.INPUT.FLIP.ENABLED = True
    return build_train_loader(cfg, False, seed)


@pytest.mark.parametrize("resample", ["lanczos", "bicubic"])
def test_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resample: str) -> None:
    write_sysu(tmp_path, captions=False)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.SIZE_TRAIN = [24, 12]
    cfg.INPUT.RESAMPLE_TRAIN = resample
    cfg.DATASETS.NAMES = ("TriSYSUMM01",)
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.NUM_INSTANCE, cfg.SOLVER.IMS_PER_BATCH = 0, 2, 6
    loader = mip_loader(cfg, 0)
    # Unless the config says otherwise, the authors' augmentation.
    assert loader.dataset.augmentation == ModalAugmentation()
    assert loader.dataset.num_classes == 5
    assert len(loader.dataset) == 6 * loader.sampler.batches_per_epoch
    stream = iter(loader)
    batches = [next(stream) for _ in range(3)]
    for batch in batches:
        assert batch["ir"].shape == batch["rgb"].shape == (6, 3, 24, 12)
        assert len(batch["targets"].unique()) == 3
        assert set(batch["ir_camids"].tolist()) <= {3, 6} and set(batch["rgb_camids"].tolist()) <= {1, 2, 4, 5}
    # Position is what a checkpoint stores.
    resumed = mip_loader(cfg, 99)
    resumed.load_state_dict({"batches": 2, "seed": 0})
    again = next(iter(resumed))
    assert torch.equal(again["rgb"], batches[2]["rgb"]) and again["ir_path"] == batches[2]["ir_path"]


def _regdb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    write_regdb(folder, captions=False)
    monkeypatch.setenv("FASTREID_DATASETS", str(folder))
    cfg = get_cfg()
    cfg.DATASETS.NAMES = ("TriRegDB",)
    cfg.DATALOADER.NUM_INSTANCE, cfg.SOLVER.IMS_PER_BATCH = 2, 4
    return cfg


def test_loader_checks_the_camera_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = _regdb(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"cameras \[0, 1\], but MODEL.MIP.CAMERAS 6"):
        mip_loader(cfg, 0)
    cfg.MODEL.MIP.CAMERAS, cfg.MODEL.MIP.FIRST_CAMERA = 2, 0
    mip_loader(cfg, 0)


def test_a_smaller_image_may_be_shifted_and_blurred_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = _regdb(tmp_path, monkeypatch)
    cfg.MODEL.MIP.CAMERAS, cfg.MODEL.MIP.FIRST_CAMERA = 2, 0
    cfg.INPUT.PADDING.SIZE, cfg.INPUT.BLUR_SIGMA = 3, [0.1, 1.0]
    augmentation = mip_loader(cfg, 0).dataset.augmentation
    assert augmentation.crop.pad == 3 and augmentation.blur_sigma == (0.1, 1.0)

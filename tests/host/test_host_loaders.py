"""The host's loaders and batches, on any device."""

import itertools

import numpy as np
import pytest
import torch
from repaired_host import before, no_gpu, small_config
from tiny_market import write_market

pytest.importorskip("fastreid")

from fastreid.data import build as host_data
from fastreid.data import build_reid_test_loader, build_reid_train_loader, data_utils

from tvilfm_plugin.host import batches, devices, replacing


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    root = tmp_path_factory.mktemp("market")
    write_market(root, identities=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


class Numbers(torch.utils.data.Dataset):
    """Items of any kind; a broken one raises."""

    def __init__(self, items, broken=None):
        self.items, self.broken = items, broken

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError(f"broken image {index}")
        return self.items[index]


@no_gpu
def test_the_hosts_loaders_need_cuda():
    build = replacing.original(host_data, "build_reid_train_loader")
    stock = replacing.lend(host_data, DataLoaderX=replacing.original(data_utils, "DataLoaderX"))
    with stock, pytest.raises((RuntimeError, AssertionError)):
        build(Numbers([0]), sampler=[0], total_batch_size=1)


def test_loaders_give_batches_on_the_device(market):
    cfg = small_config(IMS_PER_BATCH=8)
    loader = build_reid_train_loader(cfg, combineall=False)
    assert len(loader.dataset) == 32 and loader.dataset.num_classes == 4 and loader.num_workers == 0
    batches = iter(loader)
    for batch in itertools.islice(batches, 6):  # more than the four of an epoch: the loader is endless
        assert batch["images"].shape == (8, 3, 64, 32) and batch["images"].device.type == "cpu"
        assert batch["targets"].dtype == torch.int64 and isinstance(batch["img_paths"], list)
    assert build_reid_train_loader(cfg, num_workers=1, total_batch_size=16).num_workers == 1
    loader, queries = build_reid_test_loader(cfg, "Market1501")
    assert queries == 4 and loader.num_workers == 0
    assert [len(batch["targets"]) for batch in loader] == [32]
    explicit, queries = build_reid_test_loader(loader.dataset, 20, 4)
    assert queries == 4 and [len(batch["targets"]) for batch in explicit] == [20, 12]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_dataset_reaches_the_caller(workers):
    loader, _ = build_reid_test_loader(Numbers([1, 2, 3], broken=2), 1, 0, num_workers=workers)
    with pytest.raises(OSError, match="broken image 2"):
        list(loader)


def test_batches_that_can_never_be_filled_are_explained(market):
    cfg = small_config(IMS_PER_BATCH=33)
    with pytest.raises(ValueError, match="only 32 images"):
        build_reid_train_loader(cfg)
    cfg.DATALOADER.SAMPLER_TRAIN = "BalancedIdentitySampler"
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 16, 2
    with pytest.raises(ValueError, match="takes 8 identities .* only 4"):
        build_reid_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 10, 4
    with pytest.raises(ValueError, match="not a multiple of DATALOADER.NUM_INSTANCE 4"):
        build_reid_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 16, 4
    assert len(next(iter(build_reid_train_loader(cfg)))["targets"]) == 16


def test_collation_agrees_with_the_host_and_refuses_what_it_drops():
    samples = [{"images": torch.full((2,), float(i)), "targets": i, "score": i / 2, "path": str(i)} for i in range(3)]
    def collate_as_before(samples):
        with before(host_data, "fast_batch_collator"):
            return host_data.fast_batch_collator(samples)

    ours, theirs = batches.collate(samples), collate_as_before(samples)
    assert ours.keys() == theirs.keys() and ours["path"] == theirs["path"]
    assert all(torch.equal(ours[key], theirs[key]) for key in ("images", "targets", "score"))
    assert ours["score"].dtype == theirs["score"].dtype == torch.float64
    for value in (None, [1], (1, 2), np.float32(1), np.zeros(2)):
        assert collate_as_before([{"x": value}])["x"] is None
        with pytest.raises(TypeError, match=r"\['x'\]"):
            batches.collate([{"x": value}])


def test_device_falls_back_to_the_cpu(caplog):
    assert devices.usable_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert devices.usable_device("cuda:0") == torch.device("cpu")

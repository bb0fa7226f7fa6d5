"""In the place of fast-reid's builders of loaders: batches on MODEL.DEVICE, and errors instead of endless waiting."""

import importlib
import types
from typing import Any

from torch.utils.data import BatchSampler
from yacs.config import CfgNode

from tvilfm_plugin.files.places import datasets_root
from tvilfm_plugin.host.batches import DeviceLoader, collate
from tvilfm_plugin.host.devices import affordable_workers, usable_device
from tvilfm_plugin.host.replacing import lend, replace

FLOAT = 4  # bytes of each number of the host's images


def load_on_any_device(build: types.ModuleType) -> None:
    """fast-reid's builders need CUDA whatever MODEL.DEVICE says, and hang for ever where a sample raises; these do not.

    And its collation drops what it does not know, which here is an error.
    """
    replace(build, "build_reid_train_loader", lambda original: build_train_loader)
    replace(build, "build_reid_test_loader", lambda original: build_test_loader)
    replace(build, "fast_batch_collator", lambda original: collate)


def _host() -> tuple[Any, Any]:
    """fast-reid's module of loaders, and its knowledge of processes."""
    return importlib.import_module("fastreid.data.build"), importlib.import_module("fastreid.utils.comm")


def _check_batch(dataset: Any, sampler: Any, batch: int) -> None:
    """Raise where fast-reid would divide by zero, or wait for ever for a batch that its sampler can never fill."""
    host_data, comm = _host()
    world = comm.get_world_size()
    if len(dataset) < batch:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}, but the training set has only {len(dataset)} images: not one batch per "
            "epoch. Lower SOLVER.IMS_PER_BATCH or check DATASETS.NAMES and $FASTREID_DATASETS."
        )
    if batch < world:
        raise ValueError(f"SOLVER.IMS_PER_BATCH is {batch}, less than one image for each of {world} processes.")
    per_batch = getattr(sampler, "num_pids_per_batch", None)
    if per_batch is None:
        return
    mine, instances = batch // world, sampler.num_instances
    if mine % instances or not per_batch:
        raise ValueError(
            f"A batch of {mine} images per process is not a multiple of DATALOADER.NUM_INSTANCE {instances}: "
            f"{type(sampler).__name__} would never fill one."
        )
    needed = per_batch * (world if isinstance(sampler, host_data.samplers.BalancedIdentitySampler) else 1)
    identities = getattr(sampler, "num_identities", needed)
    if identities < needed:
        raise ValueError(
            f"A batch takes {needed} identities ({type(sampler).__name__}, DATALOADER.NUM_INSTANCE {instances}), but "
            f"the training set has only {identities}. Lower SOLVER.IMS_PER_BATCH or raise DATALOADER.NUM_INSTANCE."
        )


def build_train_loader(
    cfg: Any = None, *, num_workers: int | None = None, total_batch_size: int | None = None, **options: Any
) -> DeviceLoader:
    """In the place of `build_reid_train_loader`: endless batches on MODEL.DEVICE, with or without a GPU.

    Args:
        cfg: a config, or (as fast-reid allows) a dataset; `sampler` and `total_batch_size` are then needed.
        num_workers: instead of DATALOADER.NUM_WORKERS (fast-reid passes this keyword on to the dataset's constructor).
        total_batch_size: of all processes together, instead of SOLVER.IMS_PER_BATCH.
        options: `train_set`, `transforms`, `sampler`; anything else goes to the constructors of the datasets.
    """
    host_data, comm = _host()
    if isinstance(cfg, CfgNode):
        if total_batch_size is not None:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.IMS_PER_BATCH = total_batch_size
        with lend(host_data, _root=datasets_root()):
            parts = host_data._train_loader_from_config(cfg, **options)
        dataset, sampler, total_batch_size = parts["train_set"], parts["sampler"], parts["total_batch_size"]
        num_workers = parts["num_workers"] if num_workers is None else num_workers
        share = max(1, total_batch_size // comm.get_world_size())
        num_workers = affordable_workers(num_workers, FLOAT * share, cfg.INPUT.SIZE_TRAIN)
        device = usable_device(cfg.MODEL.DEVICE)
    else:
        dataset = options["train_set"] if cfg is None else cfg
        sampler, device = options["sampler"], usable_device("cuda")
    assert total_batch_size is not None, "total_batch_size is needed where there is no config"
    _check_batch(dataset, sampler, total_batch_size)
    batches = BatchSampler(sampler, total_batch_size // comm.get_world_size(), drop_last=True)
    return DeviceLoader(dataset, batch_sampler=batches, num_workers=num_workers or 0, device=device)


def build_test_loader(
    cfg: Any = None, dataset_name: Any = None, num_query: int = 0, num_workers: int | None = None, **options: Any
) -> tuple[DeviceLoader, int]:
    """In the place of `build_reid_test_loader`: a data set's queries, then its gallery, on MODEL.DEVICE.

    Args:
        cfg: a config, or (as fast-reid allows) a dataset, followed by the batch size and the number of queries.
        dataset_name: a name of DATASET_REGISTRY; the batch size where `cfg` is a dataset.
        num_query: how many of the first items are queries; read from the named data set.
        num_workers: instead of DATALOADER.NUM_WORKERS (fast-reid always starts four).
        options: `test_set`, `transforms`; anything else goes to the constructor of the data set.

    Returns:
        the loader and the number of queries.
    """
    host_data, comm = _host()
    if isinstance(cfg, CfgNode):
        with lend(host_data, _root=datasets_root()):
            parts = host_data._test_loader_from_config(cfg, dataset_name=dataset_name, num_query=num_query, **options)
        dataset, batch, num_query = parts["test_set"], parts["test_batch_size"], parts["num_query"]
        num_workers = cfg.DATALOADER.NUM_WORKERS if num_workers is None else num_workers
        num_workers = affordable_workers(num_workers, FLOAT * max(1, batch // comm.get_world_size()), cfg.INPUT.SIZE_TEST)
        device = usable_device(cfg.MODEL.DEVICE)
    else:
        dataset = options["test_set"] if cfg is None else cfg
        batch, device = options.get("test_batch_size", dataset_name), usable_device("cuda")
    shard = host_data.samplers.InferenceSampler(len(dataset))
    batches = BatchSampler(shard, max(1, batch // comm.get_world_size()), drop_last=False)
    return DeviceLoader(dataset, batch_sampler=batches, num_workers=num_workers or 0, device=device), num_query

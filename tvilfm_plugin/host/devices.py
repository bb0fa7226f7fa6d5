"""Where tensors go, and how the processes that make them start."""

import logging
import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch

logger = logging.getLogger("fastreid." + __name__)


def usable_device(wanted: str | torch.device) -> torch.device:
    """The device for `MODEL.DEVICE`: the CPU (with a warning) if there is no GPU, the process's own GPU in DDP."""
    # Predictors around fast-reid write "cuda: 0", which torch no longer reads.
    device = torch.device(str(wanted).replace(" ", ""))
    kinds = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    if device.type in kinds and not kinds[device.type].is_available():
        logger.warning(f"MODEL.DEVICE is {wanted} but torch finds no GPU: using the CPU")
        return torch.device("cpu")
    if device.type == "cuda" and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.device("cuda", torch.cuda.current_device())
    return device


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor on `device`; anything else as it is."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    return batch


# Where Linux keeps what processes share, and batches of a worker that lie there at once: those ahead, and one in use.
SHARED_MEMORY, BATCHES_AHEAD = "/dev/shm", 3


def affordable_workers(wanted: int, images: int, size: Sequence[int]) -> int:
    """How many loader workers the shared memory has room for: one that finds none waits for ever.

    Args:
        wanted: workers that the config asks for.
        images: in a batch, at most.
        size: (H, W) of each, three bytes per pixel.
    """
    if not wanted or not os.path.isdir(SHARED_MEMORY):
        return wanted
    need, free = BATCHES_AHEAD * images * 3 * size[0] * size[1], shutil.disk_usage(SHARED_MEMORY).free
    workers = min(wanted, free // need)
    if workers < wanted:
        logger.warning(
            f"DATALOADER.NUM_WORKERS is {wanted}, but {SHARED_MEMORY} has {free / 1e6:.0f} MB free and a worker needs "
            f"{need / 1e6:.0f}: using {workers or 'none'}. Containers get more with --shm-size."
        )
    return workers


def worker_context(num_workers: int) -> str | None:
    """How loader workers start: forked also inside launched children.

    There the default is *spawn*, for which each worker imports everything again (5 s) and the dataset must pickle.
    """
    launched = multiprocessing.parent_process() is not None
    return "fork" if num_workers and launched and "fork" in multiprocessing.get_all_start_methods() else None

"""Where tensors go, and how the processes that make them start."""

import logging
import multiprocessing
from collections.abc import Mapping
from typing import Any

import torch

logger = logging.getLogger("fastreid." + __name__)


def usable_device(wanted: str | torch.device) -> torch.device:
    """The device for `MODEL.DEVICE`: the CPU (with a warning) if there is no GPU, the process's own GPU in DDP."""
    # Predictors around fast-reid write "cuda: 0", which torch no longer reads.
    device = torch.device(str(wanted).replace(" ", ""))
    if device.type == "cuda":
        if not torch.cuda.is_available():
            logger.warning(f"MODEL.DEVICE is {wanted} but torch finds no GPU: using the CPU")
            return torch.device("cpu")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.device("cuda", torch.cuda.current_device())
    return device


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor on `device`; anything else as it is."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    return batch


def worker_context(num_workers: int) -> str | None:
    """How loader workers start: forked also inside launched children.

    There the default is *spawn*, for which each worker imports everything again (5 s) and the dataset must pickle.
    """
    launched = multiprocessing.parent_process() is not None
    return "fork" if num_workers and launched and "fork" in multiprocessing.get_all_start_methods() else None

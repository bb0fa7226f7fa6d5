"""Batches from samples, and a loader whose batches arrive on a device."""

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from tvilfm_plugin.host.devices import to_device, usable_device, worker_context
from tvilfm_plugin.host.replacing import replace


def collate(samples: Sequence[Any], where: str = "the sample") -> Any:
    """fast-reid's collation of a batch, except that what it cannot collate raises; the original returns None.

    Args:
        samples: one item per sample: tensors of one shape, numbers, strings, or dicts of these.
        where: what the error calls the item.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples], f"{where}[{key!r}]") for key in first}
    if isinstance(first, torch.Tensor):
        return torch.stack(list(samples))
    if isinstance(first, float):
        return torch.tensor(samples, dtype=torch.float64)
    if isinstance(first, int):
        return torch.tensor(samples)
    if isinstance(first, (str, bytes)):
        return list(samples)
    raise TypeError(
        f"Cannot make a batch of {where}: it is a {type(first).__module__}.{type(first).__qualname__}. "
        "Return a torch.Tensor, int, float, str or a dict of these from the dataset's __getitem__."
    )


class DeviceLoader(DataLoader):
    """A plain DataLoader whose batches arrive on a device; errors in a dataset reach the caller.

    fast-reid's own needs CUDA whatever MODEL.DEVICE says, and hangs for ever if its thread dies.
    """

    def __init__(self, dataset: Any, *, device: torch.device, num_workers: int = 0, **options: Any) -> None:
        options.setdefault("collate_fn", collate)
        super().__init__(
            dataset,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            multiprocessing_context=worker_context(num_workers),
            **options,
        )
        self.device = device

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            yield to_device(batch, self.device)


def load_on_any_device(data_utils: types.ModuleType) -> None:
    """`DataLoaderX`, which own loaders of projects use, on the device of its rank; without a GPU, on the CPU."""

    class DataLoaderX(DeviceLoader):
        def __init__(self, local_rank: int, **options: Any) -> None:
            options.pop("pin_memory", None)
            super().__init__(device=usable_device(f"cuda:{local_rank}"), **options)
            self.local_rank = local_rank

        def shutdown(self) -> None:
            """There is no thread in the background."""

    replace(data_utils, "DataLoaderX", lambda original: DataLoaderX)

"""Training samples of three images from decoded uint8 images in memory; both sides begin there."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks import reference
from benchmarks.harness import Figure, Machine, compare, relative
from tvilfm_plugin.data.augment.caj import TrainAugmentation, apply_channel_ops
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset
from tvilfm_plugin.data.samplers.pairs import Pair

VIEWS = ("rgb", "rgb_aug", "ir")


def run(smoke: bool, machine: Machine) -> list[Figure]:
    count, runs = (32, 3) if smoke else (256, 7)
    size = (3, 288, 144)
    planes = np.random.RandomState(0).randint(0, 256, (2, 32, *size), dtype=np.uint8)
    packed = planes.transpose(0, 1, 3, 4, 2)  # the cache's order of memory
    pictures = np.ascontiguousarray(packed)  # the image library's
    items = [Item(str(i), i, 1) for i in range(32)]
    data = PairedDataset(packed[0], packed[1], items, items, None, None, TrainAugmentation.caj(), 0.5, 1, 32)
    batches = [[Pair(i, i, 1000 * start + i) for i in range(32)] for start in range(count // 32)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (reference.MEAN, reference.STD))

    def device(batch: dict) -> list:
        return [apply_channel_ops((batch[view] - mean).div_(std), batch[f"{view}_ops"]) for view in VIEWS]

    def theirs(batch: list[Pair]) -> list:
        samples = []
        for pair in batch:
            rng = random.Random(pair.seed)
            rng.random(), rng.random()  # which caption
            samples.append(reference.training_views(pictures[0, pair.rgb], pictures[1, pair.ir], rng))
        return [torch.stack(view) for view in zip(*samples, strict=True)]

    def each(make: Callable[[list[Pair]], Any]) -> Callable[[], None]:
        """All batches, one after the other as a training takes them: none is kept, so its memory serves the next."""

        def work() -> None:
            for batch in batches:
                make(batch)

        return work

    difference = max(
        relative(a, b) for batch in batches for a, b in zip(device(data[batch]), theirs(batch), strict=True)
    )
    figures = [
        compare("data pipeline, host side", each(data.__getitem__), each(theirs), difference, runs, target=5,
                note="our device side not counted"),
        compare("data pipeline, with normalisation and channel operations on the CPU",
                each(lambda batch: device(data[batch])), each(theirs), difference, runs),
    ]  # fmt: skip
    host_part, whole, theirs_whole = (
        1000 * seconds / count for seconds in (figures[0].ours_cpu, figures[1].ours_cpu, figures[1].reference_cpu)
    )
    note = f"ms per sample: {host_part:.2f} host, {whole:.2f} with the device's part, reference {theirs_whole:.2f}"
    return [figures[0], replace(figures[1], note=note)]

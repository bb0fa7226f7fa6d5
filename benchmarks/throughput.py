"""What one device does: images per second of training and evaluation, the share of its matrix rate, waits for the host.

There is no reference here. Everything of the real size is on the device before the clock starts, except in the last line,
which says how many training samples a second the host can load.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader

from benchmarks import models
from benchmarks.steps import Step
from tvilfm_plugin.data.augment.caj import TrainAugmentation
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset
from tvilfm_plugin.data.samplers.pairs import Pair
from tvilfm_plugin.modality import Modality

HEAD = "| work | per second | of bf16 rate | waits for the host | peak MiB |\n|---|---|---|---|---|"


class Device:
    """Clock and counters of a CPU or GPU."""

    def __init__(self, name: str, runs: int) -> None:
        self.device = torch.device(name)
        self.runs = runs
        self.is_gpu = self.device.type == "cuda"
        size = 8192 if self.is_gpu else 1024
        matrix = torch.rand(size, size, device=self.device).bfloat16()
        self.gmac = size**3 / 1e9 / self.seconds(lambda: matrix @ matrix)

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of one call; the median, behind two calls that warm up."""
        times = []
        for _ in range(self.runs + 2):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:])

    def waits(self, work: Callable[[], Any]) -> int | None:
        """How often the host waits for the device in one call; None on a CPU."""
        if not self.is_gpu:
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in seen)

    def line(self, name: str, work: Callable[[], Any], count: int, gmac: float) -> str:
        """Of the table. `count` images or captions and `gmac` multiplications are in one call."""
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds, waits = self.seconds(work), self.waits(work)
        peak = f"{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}" if self.is_gpu else ""
        share = f"{gmac / seconds / self.gmac:.0%}"
        return f"| {name} | {count / seconds:.0f} | {share} | {'' if waits is None else waits} | {peak} |"


def training(device: Device, stage: int, smoke: bool, pairs: int) -> list[str]:
    """A step in float32 and in bfloat16; images are three a pair."""
    some = Step(stage, smoke, pairs)
    gmac = some.gmac()
    some.model.to(device.device)
    batch = {key: rows.to(device.device) for key, rows in some.batch.items()}
    step = partial(some.update, some.optimizer())
    return [
        device.line(f"stage {stage}, {pairs} pairs, {name}, images", partial(step, amp, batch), 3 * pairs, gmac)
        for name, amp in (("float32", False), ("bfloat16", True))
    ]


@torch.inference_mode()
def evaluation(device: Device, smoke: bool, count: int) -> list[str]:
    """Encoding of gallery images and of captions; TEST.AMP is float16 on a GPU."""
    cfg, model = models.build(2, smoke)
    image = models.visual_gmac(model, tuple(cfg.INPUT.SIZE_TEST))
    model.to(device.device).eval()
    pixels, tokens = models.images(cfg, count, 0).to(device.device), models.tokens(count, 1)
    ends = tokens.argmax(dim=1) + 1
    text = models.text_gmac(model, int(ends.sum()))
    tokens = tokens[:, : int(ends.max())].to(device.device)
    lines = []
    for name, amp in (("float32", False), ("TEST.AMP", True)):
        seen, images = f"encoding, {count} at once, {name}", partial(model.encode_images, pixels, Modality.RGB, amp=amp)
        lines.append(device.line(f"{seen}, images", images, count, count * image))
        lines.append(device.line(f"{seen}, captions", partial(model.encode_text, tokens, amp=amp), count, text))
    return lines


def loading(device: Device, pairs: int, workers: int, batches: int) -> str:
    """Training samples without text, from decoded images in memory, by the loader's own workers."""
    images = np.random.RandomState(0).randint(0, 256, (32, 3, 288, 144), np.uint8).transpose(0, 2, 3, 1)
    items = [Item(str(number), number, 1) for number in range(32)]
    data = PairedDataset(images, images, items, items, None, None, TrainAugmentation.caj(), 0.5, batches, pairs)
    order = [Pair(seed % 32, seed % 32, seed) for seed in range(batches * pairs)]
    sampler = BatchSampler(order, pairs, drop_last=True)  # type: ignore[arg-type]
    loader = DataLoader(data, None, sampler=sampler, num_workers=workers, pin_memory=device.is_gpu)
    times = [time.perf_counter() for _ in loader]
    # The first batches wait for the workers to start.
    skipped = len(times) // 4
    rate = (len(times) - 1 - skipped) * 3 * pairs / (times[-1] - times[skipped])
    return f"| loading with {workers} workers, images | {rate:.0f} | | | |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=int, default=32, help="of a training step (a multiple of 4; default 32)")
    parser.add_argument("--count", type=int, default=128, help="images or captions encoded at once (default 128)")
    parser.add_argument("--workers", type=int, default=4, help="that load training samples (default 4)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small networks")
    args = parser.parse_args()
    device = Device(args.device, args.runs)
    name = torch.cuda.get_device_name(device.device) if device.is_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{name}, torch {torch.__version__}: {device.gmac:,.0f} GMAC/s of bfloat16 matrix products\n\n{HEAD}", flush=True)
    for stage in (1, 2):
        print("\n".join(training(device, stage, args.smoke, args.pairs)), flush=True)
    print("\n".join(evaluation(device, args.smoke, args.count)), flush=True)
    print(loading(device, args.pairs, args.workers, 16 if args.smoke else 128))


if __name__ == "__main__":
    main()

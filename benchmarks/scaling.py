"""`python -m benchmarks.scaling`: time and memory against gallery size, draws, batch and caption length, as tables.

`--large` instead ranks 20,000 queries in 200,000 images from 2,048 features, once and in full: about ten minutes.
"""

import argparse
import resource
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

import tvilfm_plugin  # noqa: F401  (registers the models)
from benchmarks import models
from benchmarks.harness import timed
from benchmarks.ranking import labels
from tvilfm_plugin.data.tokenizer import END, START
from tvilfm_plugin.evaluation.mer import Parts, QueryType, rank_trials
from tvilfm_plugin.evaluation.protocols import SYSU
from tvilfm_plugin.evaluation.ranking import MinusInnerProduct, rank_metrics
from tvilfm_plugin.modality import Modality

QUERIES, DIM = 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small sizes and networks")
    parser.add_argument("--large", action="store_true", help="only the ranking of 20,000 queries in 200,000 images")
    args = parser.parse_args()
    smoke = args.smoke
    torch.set_num_threads(1)
    if args.large:
        _large(*((200, 2_000, 64) if smoke else (20_000, 200_000, 2_048)))
        return
    _, model = models.build(2, smoke)
    cfg, _ = models.build(1, smoke)
    model.eval()
    with torch.inference_mode():
        _print("gallery images", (1_000, 10_000, 100_000) if smoke else (1_000, 10_000, 100_000, 1_000_000), _gallery, True)
        _print("gallery draws", (1, 2, 5, 10), _draws)
        pixels = models.images(cfg, 16, 0)
        _print("images in a batch", (1, 4, 16), lambda n: lambda: model.encode_images(pixels[:n], Modality.RGB), per=True)
        _print("tokens of 16 captions", (10, 20, 40, 77), lambda n: lambda: model.encode_text(_captions(16, n)))


def _gallery(count: int) -> Callable[[], Any]:
    """Ranking of 16 queries, products included."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, DIM, generator=generator) for n in (QUERIES, count)]
    query, gallery = labels(QUERIES, count)
    return lambda: rank_metrics(MinusInnerProduct(*features), query, gallery, SYSU)


def _large(queries: int, gallery: int, dim: int) -> None:
    """Time of a ranking from features, products included, and what the process holds before it and at its peak."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, dim, generator=generator) for n in (queries, gallery)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu, wall = timed(lambda: rank_metrics(MinusInnerProduct(*features), *labels(queries, gallery), SYSU))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = f"{queries:,} x {gallery:,} from {dim:,} features"
    print(f"{size}: {cpu:.0f} CPU s, {wall:.0f} s; {before:.0f} MiB with the features, {peak:.0f} MiB at the peak")


def _draws(count: int) -> Callable[[], Any]:
    """SYSU-MM01's single-shot evaluation from stored features."""
    generator = torch.Generator().manual_seed(0)
    parts = Parts(torch.randn(3803, DIM, generator=generator), torch.randn(2500, DIM, generator=generator), None)
    query, gallery = labels(3803, 2500)
    draws = [np.random.RandomState(t).permutation(2500)[:301] for t in range(count)]
    types = [QueryType("infrared", (Modality.IR,))]
    return lambda: list(rank_trials(parts, None, types, draws, query, gallery, SYSU, None, torch.nn.functional.normalize))


def _captions(count: int, length: int) -> torch.Tensor:
    tokens = torch.full((count, length), 400)
    tokens[:, 0], tokens[:, -1] = START, END
    return tokens


def _print(
    what: str, sizes: Iterable[int], make: Callable[[int], Callable[[], Any]], memory: bool = False, per: bool = False
) -> None:
    print(f"\n| {what} | CPU ms |{' CPU ms each |' if per else ''}{' working memory MiB |' if memory else ''}")
    print(f"|---|---|{'---|' * (per + memory)}")
    for size in sizes:
        work = make(size)
        cpu = 1000 * min(timed(work)[0] for _ in range(3))
        cells = [f"{size:,}", f"{cpu:.4g}"] + ([f"{cpu / size:.4g}"] if per else [])
        if memory:
            tracemalloc.start()
            work()
            cells.append(f"{tracemalloc.get_traced_memory()[1] / 2**20:.0f}")
            tracemalloc.stop()
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

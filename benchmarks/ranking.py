"""CMC, mAP and mINP of random distances between SYSU-sized query and gallery sets."""

import numpy as np

from benchmarks import reference
from benchmarks.harness import Figure, Machine, compare
from tvilfm_plugin.evaluation.protocols import SYSU, Labels
from tvilfm_plugin.evaluation.ranking import rank_metrics


def run(smoke: bool, machine: Machine) -> list[Figure]:
    queries, runs = (200, 3) if smoke else (3803, 3)
    cases = ((301, 10 if not smoke else 2, 40.0), (3010, 1, 20.0)) if not smoke else ((301, 2, 40.0),)
    return [_one(queries, gallery, draws, target, runs) for gallery, draws, target in cases]


def _one(queries: int, gallery: int, draws: int, target: float, runs: int) -> Figure:
    rng = np.random.RandomState(0)
    query = Labels(rng.randint(0, 96, queries), rng.choice([3, 6], queries))
    galleries = [Labels(np.arange(gallery) % 96, rng.choice([1, 2, 4, 5], gallery)) for _ in range(draws)]
    # Two decimals: ties, which have to be broken alike.
    dists = [rng.rand(queries, gallery).astype(np.float32).round(4) for _ in range(draws)]

    def ours() -> list:
        return [rank_metrics(dist, query, labels, SYSU) for dist, labels in zip(dists, galleries, strict=True)]

    def theirs() -> list:
        return [reference.rank(dist, *query, *labels) for dist, labels in zip(dists, galleries, strict=True)]

    difference = max(
        max(np.abs(a.cmc - b[0]).max(), abs(a.mAP - b[1]), abs(a.mINP - b[2])) for a, b in zip(ours(), theirs(), strict=True)
    )
    return compare(f"ranking {queries} x {gallery}, {draws} draws", ours, theirs, float(difference), runs, target=target)

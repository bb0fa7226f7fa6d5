"""CMC, mAP and mINP: random distances between SYSU-sized query and gallery sets, and features against a large gallery."""

import numpy as np
import torch

from benchmarks import reference
from benchmarks.harness import Figure, Machine, compare
from tvilfm_plugin.evaluation.protocols import SYSU, Labels
from tvilfm_plugin.evaluation.ranking import MinusInnerProduct, chance_metrics, rank_metrics

IDENTITIES = 96


def run(smoke: bool, machine: Machine) -> list[Figure]:
    if smoke:
        return [_matrices(200, 301, 2, 40.0, 4), _features(8, 2000, 64), _chance(200, 2000, 64)]
    return [
        _matrices(3803, 301, 10, 40.0, 4),
        _matrices(3803, 3010, 1, 20.0, 4),
        _matrices(3803, 3010, 1, 20.0, None),
        # 64 of 20,000 queries: time is proportional to them, since the ranking goes block by block.
        _features(64, 200_000, 512),
        _chance(6000, 40_000, 2048),
    ]


def labels(queries: int, gallery: int) -> tuple[Labels, Labels]:
    rng = np.random.RandomState(0)
    query = Labels(rng.randint(0, IDENTITIES, queries), rng.choice([3, 6], queries))
    return query, Labels(np.arange(gallery) % IDENTITIES, rng.choice([1, 2, 4, 5], gallery))


def _matrices(queries: int, gallery: int, draws: int, target: float, decimals: int | None) -> Figure:
    """Distances rounded to some decimals tie, and ties have to be broken alike."""
    rng = np.random.RandomState(1)
    query, images = labels(queries, gallery)
    dists = [rng.rand(queries, gallery).astype(np.float32) for _ in range(draws)]
    if decimals is not None:
        dists = [dist.round(decimals) for dist in dists]

    def ours() -> list:
        return [rank_metrics(dist, query, images, SYSU) for dist in dists]

    def theirs() -> list:
        return [reference.rank(dist, *query, *images) for dist in dists]

    ties = "few ties" if decimals is None else "ties"
    name = f"ranking {queries} x {gallery}, {draws} draw(s), {ties}"
    return compare(name, ours, theirs, _difference(ours(), theirs()), 3, target=target)


def _features(queries: int, gallery: int, dim: int) -> Figure:
    """From features, never holding the distances of all queries; products included on both sides."""
    query, images = labels(queries, gallery)
    generator = torch.Generator().manual_seed(0)
    # Small integers have exact products, whose order of summation does not matter: the two sides see the same ties.
    features = [torch.randint(-2, 3, (count, dim), generator=generator).float() for count in (queries, gallery)]

    def ours() -> list:
        return [rank_metrics(MinusInnerProduct(*features), query, images, SYSU)]

    def theirs() -> list:
        return [reference.rank(-(features[0] @ features[1].T).numpy(), *query, *images)]

    name = f"ranking {queries} x {gallery} from {dim} features"
    return compare(name, ours, theirs, _difference(ours(), theirs()), 1, target=20)


def _chance(queries: int, gallery: int, dim: int) -> Figure:
    """The chance row against the ranking of one row of the table, both ours: people of very different numbers of images."""
    rng = np.random.RandomState(0)
    people = rng.dirichlet(np.full(500, 3.0))
    query = Labels(rng.randint(0, 500, queries), rng.choice([3, 6], queries))
    images = Labels(np.sort(rng.choice(500, gallery, p=people)), rng.choice([1, 2, 4, 5], gallery))
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(count, dim, generator=generator) for count in (queries, gallery)]
    chance = lambda: chance_metrics(query, images, SYSU)
    ranking = lambda: rank_metrics(MinusInnerProduct(*features), query, images, SYSU)
    name = f"chance row {queries} x {gallery}, against ranking from {dim} features"
    return compare(name, chance, ranking, 0.0, 1, target=100)


def _difference(ours: list, theirs: list) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(max(max(np.abs(a.cmc - b[0]).max(), abs(a.mAP - b[1]), abs(a.mINP - b[2])) for a, b in pairs))

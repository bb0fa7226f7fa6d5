"""The types of index that can be chosen, and how each is made and asked. Flat is exact; the others are measured against it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np

# faiss takes up to 256 training vectors per centroid and wants 39; k-means costs what they are times the lists.
TRAIN_PER_CENTROID = 40
PQ_CENTROIDS = 256


class Kind(NamedTuple):
    """One type of index.

    Attributes:
        recipe: (D, n) -> the name that faiss's factory knows the index of n vectors by.
        meaning: one line for the user.
        trained: how many of n vectors it learns from.
        lists: whether it searches the nearest of many lists.
        removes: whether faiss can take vectors out; else those that stay are added again.
        fitted: (n, D) unit vectors -> the trained, empty index, where its form depends on them; None: faiss trains it.
    """

    recipe: Callable[[int, int], str]
    meaning: str
    trained: Callable[[int], int] = lambda count: 0
    lists: bool = False
    removes: bool = True
    fitted: Callable[[np.ndarray], faiss.Index] | None = None


def lists_of(count: int) -> int:
    """Lists of an inverted file over n vectors: 4 sqrt(n), as long as each gets 39 vectors."""
    return max(1, min(int(4 * math.sqrt(count)), count // 39))


def pieces_of(dim: int) -> int:
    """Pieces of a product quantiser: eight numbers share a byte where D allows it."""
    return next(pieces for pieces in range(max(1, dim // 8), 0, -1) if dim % pieces == 0)


# Of the two-stage type: share of the energy that the short codes keep, their widths, and candidates per hit that are looked at
# again with the exact vectors.
ENERGY, WIDTHS, CANDIDATES = 0.95, (32, 256), 30


def two_stages(vectors: np.ndarray) -> faiss.Index:
    """An empty index of short codes (the first principal axes, 8 bits each) with the exact vectors behind them.

    The axes are those of the second moments, not of the variance: inner products are what is compared, so no mean is taken off.
    Their number is the smallest that keeps `ENERGY` of the vectors' length, within `WIDTHS`.
    """
    dim = vectors.shape[1]
    energy, axes = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    kept = np.cumsum(energy[::-1]) / energy.sum()
    least, most = (min(width, dim) for width in WIDTHS)
    width = min(most, max(least, 8 * -(-int(np.searchsorted(kept, ENERGY) + 1) // 8)))
    turn = faiss.LinearTransform(dim, width, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(axes[:, ::-1][:, :width].T, dtype=np.float32).ravel(), turn.A)
    turn.is_trained = True
    codes = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    base = faiss.IndexPreTransform(turn, codes)
    base.train(vectors)
    index = faiss.IndexRefine(base, faiss.IndexFlatIP(dim))
    index.k_factor = CANDIDATES
    return index


def put_exact(index: faiss.IndexRefine, exact: faiss.Index) -> None:
    """Give an index of two stages, which has its codes, the exact vectors of the same images."""
    index.refine_index, index.ntotal = exact, exact.ntotal
    index.referenced_objects.append(exact)  # SWIG keeps no reference of its own


KINDS: dict[str, Kind] = {
    "flat": Kind(lambda dim, count: "Flat", "exact; 4 D bytes per image"),
    "fp16": Kind(lambda dim, count: "SQfp16", "half precision; 2 D bytes"),
    "int8": Kind(lambda dim, count: "SQ8", "8-bit scalar quantiser; D bytes", lambda count: min(count, 20_000)),
    "refined": Kind(
        lambda dim, count: "Flat",
        "8-bit codes of the main axes, then the exact vectors of the candidates; 4 D (mapped) + up to 256 bytes",
        lambda count: min(count, 8_192),
        removes=False,
        fitted=two_stages,
    ),
    "ivf": Kind(
        lambda dim, count: f"IVF{lists_of(count)},Flat",
        "inverted lists, an eighth of them searched; 4 D bytes",
        lambda count: min(count, TRAIN_PER_CENTROID * lists_of(count)),
        lists=True,
        removes=False,
    ),
    "hnsw": Kind(lambda dim, count: "HNSW32,Flat", "neighbour graph, slow to build; 4 D + 256 bytes", removes=False),
    "pq": Kind(
        lambda dim, count: f"IVF{lists_of(count)},PQ{pieces_of(dim)}",
        "inverted lists with product-quantised residuals; D / 8 bytes",
        lambda count: min(count, TRAIN_PER_CENTROID * max(lists_of(count), PQ_CENTROIDS)),
        lists=True,
        removes=False,
    ),
}


def choose_kind(name: str) -> Kind:
    """A type of index by its name."""
    if name not in KINDS:
        raise ValueError(f"Unknown type of index {name!r}; choices are {', '.join(KINDS)}.")
    return KINDS[name]


def make(name: str, dim: int, count: int) -> faiss.Index:
    """An empty index for n vectors of D numbers."""
    kind = choose_kind(name)
    if name == "pq" and count < PQ_CENTROIDS:
        raise ValueError(f"A product quantiser learns from {PQ_CENTROIDS} images or more; this gallery has {count}. Use flat.")
    index = faiss.index_factory(dim, kind.recipe(dim, count), faiss.METRIC_INNER_PRODUCT)
    if kind.lists:
        index.nprobe = max(1, index.nlist // 8)
        index.cp.max_points_per_centroid = TRAIN_PER_CENTROID
        index.cp.min_points_per_centroid = 1  # `trained` gives what there is; faiss would warn on stderr
    if name == "pq":
        index.pq.cp.min_points_per_centroid = 1
        index.do_polysemous_training = False  # for a search by Hamming distance, which is not ours; most of the training time
    if name == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    return index


def parameters(name: str, index: faiss.Index, allowed: np.ndarray | None, exhaustive: bool = False) -> Any:
    """faiss's search parameters.

    Args:
        allowed: (n,) bool, the images that may be found; None: all.
        exhaustive: look everywhere: a narrow filter may leave nothing where an approximate index looks first.
    """
    chosen: dict[str, Any] = {}
    if allowed is not None:
        chosen["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if choose_kind(name).lists:
        return faiss.SearchParametersIVF(nprobe=index.nlist if exhaustive else index.nprobe, **chosen)
    if name == "refined":
        inner = faiss.SearchParametersPreTransform(index_params=faiss.SearchParameters(**chosen))
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if name == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=index.ntotal if exhaustive else index.hnsw.efSearch, **chosen)
    return faiss.SearchParameters(**chosen)


def exact_part(name: str, index: faiss.Index) -> faiss.Index:
    """What holds the vectors of an index and can be searched through, for the few that a narrow filter leaves."""
    if name == "refined":
        return faiss.downcast_index(index.refine_index)
    return faiss.downcast_index(index.storage) if name == "hnsw" else index

"""What guessing reaches, in closed form: expectations over all orders of a query's N gallery images, m of them right."""

import functools
import math
from collections.abc import Iterator

import numpy as np

# Of the integral over time: nodes in each part, halvings towards its end, and how unlikely a moment must be to be left out.
_NODES, _LATE, _NEGLIGIBLE = 10, 6, 45.0


def expected_ap(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """E[AP] = H_N / N + (m - 1) / (N - 1) (1 - H_N / N), H_N the N-th harmonic number.

    Args:
        images: (n,) N, at least 1.
        right: (n,) m, at least 1.
    """
    reciprocal = _harmonic(images) / images
    return reciprocal + (right - 1) / np.maximum(images - 1, 1) * (1 - reciprocal)


def expected_inp(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """E[INP], INP = m / L with the last right image at place L: P(L = l) = C(l - 1, m - 1) / C(N, m).

    E_m + m (N - m) / (m + 1)^2 E_{m + 1} = 1, from E_1 = H_N / N upwards or from E_N = 1 downwards: whichever shrinks errors.
    """
    up, down = _harmonic(images) / images, np.ones(len(images))
    few = 2 * right <= images
    for m in range(1, int(right[few].max(initial=1))):
        up = np.where(m < right, (1 - up) * (m + 1) ** 2 / (m * np.maximum(images - m, 1)), up)
    wrong = images - right
    for gap in range(1, int(wrong[~few].max(initial=0)) + 1):
        m = np.maximum(images - gap, 0)
        down = np.where(gap <= wrong, 1 - m * gap / (m + 1.0) ** 2 * down, down)
    return np.where(few, up, down)


def _harmonic(numbers: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(numbers.max()) + 1))])[numbers]


def image_cmc(images: np.ndarray, right: np.ndarray, length: int) -> np.ndarray:
    """(n, length) P(a right image among the first k): one minus the hypergeometric chance of none."""
    before = np.arange(length)
    left = np.maximum(images[:, None] - before, 1)
    return 1 - np.cumprod(np.clip((images[:, None] - right[:, None] - before) / left, 0, 1), axis=1)


def identity_cmc(others: np.ndarray, right: np.ndarray, weight: np.ndarray, length: int) -> np.ndarray:
    """(length,) weighted sum of P(own identity among the first k), identities in the order of their first images.

    Give every image a moment drawn uniformly from (0, 1): an identity of s images comes before t with 1 - (1 - t)^s,
    independently of the others, and the own one comes at t with density m (1 - t)^(m - 1).

    Args:
        others: (n, I) images of every other identity; 0 for the own one, and for what a query does not rank.
        right: (n,) m, at least 1.
        weight: (n,) of the queries.
        length: numbers of identities that are of interest.
    """
    sizes = np.flatnonzero(np.bincount(others.reshape(-1)))
    sizes = sizes[sizes > 0]
    index = np.zeros(int(others.max()) + 1, dtype=np.int64)
    index[sizes] = np.arange(1, len(sizes) + 1)
    cell = index[others] + np.arange(len(others))[:, None] * (len(sizes) + 1)
    counts = np.bincount(cell.reshape(-1), minlength=len(others) * (len(sizes) + 1)).reshape(len(others), -1)
    # Queries that differ in nothing count once; those that differ in little lie side by side.
    kinds, which = np.unique(np.column_stack([counts[:, 1:], right]), axis=0, return_inverse=True)
    counts, right = kinds[:, :-1], kinds[:, -1]
    weight = np.bincount(which.reshape(-1), weight)
    before = _Before(sizes, counts.min(axis=0), int(right.min() + (counts @ sizes).max()), length)
    found = np.zeros(length)
    for rows, numbers in before.of(counts):
        density = right[rows, None] * np.exp((right[rows, None] - 1) * before.log_left) * before.weights
        chances = np.minimum(density @ np.cumsum(numbers, axis=0).T, 1)
        chances[:, int(counts[rows.start].sum()) :] = 1
        found += weight[rows] @ chances
    return found


class _Before:
    """How many identities come before each of a number of moments.

    Args:
        sizes: (d,) the distinct numbers of images of the identities, at least 1.
        common: (d,) how many identities of each size all queries have.
        images: of the largest gallery.
        length: numbers of identities that are of interest.
    """

    def __init__(self, sizes: np.ndarray, common: np.ndarray, images: int, length: int) -> None:
        log_left, weights = _moments(math.ceil(math.log2(images)))
        # So many come on average; where that is far beyond `length`, fewer than `length` are out of the question (Chernoff).
        mean = common @ -np.expm1(sizes[:, None] * log_left)
        likely = (mean < length) | ((mean - length) ** 2 < 2 * _NEGLIGIBLE * mean)
        self.log_left, self.weights, self.length = log_left[likely], weights[likely], length
        self._stay = sizes[:, None] * self.log_left
        self._come = np.log(-np.expm1(self._stay))
        self._one = np.exp(self._stay), np.exp(self._come)

    def of(self, counts: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Runs of equal rows of `counts` (n, d), with the (length, moments) chances of 0, 1, ... identities.

        What rows have in common is multiplied once, then in either half what its rows have in common beyond that.
        """
        numbers = np.zeros((self.length, len(self.log_left)))
        numbers[0] = 1
        yield from self._split(counts, slice(0, len(counts)), np.zeros_like(counts[0]), numbers)

    def _split(
        self, counts: np.ndarray, rows: slice, done: np.ndarray, numbers: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray]]:
        common = counts[rows].min(axis=0)
        for size in np.flatnonzero(common - done).tolist():
            numbers = self._join(numbers, size, int(common[size] - done[size]))
        if (counts[rows] == common).all():
            yield rows, numbers
            return
        middle = (rows.start + rows.stop) // 2
        for half in (slice(rows.start, middle), slice(middle, rows.stop)):
            yield from self._split(counts, half, common, numbers)

    def _join(self, numbers: np.ndarray, size: int, count: int) -> np.ndarray:
        """The sum of `numbers` and a binomial: how many of `count` more identities of one size come."""
        if count == 1:
            joined = numbers * self._one[0][size]
            joined[1:] += numbers[:-1] * self._one[1][size]
            return joined
        joined, ways = np.zeros_like(numbers), 0.0
        for k in range(min(self.length, count + 1)):
            chance = np.exp(ways + k * self._come[size] + (count - k) * self._stay[size])
            joined[k:] += numbers[: self.length - k] * chance
            ways += math.log((count - k) / (k + 1)) if k < count else 0.0
        return joined


@functools.cache
def _moments(early: int) -> tuple[np.ndarray, np.ndarray]:
    """log(1 - t) and weights of nodes t in (0, 1), in halvings towards the beginning, where first images crowd, and the end."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)

    def panels(halvings: int) -> tuple[np.ndarray, np.ndarray]:
        edges = np.concatenate([[0.0], 0.5 ** np.arange(max(halvings, 1), 0, -1)])
        half = np.diff(edges)[:, None] / 2
        return (edges[:-1, None] + half * (nodes + 1)).reshape(-1), (half * weights).reshape(-1)

    first, first_weights = panels(early)
    left, left_weights = panels(_LATE)
    return np.concatenate([np.log1p(-first), np.log(left)]), np.concatenate([first_weights, left_weights])

"""What guessing reaches, in closed form: expectations over all orders of a query's N gallery images, m of them right."""

import functools
from typing import NamedTuple

import numpy as np

# Of the integral over time: halvings of the interval towards its beginning and its end, and nodes in each part.
_EARLY, _LATE, _NODES = 32, 20, 10


def expected_ap(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """E[AP] = H_N / N + (m - 1) / (N - 1) (1 - H_N / N), H_N the N-th harmonic number.

    Args:
        images: (n,) N, at least 1.
        right: (n,) m, at least 1.
    """
    harmonic = _sums(int(images.max()))[0][images] / images
    return harmonic + (right - 1) / np.maximum(images - 1, 1) * (1 - harmonic)


def expected_inp(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """E[INP], INP = m / L with the last right image at place L: P(L = l) = C(l - 1, m - 1) / C(N, m)."""
    return np.array([_inp(count, m) for count, m in zip(images.tolist(), right.tolist(), strict=True)])


@functools.lru_cache(maxsize=1 << 16)
def _inp(images: int, right: int) -> float:
    log_factorial = _sums(images)[1]
    before = np.arange(right - 1, images)  # images in front of the last right one
    ways = log_factorial[before] - log_factorial[before - (right - 1)] - log_factorial[right - 1]
    all_ways = log_factorial[images] - log_factorial[right] - log_factorial[images - right]
    return float((right / (before + 1)) @ np.exp(ways - all_ways))


def _sums(most: int) -> tuple[np.ndarray, np.ndarray]:
    """Harmonic numbers and logarithms of factorials of 0 to `most`, at the least."""
    return _sums_below(1 << most.bit_length())


@functools.lru_cache(maxsize=2)
def _sums_below(end: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(1, end)
    return np.concatenate([[0.0], np.cumsum(1 / numbers)]), np.concatenate([[0.0], np.cumsum(np.log(numbers))])


def image_cmc(images: np.ndarray, right: np.ndarray, length: int) -> np.ndarray:
    """(n, length) P(a right image among the first k): one minus the hypergeometric chance of none."""
    before = np.arange(length)
    left = np.maximum(images[:, None] - before, 1)
    return 1 - np.cumprod(np.clip((images[:, None] - right[:, None] - before) / left, 0, 1), axis=1)


class Before(NamedTuple):
    """How many identities come before a moment, at n moments between 0 and 1.

    Attributes:
        log_left: (n,) log of the time that is left.
        weights: (n,) of the moments, for an integral over time.
        at_most: (n, length) P(at most 0, 1, ... identities).
    """

    log_left: np.ndarray
    weights: np.ndarray
    at_most: np.ndarray


def identities_before(sizes: np.ndarray, counts: np.ndarray, length: int) -> Before:
    """Give every image a moment drawn uniformly from (0, 1): an identity of s images comes before t with 1 - (1 - t)^s.

    Identities are independent of each other, so those before t are a sum of binomials.

    Args:
        sizes: (d,) the distinct numbers of images of the identities, at least 1.
        counts: (d,) how many identities have so many.
        length: numbers of identities that are of interest.
    """
    log_left, weights = _moments()
    numbers = np.zeros((len(weights), length))
    numbers[:, 0] = 1
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        stay = size * log_left
        come = np.log(-np.expm1(stay))
        among = np.arange(min(length, count + 1))
        ways = np.concatenate([[0.0], np.cumsum(np.log((count - among[1:] + 1) / among[1:]))])
        chances = np.exp(ways + come[:, None] * among + stay[:, None] * (count - among))
        joined = np.zeros_like(numbers)
        for k in among:
            joined[:, k:] += numbers[:, : length - k] * chances[:, k : k + 1]
        numbers = joined
    return Before(log_left, weights, np.cumsum(numbers, axis=1))


def identity_cmc(right: int, others: Before, count: int) -> np.ndarray:
    """(length,) P(own identity among the first k), identities in the order of their first images.

    Args:
        right: m; the first of them comes at t with density m (1 - t)^(m - 1).
        others: the other identities.
        count: how many there are; from place count + 1 on the value is 1.
    """
    found = (others.weights * right * np.exp((right - 1) * others.log_left)) @ others.at_most
    found[count:] = 1
    return np.minimum(found, 1)


@functools.cache
def _moments() -> tuple[np.ndarray, np.ndarray]:
    """log(1 - t) and weights of nodes t in (0, 1), ever denser towards both ends, where first images crowd."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)

    def panels(halvings: int) -> tuple[np.ndarray, np.ndarray]:
        edges = np.concatenate([[0.0], 0.5 ** np.arange(halvings, 0, -1)])
        half = np.diff(edges)[:, None] / 2
        return (edges[:-1, None] + half * (nodes + 1)).reshape(-1), (half * weights).reshape(-1)

    early, early_weights = panels(_EARLY)
    left, left_weights = panels(_LATE)
    return np.concatenate([np.log1p(-early), np.log(left)]), np.concatenate([early_weights, left_weights])

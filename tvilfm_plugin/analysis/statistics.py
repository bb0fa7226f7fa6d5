"""How much a difference between two numbers means: trials, identities, and several comparisons at once.

Queries of one person resemble each other, so thousands of queries are far fewer independent facts. Intervals and tests
here therefore resample *identities*; a query bootstrap would give intervals that are much too narrow.

Own code, although scipy.stats has a bootstrap and a permutation test: those draw other numbers, so every printed interval would
change, and their bootstrap holds resamples x identities indices where this one holds counts by the block.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.evaluation.summary import CONFIDENCE, finite

_CHUNK_ELEMENTS = 1 << 21  # random numbers held at once
_KEPT_ELEMENTS = 1 << 23  # and kept for the next row (64 MiB)


class Interval(NamedTuple):
    """A mean over queries with its confidence interval over `n` identities."""

    mean: float
    low: float
    high: float
    n: int

    def in_percent(self) -> str:
        """E.g. "61.20 [58.03, 64.31]"."""
        return f"{100 * self.mean:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


class PairedTest(NamedTuple):
    """Difference of two systems (second minus first): the mean over identities, its interval, and a two-sided p-value.

    `n` is the number of identities.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def identity_bootstrap(values: np.ndarray, pids: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile interval of a mean over queries when the *identities* are drawn again.

    Args:
        values: (Q,) one number per query, e.g. `PerQuery.ap`; NaN (a query that counts in nothing) is left out.
        pids: (Q,) the query's identity.
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    total, count = per_identity(values, pids)
    return Interval(float(total.sum() / count.sum()), *_resampled_interval(total, count, resamples, seed), len(total))


def paired_randomisation(
    first: np.ndarray, second: np.ndarray, pids: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Whether two systems differ on the same queries: a sign-flip test on the per-identity means.

    Under the null hypothesis the two values of an identity could as well have been exchanged, which flips the sign of
    its difference. With few identities all sign patterns are enumerated, which makes the p-value exact.

    Args:
        first: (Q,) per-query values of the one system; NaN leaves a query out, and must then be NaN in both.
        second: (Q,) values of the other system for the same queries.
        pids: (Q,) the query's identity.
        resamples: random sign patterns (a smallest possible p-value of 1 / (resamples + 1)) and bootstrap samples.
        seed: of both.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or not np.array_equal(np.isnan(first), np.isnan(second)):
        raise ValueError(
            f"A paired test needs the same queries in both systems; got shapes {first.shape} and {second.shape} with "
            f"{int(np.isfinite(first).sum())} and {int(np.isfinite(second).sum())} valid queries."
        )
    if resamples < 1 or seed < 0:
        raise ValueError(f"A paired test needs one resample or more and a seed of at least 0, got {resamples} and {seed}.")
    total, count = per_identity(second - first, pids)
    differences = total / count
    n, observed = len(differences), float(differences.mean())
    # Sums of the same numbers in another order differ by rounding: patterns that are equal must count as equal.
    threshold = abs(observed) - 1e-12 * float(np.abs(differences).max())
    if 2**n <= resamples:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        p_value = float(np.mean(np.abs((1.0 - 2.0 * patterns) @ differences) / n >= threshold))
    else:
        rng = np.random.default_rng([seed, 1])
        extreme = 0
        for size in _chunks(resamples, n):
            signs = rng.integers(0, 2, (size, n), dtype=np.int8) * 2.0 - 1.0
            extreme += int(np.count_nonzero(np.abs(signs @ differences) / n >= threshold))
        p_value = (extreme + 1) / (resamples + 1)
    return PairedTest(observed, *_resampled_interval(differences, np.ones(n), resamples, seed), p_value, n)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, (n,) in the given order: compare them with the level as if there were one test."""
    raw = finite("p-values", p_values)
    if ((raw < 0) | (raw > 1)).any():
        raise ValueError(f"p-values lie in [0, 1], got {raw.min()} to {raw.max()}.")
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def per_identity(values: np.ndarray, pids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of queries of each identity, (I,) each."""
    values, pids = np.asarray(values, dtype=np.float64), np.asarray(pids)
    if values.ndim != 1 or values.shape != pids.shape:
        raise ValueError(f"Values and identities must be (Q,) each, got {values.shape} and {pids.shape}.")
    if np.isinf(values).any():
        raise ValueError("A per-query value is infinite; NaN is what marks a query that does not count.")
    valid = ~np.isnan(values)
    if not valid.any():
        raise ValueError(f"None of the {len(values)} queries is valid, so there is nothing to average.")
    _, code = np.unique(pids[valid], return_inverse=True)
    return np.bincount(code, values[valid]), np.bincount(code)


def _resampled_interval(total: np.ndarray, count: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the means over queries after drawing as many identities as there are, with replacement."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
    n = len(total)
    # Every row of a table draws the same people: they are kept where they are few.
    drawn = _kept_draws(n, resamples, seed) if resamples * n <= _KEPT_ELEMENTS else _draws(n, resamples, seed)
    means = np.concatenate([(times @ total) / (times @ count) for times in drawn])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n identities is drawn, (size, n), `resamples` times in all."""
    rng = np.random.default_rng([seed, 0])
    return (rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64) for size in _chunks(resamples, n))


@functools.lru_cache(maxsize=1)
def _kept_draws(n: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_draws(n, resamples, seed))


def _chunks(resamples: int, n: int) -> list[int]:
    step = max(1, _CHUNK_ELEMENTS // n)
    return [min(step, resamples - done) for done in range(0, resamples, step)]

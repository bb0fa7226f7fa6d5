"""Slow literal twins of the statistics: one identity, one query, one text at a time."""

import itertools
from collections.abc import Sequence

import numpy as np


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the mean under all sign patterns."""
    observed = abs(np.mean(differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    means = [abs(np.mean([s * d for s, d in zip(signs, differences, strict=True)])) for signs in patterns]
    return float(np.mean([mean >= observed - 1e-12 for mean in means]))


def identity_means(values: np.ndarray, pids: np.ndarray) -> dict[int, float]:
    """Mean of the non-NaN values of each identity; (..., Q) values are averaged over everything but the query first."""
    found: dict[int, list[float]] = {}
    for q, pid in enumerate(pids.tolist()):
        trials = [v for v in np.asarray(values)[..., q].ravel().tolist() if v == v]
        if trials:
            found.setdefault(pid, []).append(sum(trials) / len(trials))
    return {pid: sum(v) / len(v) for pid, v in sorted(found.items())}


def average_precision(right: Sequence[bool]) -> float:
    """Mean precision at the right places of a list."""
    precisions = [sum(right[: n + 1]) / (n + 1) for n in range(len(right)) if right[n]]
    return sum(precisions) / len(precisions)


def bootstrap_means(values: np.ndarray, pids: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw identities with replacement, take all queries of each, average; resample by resample."""
    rng = np.random.default_rng(seed)
    ids = np.unique(pids)
    means = []
    for _ in range(resamples):
        drawn = rng.choice(ids, len(ids))
        means.append(np.concatenate([values[pids == pid] for pid in drawn]).mean())
    return np.array(means)


def holm(p_values: list[float]) -> list[float]:
    """The smallest level at which Holm's step-down procedure still rejects each hypothesis, by definition."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    for step, i in enumerate(order):
        adjusted[i] = max(min(1.0, (len(p_values) - j) * p_values[order[j]]) for j in range(step + 1))
    return adjusted

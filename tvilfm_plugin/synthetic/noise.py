"""Value noise from tables: additions, products and look-ups only, so every machine gets the same digits."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

_SIZE = 64


@cache
def _table() -> np.ndarray:
    rng = random.Random("noise")
    return np.asarray([rng.uniform(-1.0, 1.0) for _ in range(_SIZE * _SIZE)], np.float32)


def noise2(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise in [-1, 1] over the plane, one hill a unit; u and v of the same shape."""
    table = _table()
    u0, v0 = np.floor(u), np.floor(v)
    a, b = u - u0, v - v0
    a, b = a * a * (np.float32(3.0) - a - a), b * b * (np.float32(3.0) - b - b)
    column, row = u0.astype(np.int32), v0.astype(np.int32)
    left, right = column & (_SIZE - 1), (column + 1) & (_SIZE - 1)
    top, bottom = (row & (_SIZE - 1)) * _SIZE, ((row + 1) & (_SIZE - 1)) * _SIZE
    upper = table[top + left]
    upper = upper + a * (table[top + right] - upper)
    lower = table[bottom + left]
    lower = lower + a * (table[bottom + right] - lower)
    return upper + b * (lower - upper)


def noise3(points: np.ndarray) -> np.ndarray:
    """Smooth noise in about [-1, 1] at points (N, 3): the mean over three planes."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    third = np.float32(0.577)
    return (noise2(x, y) + noise2(y + np.float32(17.3), z) + noise2(z + np.float32(31.7), x + np.float32(5.1))) * third


def hills(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two octaves of `noise2`."""
    two = np.float32(2.0)
    return noise2(u, v) * np.float32(0.67) + noise2(u * two + np.float32(9.7), v * two + np.float32(3.3)) * np.float32(0.33)

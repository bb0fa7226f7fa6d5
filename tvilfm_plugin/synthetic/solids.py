"""Simple solids that are carried or worn: tubes, rounded boxes, discs. Points (V, 3) and outward-facing triangles (T, 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

Point = tuple[float, float, float]
Solid = tuple[np.ndarray, np.ndarray]


def _grid(rows: int, columns: int) -> np.ndarray:
    """Triangles between `rows` closed rings of `columns` points."""
    corners = []
    for r in range(rows - 1):
        for c in range(columns):
            a, b = r * columns + c, r * columns + (c + 1) % columns
            corners += [(a, a + columns, b), (b, a + columns, b + columns)]
    return np.asarray(corners, np.intp)


@cache
def _rounded(exponent: float, rings: int, columns: int) -> Solid:
    def power(value: float) -> float:
        return round(math.copysign(abs(value) ** exponent, value), 6) if abs(value) > 1e-9 else 0.0

    points = []
    for r in range(rings):
        v = math.pi * r / (rings - 1)
        for c in range(columns):
            u = 2.0 * math.pi * c / columns
            points.append(
                (power(math.sin(v)) * power(math.cos(u)), power(math.cos(v)), -power(math.sin(v)) * power(math.sin(u)))
            )
    return np.asarray(points, np.float32), _grid(rings, columns)


def rounded_box(centre: Point, radii: Point, exponent: float = 0.5, rings: int = 9, columns: int = 16) -> Solid:
    """A superellipsoid; exponent 1 is an ellipsoid, towards 0 it becomes a box."""
    points, triangles = _rounded(exponent, rings, columns)
    return points * np.asarray(radii, np.float32) + np.asarray(centre, np.float32), triangles


def tube(spine: Sequence[Point], radii: Sequence[float], columns: int = 8, flat: float = 1.0) -> Solid:
    """A tube around a line of points, pointed at both ends; `flat` scales its depth (z)."""
    rings = []
    last = len(spine) - 1
    for n, (x, y, z) in enumerate(spine):
        a, b = spine[max(0, n - 1)], spine[min(last, n + 1)]
        along = np.asarray(b, float) - np.asarray(a, float)
        side = np.cross(
            along, (0.0, 0.0, 1.0) if abs(along[2]) < 0.8 * abs(along[0]) + 0.8 * abs(along[1]) else (0.0, 1.0, 0.0)
        )
        side = side / math.sqrt(float(side[0] * side[0] + side[1] * side[1] + side[2] * side[2]))
        up = np.cross(side, along)
        up = up / math.sqrt(float(up[0] * up[0] + up[1] * up[1] + up[2] * up[2]))
        for c in range(columns):
            s, k = (round(f(2.0 * math.pi * c / columns), 9) * radii[n] for f in (math.sin, math.cos))
            offset = side * k + up * s
            rings.append((x + offset[0], y + offset[1], z + offset[2] * flat))
    return np.asarray(rings, np.float32), _grid(len(spine), columns)


def disc(centre: Point, radii: tuple[float, float], thick: float) -> Solid:
    """A flat plate across the vertical."""
    return rounded_box(centre, (radii[0], thick, radii[1]), 1.0, 5, 18)


def facing(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) normals of a solid, by the areas around each point."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    faces = np.stack(
        [u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1], u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2], u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]], 1
    )
    total = np.zeros_like(points)
    for k in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(triangles[:, k], faces[:, axis], len(points)).astype(np.float32)
    return total

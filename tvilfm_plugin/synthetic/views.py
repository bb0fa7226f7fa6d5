"""Where a camera stands, what it sees where, and how a figure gets its place in the frame. Lengths in decimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_F = np.float32


@dataclass(frozen=True)
class View:
    """A pinhole camera before a figure that stands at the origin, on the ground y = 0; the camera is at (0, height, distance).

    Attributes:
        pitch: sine and cosine of the angle by which it looks down.
        scale: pixels per unit of the picture plane at depth 1. column, row: of the picture plane's middle, in pixels.
    """

    height: float
    distance: float
    pitch: tuple[float, float]
    scale: float = 1.0
    column: float = 0.0
    row: float = 0.0

    @classmethod
    def towards(cls, height: float, distance: float, middle: float) -> View:
        """Looking at (0, middle, 0)."""
        long = math.sqrt((height - middle) ** 2 + distance**2)
        return cls(height, distance, ((height - middle) / long, distance / long))

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Column, row and depth of points (N, 3)."""
        s, c = _F(self.pitch[0]), _F(self.pitch[1])
        y, z = points[:, 1] - _F(self.height), points[:, 2] - _F(self.distance)
        depth = -(y * s + z * c)
        up = y * c - z * s
        inverse = _F(self.scale) / depth
        return points[:, 0] * inverse + _F(self.column), _F(self.row) - up * inverse, depth

    def framed(self, points: np.ndarray, *, top: float, height: float, centre: float) -> View:
        """The same camera so zoomed and shifted that the points reach from row `top` over `height` rows, about `centre`."""
        columns, rows, _ = View(self.height, self.distance, self.pitch).project(points)
        low, high = float(rows.min()), float(rows.max())
        scale = height / (high - low)
        middle = 0.5 * (float(columns.min()) + float(columns.max()))
        return View(self.height, self.distance, self.pitch, scale, centre - scale * middle, top - scale * low)

    def zoomed(self, factor: float) -> View:
        """The same view on a picture `factor` times as large."""
        return View(self.height, self.distance, self.pitch, self.scale * factor, self.column * factor, self.row * factor)

    def rays(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions (x, y, z), each (height, width), through the pixels' middles; depth 1 along the camera's axis."""
        s, c = _F(self.pitch[0]), _F(self.pitch[1])
        u = (np.arange(width, dtype=_F) + _F(0.5 - self.column)) * _F(1.0 / self.scale)
        v = (_F(self.row - 0.5) - np.arange(height, dtype=_F)) * _F(1.0 / self.scale)
        x = np.broadcast_to(u[None, :], (height, width))
        y = np.broadcast_to((v * c - s)[:, None], (height, width))
        z = np.broadcast_to((-v * s - c)[:, None], (height, width))
        return x, y, z

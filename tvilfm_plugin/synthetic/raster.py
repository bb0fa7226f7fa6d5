"""Which triangle each pixel shows: a depth buffer in numpy, all triangles at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_F = np.float32
_FAR = _F(3.0e38)
_HALF = _F(0.5)


class Fragments(NamedTuple):
    """The visible pixels (n of them).

    Attributes:
        pixel: (n,) number of the pixel, row by row, rising.
        triangle: (n,) which triangle it shows.
        a, b: (n,) shares of that triangle's second and third corner.
        depth: (n,) float32.
        flipped: (n,) whether the triangle shows its inside.
    """

    pixel: np.ndarray
    triangle: np.ndarray
    a: np.ndarray
    b: np.ndarray
    depth: np.ndarray
    flipped: np.ndarray

    def blend(self, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Values (V, C) at the pixels: (n, C)."""
        corners = triangles[self.triangle]
        first = values[corners[:, 0]]
        return first + self.a[:, None] * (values[corners[:, 1]] - first) + self.b[:, None] * (values[corners[:, 2]] - first)


def rasterise(
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    triangles: np.ndarray,
    height: int,
    width: int,
    *,
    cover: np.ndarray | None = None,
    two_sided: np.ndarray | None = None,
) -> Fragments:
    """Draw triangles (T, 3).

    Args:
        x, y: (V,) in pixels, y down. depth: (V,), the smaller is in front.
        cover: (V,) pixels where it is not above 0 are not drawn. None: all are.
        two_sided: (T,) triangles that show their inside too; the others are left out when they turn away. None: all.
    """
    i, j, k = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    corners = x[i], y[i], x[j], y[j], x[k], y[k]
    chosen, boxes, area = _boxes(corners, height, width, two_sided)
    owner, column, row = _pixels_of(boxes)
    a, b = _shares([values[chosen] for values in corners], area, owner, column, row)
    inside = np.flatnonzero((a >= 0) & (b >= 0) & (a + b <= _F(1.0)))
    a, b, owner = a[inside], b[inside], owner[inside]
    pixel = row[inside] * np.int32(width) + column[inside]
    i, j, k = i[chosen], j[chosen], k[chosen]
    corner = np.empty((len(chosen), 6), _F)
    corner[:, 0], corner[:, 1], corner[:, 2] = depth[i], depth[j] - depth[i], depth[k] - depth[i]
    if cover is not None:
        corner[:, 3], corner[:, 4], corner[:, 5] = cover[i], cover[j] - cover[i], cover[k] - cover[i]
    own = corner[owner]
    if cover is not None:
        kept = np.flatnonzero(own[:, 3] + a * own[:, 4] + b * own[:, 5] > 0)
        own, a, b, owner, pixel = own[kept], a[kept], b[kept], owner[kept], pixel[kept]
    z = own[:, 0] + a * own[:, 1] + b * own[:, 2]
    nearest = np.full(height * width, _FAR, _F)
    np.minimum.at(nearest, pixel, z)
    first = np.flatnonzero(z == nearest[pixel])
    winner = np.full(height * width, -1, np.int32)
    # Of two that are equally near the earlier one is shown: written last.
    winner[pixel[first[::-1]]] = first[::-1]
    seen = np.flatnonzero(winner >= 0)
    best = winner[seen]
    return Fragments(seen, chosen[owner[best]], a[best], b[best], z[best], area[owner[best]] > 0)


def _boxes(
    corners: tuple[np.ndarray, ...], height: int, width: int, two_sided: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which triangles are drawn, the box of pixels that each may cover (left, top, columns, rows), and its signed area."""
    x0, y0, x1, y1, x2, y2 = corners
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left = np.maximum(np.ceil(np.minimum(np.minimum(x0, x1), x2) - _HALF), _F(0.0))
    right = np.minimum(np.floor(np.maximum(np.maximum(x0, x1), x2) - _HALF), _F(width - 1))
    top = np.maximum(np.ceil(np.minimum(np.minimum(y0, y1), y2) - _HALF), _F(0.0))
    bottom = np.minimum(np.floor(np.maximum(np.maximum(y0, y1), y2) - _HALF), _F(height - 1))
    drawn = (right >= left) & (bottom >= top) & (np.abs(area) > _F(1e-8))
    if two_sided is not None:
        drawn &= (area < 0) | two_sided
    chosen = np.flatnonzero(drawn)
    boxes = np.stack([left, top, right - left + _F(1.0), bottom - top + _F(1.0)])[:, chosen].astype(np.int32)
    return chosen, boxes, area[chosen]


def _pixels_of(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One entry per pixel of each box (4, n): its number, column and row."""
    left, top, columns, rows = boxes
    counts = columns * rows
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    within = np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(counts, dtype=np.int32) - counts, counts)
    wide = columns[owner]
    down = within // wide
    return owner, left[owner] + (within - down * wide), top[owner] + down


def _shares(
    corners: list[np.ndarray], area: np.ndarray, owner: np.ndarray, column: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric shares of the second and third corner at the pixels' middles."""
    x0, y0, x1, y1, x2, y2 = corners
    scale = _F(1.0) / area
    planes = np.empty((len(area), 6), _F)
    planes[:, 0], planes[:, 1] = (y2 - y0) * scale, (x0 - x2) * scale
    planes[:, 2], planes[:, 3] = (y0 - y1) * scale, (x1 - x0) * scale
    planes[:, 4], planes[:, 5] = x0 - _HALF, y0 - _HALF
    own = planes[owner]
    dx, dy = column.astype(_F) - own[:, 4], row.astype(_F) - own[:, 5]
    return own[:, 0] * dx + own[:, 1] * dy, own[:, 2] * dx + own[:, 3] * dy

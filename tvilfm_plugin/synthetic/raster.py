"""Which triangle each pixel shows: a depth buffer in numpy, all triangles at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_F = np.float32
_FAR = _F(3.0e38)


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
    x0, y0, x1, y1, x2, y2 = x[i], y[i], x[j], y[j], x[k], y[k]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    half = _F(0.5)
    left = np.ceil(np.minimum(np.minimum(x0, x1), x2) - half)
    right = np.floor(np.maximum(np.maximum(x0, x1), x2) - half)
    top = np.ceil(np.minimum(np.minimum(y0, y1), y2) - half)
    bottom = np.floor(np.maximum(np.maximum(y0, y1), y2) - half)
    left, top = np.maximum(left, _F(0.0)), np.maximum(top, _F(0.0))
    right, bottom = np.minimum(right, _F(width - 1)), np.minimum(bottom, _F(height - 1))
    drawn = (right >= left) & (bottom >= top) & (np.abs(area) > _F(1e-8))
    if two_sided is not None:
        drawn &= (area < 0) | two_sided
    chosen = np.flatnonzero(drawn)
    area = area[chosen]
    columns = (right[chosen] - left[chosen]).astype(np.int32) + 1
    counts = columns * ((bottom[chosen] - top[chosen]).astype(np.int32) + 1)
    # One row per pixel of each triangle's box.
    owner = np.repeat(np.arange(len(chosen), dtype=np.int32), counts)
    within = np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(counts, dtype=np.int32) - counts, counts)
    wide = columns[owner]
    down = within // wide
    column = left[chosen].astype(np.int32)[owner] + (within - down * wide)
    row = top[chosen].astype(np.int32)[owner] + down
    scale = _F(1.0) / area
    x0, y0, x1, y1, x2, y2 = x0[chosen], y0[chosen], x1[chosen], y1[chosen], x2[chosen], y2[chosen]
    planes = np.empty((len(chosen), 8), _F)
    planes[:, 0], planes[:, 1] = (y2 - y0) * scale, (x0 - x2) * scale
    planes[:, 2], planes[:, 3] = (y0 - y1) * scale, (x1 - x0) * scale
    planes[:, 4], planes[:, 5] = x0 - half, y0 - half
    i, j, k = i[chosen], j[chosen], k[chosen]
    own = planes[owner]
    dx, dy = column.astype(_F) - own[:, 4], row.astype(_F) - own[:, 5]
    a = own[:, 0] * dx + own[:, 1] * dy
    b = own[:, 2] * dx + own[:, 3] * dy
    inside = np.flatnonzero((a >= 0) & (b >= 0) & (a + b <= _F(1.0)))
    a, b, owner = a[inside], b[inside], owner[inside]
    pixel = row[inside] * np.int32(width) + column[inside]
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

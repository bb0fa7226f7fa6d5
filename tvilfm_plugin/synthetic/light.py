"""Light on a figure: sun or lamps in a visible picture, the lamp beside the lens in an infrared one. Values are linear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

_F = np.float32
_MAP = 72
_BIAS = 0.35


@dataclass(frozen=True)
class Sun:
    """The strongest light.

    Attributes:
        towards: unit vector to the light.
        strength: of the direct light. ambient: colour from above; bounce: colour from below.
    """

    towards: tuple[float, float, float]
    strength: tuple[float, float, float]
    ambient: tuple[float, float, float]
    bounce: tuple[float, float, float]


def sunlight(azimuth: float, elevation: float, strength: float) -> Sun:
    """Sun and sky. Angles in radians, azimuth 0 behind the camera."""
    return Sun(
        _direction(azimuth, elevation), (strength * 1.06, strength, strength * 0.92), (0.42, 0.50, 0.62), (0.22, 0.21, 0.19)
    )


def lamplight(azimuth: float, strength: float) -> Sun:
    """Lamps under a ceiling."""
    return Sun(_direction(azimuth, 1.25), (strength, strength * 0.98, strength * 0.92), (0.52, 0.50, 0.46), (0.26, 0.25, 0.23))


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    flat = math.cos(elevation)
    return (
        round(flat * math.sin(azimuth), 9),
        round(math.sin(elevation), 9),
        round(flat * math.cos(azimuth), 9),
    )


class ShadowMap:
    """How far the figure reaches towards the light, on a grid across the light's direction.

    Args:
        points: (N, 3) of the figure; the denser the better.
    """

    def __init__(self, points: np.ndarray, sun: Sun) -> None:
        x, y, z = sun.towards
        long = math.sqrt(x * x + z * z) or 1.0
        self._right = (z / long, 0.0, -x / long)
        self._up = (-x * y / long, long, -z * y / long)
        self._towards = sun.towards
        u, v, w = self._turn(points)
        self._origin = float(u.min()) - 0.4, float(v.min()) - 0.4
        self._scale = (_MAP - 2) / (max(float(u.max()) - self._origin[0], float(v.max()) - self._origin[1]) + 0.4)
        column, row = self._cell(u, v)
        near = np.full(_MAP * _MAP, _F(-1e6))
        np.maximum.at(near, row.astype(np.int32) * _MAP + column.astype(np.int32), w)
        grid = near.reshape(_MAP, _MAP)
        wide = grid.copy()
        wide[1:] = np.maximum(wide[1:], grid[:-1] - _F(0.1))
        wide[:, 1:] = np.maximum(wide[:, 1:], grid[:, :-1] - _F(0.1))
        self._near = wide

    def _turn(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        u, v, w = ((_F(a) * x + _F(b) * y + _F(c) * z) for a, b, c in (self._right, self._up, self._towards))
        return u, v, w

    def _cell(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (u - _F(self._origin[0])) * _F(self._scale), (v - _F(self._origin[1])) * _F(self._scale)

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(n,) share of the direct light that reaches points (n, 3): the mean of four looks at the map."""
        u, v, w = self._turn(points)
        column, row = self._cell(u, v)
        total = np.zeros(len(points), _F)
        w = w + _F(_BIAS)
        for du, dv in ((0.0, 0.0), (0.7, 0.0), (0.0, 0.7), (0.7, 0.7)):
            c = np.clip(column + _F(du - 0.35), _F(0.0), _F(_MAP - 1)).astype(np.int32)
            r = np.clip(row + _F(dv - 0.35), _F(0.0), _F(_MAP - 1)).astype(np.int32)
            total += self._near[r, c] < w
        return total * _F(0.25)


def shade_visible(normals: np.ndarray, lit: np.ndarray, dark: np.ndarray, sun: Sun) -> np.ndarray:
    """(n, 3) light on each pixel.

    Args:
        normals: (n, 3). lit: (n,) share of the direct light. dark: (n,) share that corners swallow.
    """
    x, y, z = sun.towards
    direct = np.maximum(_F(x) * normals[:, 0] + _F(y) * normals[:, 1] + _F(z) * normals[:, 2], _F(0.0)) * lit
    above = (_F(1.0) + normals[:, 1]) * _F(0.5)
    open_ = _F(1.0) - dark
    out = np.empty((len(normals), 3), _F)
    for c in range(3):
        around = above * _F(sun.ambient[c]) + (_F(1.0) - above) * _F(sun.bounce[c])
        out[:, c] = direct * _F(sun.strength[c]) + around * open_
    return out


def shade_infrared(facing: np.ndarray, dark: np.ndarray, away: np.ndarray, distance: float) -> np.ndarray:
    """(n,) light of the lamp at the lens: `facing` (n,) is the cosine between normal and view, `away` (n,) the distance."""
    cosine = np.clip(facing, _F(0.0), _F(1.0))
    lobe = cosine * np.sqrt(np.sqrt(cosine))
    near = _F(distance) / away
    return (_F(0.10) + _F(0.90) * lobe) * near * near * (_F(1.0) - np.minimum(_F(1.35) * dark, _F(0.75)))


def corners(depth: np.ndarray) -> np.ndarray:
    """(H, W) how much of the surroundings each pixel's own hollow hides, from a depth buffer (H, W), 0 where there is none."""
    height = depth.shape[0]
    seen = depth > 0
    low = float(depth[seen].min())
    far = float(depth[seen].max())
    scale = 254.0 / max(far - low, 1e-3)
    levels = np.where(seen, (depth - _F(low)) * _F(scale), _F(255.0)).astype(np.uint8)
    picture = Image.fromarray(levels)
    dark = np.zeros(depth.shape, _F)
    own = levels.astype(_F)
    for radius, gain in ((height / 60.0, 0.35), (height / 22.0, 0.22)):
        around = np.asarray(picture.filter(ImageFilter.BoxBlur(radius)), _F)
        dark += np.clip((own - around) * _F(gain / scale), _F(0.0), _F(0.5))
    return np.minimum(dark, _F(0.62))


@cache
def _curve(infrared: bool) -> np.ndarray:
    """What film does: 1024 brightnesses of the square root of light in [0, 2), as values for the screen in [0, 1]."""
    table = []
    for n in range(1024):
        root = (n + 0.5) / 512.0
        x = root * root
        exposed = 1.0 - math.exp(-1.15 * x) if infrared else 1.0 - math.exp(-1.25 * x * (1.0 + 0.35 * x))
        table.append(round(exposed ** (1.0 / 2.2), 6))
    return np.asarray(table, _F)


def expose(light: np.ndarray, infrared: bool) -> np.ndarray:
    """Linear light to values for the screen in [0, 1], by table: the same digits on every machine."""
    index = np.minimum(np.sqrt(np.maximum(light, _F(0.0))) * _F(512.0), _F(1023.0)).astype(np.int16)
    return _curve(infrared)[index]


def linear(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """Screen values in 0..255 as linear light."""
    r, g, b = (round((max(0.0, min(255.0, value)) / 255.0) ** 2.2, 6) for value in rgb)
    return r, g, b

"""The surroundings of each camera: ground, walls and ceiling that its own rays meet, so that figure and place agree.

Lengths in decimetres, colours linear. A place is drawn from the camera's number; what an image adds is a shift along it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.synthetic.noise import hills, noise2
from tvilfm_plugin.synthetic.views import View

_F = np.float32
Colour = tuple[float, float, float]


class Paint(NamedTuple):
    """A colour, and how bright it is under the infrared lamp (which colours do not tell)."""

    colour: Colour
    infrared: float


class Feature(NamedTuple):
    """Something on a surface: `mask(s, t, blur)` gives its share of each point (n,) in [0, 1]."""

    paint: Paint
    mask: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Surface(NamedTuple):
    """A plane of a place: axis 0 is x = at, 1 is y = at, 2 is z = at; its own coordinates (s, t) are the two others."""

    axis: int
    at: float
    paint: Paint
    grain: float
    size: float
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class Site:
    """What one camera looks at, and from where.

    Attributes:
        angle: sine and cosine of how far the place is turned against the camera.
        outdoors: lit by sun and sky, else by lamps under a ceiling.
    """

    height: float
    distance: float
    angle: tuple[float, float]
    outdoors: bool
    surfaces: tuple[Surface, ...]
    sky: Paint


KINDS: tuple[str, ...] = ("hall", "corridor", "park", "street", "alley", "car park")


def draw_site(seed: int, number: int, infrared: bool, place: int) -> Site:
    """The place of one camera."""
    rng = random.Random(f"site/{seed}/{number}/{infrared}/{place}")
    kind = KINDS[(number + 2 * place + (3 if infrared else 0)) % len(KINDS)]
    angle = rng.choice((-1, 1)) * rng.uniform(0.03, 0.12 if kind in ("corridor", "alley") else 0.4)
    outdoors = kind in ("park", "street", "alley")
    surfaces = _build(kind, rng)
    return Site(
        height=rng.uniform(15.0, 34.0) if kind != "corridor" else rng.uniform(15.0, 26.0),
        distance=rng.uniform(46.0, 74.0),
        angle=(round(math.sin(angle), 9), round(math.cos(angle), 9)),
        outdoors=outdoors,
        surfaces=tuple(surfaces),
        sky=Paint((0.62, 0.70, 0.80), 0.02) if outdoors else Paint((0.3, 0.3, 0.3), 0.2),
    )


def _grey(rng: random.Random, low: float, high: float, spread: float = 0.35) -> Colour:
    level = rng.uniform(low, high)
    tint = [1.0 + rng.uniform(-spread, spread) for _ in range(3)]
    scale = 3.0 / sum(tint)
    return level * tint[0] * scale, level * tint[1] * scale, level * tint[2] * scale


def _darker(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _lines(period: float, width: float, across: bool, shift: float = 0.0) -> Callable[..., np.ndarray]:
    """Straight lines every `period`, along t (or s with `across`)."""

    def mask(s: np.ndarray, t: np.ndarray, blur: np.ndarray) -> np.ndarray:
        u = (t if across else s) * _F(1.0 / period) + _F(shift)
        away = np.abs(u - np.floor(u + _F(0.5))) * _F(period)
        # What is finer than a pixel fades instead of flickering.
        edge = np.clip((_F(0.5 * width) - away) / blur + _F(0.5), _F(0.0), _F(1.0))
        return edge * np.clip(_F(0.6 * period) / blur - _F(0.6), _F(0.0), _F(1.0))

    return mask


def _boxes(period: float, wide: float, low: float, high: float, shift: float = 0.0) -> Callable[..., np.ndarray]:
    """Rectangles every `period` along s, between the heights t."""

    def mask(s: np.ndarray, t: np.ndarray, blur: np.ndarray) -> np.ndarray:
        u = s * _F(1.0 / period) + _F(shift)
        away = np.abs(u - np.floor(u + _F(0.5))) * _F(period)
        inside = np.minimum(_F(0.5 * wide) - away, np.minimum(t - _F(low), _F(high) - t))
        return np.clip(inside / blur + _F(0.5), _F(0.0), _F(1.0))

    return mask


def _bricks(length: float, height: float, joint: float) -> Callable[..., np.ndarray]:
    def mask(s: np.ndarray, t: np.ndarray, blur: np.ndarray) -> np.ndarray:
        row = np.floor(t * _F(1.0 / height))
        shifted = s + row * _F(0.5 * length)
        return np.maximum(_lines(length, joint, False)(shifted, t, blur), _lines(height, joint, True, 0.0)(s, t, blur))

    return mask


def _blotches(size: float, level: float) -> Callable[..., np.ndarray]:
    def mask(s: np.ndarray, t: np.ndarray, blur: np.ndarray) -> np.ndarray:
        return np.clip((hills(s * _F(1.0 / size), t * _F(1.0 / size)) - _F(level)) * _F(3.0), _F(0.0), _F(1.0))

    return mask


class _Shell(NamedTuple):
    """What every kind of place has: where its walls are, their colour and the ground's, and a shift of what repeats."""

    back: float
    side: float
    wall: Colour
    ground: Colour
    infra: float
    shift: float


def _build(kind: str, rng: random.Random) -> list[Surface]:
    shell = _Shell(
        back=-rng.uniform(28.0, 75.0),
        side=rng.uniform(17.0, 30.0),
        wall=_grey(rng, 0.16, 0.5, 0.3),
        ground=_grey(rng, 0.10, 0.34, 0.25),
        infra=rng.uniform(0.25, 0.5),
        shift=rng.random(),
    )
    outdoors = {"park": _park, "street": _street, "alley": _alley}
    return outdoors[kind](shell, rng) if kind in outdoors else _indoors(shell, rng, kind)


def _park(shell: _Shell, rng: random.Random) -> list[Surface]:
    grass = (rng.uniform(0.05, 0.1), rng.uniform(0.13, 0.22), rng.uniform(0.03, 0.06))
    path = Feature(
        Paint(_grey(rng, 0.2, 0.34, 0.15), 0.3), _lines(90.0, rng.uniform(14.0, 24.0), rng.random() < 0.5, shell.shift)
    )
    patches = Feature(Paint(_darker(grass, 0.6), 0.45), _blotches(5.0, 0.1))
    trunks = Feature(Paint((0.09, 0.06, 0.04), 0.3), _boxes(rng.uniform(18.0, 30.0), 2.6, -1.0, 60.0, shell.shift))
    leaves = Feature(Paint((0.03, 0.09, 0.025), 0.6), _blotches(6.0, -0.15))
    hedge = (0.07, 0.14, 0.05)
    return [
        Surface(1, 0.0, Paint(grass, 0.55), 0.35, 1.2, (patches, path)),
        Surface(2, shell.back, Paint(hedge, 0.58), 0.4, 3.0, (leaves, trunks)),
    ]


def _street(shell: _Shell, rng: random.Random) -> list[Surface]:
    lane = Feature(Paint((0.75, 0.75, 0.7), 0.5), _lines(rng.uniform(38.0, 60.0), 1.4, False, shell.shift))
    kerb = Feature(Paint(_grey(rng, 0.3, 0.45, 0.1), 0.4), _lines(120.0, 30.0, True, 0.5))
    windows = Feature(Paint((0.10, 0.14, 0.19), 0.16), _boxes(rng.uniform(26.0, 40.0), 15.0, 9.0, 25.0, shell.shift))
    doors = Feature(Paint(_grey(rng, 0.08, 0.3, 0.5), shell.infra * 0.7), _boxes(88.0, 11.0, -1.0, 21.0, shell.shift + 0.3))
    sill = Feature(Paint(_darker(shell.wall, 0.5), 0.3), _boxes(1e4, 1e4, -1.0, 4.0))
    return [
        Surface(1, 0.0, Paint(_grey(rng, 0.10, 0.2, 0.1), 0.22), 0.22, 1.5, (kerb, lane)),
        Surface(2, shell.back, Paint(shell.wall, shell.infra), 0.12, 8.0, (sill, windows, doors)),
    ]


def _alley(shell: _Shell, rng: random.Random) -> list[Surface]:
    joints = Feature(Paint(_darker(shell.wall, 1.45), shell.infra * 1.2), _bricks(4.2, 1.5, 0.28))
    bins = Feature(Paint(_grey(rng, 0.05, 0.25, 0.6), 0.3), _boxes(rng.uniform(60.0, 90.0), 12.0, -1.0, 11.0, shell.shift))
    drain = Feature(Paint(_darker(shell.ground, 0.5), 0.2), _lines(70.0, 3.0, False, 0.5))
    stains = Feature(Paint(_darker(shell.ground, 0.6), 0.2), _blotches(9.0, 0.2))
    sides = [Surface(0, s * shell.side, Paint(_darker(shell.wall, 0.9), shell.infra), 0.16, 5.0, (joints,)) for s in (-1, 1)]
    return [
        Surface(1, 0.0, Paint(shell.ground, 0.24), 0.25, 2.0, (stains, drain)),
        Surface(2, shell.back, Paint(shell.wall, shell.infra), 0.16, 5.0, (joints, bins)),
        *sides,
    ]


def _indoors(shell: _Shell, rng: random.Random, kind: str) -> list[Surface]:
    ceiling = Surface(
        1, rng.uniform(34.0, 46.0), Paint(_grey(rng, 0.45, 0.6, 0.08), 0.35), 0.05, 10.0,
        (Feature(Paint((1.6, 1.6, 1.5), 0.6), _lines(rng.uniform(24.0, 36.0), 4.0, False, shell.shift)),),
    )  # fmt: skip
    tile = rng.uniform(4.5, 8.0)
    tiles = [Feature(Paint(_darker(shell.ground, 0.62), 0.2), _lines(tile, 0.3, across)) for across in (False, True)]
    dado = Feature(Paint(_grey(rng, 0.08, 0.4, 0.5), shell.infra * 0.75), _boxes(1e4, 1e4, -1.0, rng.uniform(8.0, 13.0)))
    rail = Feature(Paint(_darker(shell.wall, 0.55), shell.infra * 0.6), _boxes(1e4, 1e4, 13.5, 14.6))
    door = Feature(
        Paint(_grey(rng, 0.06, 0.4, 0.6), shell.infra * 0.8), _boxes(rng.uniform(40.0, 60.0), 10.0, -1.0, 21.0, shell.shift)
    )
    poster = Feature(
        Paint(_grey(rng, 0.1, 0.5, 0.9), 0.45), _boxes(rng.uniform(28.0, 44.0), 6.0, 14.0, 22.0, shell.shift + 0.4)
    )
    if kind == "car park":
        bays = Feature(Paint((0.7, 0.68, 0.55), 0.5), _lines(25.0, 1.3, False, shell.shift))
        stripe = Feature(Paint((0.62, 0.45, 0.05), 0.4), _boxes(1e4, 1e4, 9.0, 13.0))
        pillar = Feature(Paint(_grey(rng, 0.3, 0.5, 0.1), 0.4), _boxes(50.0, 6.0, -1.0, 60.0, shell.shift))
        stains = Feature(Paint(_darker(shell.ground, 0.55), 0.16), _blotches(8.0, 0.25))
        return [
            Surface(1, 0.0, Paint(shell.ground, 0.24), 0.15, 3.0, (stains, bays)),
            Surface(2, shell.back, Paint(shell.wall, shell.infra), 0.1, 8.0, (stripe, pillar)),
            ceiling,
        ]
    sides = [
        Surface(0, s * shell.side, Paint(_darker(shell.wall, 0.93), shell.infra), 0.08, 8.0, (dado, rail, door, poster))
        for s in (-1, 1)
    ]
    panes = Feature(Paint((0.32, 0.4, 0.46), 0.16), _boxes(rng.uniform(20.0, 32.0), 14.0, 10.0, 30.0, shell.shift))
    return [
        Surface(1, 0.0, Paint(shell.ground, rng.uniform(0.2, 0.3)), 0.12, 6.0, tuple(tiles)),
        Surface(2, shell.back, Paint(shell.wall, shell.infra), 0.08, 8.0, (dado, panes if kind == "hall" else door, rail)),
        ceiling,
        *(sides if kind == "corridor" else ()),
    ]


class Backdrop(NamedTuple):
    """What is behind the figure, before light falls on it.

    Attributes:
        paint: (H, W, 3) linear colours, or (H, W, 1) infrared reflectances.
        ground: (n,) numbers of the pixels that show the ground; spots: (n, 2) where, x and z before the figure.
        away: (H, W) how far it is from the camera.
    """

    paint: np.ndarray
    ground: np.ndarray
    spots: np.ndarray
    away: np.ndarray


def look_behind(site: Site, view: View, height: int, width: int, shift: tuple[float, float], infrared: bool) -> Backdrop:
    """What the camera's rays meet.

    Args:
        shift: where along the place the figure stands (x and z), in decimetres.
    """
    x, y, z = (part.reshape(-1) for part in view.rays(height, width))
    sine, cosine = _F(site.angle[0]), _F(site.angle[1])
    # Into the place's own axes, about the figure.
    directions = (x * cosine + z * sine, y, z * cosine - x * sine)
    start = (_F(view.distance) * sine, _F(view.height), _F(view.distance) * cosine)
    nearest: np.ndarray = np.full(height * width, 900.0, _F)
    which = np.full(height * width, -1, np.int8)
    for n, surface in enumerate(site.surfaces):
        along = directions[surface.axis]
        gap = _F(surface.at) - start[surface.axis]
        facing = along * gap > _F(1e-6) * np.abs(gap)
        reach = gap / np.where(facing, along, _F(1.0))
        hit = facing & (reach < nearest)
        nearest = np.where(hit, reach, nearest)
        which[hit] = n
    channels = 1 if infrared else 3
    paint = np.empty((height * width, channels), _F)
    paint[:] = _tone(site.sky, infrared)
    ground, spots = np.zeros(0, np.intp), np.zeros((0, 2), _F)
    for n, surface in enumerate(site.surfaces):
        rows = np.flatnonzero(which == n)
        if not len(rows):
            continue
        reach = nearest[rows]
        places = [start[axis] + directions[axis][rows] * reach for axis in range(3) if axis != surface.axis]
        if surface.axis == 0:
            t, s = places[0], places[1] + _F(shift[1])
        elif surface.axis == 1:
            s, t = places[0] + _F(shift[0]), places[1] + _F(shift[1])
        else:
            s, t = places[0] + _F(shift[0]), places[1]
        # A pixel's footprint grows with the distance, and where the surface is seen at a slant.
        slant = np.maximum(np.abs(directions[surface.axis][rows]), _F(0.12))
        blur = np.maximum(reach * _F(1.0 / view.scale) * (_F(0.6) + _F(0.4) / slant), _F(1e-3))
        paint[rows] = _coat(surface, s, t, blur, infrared)
        if surface.axis == 1 and surface.at == 0.0:
            ground = rows
            spots = np.stack([x[rows] * reach, _F(view.distance) + z[rows] * reach], axis=1)
    return Backdrop(paint.reshape(height, width, channels), ground, spots, nearest.reshape(height, width))


def _tone(paint: Paint, infrared: bool) -> np.ndarray:
    return np.asarray([paint.infrared] if infrared else paint.colour, _F)


def _coat(surface: Surface, s: np.ndarray, t: np.ndarray, blur: np.ndarray, infrared: bool) -> np.ndarray:
    colour = np.repeat(_tone(surface.paint, infrared)[None, :], len(s), axis=0)
    for feature in surface.features:
        share = feature.mask(s, t, blur)[:, None]
        colour = colour + share * (_tone(feature.paint, infrared) - colour)
    scale = _F(1.0 / surface.size)
    rough = noise2(s * scale, t * scale) + _F(0.6) * noise2(s * scale * _F(3.1), t * scale * _F(3.1))
    return colour * (_F(1.0) + _F(surface.grain) * rough)[:, None]


# --- in front of the figure -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Occluder:
    """Something before the figure: a "post", "plant" or "wall"; `beside` is where it stands (x), `before` how near (z)."""

    kind: str
    beside: float
    before: float
    size: float
    paint: Paint


def draw_occluder(rng: random.Random) -> Occluder:
    kind = rng.choice(("post", "post", "plant", "plant", "wall"))
    beside = rng.choice((-1, 1)) * rng.uniform(1.0, 4.5)
    size = {"post": rng.uniform(0.5, 0.9), "plant": rng.uniform(4.0, 8.5), "wall": rng.uniform(2.0, 5.0)}[kind]
    green = (rng.uniform(0.02, 0.05), rng.uniform(0.09, 0.17), rng.uniform(0.02, 0.04))
    paint = Paint(green, 0.58) if kind == "plant" else Paint(_grey(rng, 0.1, 0.4, 0.4), rng.uniform(0.25, 0.5))
    return Occluder(kind, beside, rng.uniform(9.0, 16.0), size, paint)


def stand_before(occluder: Occluder, view: View, height: int, width: int) -> np.ndarray:
    """(H, W) share of each pixel that it hides."""
    x, y, z = view.rays(height, width)
    reach = (_F(occluder.before) - _F(view.distance)) / z
    across, up = x * reach, _F(view.height) + y * reach
    blur = np.maximum(reach * _F(1.0 / view.scale), _F(1e-3))
    if occluder.kind == "post":
        inside: np.ndarray = _F(occluder.size) - np.abs(across - _F(occluder.beside))
    elif occluder.kind == "wall":
        inside = _F(occluder.size) - up
    else:
        bushy = hills(across * _F(0.8), up * _F(0.8)) * _F(1.6)
        out = np.abs(across - _F(occluder.beside * 1.3)) * _F(occluder.size / 3.2)
        inside = _F(occluder.size) - up - out * _F(0.9) + bushy
    return np.clip(inside / blur + _F(0.5), _F(0.0), _F(1.0))

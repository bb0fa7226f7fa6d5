"""Dress a body: every garment is a copy of a part of the mesh, pushed out along its normals.

A garment ends where its `cover` becomes zero, a number that each vertex has and each pixel interpolates: hems are exact
without cutting the mesh. What is under cloth is left out or pulled in, so nobody is drawn undressed and nothing pokes through.
Lengths in decimetres of the base mesh; `arm` and `leg` are `body.Surface`'s coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.synthetic.body import Body, Surface, normals, relax, surfaces, unit
from tvilfm_plugin.synthetic.noise import noise2, noise3
from tvilfm_plugin.synthetic.people import Person

_F = np.float32


class Part(IntEnum):
    """What a triangle belongs to."""

    SKIN = 0
    EYES = 1
    HAIR = 2
    UNDERHAIR = 3
    UPPER = 4
    LOWER = 5
    SHOES = 6
    BAG = 7
    HANDLE = 8


TWO_SIDED = (Part.HAIR, Part.UPPER, Part.LOWER)


class Layer(NamedTuple):
    """One garment or part of the body at rest. V vertices, T triangles; see `body.Surface` for place, arm, leg."""

    part: Part
    points: np.ndarray
    normals: np.ndarray
    place: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    cover: np.ndarray
    bones: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray


class Figure(NamedTuple):
    """A dressed person at rest: all layers, vertices (V, ...) and triangles (T, 3) that can be seen, `part` (T,) uint8.

    Attributes:
        coordinates: (V, 6) place x, y, z, arm, leg, cover: what a pixel interpolates besides the normal.
    """

    points: np.ndarray
    normals: np.ndarray
    coordinates: np.ndarray
    bones: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    joints: np.ndarray


class _Upper(NamedTuple):
    pad: float
    sleeve: float
    hem: float
    neck: float = 5.72
    skirt: float = 0.0
    flare: float = 0.9


class _Trousers(NamedTuple):
    thigh: float
    knee: float
    end: float
    length: float


class _Skirt(NamedTuple):
    length: float
    wide: float
    deep: float


UPPERS: dict[str, _Upper] = {
    "tank top": _Upper(0.06, 0.06, 0.02),
    "tee": _Upper(0.10, 0.62, 0.10),
    "tunic tee": _Upper(0.14, 0.95, -0.02, skirt=0.52, flare=0.92),
    "pullover": _Upper(0.16, 1.95, 0.04),
    "hoodie": _Upper(0.26, 1.95, 0.12, neck=6.3),
    "long jumper": _Upper(0.18, 1.95, -0.02, skirt=0.55, flare=0.82),
    "bomber": _Upper(0.34, 1.95, -0.04, neck=5.9),
    "parka": _Upper(0.40, 1.95, -0.02, neck=6.3, skirt=0.42, flare=0.95),
    "coat": _Upper(0.26, 1.95, -0.02, neck=5.9, skirt=0.95, flare=0.95),
}
TROUSERS: dict[str, _Trousers] = {
    "skinny pants": _Trousers(0.03, 0.02, 0.02, 1.93),
    "straight pants": _Trousers(0.12, 0.22, 0.28, 1.97),
    "flared pants": _Trousers(0.08, 0.12, 0.75, 2.0),
    "cropped pants": _Trousers(0.12, 0.22, 0.28, 1.45),
    "hot pants": _Trousers(0.12, 0.14, 0.15, 0.32),
    "bermudas": _Trousers(0.20, 0.25, 0.28, 0.95),
    "baggy shorts": _Trousers(0.34, 0.55, 0.65, 1.12),
}
SKIRTS: dict[str, _Skirt] = {
    "mini skirt": _Skirt(0.62, 1.0, 0.92),
    "pencil skirt": _Skirt(1.12, 0.72, 0.72),
    "wide skirt": _Skirt(1.15, 1.55, 1.5),
    "long skirt": _Skirt(1.78, 1.0, 1.0),
}


def lower_length(kind: str) -> float:
    """Where trousers or a skirt end, in `leg`."""
    return TROUSERS[kind].length if kind in TROUSERS else SKIRTS[kind].length


# --- where garments are -----------------------------------------------------------------------------------------------


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, straight between."""
    return np.clip((values - _F(low)) * _F(1.0 / (high - low)), _F(0.0), _F(1.0))


def upper_cover(kind: str, place: np.ndarray, arm: np.ndarray, leg: np.ndarray, *, end: float | None = None) -> np.ndarray:
    """(V,) how far inside the upper garment, in dm; `end` instead of its hem."""
    cut = UPPERS[kind]
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    hem = (_F(cut.hem if end is None else end) - leg) * _F(4.0)
    neck = _F(cut.neck) + _F(0.35) * _ramp(-z, -0.6, 0.3) - y
    cover = np.minimum(hem, neck)
    if kind == "tank top":
        cover = np.minimum(cover, np.maximum(_F(4.75) + _F(0.45) * _ramp(-z, -0.6, 0.2) - y, x - _F(0.62)))
        # On the trunk the armholes must not count: the least of several distances bends the hem inside a triangle.
        sleeve = np.where((x < 1.75) & (y < 3.6), _F(1.0), (_F(0.06) - arm) * _F(2.2))
        cover = np.minimum(cover, sleeve)
        return np.minimum(cover, np.where(y > 3.9, _F(1.42) - x, _F(1.0)))
    return np.minimum(cover, (_F(cut.sleeve) - arm) * _F(2.2))


def lower_cover(kind: str, upper: str, place: np.ndarray, leg: np.ndarray) -> np.ndarray:
    """(V,) how far inside the lower garment, in dm."""
    begin = min(UPPERS[upper].hem, 0.04) - (0.14 if kind in TROUSERS else 0.07)
    ends = _F(lower_length(kind)) - leg
    return np.minimum((leg - _F(begin)) * _F(4.0), ends * _F(4.0))


def shoe_cover(kind: str, place: np.ndarray, leg: np.ndarray) -> np.ndarray:
    """(V,) how far inside the shoes, in dm."""
    if kind == "boots":
        return (leg - _F(1.30)) * _F(3.8)
    if kind == "low":
        return (leg - _F(1.86)) * _F(3.8)
    y, z = place[:, 1], place[:, 2]
    bands = np.maximum(_F(0.28) - np.abs(z - _F(1.35)), _F(0.16) - np.abs(y + _F(7.3)))
    return np.where(leg > 1.8, np.maximum(bands, _F(-7.9) - y), _F(-1.0))


# --- garments ---------------------------------------------------------------------------------------------------------


def _copy(surface: Surface, part: Part, points: np.ndarray, cover: np.ndarray) -> Layer:
    return Layer(
        part, points, normals(surface, points), surface.place, surface.arm, surface.leg, cover.astype(_F), surface.bones,
        surface.weights, surface.triangles,
    )  # fmt: skip


def _loose(surface: Surface, points: np.ndarray, steps: int, hold: np.ndarray) -> np.ndarray:
    amount = np.where(surface.rim, _F(0.0), _F(0.55) * hold).astype(_F)[:, None]
    for _ in range(steps):
        points = relax(surface, points, amount)
    return points


@cache
def _eased(steps: int, shoulders: bool) -> Surface:
    """The tights with coordinates that were loosened as their points are: stripes and hems then run straight."""
    surface = surfaces()["tights"]
    values = np.concatenate([surface.place, surface.arm[:, None], surface.leg[:, None]], axis=1)
    values = _loose(surface, values, steps, _hold(surface, shoulders))
    return surface._replace(place=values[:, :3], arm=values[:, 3], leg=values[:, 4])


def _hold(surface: Surface, shoulders: bool) -> np.ndarray:
    """(V,) how far the points may be loosened; on the shoulders hardly, or the skin shows through."""
    free = np.ones(len(surface.place), _F)
    return (free - _F(0.95) * _ramp(surface.place[:, 1], 4.9, 5.4)).astype(_F) if shoulders else free


def _trouser_radius(kind: str, leg: np.ndarray) -> np.ndarray:
    cut = TROUSERS[kind]
    knee = max(1.0, 0.6 * cut.length)
    radius = _F(cut.thigh) + _F(cut.knee - cut.thigh) * _ramp(leg, 0.25, knee if cut.length > 1.0 else cut.length)
    if cut.length > 1.0:
        radius = radius + _F(cut.end - cut.knee) * _ramp(leg, knee, cut.length)
    return (radius * _ramp(leg, -0.35, 0.05) + _F(0.03)).astype(_F)


def _dress_lower(person: Person, body: Body) -> Layer:
    shape, kind = person.shape, person.shape.lower
    if kind in TROUSERS:
        surface = _eased(6, False)
        points = _loose(surface, body.points["tights"], 6, _hold(surface, False))
        out = normals(surface, points)
        noise = noise3(surface.place * _F(1.3))
        offset = _trouser_radius(kind, surface.leg) * (_F(1.0) + _F(0.15) * noise) + _F(0.05)
        if UPPERS[shape.upper].skirt:  # flat where a long upper hangs over them
            offset = offset * _ramp(surface.leg, UPPERS[shape.upper].skirt - 0.22, UPPERS[shape.upper].skirt + 0.1)
        points = points + out * offset[:, None]
        return _copy(surface, Part.LOWER, points, lower_cover(kind, shape.upper, surface.place, surface.leg))
    cut = SKIRTS[kind]
    cover = lower_cover(kind, shape.upper, surfaces()["skirt"].place, surfaces()["skirt"].leg)
    return _skirt(body, Part.LOWER, cover, cut.length, cut.wide, cut.deep, 0.10, 0.12)


def _skirt(
    body: Body, part: Part, cover: np.ndarray, length: float, wide: float, deep: float, out: float, folds: float
) -> Layer:
    """The mesh's skirt, scaled at the hem by `wide` (x) and `deep` (z) and pushed out."""
    surface, points = surfaces()["skirt"], body.points["skirt"]
    t = np.clip(surface.leg * _F(1.0 / length), _F(0.0), _F(1.2))
    t = t * (_F(1.25) - _F(0.25) * t)
    middle = body.joints[0]
    scaled = points.copy()
    scaled[:, 0] = (points[:, 0] - middle[0]) * (_F(1.0) + _F(wide - 1.0) * t) + middle[0]
    scaled[:, 2] = (points[:, 2] - middle[2]) * (_F(1.0) + _F(deep - 1.0) * t) + middle[2]
    around = _F(2.2) * (surface.place[:, 0] + _F(0.6) * surface.place[:, 2] * np.sign(surface.place[:, 0]))
    wave = noise2(around, surface.leg * _F(0.6) + _F(4.0))
    rise = _F(out) * (_F(0.65) + _F(0.35) * _ramp(surface.leg, -0.15, 0.2))
    scaled = scaled + normals(surface, scaled) * (rise + _F(folds) * t * wave)[:, None]
    return _copy(surface, part, scaled, cover)


def _dress_upper(person: Person, body: Body) -> list[Layer]:
    shape, cut = person.shape, UPPERS[person.shape.upper]
    steps = 3 + round(30 * cut.pad)
    surface = _eased(steps, True)
    place, arm, leg = surface.place, surface.arm, surface.leg
    points = _loose(surface, body.points["tights"], steps, _hold(surfaces()["tights"], True))
    out = normals(surface, points)
    cover = upper_cover(shape.upper, place, arm, leg)
    offset = _F(cut.pad + 0.09) * (_F(1.0) + _F(0.22) * noise3(place * _F(1.1)))
    on_top = _ramp(place[:, 1], 4.3, 4.8) * (_F(1.0) - _ramp(arm, 0.25, 0.5))
    offset = offset * (_F(1.0) - _F(0.5) * on_top)
    offset = offset * (_F(0.2) + _F(0.8) * np.clip((_F(cut.neck) - place[:, 1]) * _F(1.6), _F(0.0), _F(1.0)))
    if 0.1 < cut.sleeve < 1.5:
        offset = offset * (_F(1.0) + _F(0.6) * _ramp(arm, 0.2, cut.sleeve))
    # Over what is tucked in, swelling gently: where it began at once, the hem would wave.
    over = _trouser_radius(shape.lower, leg) * _F(1.3) + _F(0.17) if shape.lower in TROUSERS else np.full(len(leg), 0.34, _F)
    offset = np.maximum(offset, over * _ramp(leg, -0.65, -0.2))
    layers = [_copy(surface, Part.UPPER, points + out * offset[:, None], cover)]
    if cut.skirt:
        below = surfaces()["skirt"]
        ends = np.minimum((_F(cut.skirt) - below.leg) * _F(4.0), (below.leg + _F(0.2)) * _F(4.0))
        layers.append(_skirt(body, Part.UPPER, ends, max(cut.skirt, 0.3), cut.flare, cut.flare, cut.pad + 0.22, 0.08))
    return layers


def _dress_feet(person: Person, body: Body) -> Layer:
    kind = person.shape.shoes
    surface = _eased(2, False)
    points = _loose(surface, body.points["tights"], 2, _hold(surface, False))
    out = normals(surface, points)
    offset = {"low": 0.10, "boots": 0.17, "sandals": 0.07}[kind]
    moved = points + out * _F(offset)
    toes = _ramp(surface.place[:, 2], 0.9, 1.6) * (surface.leg > 1.8)
    if kind != "sandals":
        moved[:, 1] += _F(0.10) * toes * (surface.place[:, 1] > -8.0)
        moved[:, 2] += _F(0.12) * toes
    return _copy(surface, Part.SHOES, moved.astype(_F), shoe_cover(kind, surface.place, surface.leg))


def _skin(person: Person, body: Body) -> Layer:
    """The body, without what cloth covers and without the inside of the mouth."""
    shape = person.shape
    surface, points = surfaces()["body"], body.points["body"]
    place, arm, leg = surface.place, surface.arm, surface.leg
    # Upper and lower garment overlap: together they cover everything from the neck to the lower one's end.
    end = max(lower_length(shape.lower), UPPERS[shape.upper].skirt)
    hidden = upper_cover(shape.upper, place, arm, leg, end=end)
    if shape.shoes != "sandals":
        hidden = np.maximum(hidden, shoe_cover(shape.shoes, place, leg))
    out = normals(surface, points)
    pulled = points - out * (_F(0.2) * np.clip(hidden * _F(8.0), _F(0.0), _F(1.0)))[:, None]
    mouth = (
        (place[:, 1] > 6.3) & (place[:, 1] < 7.1) & (place[:, 2] < 1.05) & (np.abs(place[:, 0]) < 0.35) & (place[:, 2] > 0.2)
    )
    below = np.where(np.abs(place[:, 0]) < 1.05, _F(4.55), _F(3.8))
    trunk = (arm < 0.04) & (place[:, 1] < below) & (leg < end - 0.12)
    gone = (hidden > 0.5) | trunk | mouth
    triangles = surface.triangles
    gone_all = gone[triangles[:, 0]] & gone[triangles[:, 1]] & gone[triangles[:, 2]]
    layer = _copy(surface, Part.SKIN, pulled.astype(_F), np.ones(len(points), _F))
    return layer._replace(triangles=triangles[~gone_all])


def assemble(person: Person, body: Body, extras: Sequence[Layer]) -> Figure:
    """A person in their clothes, at rest; colours play no part.

    Args:
        extras: layers besides body and garments (`accessories`: hair, hat, bag).

    Returns:
        All layers in one; vertices and triangles that nobody can see are left out.
    """
    layers = [*_dress_upper(person, body), _dress_lower(person, body), _dress_feet(person, body)]
    eyes = surfaces()["eyes"]
    layers += [_skin(person, body), _copy(eyes, Part.EYES, body.points["eyes"], np.ones(len(eyes.place), _F)), *extras]
    columns: list[list[np.ndarray]] = [[] for _ in range(7)]
    start = 0
    for layer in layers:
        corners = layer.triangles
        shown = (layer.cover[corners[:, 0]] > 0) | (layer.cover[corners[:, 1]] > 0) | (layer.cover[corners[:, 2]] > 0)
        corners = corners[shown]
        used = np.zeros(len(layer.points), bool)
        used[corners.reshape(-1)] = True
        number = np.cumsum(used) - 1 + start
        start += int(used.sum())
        coordinates = np.concatenate(
            [layer.place[used], layer.arm[used, None], layer.leg[used, None], layer.cover[used, None]], axis=1
        )
        values = (
            layer.points[used], layer.normals[used], coordinates, layer.bones[used], layer.weights[used], number[corners],
            np.full(len(corners), layer.part, np.uint8),
        )  # fmt: skip
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    points, directions, coordinates, bones, weights, triangles, part = (np.concatenate(column) for column in columns)
    return Figure(
        points.astype(_F), unit(directions.astype(_F)), coordinates.astype(_F), bones, weights.astype(_F), triangles, part,
        body.joints,
    )  # fmt: skip

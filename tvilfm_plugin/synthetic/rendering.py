"""Photograph a person of the synthetic benchmark: with a visible camera or with an infrared one.

A figure (`wardrobe`) takes its pose, is rasterised at twice the size before its camera's surroundings, lit, and put on film.
What the pixels show is counted, so that captions can say what is there. Sums, products, square roots and tables are all the
arithmetic: the same people give the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tvilfm_plugin.synthetic.accessories import extras_of
from tvilfm_plugin.synthetic.body import build_body, pose_bones, skin_vertices
from tvilfm_plugin.synthetic.light import (
    ShadowMap,
    Sun,
    corners,
    expose,
    lamplight,
    linear,
    shade_infrared,
    shade_visible,
    sunlight,
)
from tvilfm_plugin.synthetic.looks import Camera, Look, draw_look
from tvilfm_plugin.synthetic.materials import Slot, is_padded, slots_at, wrinkles
from tvilfm_plugin.synthetic.people import CLOTHES_COLOURS, HAIR_COLOURS, SKIN_TONES, Palette, Person, Shape
from tvilfm_plugin.synthetic.raster import rasterise
from tvilfm_plugin.synthetic.scenery import Backdrop, Site, draw_site, look_behind, stand_before
from tvilfm_plugin.synthetic.views import View
from tvilfm_plugin.synthetic.wardrobe import TWO_SIDED, Figure, Part, assemble

__all__ = ["Camera", "Look", "Picture", "Studio", "draw_look"]

_F = np.float32
_FINER = 2  # the figure is drawn so much larger than written: reducing it is what smooths its edges
_SLOTS = tuple(f.name for f in fields(Palette) if f.name != "shades")
_PALETTE: dict[Slot, str] = {
    Slot.UPPER: "upper",
    Slot.SECOND: "second",
    Slot.LOWER: "lower",
    Slot.TRIM: "trim",
    Slot.SHOES: "shoes",
    Slot.BAG: "bag",
    Slot.STRAP: "bag",
    Slot.HAIR: "hair",
    Slot.SKIN: "skin",
}
_INFRARED: dict[Slot, float] = {
    Slot.LIPS: 0.54,
    Slot.EYE_WHITE: 0.30,
    Slot.IRIS: 0.08,
    Slot.BROWS: 0.30,
    Slot.UNDERHAIR: 0.42,
    Slot.SOLE: 0.16,
    Slot.SEAM: 0.12,
}
_SHOWS: dict[str, tuple[tuple[Slot, ...], float]] = {
    "hair": ((Slot.HAIR,), 0.0014),
    "upper": ((Slot.UPPER, Slot.SECOND), 0.0045),
    "pattern": ((Slot.SECOND,), 0.0045),
    "lower": ((Slot.LOWER, Slot.TRIM), 0.0045),
    "shoes": ((Slot.SHOES,), 0.0014),
    "bag": ((Slot.BAG,), 0.0045),
}
"""Attribute that a caption may name -> what must be in the picture for that, and on which share of it (0.0014: seven pixels at
96 x 48)."""


class Picture(NamedTuple):
    """One photograph and what it shows.

    Attributes:
        pixels: (H, W, 3) uint8; the three channels of an infrared one are equal.
        look: what was asked for, with the attributes that cannot be seen in it.
        areas: `Slot` -> its share of the picture.
        mask: (H, W) uint8 of `Slot`.
        view: the camera, before the person at (0, 0, 0).
    """

    pixels: np.ndarray
    look: Look
    areas: Mapping[Slot, float]
    mask: np.ndarray
    view: View


class Studio:
    """Turns looks into pixels; keeps the surroundings, the grain and the people dressed last.

    Args:
        height: height of an image; the width is half of it.
        seed: of surroundings and grain.
    """

    def __init__(self, height: int, seed: int) -> None:
        if height < 32 or height % 2:
            raise ValueError(f"Image height {height}: give an even number of at least 32; the width is half of it.")
        self.height, self.width, self.seed = height, height // 2, seed
        rng = np.random.default_rng([seed, 11])
        side = max(height, self.width * 2) + 256
        self._grain = rng.standard_normal((side, side)).astype(_F)
        self._sites: dict[tuple[int, bool, int], Site] = {}
        self._figures: dict[tuple[Shape, int], Figure] = {}

    def photograph(self, person: Person, look: Look) -> np.ndarray:
        """Take the picture: (H, W, 3) uint8."""
        return self.take(person, look).pixels

    def take(self, person: Person, look: Look) -> Picture:
        """Take the picture and say what it shows."""
        infrared = look.camera.infrared
        site, figure = self._site(look), self._figure(person)
        points, normals = posed(figure, person, look)
        view = View.towards(site.height, site.distance * look.nearer, 0.5 * float(points[:, 1].max())).framed(
            points, top=look.pose.top * self.height, height=look.pose.height * self.height, centre=look.pose.centre * self.width
        )
        behind = look_behind(site, view, self.height, self.width, look.shift, infrared)
        hiding = stand_before(look.occluder, view, self.height, self.width) if look.occluder else None
        sun = _sun(site, look)
        shadows = None if infrared else ShadowMap(_dense(points, figure), sun)
        # The figure, at the finer size.
        fine = view.zoomed(_FINER)
        tall, wide = self.height * _FINER, self.width * _FINER
        column, row, depth = fine.project(points)
        two_sided = _TWO_SIDED[figure.part]
        seen = rasterise(column, row, depth, figure.triangles, tall, wide, cover=figure.coordinates[:, 5], two_sided=two_sided)
        values = seen.blend(np.concatenate([normals, figure.coordinates[:, :5], points], axis=1), figure.triangles)
        part, place, at = figure.part[seen.triangle], values[:, 3:8], values[:, 8:11]
        direction = _bent(values[:, :3], seen.flipped, wrinkles(part, place, is_padded(person)))
        slots = slots_at(person, part, place)
        buffer = np.zeros(tall * wide, _F)
        buffer[seen.pixel] = seen.depth
        dark = corners(buffer.reshape(tall, wide)).reshape(-1)[seen.pixel]
        if infrared:
            eye = np.asarray([0.0, view.height, view.distance], _F)
            light = _infrared_light(direction, at, dark, eye, view) * _reflectances(person)[slots]
            scene = self._night(behind, view)
        else:
            assert shadows is not None
            shade = (
                shade_visible(direction, shadows.lit(at + _F(0.25) * direction), dark, sun)
                + _gloss(part, direction, sun)[:, None]
            )
            light = _colours(person, look)[slots] * np.where(seen.flipped, _F(0.45), _F(1.0))[:, None] * shade
            scene = self._day(behind, shadows, sun, site)
        image, mask = self._compose(scene, light, seen.pixel, slots, look, hiding)
        areas = self._areas(mask)
        pixels = self._develop(image, look)
        return Picture(pixels, replace(look, hidden=_hidden(person, areas)), areas, mask[::_FINER, ::_FINER], view)

    def _site(self, look: Look) -> Site:
        key = (look.camera.number, look.camera.infrared, look.place)
        if key not in self._sites:
            self._sites[key] = draw_site(self.seed, *key)
        return self._sites[key]

    def _figure(self, person: Person) -> Figure:
        key = (person.shape, person.bag_side)
        if key not in self._figures:
            if len(self._figures) >= 16:
                del self._figures[next(iter(self._figures))]
            body = build_body(person.shape)
            self._figures[key] = assemble(person, body, extras_of(person, body))
        return self._figures[key]

    def _day(self, behind: Backdrop, shadows: ShadowMap, sun: Sun, site: Site) -> np.ndarray:
        """(H, W, 3) surroundings in this light, with the figure's shadow on the ground."""
        level = [0.72 * s * sun.towards[1] + 0.5 * a for s, a in zip(sun.strength, sun.ambient, strict=True)]
        scene = behind.paint * np.asarray(level, _F)
        if len(behind.ground):
            spots = np.zeros((len(behind.ground), 3), _F)
            spots[:, 0], spots[:, 2] = behind.spots[:, 0], behind.spots[:, 1]
            x, z = spots[:, 0], spots[:, 2]
            near = np.flatnonzero(x * x + z * z < _F(900.0))
            flat = scene.reshape(-1, 3)
            rows = behind.ground[near]
            direct = _F(0.72 * sun.strength[1] * sun.towards[1]) / _F(level[1])
            shade = _F(1.0) - direct * (_F(1.0) - shadows.lit(spots[near]))
            r = (x[near] * x[near] + z[near] * z[near]) * _F(1.0 / 9.0)
            flat[rows] *= (shade * (_F(1.0) - _F(0.4) / (_F(1.0) + r * r)))[:, None]
        return scene

    def _night(self, behind: Backdrop, view: View) -> np.ndarray:
        """(H, W, 1) surroundings in the light of the lamp at the lens."""
        near = _F(view.distance) / np.maximum(behind.away * _F(1.0), _F(1.0))
        root = np.sqrt(near)
        scene = behind.paint * (_F(0.42) * near * root * np.sqrt(root))[..., None]
        return np.minimum(scene, _F(0.8))

    def _compose(
        self,
        scene: np.ndarray,
        light: np.ndarray,
        pixel: np.ndarray,
        slots: np.ndarray,
        look: Look,
        hiding: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The figure before the scene and behind what stands in front: (H, W, C) light and the finer map of slots."""
        channels, n = scene.shape[2], _FINER
        canvas = np.zeros((self.height * n * self.width * n, channels + 1), _F)
        canvas[pixel, :channels] = light if channels > 1 else light[:, None]
        canvas[pixel, channels] = 1.0
        fine = canvas.reshape(self.height, n, self.width, n, channels + 1)
        small = (fine[:, 0, :, 0] + fine[:, 0, :, 1] + fine[:, 1, :, 0] + fine[:, 1, :, 1]) * _F(0.25)
        image = scene * (_F(1.0) - small[..., channels:]) + small[..., :channels]
        mask = np.zeros((self.height * n, self.width * n), np.uint8)
        mask.reshape(-1)[pixel] = slots
        if hiding is not None and look.occluder is not None:
            paint = look.occluder.paint
            tone = [paint.infrared * 0.9] if channels == 1 else [0.62 * c for c in paint.colour]
            image = image + hiding[..., None] * (np.asarray(tone, _F) - image)
            mask[np.repeat(np.repeat(hiding > 0.5, n, axis=0), n, axis=1)] = Slot.OCCLUDER
        return image, mask

    def _areas(self, mask: np.ndarray) -> dict[Slot, float]:
        counts = np.bincount(mask.reshape(-1), minlength=len(Slot)).tolist()
        return {slot: counts[slot] / mask.size for slot in Slot}

    def _develop(self, image: np.ndarray, look: Look) -> np.ndarray:
        """Light to pixels: film, lens, grain."""
        infrared = look.camera.infrared
        gain = np.asarray(look.gain, _F)
        if infrared:
            rows = np.linspace(-1, 1, self.height, dtype=_F)[:, None, None]
            columns = np.linspace(-1, 1, self.width, dtype=_F)[None, :, None]
            image = image * (_F(1.06) - _F(0.30) * (rows * rows + columns * columns) * _F(0.5))
            value = expose(image, True) * _F(0.7 + 0.3 * sum(look.gain) / 3.0)
        else:
            value = expose(image, False) * gain
        picture = np.clip(value * _F(255.0) + _F(0.5), _F(0.0), _F(255.0)).astype(np.uint8)
        radius = look.blur * self.height / 144.0
        if radius >= 0.15:
            soft = Image.fromarray(picture[..., 0] if infrared else picture).filter(ImageFilter.BoxBlur(radius))
            picture = np.asarray(soft).reshape(picture.shape)
        value = picture.astype(_F) * _F(1.0 / 255.0)
        a, b = look.grain
        planes = (0,) if infrared else (0, 3, 7)
        grain = np.stack([self._grain[a + n : a + n + self.height, b : b + self.width] for n in planes], axis=-1)
        strength = _F(look.noise * (0.8 if infrared else 1.0))
        value = value + strength * grain * (_F(1.3) - value)
        out = np.clip(value * _F(255.0) + _F(0.5), _F(0.0), _F(255.0)).astype(np.uint8)
        return np.repeat(out, 3, axis=2) if infrared else out


_TWO_SIDED = np.zeros(len(Part), bool)
_TWO_SIDED[list(TWO_SIDED)] = True


def posed(figure: Figure, person: Person, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals in the pose, turned to the camera, standing on the ground at the origin."""
    moves = pose_bones(look.pose, person.shape, figure.joints)
    s, c = _F(round(math.sin(look.pose.yaw), 9)), _F(round(math.cos(look.pose.yaw), 9))
    turned = moves.copy()
    turned[:, 0] = c * moves[:, 0] + s * moves[:, 2]
    turned[:, 2] = c * moves[:, 2] - s * moves[:, 0]
    points, normals = skin_vertices(figure.points, figure.normals, figure.bones, figure.weights, turned)
    points[:, 1] -= points[:, 1].min()
    return points, normals


def _dense(points: np.ndarray, figure: Figure) -> np.ndarray:
    """The figure's points and its triangles' middles: close enough to each other for a shadow."""
    a, b, c = (points[figure.triangles[:, k]] for k in range(3))
    return np.concatenate([points, (a + b + c) * _F(1.0 / 3.0)])


def _bent(normals: np.ndarray, flipped: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Unit normals of the pixels: turned over where the inside shows, tilted by the cloth's folds."""
    x, y, z = normals[:, 0], normals[:, 1] + slope, normals[:, 2]
    length = np.sqrt(x * x + y * y + z * z)
    sign = np.where(flipped, _F(-1.0), _F(1.0)) / np.maximum(length, _F(1e-6))
    return np.stack([x * sign, y * sign, z * sign], axis=1)


def _sun(site: Site, look: Look) -> Sun:
    if site.outdoors:
        return sunlight(look.sun[0], look.sun[1], look.brightness)
    return lamplight(look.sun[0], 0.62 * look.brightness)


def _gloss(part: np.ndarray, normals: np.ndarray, sun: Sun) -> np.ndarray:
    """(n,) what hair, shoes, bags and eyes throw back of the light itself."""
    x, y, z = sun.towards
    hx, hy, hz = x, y + 0.25, z + 1.0
    scale = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz)
    shine = np.maximum(
        _F(hx * scale) * normals[:, 0] + _F(hy * scale) * normals[:, 1] + _F(hz * scale) * normals[:, 2], _F(0.0)
    )
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine
    return _GLOSS[part] * shine * shine


_GLOSS = np.zeros(len(Part), _F)
_GLOSS[[Part.HAIR, Part.SHOES, Part.BAG, Part.EYES]] = (0.25, 0.3, 0.3, 0.4)


def _infrared_light(direction: np.ndarray, at: np.ndarray, dark: np.ndarray, eye: np.ndarray, view: View) -> np.ndarray:
    x, y, z = (eye[k] - at[:, k] for k in range(3))
    away = np.sqrt(x * x + y * y + z * z)
    facing = (direction[:, 0] * x + direction[:, 1] * y + direction[:, 2] * z) / away
    return shade_infrared(facing, dark, away, view.distance)


def _hidden(person: Person, areas: Mapping[Slot, float]) -> frozenset[str]:
    hidden = set()
    for attribute, (slots, least) in _SHOWS.items():
        there = attribute not in ("bag", "pattern") or getattr(person.shape, attribute) not in ("", "plain")
        if there and sum(areas[slot] for slot in slots) < least:
            hidden.add(attribute)
    return frozenset(hidden)


def _colours(person: Person, look: Look) -> np.ndarray:
    """(slots, 3) linear: the colour of everything in this image."""
    table = np.zeros((len(Slot), 3), _F)
    skin = np.zeros(3)
    for slot, name in _PALETTE.items():
        colour = np.asarray(_rgb(name, getattr(person.palette, name)), float)
        shade = np.asarray(person.palette.shades[_SLOTS.index(name)], float)
        colour = colour * (1.0 + shade) + 12.0 * shade
        if name in look.seen:
            colour = 0.1 * colour + 0.9 * np.asarray(_rgb(name, look.seen[name]), float)
        if slot == Slot.STRAP:
            colour = 0.82 * colour
        if slot == Slot.SKIN:
            skin = colour
        table[slot] = linear((colour[0], colour[1], colour[2]))
    table[Slot.SKIN] *= _F(0.8)
    r, g, b = skin.tolist()
    table[Slot.LIPS] = linear((0.82 * r, 0.58 * g, 0.58 * b))
    table[Slot.EYE_WHITE] = linear((215.0, 212.0, 208.0))
    table[Slot.IRIS] = linear((42.0, 30.0, 24.0))
    table[Slot.BROWS] = linear((0.36 * r, 0.32 * g, 0.30 * b))
    table[Slot.UNDERHAIR] = linear((58.0, 44.0, 36.0))
    pale = person.palette.shoes in ("black", "blue", "purple", "brown", "green")
    table[Slot.SOLE] = linear((205.0, 203.0, 198.0) if pale else (38.0, 36.0, 36.0))
    table[Slot.SEAM] = table[Slot.UPPER] * _F(0.28)
    return table


def _rgb(slot: str, name: str) -> tuple[int, int, int]:
    if slot == "skin":
        return SKIN_TONES[name]
    return HAIR_COLOURS.get(name, CLOTHES_COLOURS.get(name, (0, 0, 0))) if slot == "hair" else CLOTHES_COLOURS[name]


def _reflectances(person: Person) -> np.ndarray:
    """(slots,) of the infrared lamp's light; colours play no part."""
    table = np.zeros(len(Slot), _F)
    for slot, name in _PALETTE.items():
        value = 0.75 if name == "skin" else getattr(person.material, name)
        table[slot] = round(0.03 + 0.97 * value**1.6, 6)
    for slot, value in _INFRARED.items():
        table[slot] = value
    table[Slot.SKIN] = 0.60
    table[Slot.STRAP] *= _F(0.8)
    return table

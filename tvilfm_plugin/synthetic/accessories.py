"""What is worn besides clothes: hair, hats and bags. Lengths in decimetres of the base mesh, moved to each body's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvilfm_plugin.synthetic.body import Body, normals, surfaces
from tvilfm_plugin.synthetic.mesh import BONES
from tvilfm_plugin.synthetic.noise import noise3
from tvilfm_plugin.synthetic.people import Person
from tvilfm_plugin.synthetic.solids import Solid, disc, facing, rounded_box, tube
from tvilfm_plugin.synthetic.wardrobe import UPPERS, Layer, Part

_F = np.float32
_HEAD, _CHEST, _PELVIS = BONES.index("head"), BONES.index("spine_03"), BONES.index("pelvis")
_HANDS = {1: len(BONES), -1: len(BONES) + 1}
"""Bones that follow the left and the right hand without turning (`body.pose_bones`)."""


def extras_of(person: Person, body: Body) -> list[Layer]:
    """Hair or hat, and the bag."""
    return [*_hair(person, body), *_bag(person, body)]


def _rigid(part: Part, solid: Solid, bone: int, move: Callable[[np.ndarray], np.ndarray]) -> Layer:
    """A solid that moves with one bone; its `place` is where it is in the base mesh."""
    place, triangles = solid
    points = move(place).astype(_F)
    count = len(points)
    bones, weights = np.zeros((count, 4), np.intp), np.zeros((count, 4), _F)
    bones[:, 0], weights[:, 0] = bone, 1.0
    flat = np.full(count, -1.0, _F)
    return Layer(part, points, facing(points, triangles), place, flat, flat, np.ones(count, _F), bones, weights, triangles)


def _to_head(body: Body) -> Callable[[np.ndarray], np.ndarray]:
    """Moves and scales points of the base mesh's head to this head."""
    base = surfaces()["body"].place
    on_head = (base[:, 1] > 7.6) & (np.abs(base[:, 0]) < 0.95)
    before, after = base[on_head], body.points["body"][on_head]
    low, high, to_low, to_high = before.min(axis=0), before.max(axis=0), after.min(axis=0), after.max(axis=0)
    scale = (to_high - to_low) / (high - low)
    return lambda points: (points - low) * scale + to_low


def _scalp(body: Body, plane: np.ndarray, offset: np.ndarray, part: Part, *, ears: bool = False) -> Layer:
    """The head where `plane` (V,) is above 0, pushed out by `offset` (V, 3 or 1)."""
    surface, points = surfaces()["body"], body.points["body"]
    out = normals(surface, points)
    if not ears:
        x, y, z = np.abs(surface.place[:, 0]) - _F(0.84), surface.place[:, 1] - _F(7.18), surface.place[:, 2] - _F(0.42)
        plane = np.minimum(plane, np.sqrt(x * x + y * y * _F(0.6) + z * z * _F(0.8)) - _F(0.26))
    cover = np.where((surface.place[:, 1] > 6.2) & (surface.arm < 0.2), plane, _F(-1.0))
    moved = points + (out * offset if offset.shape[1] == 1 else offset + out * _F(0.12))
    return Layer(
        part, moved.astype(_F), out, surface.place, surface.arm, surface.leg, cover.astype(_F), surface.bones, surface.weights,
        surface.triangles,
    )  # fmt: skip


_PONYTAIL = ((0.0, 7.75, -0.35), (0.0, 7.78, -0.75), (0.0, 7.3, -1.02), (0.0, 6.5, -0.98), (0.0, 5.6, -0.85), (0.0, 5.2, -0.8))
_PIGTAIL = ((0.7, 7.3, 0.1), (1.05, 7.3, 0.15), (1.28, 6.7, 0.2), (1.3, 5.9, 0.35), (1.22, 5.3, 0.45))
"""The left one; the right one mirrors it."""


def _hair(person: Person, body: Body) -> list[Layer]:
    kind = person.shape.hair
    place = surfaces()["body"].place
    y, z = place[:, 1], place[:, 2]
    noise = noise3(place * _F(2.7))
    line = y - (_F(6.75) + _F(0.6) * (z + _F(0.7)) + _F(0.06) * noise)
    if person.shape.gender == "woman":
        line = line + _F(0.06)
    move = _to_head(body)

    def solid(shape: Solid) -> Layer:
        return _rigid(Part.HAIR, shape, _HEAD, move)

    if kind == "crew cut":
        return [_scalp(body, line, _even(0.07), Part.HAIR)]
    if kind == "quiff":
        front = np.clip((z - _F(0.3)) * _F(1.2), _F(0.0), _F(1.0)) * np.clip((y - _F(7.75)) * _F(2.5), _F(0.0), _F(1.0))
        lift = np.zeros((len(place), 3), _F)
        lift[:, 1], lift[:, 2] = _F(0.55) * front * (_F(1.0) + _F(0.2) * noise), _F(0.1) * front
        return [_scalp(body, line, lift, Part.HAIR)]
    if kind == "curls":
        bumps = noise3(place * _F(4.5))
        return [_scalp(body, line + _F(0.1), (_F(0.50) + _F(0.22) * bumps)[:, None], Part.HAIR, ears=True)]
    if kind == "loose hair":
        return [_scalp(body, line + _F(0.06), _even(0.17), Part.HAIR, ears=True), *_strands(body, solid)]
    tied = {
        "ponytail": lambda: [tube(_PONYTAIL, (0.2, 0.34, 0.42, 0.4, 0.3, 0.06))],
        "bun": lambda: [rounded_box((0.0, 8.68, -0.15), (0.56, 0.52, 0.56), 1.0)],
        "pigtails": lambda: [
            tube([(s * x, y, z) for x, y, z in _PIGTAIL], (0.16, 0.27, 0.32, 0.25, 0.05)) for s in (-1.0, 1.0)
        ],
    }
    if kind in tied:
        return [_scalp(body, line, _even(0.12), Part.HAIR), *map(solid, tied[kind]())]
    return [_scalp(body, line, _even(0.05), Part.UNDERHAIR), *_hat(kind, body, noise, solid)]


def _even(amount: float) -> np.ndarray:
    return np.full((len(surfaces()["body"].place), 1), amount, _F)


def _hat(kind: str, body: Body, noise: np.ndarray, solid: Callable[[Solid], Layer]) -> list[Layer]:
    place = surfaces()["body"].place
    y, z = place[:, 1], place[:, 2]
    if kind == "cap":
        visor = rounded_box((0.0, 7.78, 1.28), (0.84, 0.06, 0.95), 0.9, 5, 18)
        return [_scalp(body, y - _F(7.72) + _F(0.06) * (z - _F(0.5)), _even(0.18), Part.HAIR, ears=True), solid(visor)]
    if kind == "beanie":
        fold = np.where(y < 7.85, _F(0.26), _F(0.18))
        lift = normals(surfaces()["body"], body.points["body"]) * (fold + _F(0.02) * noise)[:, None]
        lift[:, 1] += _F(0.45) * np.clip((y - _F(7.9)) * _F(1.6), _F(0.0), _F(1.0))
        return [_scalp(body, y - _F(7.45) - _F(0.12) * (z - _F(0.5)), lift, Part.HAIR, ears=True)]
    crown = rounded_box((0.0, 8.2, 0.45), (0.98, 0.72, 1.16), 0.7)
    return [solid(disc((0.0, 7.82, 0.45), (1.95, 2.08), 0.07)), solid(crown)]


def _strands(body: Body, solid: Callable[[Solid], Layer]) -> list[Layer]:
    """Hair that falls on the shoulders: beside the face down to the collar bones, flat down the back."""
    sides = []
    for s in (-1.0, 1.0):
        along = ((0.62, 8.1, 0.25), (0.98, 7.6, 0.3), (1.02, 6.9, 0.22), (1.05, 6.2, 0.2), (1.0, 5.5, 0.35), (0.9, 4.95, 0.5))
        spine = [(s * x, y, z) for x, y, z in along]
        sides.append(solid(tube(spine, (0.2, 0.3, 0.36, 0.4, 0.36, 0.1), flat=1.5)))
    spine = [(0.0, 8.2, -0.2), (0.0, 7.5, -0.5), (0.0, 6.6, -0.55), (0.0, 5.6, -0.72), (0.0, 4.7, -0.85), (0.0, 4.2, -0.82)]
    return [*sides, solid(tube(spine, (0.5, 0.85, 1.0, 1.1, 1.0, 0.75), 12, flat=0.32))]


def _bag(person: Person, body: Body) -> list[Layer]:
    kind, side = person.shape.bag, person.bag_side
    if not kind:
        return []
    pad = UPPERS[person.shape.upper].pad
    base, points = surfaces()["body"].place, body.points["body"]

    def follow(near: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Move as the part of the body `near` is displaced from the base mesh."""
        shift = points[near] - base[near]
        low, high = shift.min(axis=0), shift.max(axis=0)
        return lambda place: place + (low + high) * _F(0.5)

    if kind == "backpack":
        near = (base[:, 1] > 2.6) & (base[:, 1] < 4.6) & (np.abs(base[:, 0]) < 1.2) & (base[:, 2] < 0.0)
        back = -1.18 - pad
        move = follow(near)
        body_of = rounded_box((0.0, 3.55, back), (1.28, 1.8, 0.66), 0.5)
        pocket = rounded_box((0.0, 2.95, back - 0.62), (0.95, 0.85, 0.3), 0.5)
        loop = tube(
            [(-0.25, 5.25, back), (-0.2, 5.55, back), (0.2, 5.55, back), (0.25, 5.25, back)], (0.06, 0.07, 0.07, 0.06), 6
        )
        parts = ((Part.BAG, body_of), (Part.BAG, pocket), (Part.HANDLE, loop))
        return [_rigid(part, solid, _CHEST, move) for part, solid in parts]
    if kind == "shoulder bag":
        near = (base[:, 1] > -0.6) & (base[:, 1] < 1.0) & (base[:, 0] * side > 1.2) & (surfaces()["body"].arm < 0.1)
        # Outside of what the hips wear.
        edge = float((points[near][:, 0] * side).max())
        box = rounded_box((side * (edge + 0.36 + pad), -0.1, -0.15), (0.40, 0.92, 1.12), 0.5)
        return [
            _rigid(
                Part.BAG, box, _PELVIS, lambda place: place + (follow(near)(place) - place) * np.asarray([0.0, 1.0, 1.0], _F)
            )
        ]
    x, y, z = body.joints[BONES.index("hand_l" if side > 0 else "hand_r")].tolist()
    box = rounded_box((x + 0.12 * side, y - 2.55, z + 0.1), (0.30, 0.72, 0.98), 0.45)
    strap = [
        (x + 0.12 * side, y + d, z + 0.1 + w) for d, w in ((-1.9, -0.5), (-1.2, -0.3), (-1.0, 0.0), (-1.2, 0.3), (-1.9, 0.5))
    ]
    handle = tube(strap, (0.06, 0.07, 0.07, 0.07, 0.06), 6)
    return [_rigid(Part.BAG, box, _HANDS[side], lambda p: p), _rigid(Part.HANDLE, handle, _HANDS[side], lambda p: p)]

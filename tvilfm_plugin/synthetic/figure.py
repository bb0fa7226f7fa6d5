"""Draw a person as a map of parts: which garment, or skin, or hair, is at each pixel.

The map knows nothing of colour or of infrared; `rendering` turns one and the same map into either. Lengths are in units of the
person's height: v runs from 0 (top of the head) to 1 (soles), u from the body's axis to the viewer's right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from PIL import Image, ImageDraw

from tvilfm_plugin.synthetic.people import Person

Point = tuple[float, float]


class Part(IntEnum):
    """Values of the part map."""

    BACKGROUND = 0
    SKIN = 1
    ARM = 2
    FACE = 3
    FEATURES = 4
    HAIR = 5
    UPPER = 6
    SLEEVE = 7
    SECOND = 8
    SECOND_SLEEVE = 9
    LEFT_LEG = 10
    RIGHT_LEG = 11
    TRIM = 12
    SHOES = 13
    BAG = 14
    STRAP = 15
    FOLD = 16


@dataclass(frozen=True)
class Pose:
    """How a person stands in one picture. Angles in radians; `turn` -1 and 1 are three-quarter views to the sides."""

    back: bool
    turn: int
    arms: tuple[float, float]
    elbows: tuple[float, float]
    stance: float
    stride: float
    height: float
    centre: float
    top: float


_BUILDS = {
    # half widths of shoulders, waist, hips; thickness of the limbs
    "slim": (0.100, 0.066, 0.074, 0.78),
    "average": (0.128, 0.096, 0.098, 1.0),
    "broad": (0.164, 0.150, 0.136, 1.32),
}
_HEMS = {
    # end of the garment below the hip, flare at the hem
    "tee": (0.015, 1.03),
    "tank top": (0.0, 1.0),
    "tunic tee": (0.11, 1.16),
    "pullover": (0.01, 1.0),
    "hoodie": (0.03, 1.06),
    "long jumper": (0.11, 1.04),
    "bomber": (-0.02, 1.02),
    "parka": (0.07, 1.12),
    "coat": (0.19, 1.3),
}
_SLEEVES = {"tank top": 0.0, "tee": 0.9, "tunic tee": 1.25}
_PADDING = {"bomber": 0.016, "parka": 0.018, "coat": 0.012, "hoodie": 0.008}
_TROUSERS = {
    # share of the leg that is covered, extra radius at thigh, knee and end
    "skinny pants": (0.97, 0.002, 0.002, 0.004),
    "straight pants": (0.98, 0.008, 0.014, 0.018),
    "flared pants": (0.99, 0.006, 0.012, 0.050),
    "cropped pants": (0.72, 0.008, 0.018, 0.022),
    "hot pants": (0.22, 0.010, 0.010, 0.012),
    "bermudas": (0.50, 0.012, 0.016, 0.018),
    "baggy shorts": (0.62, 0.024, 0.040, 0.046),
}
_SKIRTS = {
    # share of the leg that is covered, half width of the hem relative to the hip
    "mini skirt": (0.30, 1.25),
    "pencil skirt": (0.52, 0.86),
    "wide skirt": (0.55, 1.75),
    "long skirt": (0.88, 1.35),
}


class _Pencil:
    """Draws in body units on a part map."""

    def __init__(self, width: int, height: int, pose: Pose) -> None:
        self.image = Image.new("L", (width, height), Part.BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)
        self.unit = pose.height * height
        self.x0 = pose.centre * width
        self.y0 = pose.top * height

    def at(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x0 + u * self.unit, self.y0 + v * self.unit) for u, v in points]

    def polygon(self, part: Part, *points: Point) -> None:
        self.draw.polygon(self.at(points), fill=int(part))

    def oval(self, part: Part, u: float, v: float, ru: float, rv: float) -> None:
        ((x, y),) = self.at([(u, v)])
        self.draw.ellipse((x - ru * self.unit, y - rv * self.unit, x + ru * self.unit, y + rv * self.unit), fill=int(part))

    def box(self, part: Part, u: float, v: float, ru: float, rv: float, corner: float = 0.0) -> None:
        ((x, y),) = self.at([(u, v)])
        bounds = (x - ru * self.unit, y - rv * self.unit, x + ru * self.unit, y + rv * self.unit)
        self.draw.rounded_rectangle(bounds, radius=corner * self.unit, fill=int(part))

    def limb(self, part: Part, a: Point, b: Point, ra: float, rb: float, *, caps: int = 2) -> None:
        """A tapered limb from a to b; with `caps` 1 its lower end is straight, with 0 its upper end too."""
        length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1e-6
        nu, nv = (b[1] - a[1]) / length, -(b[0] - a[0]) / length
        corners = [(a, ra, 1), (b, rb, 1), (b, rb, -1), (a, ra, -1)]
        self.polygon(part, *((p[0] + s * r * nu, p[1] + s * r * nv) for p, r, s in corners))
        if caps:
            self.oval(part, *a, ra, ra)
        if caps > 1:
            self.oval(part, *b, rb, rb)

    def line(self, part: Part, points: Sequence[Point], width: float) -> None:
        self.draw.line(self.at(points), fill=int(part), width=max(1, round(width * self.unit)), joint="curve")


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def draw_parts(person: Person, pose: Pose, width: int, height: int) -> np.ndarray:
    """Draw one person.

    Returns:
        (height, width) uint8 of `Part` values.
    """
    pencil, shape = _Pencil(width, height, pose), person.shape
    shoulder, waist, hip, thick = _BUILDS[shape.build]
    woman = shape.gender == "woman"
    if woman:
        shoulder, waist, hip = shoulder * 0.92, waist * 0.9, hip * 1.08
    # A turned body shows less of its width; a broad one keeps more of it.
    narrow = {"slim": 0.8, "average": 0.82, "broad": 0.88}[shape.build] if pose.turn else 1.0
    shoulder, waist, hip = shoulder * narrow, waist * narrow, hip * narrow
    hip_v = 0.475 if shape.legs == "long" else 0.565
    legs = _legs(pose, hip, hip_v)
    arms = _arms(pose, shoulder, hip_v)
    far = 0 if pose.turn > 0 else 1

    # The bag hangs on the person's own side: from behind it is seen on the other one, and a turned body can hide it.
    bag_side = person.bag_side * (-1 if pose.back else 1)
    if shape.bag == "handbag" and bag_is_hidden(person, pose):
        _draw_handbag(pencil, arms[0 if bag_side < 0 else 1])
    if shape.hair in ("loose hair", "pigtails") and not pose.back:
        _draw_hair_behind(pencil, shape.hair)
    if shape.bag == "backpack" and not pose.back:
        _draw_backpack_edges(pencil, shoulder, pose)
    if pose.turn:
        _draw_arm(pencil, person, arms[far], thick)
    for leg in legs:
        pencil.limb(Part.SKIN, leg[0], leg[1], 0.050 * thick, 0.036 * thick)
        pencil.limb(Part.SKIN, leg[1], leg[2], 0.038 * thick, 0.024 * thick)
    if shape.shoes != "boots":
        _draw_shoes(pencil, person, legs, pose, thick)
    _draw_lower(pencil, person, legs, hip, hip_v, thick)
    if shape.shoes == "boots":
        _draw_shoes(pencil, person, legs, pose, thick)
    _draw_upper(pencil, person, pose, shoulder, waist, hip, hip_v)
    if shape.bag == "shoulder bag":
        _draw_shoulder_bag(pencil, shoulder, hip, hip_v, bag_side, bag_is_hidden(person, pose))
    for side, arm in enumerate(arms):
        if not (pose.turn and side == far):
            _draw_arm(pencil, person, arm, thick)
    if shape.bag == "handbag" and not bag_is_hidden(person, pose):
        _draw_handbag(pencil, arms[0 if bag_side < 0 else 1])
    if shape.bag == "backpack":
        _draw_backpack(pencil, shoulder, hip_v, pose)
    _draw_head(pencil, person, pose)
    parts = np.asarray(pencil.image).copy()
    _weave(parts, pencil, person, pose, shoulder, hip_v)
    return parts


def bag_is_hidden(person: Person, pose: Pose) -> bool:
    """Whether this view hides the bag: one in the hand or at the hip on the far side, a backpack from straight ahead."""
    if person.shape.bag == "backpack":
        return not pose.back and not pose.turn
    return pose.turn * person.bag_side * (-1 if pose.back else 1) < 0


def _legs(pose: Pose, hip: float, hip_v: float) -> list[tuple[Point, Point, Point]]:
    legs = []
    for side in (-1, 1):
        start = (side * hip * 0.52, hip_v + 0.02)
        reach = side * pose.stance + (side * pose.stride if pose.turn else 0.0)
        ankle = (start[0] + reach, 0.945 - (0.025 if side * pose.stride > 0.035 else 0.0))
        knee = (start[0] + 0.5 * reach + 0.25 * pose.turn * abs(pose.stride), (start[1] + ankle[1]) / 2)
        legs.append((start, knee, ankle))
    return legs


def _arms(pose: Pose, shoulder: float, hip_v: float) -> list[tuple[Point, Point, Point]]:
    arms = []
    for n, side in enumerate((-1, 1)):
        start = (side * (shoulder - 0.022), 0.222)
        angle, bend = pose.arms[n], pose.elbows[n]
        elbow = (start[0] + side * 0.155 * math.sin(angle), start[1] + 0.155 * math.cos(angle))
        low = angle - bend
        hand = (elbow[0] + side * 0.15 * math.sin(low), elbow[1] + 0.15 * math.cos(low))
        arms.append((start, elbow, hand))
    return arms


def _draw_arm(pencil: _Pencil, person: Person, arm: tuple[Point, Point, Point], thick: float) -> None:
    start, elbow, hand = arm
    sleeve = _SLEEVES.get(person.shape.upper, 2.0)
    upper_r, elbow_r, wrist_r = 0.034 * thick, 0.027 * thick, 0.019 * thick
    pencil.limb(Part.ARM, start, elbow, upper_r, elbow_r)
    pencil.limb(Part.ARM, elbow, hand, elbow_r, wrist_r)
    pencil.oval(Part.ARM, hand[0], hand[1] + 0.012, 0.021, 0.026)
    pad = _PADDING.get(person.shape.upper, 0.005)
    if 0 < sleeve < 2:
        end = _between(start, elbow, min(sleeve * 0.62, 1.0))
        pencil.limb(Part.SLEEVE, start, end, upper_r + 0.008, elbow_r + 0.014, caps=1)
    elif sleeve:
        pencil.limb(Part.SLEEVE, start, elbow, upper_r + pad, elbow_r + pad)
        pencil.limb(Part.SLEEVE, elbow, _between(elbow, hand, 0.93), elbow_r + pad, wrist_r + pad, caps=1)


def _draw_lower(
    pencil: _Pencil, person: Person, legs: list[tuple[Point, Point, Point]], hip: float, hip_v: float, thick: float
) -> None:
    shape = person.shape
    top, full = hip_v - 0.05, 0.945 - hip_v
    if shape.lower in _SKIRTS:
        share, flare = _SKIRTS[shape.lower]
        end = hip_v + share * full
        half = hip * flare + 0.012
        outline = (
            (-hip, top),
            (hip, top),
            (hip + 0.012, hip_v + 0.03),
            (half, end),
            (-half, end),
            (-hip - 0.012, hip_v + 0.03),
        )
        pencil.polygon(Part.LEFT_LEG, *outline)
        _trim_skirt(pencil, shape.lower_pattern, outline, end)
        return
    _draw_trousers(pencil, person, legs, hip, hip_v, thick)


def _draw_trousers(
    pencil: _Pencil, person: Person, legs: list[tuple[Point, Point, Point]], hip: float, hip_v: float, thick: float
) -> None:
    shape, top = person.shape, hip_v - 0.05
    share, at_thigh, at_knee, at_end = _TROUSERS[shape.lower]
    pencil.polygon(
        Part.LEFT_LEG, (-hip, top), (hip, top), (hip + 0.006, hip_v + 0.05), (0, hip_v + 0.1), (-hip - 0.006, hip_v + 0.05)
    )
    for leg, part, side in ((legs[0], Part.LEFT_LEG, -1), (legs[1], Part.RIGHT_LEG, 1)):
        start, knee, ankle = leg
        thigh_r, knee_r, ankle_r = 0.050 * thick + at_thigh, 0.036 * thick + at_knee, 0.024 * thick + at_end
        if share <= 0.5:
            end, end_r = _between(start, knee, share * 2), (thigh_r if share < 0.4 else knee_r) + 0.004
            pencil.limb(part, start, end, thigh_r, end_r, caps=1)
        else:
            end, end_r = _between(knee, ankle, share * 2 - 1), ankle_r
            pencil.limb(part, start, knee, thigh_r, knee_r)
            pencil.limb(part, knee, end, knee_r, end_r, caps=1)
        if shape.lower_pattern == "hem band":
            above = _between(end, knee if share > 0.5 else start, 0.24 if share > 0.3 else 0.5)
            pencil.limb(Part.TRIM, above, end, end_r, end_r, caps=0)
        elif shape.lower_pattern == "knee band":
            middle = _between(start, knee, 0.55) if share <= 0.5 else knee
            radius = thigh_r if share <= 0.5 else knee_r
            pencil.box(Part.TRIM, *middle, radius + 0.004, 0.02)
        elif shape.lower_pattern == "side stripe":
            outside = [(p[0] + side * r * 0.62, p[1]) for p, r in ((start, thigh_r), (end if share <= 0.5 else knee, knee_r))]
            outside += [] if share <= 0.5 else [(end[0] + side * end_r * 0.62, end[1])]
            pencil.line(Part.TRIM, outside, 0.022)


def _trim_skirt(pencil: _Pencil, pattern: str, outline: Sequence[Point], end: float) -> None:
    hip_point, hem_point = outline[2], outline[3]

    def half_at(v: float) -> float:
        share = (v - hip_point[1]) / (end - hip_point[1])
        return hip_point[0] + share * (hem_point[0] - hip_point[0])

    if pattern == "hem band":
        v = end - 0.05
        pencil.polygon(Part.TRIM, (-half_at(v), v), (half_at(v), v), (half_at(end), end), (-half_at(end), end))
    elif pattern == "knee band":
        middle = hip_point[1] + 0.45 * (end - hip_point[1])
        a, b = middle - 0.02, middle + 0.02
        pencil.polygon(Part.TRIM, (-half_at(a), a), (half_at(a), a), (half_at(b), b), (-half_at(b), b))
    elif pattern == "side stripe":
        for side in (-1, 1):
            pencil.line(Part.TRIM, [(side * 0.7 * half_at(v), v) for v in (outline[0][1], hip_point[1], end)], 0.026)


def _draw_shoes(pencil: _Pencil, person: Person, legs: list[tuple[Point, Point, Point]], pose: Pose, thick: float) -> None:
    for side, (_, knee, ankle) in zip((-1, 1), legs, strict=True):
        toe = pose.turn * 0.035 if pose.turn else side * 0.012
        if person.shape.shoes == "boots":
            pencil.limb(Part.SHOES, _between(knee, ankle, 0.30), ankle, 0.040 * thick + 0.006, 0.030 * thick + 0.008)
        sole = ankle[1] + 0.038
        low = person.shape.shoes == "sandals"
        pencil.oval(Part.SHOES, ankle[0] + toe, sole - 0.012, 0.046 if pose.turn else 0.038, 0.013 if low else 0.026)


def _draw_upper(pencil: _Pencil, person: Person, pose: Pose, shoulder: float, waist: float, hip: float, hip_v: float) -> None:
    kind = person.shape.upper
    drop, flare = _HEMS[kind]
    pad = _PADDING.get(kind, 0.004)
    hem, waist_v = hip_v + drop, 0.2 + 0.6 * (hip_v - 0.2)
    hem_half = (hip + pad) * flare
    sw, ww, hw = shoulder + pad * 0.6, waist + pad, hip + pad
    neck = 0.034
    if kind == "tank top":
        sw -= 0.024
    right = [
        (neck, 0.172),
        (sw * 0.6, 0.182),
        (sw, 0.205),
        (sw * 0.94, 0.27),
        (ww, waist_v),
        (hw, min(hip_v, hem) - 0.004),
        (hem_half, hem),
    ]
    pencil.polygon(Part.UPPER, *right, *[(-u, v) for u, v in reversed(right)])
    pencil.polygon(Part.SKIN, (-0.026, 0.13), (0.026, 0.13), (0.034, 0.182), (-0.034, 0.182))
    if kind == "tank top":
        pencil.oval(Part.SKIN, 0, 0.185, 0.042, 0.03 if pose.back else 0.05)
    if kind == "hoodie":
        pencil.oval(Part.SLEEVE, 0, 0.192, 0.075, 0.05 if pose.back else 0.034)
        if not pose.back:
            pencil.polygon(Part.FOLD, (-0.055, hem - 0.09), (0.055, hem - 0.09), (0.075, hem - 0.025), (-0.075, hem - 0.025))
    if kind in ("bomber", "parka", "coat"):
        if not pose.back:
            middle = 0.03 * pose.turn
            pencil.line(Part.FEATURES, [(middle, 0.2), (middle, hem - 0.004)], 0.008)
            depth = 0.30 if kind == "coat" else 0.235
            pencil.polygon(
                Part.FOLD,
                (-0.045, 0.172),
                (-0.075, 0.215),
                (middle, depth),
                (0.075, 0.215),
                (0.045, 0.172),
                (middle, depth - 0.03),
            )
        else:
            pencil.box(Part.FOLD, 0, 0.186, 0.055, 0.018, 0.01)
        if kind == "parka":
            pencil.box(Part.FOLD, 0, waist_v + 0.03, ww + 0.012, 0.010)
    if kind in ("pullover", "long jumper"):
        pencil.polygon(Part.FOLD, (-hem_half, hem - 0.022), (hem_half, hem - 0.022), (hem_half, hem), (-hem_half, hem))


def _draw_hair_behind(pencil: _Pencil, hair: str) -> None:
    if hair == "loose hair":
        pencil.box(Part.HAIR, 0, 0.15, 0.084, 0.125, 0.05)
    else:
        for side in (-1, 1):
            pencil.limb(Part.HAIR, (side * 0.07, 0.09), (side * 0.105, 0.25), 0.026, 0.018)


def _draw_head(pencil: _Pencil, person: Person, pose: Pose) -> None:
    hair, shift = person.shape.hair, 0.014 * pose.turn
    middle, ru, rv = 0.078, 0.054, 0.072
    pencil.oval(Part.FACE, 0, middle, ru, rv)
    if not pose.back:
        for side in (-1, 1):
            pencil.oval(Part.FEATURES, shift * 1.4 + side * 0.021, middle - 0.002, 0.0065, 0.0075)
        pencil.line(Part.FEATURES, [(shift * 1.4 - 0.014, middle + 0.037), (shift * 1.4 + 0.014, middle + 0.037)], 0.006)
    elif hair not in ("cap", "beanie", "brimmed hat"):
        pencil.oval(Part.HAIR, 0, middle - 0.012, ru + 0.006, rv - 0.008)
    cap = (
        (-ru - 0.004, middle - 0.006),
        (-ru - 0.002, 0.03),
        (-0.03, 0.0),
        (0.03, 0.0),
        (ru + 0.002, 0.03),
        (ru + 0.004, middle - 0.006),
    )
    fringe = ((0.036 + shift, 0.036), (shift - 0.036, 0.036))
    if hair in ("crew cut", "loose hair", "ponytail", "bun", "pigtails"):
        pencil.polygon(Part.HAIR, *cap, *fringe)
    if hair == "quiff":
        pencil.polygon(Part.HAIR, *cap, *fringe)
        pencil.polygon(Part.HAIR, (-0.05, 0.03), (-0.03, -0.045), (0.055, -0.03), (0.052, 0.03))
    elif hair == "curls":
        for n in range(9):
            angle = math.pi * (0.95 + 1.1 * n / 8)
            pencil.oval(Part.HAIR, 0.066 * math.cos(angle), 0.055 + 0.062 * math.sin(angle), 0.034, 0.034)
        if pose.back:
            pencil.oval(Part.HAIR, 0, 0.06, 0.085, 0.075)
    elif hair == "loose hair" and pose.back:
        pencil.box(Part.HAIR, 0, 0.15, 0.078, 0.125, 0.05)
    elif hair == "ponytail":
        if pose.back:
            pencil.limb(Part.HAIR, (0, 0.06), (0, 0.27), 0.026, 0.016)
        else:
            side = -pose.turn or 1
            pencil.limb(Part.HAIR, (side * 0.05, 0.03), (side * 0.098, 0.19), 0.026, 0.015)
    elif hair == "bun":
        pencil.oval(Part.HAIR, -0.02 * pose.turn, -0.022, 0.036, 0.034)
    elif hair == "pigtails" and pose.back:
        for side in (-1, 1):
            pencil.limb(Part.HAIR, (side * 0.065, 0.09), (side * 0.1, 0.25), 0.026, 0.018)
    elif hair == "cap":
        pencil.polygon(Part.HAIR, *cap[:-1], (ru + 0.004, 0.05), (-ru - 0.004, 0.05))
        if not pose.back:
            pencil.oval(Part.HAIR, shift * 3, 0.05, 0.066, 0.013)
    elif hair == "beanie":
        pencil.polygon(
            Part.HAIR,
            (-ru - 0.01, 0.06),
            (-ru - 0.004, 0.0),
            (-0.03, -0.036),
            (0.03, -0.036),
            (ru + 0.004, 0.0),
            (ru + 0.01, 0.06),
        )
    elif hair == "brimmed hat":
        pencil.polygon(Part.HAIR, (-0.05, 0.03), (-0.042, -0.035), (0.042, -0.035), (0.05, 0.03))
        pencil.oval(Part.HAIR, 0, 0.034, 0.112, 0.017)


def _draw_handbag(pencil: _Pencil, arm: tuple[Point, Point, Point]) -> None:
    u, v = arm[2]
    pencil.line(
        Part.STRAP, [(u - 0.034, v + 0.075), (u - 0.018, v + 0.01), (u + 0.018, v + 0.01), (u + 0.034, v + 0.075)], 0.010
    )
    pencil.box(Part.BAG, u, v + 0.125, 0.066, 0.056, 0.012)


def _draw_shoulder_bag(pencil: _Pencil, shoulder: float, hip: float, hip_v: float, side: int, hidden: bool) -> None:
    pencil.line(Part.STRAP, [(-side * shoulder * 0.62, 0.184), (side * hip * 1.02, hip_v - 0.03)], 0.020)
    if not hidden:
        pencil.box(Part.BAG, side * hip * 1.12, hip_v + 0.02, 0.062, 0.052, 0.012)


def _draw_backpack_edges(pencil: _Pencil, shoulder: float, pose: Pose) -> None:
    if pose.turn:
        pencil.box(Part.BAG, -pose.turn * (shoulder + 0.012), 0.32, 0.055, 0.11, 0.03)


def _draw_backpack(pencil: _Pencil, shoulder: float, hip_v: float, pose: Pose) -> None:
    if pose.back:
        pencil.box(Part.BAG, -0.03 * pose.turn, 0.33, max(0.085, shoulder * 0.72), 0.125, 0.04)
        pencil.line(Part.STRAP, [(-0.05, 0.36), (0.05, 0.36)], 0.010)
        return
    for side in (-1, 1):
        pencil.line(Part.STRAP, [(side * shoulder * 0.5, 0.182), (side * shoulder * 0.56, 0.34)], 0.024)


def _weave(parts: np.ndarray, pencil: _Pencil, person: Person, pose: Pose, shoulder: float, hip_v: float) -> None:
    """Change the pixels of the upper garment that its pattern covers to the second colour's parts, in place."""
    pattern = person.shape.pattern
    if pattern == "plain" or (pose.back and pattern in ("disc", "box", "cross")):
        return
    top, bottom = int(pencil.y0 + 0.15 * pencil.unit), int(pencil.y0 + (hip_v + 0.3) * pencil.unit)
    region = parts[max(top, 0) : max(bottom, 0)]
    height, width = region.shape
    v = ((np.arange(height, dtype=np.float32) + max(top, 0) - pencil.y0) / pencil.unit)[:, None]
    u = ((np.arange(width, dtype=np.float32) - pencil.x0) / pencil.unit)[None, :]
    mask = _pattern(pattern, u, v, shoulder, 0.012 * pose.turn)
    torso = (region == Part.UPPER) | (region == Part.FOLD)
    if pattern not in ("disc", "box", "cross", "side panels"):
        sleeve = region == Part.SLEEVE
        region[sleeve & (mask if pattern != "yoke" else np.True_)] = Part.SECOND_SLEEVE
    region[torso & mask] = Part.SECOND


def _pattern(pattern: str, u: np.ndarray, v: np.ndarray, shoulder: float, shift: float) -> np.ndarray:
    """Where a pattern has its second colour: broadcastable to (h, w), from the columns' u (1, w) and the rows' v (h, 1)."""

    def bars(x: np.ndarray, period: float, duty: float = 0.5) -> np.ndarray:
        return np.mod(x, period) < duty * period

    if pattern == "wide stripes":
        return bars(v, 0.104)
    if pattern == "thin stripes":
        return bars(v, 0.046)
    if pattern == "upright stripes":
        return bars(u + 0.0155, 0.062)
    if pattern == "slanted stripes":
        return bars(u + v, 0.09)
    if pattern == "tartan":
        return bars(v, 0.078, 0.42) ^ bars(u + 0.016, 0.078, 0.42)
    if pattern == "chequers":
        return bars(v, 0.13) ^ bars(u + 0.0325, 0.13)
    if pattern == "windowpane":
        return bars(v, 0.085, 0.2) | bars(u + 0.0085, 0.085, 0.2)
    if pattern == "chest band":
        return (v > 0.265) & (v < 0.355)
    if pattern == "lower half":
        return v > 0.37
    if pattern == "side panels":
        return np.abs(u) > 0.52 * shoulder
    if pattern == "yoke":
        return v < 0.275
    du, dv = u - shift, v - 0.315
    if pattern == "disc":
        return du**2 + dv**2 < 0.062**2
    if pattern == "box":
        return (np.abs(du) < 0.06) & (np.abs(dv) < 0.045)
    if pattern == "cross":
        return ((np.abs(du) < 0.022) & (np.abs(dv) < 0.075)) | ((np.abs(dv) < 0.022) & (np.abs(du) < 0.065))
    raise ValueError(f"Unknown pattern {pattern!r}.")

"""What a point of a dressed figure is made of: which slot of the palette, or skin, eyes, soles and seams."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from tvilfm_plugin.synthetic.noise import noise2
from tvilfm_plugin.synthetic.people import Person
from tvilfm_plugin.synthetic.wardrobe import TROUSERS, UPPERS, Part, lower_length

_F = np.float32


class Slot(IntEnum):
    """What a pixel shows; also the values of the masks that can be written."""

    BACKGROUND = 0
    UPPER = 1
    SECOND = 2
    LOWER = 3
    TRIM = 4
    SHOES = 5
    BAG = 6
    HAIR = 7
    SKIN = 8
    LIPS = 9
    EYE_WHITE = 10
    IRIS = 11
    BROWS = 12
    UNDERHAIR = 13
    STRAP = 14
    SOLE = 15
    SEAM = 16
    OCCLUDER = 17


_OF_PART = np.zeros(len(Part), np.uint8)
for _part, _slot in (
    (Part.SKIN, Slot.SKIN), (Part.EYES, Slot.EYE_WHITE), (Part.HAIR, Slot.HAIR), (Part.UNDERHAIR, Slot.UNDERHAIR),
    (Part.UPPER, Slot.UPPER), (Part.LOWER, Slot.LOWER), (Part.SHOES, Slot.SHOES), (Part.BAG, Slot.BAG),
    (Part.HANDLE, Slot.STRAP),
):  # fmt: skip
    _OF_PART[_part] = _slot


def slots_at(person: Person, part: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The slot of each of n pixels.

    Args:
        part: (n,) `Part`.
        place: (n, 5) where the point is on the base mesh: x, y, z, arm, leg.

    Returns:
        (n,) uint8 of `Slot`.
    """
    slots = _OF_PART[part]
    x, y, z, arm, leg = (place[:, k] for k in range(5))
    _paint(slots, np.flatnonzero(part == Part.UPPER), person, _upper_slots, x, y, z, arm, leg)
    _paint(slots, np.flatnonzero(part == Part.LOWER), person, _lower_slots, x, y, z, arm, leg)
    _paint(slots, np.flatnonzero((part == Part.SKIN) & (y > 6.4)), person, _face_slots, x, y, z, arm, leg)
    eyes = np.flatnonzero(part == Part.EYES)
    dx, dy = np.abs(x[eyes]) - _F(0.305), y[eyes] - _F(7.285)
    slots[eyes[dx * dx + dy * dy < _F(0.0064)]] = Slot.IRIS
    shoes = np.flatnonzero(part == Part.SHOES)
    if person.shape.shoes != "sandals":
        slots[shoes[y[shoes] < -8.02]] = Slot.SOLE
    _strap(slots, person, part, x, y, z, arm)
    return slots


def _paint(slots: np.ndarray, rows: np.ndarray, person: Person, paint, *values: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    if len(rows):
        slots[rows] = paint(person, *(value[rows] for value in values))


def _upper_slots(person: Person, x: np.ndarray, y: np.ndarray, z: np.ndarray, arm: np.ndarray, leg: np.ndarray) -> np.ndarray:
    kind = person.shape.upper
    sleeve = arm > 0.06
    slots = np.where(_pattern(person.shape.pattern, x, y, z, arm, sleeve), Slot.SECOND, Slot.UPPER).astype(np.uint8)
    front = ~sleeve & (z > 0.5)
    if kind in ("bomber", "parka", "coat"):
        slots[front & (np.abs(x) < 0.06)] = Slot.SEAM
        lapel = np.abs(np.abs(x) - _F(0.22) - _F(0.35) * np.maximum(y - _F(4.2), _F(0.0)))
        slots[front & (lapel < 0.05) & (y > 4.2) & (y < 5.4)] = Slot.SEAM
    if kind == "parka":
        slots[~sleeve & (np.abs(y - _F(1.55)) < 0.13)] = Slot.SEAM
    if kind == "hoodie":
        pocket = np.maximum(np.abs(np.abs(x) - _F(0.75) - _F(0.3) * (_F(1.9) - y)) - _F(0.03), np.abs(y - _F(1.6)) - _F(0.4))
        slots[front & (pocket < 0)] = Slot.SEAM
        slots[front & (np.abs(np.abs(x) - _F(0.25)) < 0.045) & (y > 4.2) & (y < 5.5)] = Slot.SEAM
    return slots


def _bars(x: np.ndarray, period: float, share: float = 0.5, shift: float = 0.0) -> np.ndarray:
    t = (x + _F(shift)) * _F(1.0 / period)
    return t - np.floor(t) < _F(share)


def _pattern(pattern: str, x: np.ndarray, y: np.ndarray, z: np.ndarray, arm: np.ndarray, sleeve: np.ndarray) -> np.ndarray:
    """(n,) where the upper garment has its second colour."""
    if pattern == "plain":
        return np.zeros(len(x), bool)
    down = np.where(sleeve, arm * _F(2.2) + _F(0.35), _F(5.6) - y)
    across = np.where(sleeve, z * _F(1.1), x)
    if pattern == "wide stripes":
        return _bars(down, 1.6)
    if pattern == "thin stripes":
        return _bars(down, 0.74)
    if pattern == "upright stripes":
        return _bars(across, 0.92, shift=0.23)
    if pattern == "slanted stripes":
        return _bars(across + down, 1.5)
    if pattern == "tartan":
        return _bars(down, 1.3, 0.42) ^ _bars(across, 1.3, 0.42, 0.27)
    if pattern == "chequers":
        return _bars(down, 2.0) ^ _bars(across, 2.0, shift=0.5)
    if pattern == "windowpane":
        return _bars(down, 1.4, 0.22) | _bars(across, 1.4, 0.22, 0.15)
    if pattern == "chest band":
        return np.where(sleeve, (arm > 0.45) & (arm < 0.95), (y > 2.6) & (y < 4.1))
    if pattern == "lower half":
        return np.where(sleeve, arm > 0.95, y < 2.35)
    if pattern == "side panels":
        return ~sleeve & (np.abs(x) > 0.95)
    if pattern == "yoke":
        return sleeve | (y > 3.95)
    front = ~sleeve & (z > 0.55)
    dx, dy = x, y - _F(3.25)
    if pattern == "disc":
        return front & (dx * dx + dy * dy < 1.0)
    if pattern == "box":
        return front & (np.abs(dx) < 0.95) & (np.abs(dy) < 0.72)
    if pattern == "cross":
        thick, long = _F(0.34), _F(1.15)
        return front & (((np.abs(dx) < thick) & (np.abs(dy) < long)) | ((np.abs(dy) < thick) & (np.abs(dx) < _F(0.95))))
    raise ValueError(f"Unknown pattern {pattern!r}.")


def _lower_slots(person: Person, x: np.ndarray, y: np.ndarray, z: np.ndarray, arm: np.ndarray, leg: np.ndarray) -> np.ndarray:
    shape = person.shape
    end = lower_length(shape.lower)
    if shape.lower_pattern == "hem band":
        trim = leg > end - (0.24 if end > 0.6 else 0.14)
    elif shape.lower_pattern == "knee band":
        middle = 0.92 if end > 1.1 else 0.5 * end + 0.05
        trim = np.abs(leg - _F(middle)) < (0.12 if end > 0.6 else 0.07)
    elif shape.lower_pattern == "side stripe":
        out = np.abs(x) - (_F(1.1) + _F(0.5) * np.clip(leg, _F(0.0), _F(2.0)))
        width = 0.26 if shape.lower in TROUSERS else 0.42
        trim = (np.abs(z - _F(0.2) + _F(0.12) * leg) < width) & (out > -0.1)
    else:
        trim = np.zeros(len(x), bool)
    return np.where(trim, Slot.TRIM, Slot.LOWER).astype(np.uint8)


def _face_slots(person: Person, x: np.ndarray, y: np.ndarray, z: np.ndarray, arm: np.ndarray, leg: np.ndarray) -> np.ndarray:
    slots = np.full(len(x), Slot.SKIN, np.uint8)
    side = np.abs(x)
    front = z > 0.9
    u, v = x * _F(1.0 / 0.24), (y - _F(6.59)) * _F(1.0 / 0.075)
    slots[front & (u * u + v * v < 1.0)] = Slot.LIPS
    thick = 0.045 if person.shape.gender == "man" else 0.035
    arch = y - (_F(7.52) + _F(0.10) * side - _F(0.32) * np.maximum(side - _F(0.38), _F(0.0)))
    slots[front & (np.abs(arch) < thick) & (side > 0.11) & (side < 0.56)] = Slot.BROWS
    lash = np.maximum(
        np.abs(y - _F(7.375) + _F(0.9) * (side - _F(0.31)) * (side - _F(0.31))) - _F(0.022), np.abs(side - _F(0.31)) - _F(0.16)
    )
    slots[front & (lash < 0)] = Slot.BROWS
    return slots


def _strap(
    slots: np.ndarray, person: Person, part: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, arm: np.ndarray
) -> None:
    """Straps of a backpack or a shoulder bag lie on the cloth (or the skin): painted, not modelled."""
    bag = person.shape.bag
    if bag not in ("backpack", "shoulder bag"):
        return
    torso = ((part == Part.UPPER) | (part == Part.SKIN)) & (arm < 0.3) & (y > -0.5) & (y < 5.9)
    if bag == "backpack":
        strap = torso & (np.abs(np.abs(x) - _F(0.98)) < 0.2) & (((z > 0.4) & (y > 2.9)) | (y > 4.9))
    else:
        side = _F(person.bag_side)
        # From the far shoulder to the hip on the bag's side.
        t = (_F(5.5) - y) * _F(1.0 / 5.2)
        strap = torso & (np.abs(side * x - (_F(-1.05) + _F(2.9) * t)) < 0.2) & (y > 0.2)
    slots[strap] = Slot.STRAP


def wrinkles(part: np.ndarray, place: np.ndarray, padded: bool) -> np.ndarray:
    """(n,) slope of the cloth's folds along the body, for `Part.UPPER` and `Part.LOWER`; 0 elsewhere."""
    slope = np.zeros(len(part), _F)
    rows = np.flatnonzero((part == Part.UPPER) | (part == Part.LOWER))
    x, y, z, arm, leg = (place[rows, k] for k in range(5))
    along = np.where(arm > 0.06, arm * _F(2.2), y) * _F(1.7)
    across = (x + _F(0.7) * z) * _F(0.55) + along * _F(0.35)
    strength = _F(0.8 if padded else 0.45)
    slope[rows] = strength * (noise2(across, along + _F(0.22)) - noise2(across, along - _F(0.22)))
    return slope


def is_padded(person: Person) -> bool:
    """Whether the upper garment is a thick jacket, which folds deeply."""
    return UPPERS[person.shape.upper].pad > 0.3

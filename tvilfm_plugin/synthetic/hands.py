"""Close the mesh's spread hands a little, once, while the pack is made: fingers do not move later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Point = tuple[float, float, float]
Weights = Mapping[str, Sequence[tuple[int, float]]]

_BENDS = (0.55, 0.6, 0.45)  # radians at the three joints of a finger; the last fingers bend a little more
_FINGERS = {"index": 0.8, "middle": 1.0, "ring": 1.1, "pinky": 1.2}


def relax_hands(points: Sequence[Point], weights: Weights, heads: Mapping[str, Point]) -> list[Point]:
    """Bend the fingers towards the palm.

    Args:
        points: all vertices of the base mesh.
        weights: bone -> (vertex, weight) pairs.
        heads: bone -> where it begins.
    """
    moved = list(points)
    for side, sense in (("l", 1.0), ("r", -1.0)):
        axis = _towards(heads[f"index_01_{side}"], heads[f"pinky_01_{side}"], sense)
        for finger, more in _FINGERS.items():
            shift: dict[int, list[float]] = {}
            for last in range(3):
                for vertex, weight in weights[f"{finger}_0{last + 1}_{side}"]:
                    place = points[vertex]
                    # From the outermost joint inwards, so that each turn carries what hangs on it.
                    for joint in range(last, -1, -1):
                        place = _turned(place, heads[f"{finger}_0{joint + 1}_{side}"], axis, _BENDS[joint] * more)
                    total = shift.setdefault(vertex, [0.0, 0.0, 0.0])
                    for k in range(3):
                        total[k] += weight * (place[k] - points[vertex][k])
            for vertex, (x, y, z) in shift.items():
                a, b, c = moved[vertex]
                moved[vertex] = (a + x, b + y, c + z)
    return moved


def _towards(a: Point, b: Point, sense: float) -> Point:
    x, y, z = (sense * (q - p) for p, q in zip(a, b, strict=True))
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _turned(point: Point, centre: Point, axis: Point, angle: float) -> Point:
    """Rodrigues' formula; sine and cosine are rounded, so that their last digit does not matter."""
    s, c = round(math.sin(angle), 9), round(math.cos(angle), 9)
    x, y, z = (p - q for p, q in zip(point, centre, strict=True))
    u, v, w = axis
    along = (u * x + v * y + w * z) * (1.0 - c)
    return (
        centre[0] + x * c + (v * z - w * y) * s + u * along,
        centre[1] + y * c + (w * x - u * z) * s + v * along,
        centre[2] + z * c + (u * y - v * x) * s + w * along,
    )

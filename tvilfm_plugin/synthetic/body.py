"""Bodies: the shape of one person's body, the surfaces that garments are copies of, and how both move with the bones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.synthetic.mesh import BONES, load_pack
from tvilfm_plugin.synthetic.people import Shape

_PARENTS: dict[str, str] = {
    "spine_01": "pelvis", "spine_02": "spine_01", "spine_03": "spine_02", "neck_01": "spine_03", "head": "neck_01",
    **{f"{bone}_{side}": f"{parent}_{side}" for side in "lr" for bone, parent in (
        ("upperarm", "clavicle"), ("lowerarm", "upperarm"), ("hand", "lowerarm"),
        ("calf", "thigh"), ("foot", "calf"), ("ball", "foot"))},
    **{f"clavicle_{side}": "spine_03" for side in "lr"},
    **{f"thigh_{side}": "pelvis" for side in "lr"},
}  # fmt: skip

HIP, KNEE, ANKLE = 0.49, -3.69, -7.45
"""Heights of the leg's joints in the base mesh."""


@dataclass(frozen=True)
class Pose:
    """How a person stands or walks in one picture, and where in it. Angles in radians.

    Attributes:
        back: seen from behind. turn: -1 and 1 are three-quarter views; `yaw` is the whole turn about the vertical.
        arms, elbows: how far each arm stands off the body and is bent (left, right of the person).
        step: length of the step, 0 stands still. phase: of the walk.
        height, top, centre: of the figure in the frame, in heights and widths of it.
    """

    back: bool
    turn: int
    yaw: float
    arms: tuple[float, float]
    elbows: tuple[float, float]
    step: float
    phase: float
    height: float
    centre: float
    top: float


class Surface(NamedTuple):
    """One part of the mesh and its neighbourhoods, the same for everybody. V vertices, T triangles.

    Attributes:
        place: (V, 3) in the base mesh. arm: (V,), 0 shoulder, 1 elbow, 2 wrist. leg: (V,), 0 hip, 1 knee, 2 ankle, -1 on arms.
        around: neighbours (V, K), V where there are fewer; share: (V, 1) one over their number.
        fans: triangles at each vertex (V, F), T where there are fewer. rim: (V,) on an open border.
    """

    place: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    triangles: np.ndarray
    around: np.ndarray
    share: np.ndarray
    fans: np.ndarray
    rim: np.ndarray
    bones: np.ndarray
    weights: np.ndarray


class Body(NamedTuple):
    """One person's body: points of every group by name, (V, 3), and joints (22, 3)."""

    points: dict[str, np.ndarray]
    joints: np.ndarray


@cache
def surfaces() -> dict[str, Surface]:
    """The parts of the mesh by name."""
    pack = load_pack()
    found = {}
    for group, rows in pack.vertices.items():
        place, triangles = pack.base[rows], pack.triangles[group]
        arm, leg = _along_limbs(place, pack.bones[rows], pack.weights[rows])
        around, fans, rim = _neighbourhoods(len(place), triangles)
        share = np.float32(1.0) / np.maximum((around < len(place)).sum(axis=1), 1).astype(np.float32)[:, None]
        found[group] = Surface(place, arm, leg, triangles, around, share, fans, rim, pack.bones[rows], pack.weights[rows])
    # Hems and stripes are drawn where these coordinates say: a bumpy one would make them zigzag.
    tights = found["tights"]
    smooth = np.stack([tights.arm, tights.leg], axis=1)
    for _ in range(8):
        smooth = relax(tights, smooth, np.where(tights.rim, 0.0, 0.5).astype(np.float32)[:, None])
    found["tights"] = tights._replace(arm=smooth[:, 0], leg=smooth[:, 1])
    return found


def _along_limbs(place: np.ndarray, bones: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    joints = load_pack().joints
    arm, arm_weight = np.zeros(len(place), np.float32), np.zeros(len(place), np.float32)
    for side in "lr":
        s, e, h = (joints[BONES.index(f"{bone}_{side}")] for bone in ("upperarm", "lowerarm", "hand"))
        own = np.zeros(len(place), np.float32)
        for bone in ("upperarm", "lowerarm", "hand"):
            for k in range(4):
                own += np.where(bones[:, k] == BONES.index(f"{bone}_{side}"), weights[:, k], np.float32(0.0))
        arm_weight += own
        mine = place[:, 0] * s[0] > 0
        along = np.clip(_project(place, s, e), 0.0, 1.0) + np.clip(_project(place, e, h), 0.0, 2.0)
        arm = np.where(mine, np.where(own < 0.25, np.minimum(along, np.float32(0.03)), along), arm).astype(np.float32)
    y = place[:, 1]
    leg = np.where(y > KNEE, (HIP - y) / (HIP - KNEE), 1.0 + (KNEE - y) / (KNEE - ANKLE))
    return arm, np.where((arm_weight > 0.5) & (y < 4.6), -1.0, leg).astype(np.float32)


def _project(place: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of the way from a to b."""
    x, y, z = (b - a).tolist()
    scale = 1.0 / (x * x + y * y + z * z)
    dot = (place[:, 0] - a[0]) * np.float32(x) + (place[:, 1] - a[1]) * np.float32(y) + (place[:, 2] - a[2]) * np.float32(z)
    return dot * np.float32(scale)


def _neighbourhoods(count: int, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    around: list[set[int]] = [set() for _ in range(count)]
    fans: list[list[int]] = [[] for _ in range(count)]
    owners: dict[tuple[int, int], int] = {}
    for n, corners in enumerate(triangles.tolist()):
        for k in range(3):
            a, b = corners[k], corners[(k + 1) % 3]
            around[a].add(b)
            around[b].add(a)
            fans[a].append(n)
            owners[min(a, b), max(a, b)] = owners.get((min(a, b), max(a, b)), 0) + 1
    rim = np.zeros(count, bool)
    rim[[v for edge, number in owners.items() if number == 1 for v in edge]] = True
    return _padded([sorted(a) for a in around], count), _padded(fans, len(triangles)), rim


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    table = np.full((len(rows), max(map(len, rows))), fill, np.intp)
    for n, row in enumerate(rows):
        table[n, : len(row)] = row
    return table


def relax(surface: Surface, values: np.ndarray, amount: np.ndarray | np.float32) -> np.ndarray:
    """Move values (V, C) towards the mean of their neighbours by `amount` (V, 1)."""
    padded = np.concatenate([values, np.zeros((1, values.shape[1]), values.dtype)])
    total = padded[surface.around[:, 0]]
    for k in range(1, surface.around.shape[1]):
        total = total + padded[surface.around[:, k]]
    return values + amount * (total * surface.share - values)


def normals(surface: Surface, points: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, from the triangles around each vertex by their area."""
    a, b, c = (points[surface.triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    faces = np.zeros((len(u) + 1, 3), np.float32)
    faces[:-1, 0] = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
    faces[:-1, 1] = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
    faces[:-1, 2] = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    total = faces[surface.fans[:, 0]]
    for k in range(1, surface.fans.shape[1]):
        total = total + faces[surface.fans[:, k]]
    return unit(total)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of (N, 3) at length 1."""
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return vectors / np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1e-9))[:, None]


# --- one person's body ------------------------------------------------------------------------------------------------

_BUILDS: dict[str, dict[str, float]] = {"slim": {"thin": 1.3}, "average": {}, "broad": {"heavy": 2.1, "strong": 0.9}}


def build_body(shape: Shape) -> Body:
    """The body of a shape: sex, build and length of the legs as it says; the face is drawn beside them, from the shape too.

    The face neither follows the skin nor decides the build: people who share a shape share it whatever their colours, so an
    infrared picture cannot tell them apart.
    """
    pack = load_pack()
    sex = "male" if shape.gender == "man" else "female"
    rng = random.Random(f"face/{astuple(shape)}")
    parts = [rng.random() ** 2 + 0.02 for _ in "abc"]
    age = rng.uniform(0.3, 0.8) if rng.random() < 0.2 else 0.0
    mix = {f"{sex} face {face}": (1.0 - age) * part / sum(parts) for face, part in zip("abc", parts, strict=True)}
    mix[f"{sex} old"] = age
    for target, weight in _BUILDS[shape.build].items():
        mix[f"{sex} {target}"] = weight
    for bone in ("upper", "lower"):
        mix[f"{shape.legs} {bone} legs"] = 0.55
    points = np.concatenate([pack.base, pack.joints])
    for target, weight in mix.items():
        if weight:
            points = points + np.float32(round(weight, 6)) * pack.targets[target]
    return Body({group: points[rows] for group, rows in pack.vertices.items()}, points[len(pack.base) :])


# --- movement ---------------------------------------------------------------------------------------------------------


def _turn(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """(3, 3) rotation about a unit axis; rounded, so that the last digit of the machine's sine does not matter."""
    s, c = round(math.sin(angle), 9), round(math.cos(angle), 9)
    x, y, z = axis
    t = 1.0 - c
    return np.array(
        [
            [t * x * x + c, t * x * y - s * z, t * x * z + s * y],
            [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
            [t * x * z - s * y, t * y * z + s * x, t * z * z + c],
        ]
    )


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of a (3, 3) with (3,) or (3, 3), written out: BLAS rounds differently from machine to machine."""
    if b.ndim == 1:
        return a[:, 0] * b[0] + a[:, 1] * b[1] + a[:, 2] * b[2]
    return a[:, 0:1] * b[0:1] + a[:, 1:2] * b[1:2] + a[:, 2:3] * b[2:3]


_KEEPS_OFF = {
    "coat": 0.1,
    "parka": 0.16,
    "long jumper": 0.1,
    "tunic tee": 0.08,
    "bomber": 0.06,
    "baggy shorts": 0.06,
    "wide skirt": 0.06,
}
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _local_turns(pose: Pose, shape: Shape, joints: np.ndarray) -> dict[str, np.ndarray]:
    turns: dict[str, np.ndarray] = {}
    s = pose.step
    swing = {}
    for side, sign in (("l", 1.0), ("r", -1.0)):
        phase = pose.phase + (0.0 if side == "l" else math.pi)
        thigh = s * math.sin(phase) + 0.1 * s
        forward = max(0.0, math.cos(phase))
        knee = 0.06 + 1.5 * s * forward * math.sqrt(forward) + 0.35 * s * max(0.0, -math.sin(phase))
        push = 0.35 if thigh < -0.5 * s else 0.8
        swing[side] = thigh
        # Feet stand closer than in the mesh, where the legs are spread.
        turns[f"thigh_{side}"] = _times(_turn(_X, -thigh), _turn(_Z, -sign * 0.1))
        turns[f"calf_{side}"] = _turn(_X, knee)
        turns[f"foot_{side}"] = _times(_turn(_X, push * (thigh - knee)), _turn(_Z, sign * 0.07))
    # Arms hang beside what the hips wear.
    broad = (0.16 if shape.build == "broad" else 0.0) + _KEEPS_OFF.get(shape.upper, 0.0) + _KEEPS_OFF.get(shape.lower, 0.0)
    for n, (side, sign) in enumerate((("l", 1.0), ("r", -1.0))):
        shoulder, elbow, hand = (joints[BONES.index(f"{bone}_{side}")] for bone in ("upperarm", "lowerarm", "hand"))
        hanging = math.atan2(abs(float(elbow[0] - shoulder[0])), abs(float(elbow[1] - shoulder[1])))
        down = hanging - (0.5 * pose.arms[n] + broad + 0.06)
        other = swing["r" if side == "l" else "l"]
        turns[f"clavicle_{side}"] = _turn(_Z, -sign * 0.06)
        turns[f"upperarm_{side}"] = _times(_turn(_X, -0.85 * other), _turn(_Z, -sign * down))
        upper, fore = (elbow - shoulder).astype(float), (hand - elbow).astype(float)
        axis = np.cross(upper, fore)
        axis = axis / math.sqrt(float(axis[0] ** 2 + axis[1] ** 2 + axis[2] ** 2))
        dot = float(upper[0] * fore[0] + upper[1] * fore[1] + upper[2] * fore[2])
        norm = math.sqrt(
            float(upper[0] ** 2 + upper[1] ** 2 + upper[2] ** 2) * float(fore[0] ** 2 + fore[1] ** 2 + fore[2] ** 2)
        )
        rest = math.acos(max(-1.0, min(1.0, dot / norm)))
        bend = 0.15 + pose.elbows[n] + 0.5 * s * max(0.0, math.sin(pose.phase + (math.pi if side == "l" else 0.0)))
        turns[f"lowerarm_{side}"] = _turn((float(axis[0]), float(axis[1]), float(axis[2])), bend - rest)
    twist = 0.35 * s * math.sin(pose.phase)
    turns["pelvis"] = _turn(_Y, -twist)
    turns["spine_02"] = _turn(_Y, 2.2 * twist)
    turns["neck_01"] = _turn(_Y, -1.2 * twist)
    turns["spine_01"] = _turn(_X, 0.06 * s)
    return turns


def pose_bones(pose: Pose, shape: Shape, joints: np.ndarray) -> np.ndarray:
    """(24, 3, 4) float32: how each bone moves a point of the resting body.

    Row 22 moves as the left hand does without turning, row 23 as the right one: what hangs from a hand stays upright.
    """
    turns = _local_turns(pose, shape, joints)
    spots = joints.astype(float)
    whole: dict[str, np.ndarray] = {}
    moved: dict[str, np.ndarray] = {}
    out = np.zeros((len(BONES) + 2, 3, 4), np.float32)
    for n, bone in enumerate(BONES):
        parent = _PARENTS.get(bone)
        if parent is None:
            whole[bone], moved[bone] = turns.get(bone, np.eye(3)), spots[n]
        else:
            local = turns.get(bone)
            whole[bone] = whole[parent] if local is None else _times(whole[parent], local)
            moved[bone] = moved[parent] + _times(whole[parent], spots[n] - spots[BONES.index(parent)])
        out[n, :, :3] = whole[bone]
        out[n, :, 3] = moved[bone] - _times(whole[bone], spots[n])
    for n, side in enumerate("lr"):
        hand = f"hand_{side}"
        out[len(BONES) + n, :, :3] = whole["pelvis"]
        out[len(BONES) + n, :, 3] = moved[hand] - _times(whole["pelvis"], spots[BONES.index(hand)])
    return out


def skin_vertices(
    points: np.ndarray, directions: np.ndarray, bones: np.ndarray, weights: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning of positions (V, 3) and normals (V, 3); four bones a vertex."""
    flat = moves.reshape(len(moves), 12)
    blend = weights[:, 0:1] * flat[bones[:, 0]]
    for k in range(1, 4):
        blend = blend + weights[:, k : k + 1] * flat[bones[:, k]]
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    u, v, w = directions[:, 0], directions[:, 1], directions[:, 2]
    placed, turned = np.empty_like(points), np.empty_like(points)
    for row in range(3):
        a, b, c, d = (blend[:, 4 * row + k] for k in range(4))
        placed[:, row] = a * x + b * y + c * z + d
        turned[:, row] = a * u + b * v + c * w
    return placed, unit(turned)

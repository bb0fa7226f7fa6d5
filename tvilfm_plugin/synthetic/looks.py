"""What is special to one image: how the person walks, where the camera stands, the light and what it falsifies.

`draw_look` decides it; `rendering.Studio` makes the pixels of it and says what they show, `captioning` words that.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from tvilfm_plugin.synthetic.body import Pose
from tvilfm_plugin.synthetic.people import LOOKS_LIKE, Person
from tvilfm_plugin.synthetic.scenery import Occluder, draw_occluder

_LIGHTS = (
    # gains of red, green, blue; which colours such a light falsifies
    ("warm", (1.10, 0.98, 0.80)),
    ("cool", (0.88, 0.99, 1.12)),
    ("green", (0.94, 1.05, 0.92)),
    ("dim", (0.70, 0.68, 0.70)),
    ("bright", (1.14, 1.12, 1.10)),
)
_FAVOURED = {
    "warm": ("orange", "yellow", "brown", "red"),
    "cool": ("blue", "purple", "grey"),
    "green": ("green", "yellow", "brown"),
    "dim": ("black", "brown", "blue", "grey"),
    "bright": ("white", "yellow", "pink"),
}
_BAD_LIGHT = 0.2  # share of the images whose light falsifies colours
_OCCLUDED = 0.06  # share of the images with something in front of the person


@dataclass(frozen=True)
class Camera:
    """One camera of the benchmark. It sees `places` surroundings in turn; its number picks the kind of light."""

    number: int
    infrared: bool
    places: int = 1


@dataclass(frozen=True)
class Look:
    """What is special to one image.

    Attributes:
        sun: azimuth (0: behind the camera) and elevation of the light, radians; brightness: of it.
        nearer: factor of the camera's distance. shift: where along the place the person stands, dm.
        seen: slot -> the colour that it appears to have, for the slots whose colour this image's light falsifies.
        hidden: attributes that cannot be seen in this image: what the view is bound to hide, until the picture has been taken
            (`Studio.take`) and its pixels are counted.
    """

    camera: Camera
    pose: Pose
    light: str
    gain: tuple[float, float, float]
    place: int
    sun: tuple[float, float]
    brightness: float
    nearer: float
    shift: tuple[float, float]
    blur: float
    noise: float
    grain: tuple[int, int]
    occluder: Occluder | None = None
    seen: dict[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()


def draw_look(person: Person, camera: Camera, rng: random.Random, wrong: float) -> Look:
    """Draw how one camera sees one person once.

    Args:
        wrong: probability that the light falsifies the colour of a garment, shoes, bag or hair (visible cameras).
    """
    pose = _draw_pose(rng)
    light, base = _LIGHTS[camera.number % len(_LIGHTS)] if rng.random() < 0.7 else rng.choice(_LIGHTS)
    # Errors come together: most images are lit well, and in a badly lit one several colours look like others.
    in_bad_light = min(0.9, wrong / _BAD_LIGHT)
    bad = rng.random() < (wrong / in_bad_light if wrong else 0.0)
    level, tint = rng.uniform(0.86, 1.12), 1.0 if bad else 0.5
    gain = tuple(level * (1.0 - tint + tint * g) * rng.uniform(0.97, 1.03) for g in base)
    seen = {}
    if not camera.infrared:
        for slot in ("upper", "lower", "shoes", "bag", "hair"):
            # The die is cast for every slot, so that a person without a bag draws the same image otherwise.
            falsified = rng.random() < in_bad_light and bad
            name = getattr(person.palette, slot)
            options = LOOKS_LIKE[name]
            weights = [3.0 if option in _FAVOURED[light] else 1.0 for option in options]
            other = rng.choices(options, weights)[0]
            if falsified:
                seen[slot] = other
    occluder = draw_occluder(rng)
    return Look(
        camera=camera,
        pose=pose,
        light=light,
        gain=(gain[0], gain[1], gain[2]),
        place=rng.randrange(camera.places),
        sun=(rng.uniform(-2.2, 2.2), rng.uniform(0.5, 1.0)),
        brightness=rng.uniform(0.65, 1.0),
        nearer=rng.uniform(0.85, 1.2),
        shift=(rng.uniform(-60.0, 60.0), rng.uniform(-60.0, 60.0)),
        blur=rng.uniform(0.0, 0.75) if camera.infrared else rng.uniform(0.0, 0.5),
        noise=rng.uniform(0.012, 0.038) if camera.infrared else rng.uniform(0.008, 0.022),
        grain=(rng.randrange(240), rng.randrange(240)),
        occluder=occluder if rng.random() < _OCCLUDED else None,
        seen=seen,
        hidden=_bound_to_hide(person, pose),
    )


def _bound_to_hide(person: Person, pose: Pose) -> frozenset[str]:
    """What cannot be seen from there: a bag on the far side, a print from behind, shoes below the frame."""
    hidden = set()
    # The person's left hand is to the viewer's right in front; a turn by `turn` brings that side nearer or farther.
    side = person.bag_side * pose.turn * (-1 if pose.back else 1)
    if person.shape.bag and (side > 0 if person.shape.bag != "backpack" else not pose.back and not pose.turn):
        hidden.add("bag")
    if person.shape.pattern in ("disc", "box", "cross") and pose.back:
        hidden.add("pattern")
    if pose.height > 1.0:
        hidden.add("shoes")
    return frozenset(hidden)


def _draw_pose(rng: random.Random) -> Pose:
    if rng.random() < 0.12:  # the frame cuts the feet off
        height = rng.uniform(1.08, 1.15)
        top = rng.uniform(0.01, 0.03)
    else:
        height = rng.uniform(0.82, 0.92)
        top = rng.uniform(0.02, 0.985 - height)
    back, turn = rng.random() < 0.45, rng.choice((-1, 0, 0, 1))
    yaw = (math.pi if back else 0.0) + math.radians(43.0 * turn + rng.uniform(-13.0, 13.0))
    arms = [rng.uniform(0.08, 0.42), rng.uniform(0.08, 0.42)]
    elbows = [rng.uniform(0.0, 0.45), rng.uniform(0.0, 0.45)]
    if rng.random() < 0.12:
        side = rng.randrange(2)
        arms[side], elbows[side] = 0.55, rng.uniform(1.2, 1.6)
    step = rng.uniform(0.24, 0.44) if rng.random() < 0.7 else rng.uniform(0.0, 0.06)
    return Pose(
        back=back,
        turn=turn,
        yaw=yaw,
        arms=(arms[0], arms[1]),
        elbows=(elbows[0], elbows[1]),
        step=step,
        phase=rng.uniform(0.0, 2.0 * math.pi),
        height=height,
        centre=0.5 + rng.uniform(-0.05, 0.05),
        top=top,
    )

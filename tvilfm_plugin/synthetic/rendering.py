"""Photograph a person of the synthetic benchmark: with a visible camera or with an infrared one.

`draw_look` decides everything that is special to one image (pose, light, which colours that light falsifies, whether the frame
cuts the feet off). `Studio.photograph` makes the pixels of it and `captioning` the words, so a caption errs where its own image
misleads.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tvilfm_plugin.synthetic.figure import Part, Pose, bag_is_hidden, draw_parts
from tvilfm_plugin.synthetic.people import CLOTHES_COLOURS, HAIR_COLOURS, LOOKS_LIKE, SKIN_TONES, Palette, Person

_SLOTS = tuple(f.name for f in fields(Palette) if f.name != "shades")
_SLOT_OF_PART = {
    Part.SKIN: "skin",
    Part.ARM: "skin",
    Part.FACE: "skin",
    Part.HAIR: "hair",
    Part.UPPER: "upper",
    Part.SLEEVE: "upper",
    Part.FOLD: "upper",
    Part.SECOND: "second",
    Part.SECOND_SLEEVE: "second",
    Part.LEFT_LEG: "lower",
    Part.RIGHT_LEG: "lower",
    Part.TRIM: "trim",
    Part.SHOES: "shoes",
    Part.BAG: "bag",
    Part.STRAP: "bag",
}
_DARKER = {Part.FOLD: 0.8, Part.STRAP: 0.72, Part.RIGHT_LEG: 0.94}
_RELIEF = {
    # How far each part stands out; steps between neighbours become the edges that separate an arm from the body behind it.
    Part.LEFT_LEG: 120,
    Part.RIGHT_LEG: 138,
    Part.TRIM: 130,
    Part.SLEEVE: 185,
    Part.SECOND_SLEEVE: 185,
    Part.ARM: 180,
    Part.BAG: 215,
    Part.STRAP: 190,
    Part.FACE: 170,
    Part.HAIR: 195,
    Part.FEATURES: 150,
}
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
_ABOVE_HEAD = {"bun": 0.066, "beanie": 0.046, "quiff": 0.056, "brimmed hat": 0.046, "curls": 0.052}
_SCENE_WIDTHS = 5
_BAD_LIGHT = 0.2  # share of the images whose light falsifies colours


@dataclass(frozen=True)
class Camera:
    """One camera of the benchmark. `places` backgrounds are used in turn; `light` is an index into the kinds of light."""

    number: int
    infrared: bool
    places: int = 1


@dataclass(frozen=True)
class Look:
    """What is special to one image.

    Attributes:
        seen: slot -> the colour that it appears to have, for the slots whose colour this image's light falsifies.
        hidden: attributes that cannot be seen in this image: "bag", "pattern" or "shoes".
    """

    camera: Camera
    pose: Pose
    light: str
    gain: tuple[float, float, float]
    place: int
    offset: float
    blur: float
    noise: float
    grain: tuple[int, int]
    side: int
    seen: dict[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()


def draw_look(person: Person, camera: Camera, rng: random.Random, wrong: float) -> Look:
    """Draw how one camera sees one person once.

    Args:
        wrong: probability that the light falsifies the colour of a garment, shoes, bag or hair (visible cameras).
    """
    feet_cut = rng.random() < 0.12
    # What stands above the head is in the frame too.
    above = _ABOVE_HEAD.get(person.shape.hair, 0.01)
    if feet_cut:
        # From 0.91 on down there is nothing but shoes: the frame ends there, or higher.
        height = max(rng.uniform(1.02, 1.08), 1.0 / (0.91 + above))
        top = above * height
    else:
        height = rng.uniform(0.82, 0.92)
        top = rng.uniform(above * height, max(above * height, 0.985 - height))
    pose = Pose(
        back=rng.random() < 0.45,
        turn=rng.choice((-1, 0, 0, 1)),
        arms=(rng.uniform(0.08, 0.42), rng.uniform(0.08, 0.42)),
        elbows=(rng.uniform(0.0, 0.45), rng.uniform(0.0, 0.45)),
        stance=rng.uniform(0.0, 0.035),
        stride=rng.uniform(-0.075, 0.075),
        height=height,
        centre=0.5 + rng.uniform(-0.05, 0.05),
        top=top,
    )
    if rng.random() < 0.12:
        side = rng.randrange(2)
        pose = Pose(**{**vars(pose), "arms": _replace(pose.arms, side, 0.75), "elbows": _replace(pose.elbows, side, 1.5)})
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
    hidden = set()
    if person.shape.bag and bag_is_hidden(person, pose):
        hidden.add("bag")
    if person.shape.pattern in ("disc", "box", "cross") and pose.back:
        hidden.add("pattern")
    if feet_cut:
        hidden.add("shoes")
    return Look(
        camera=camera,
        pose=pose,
        light=light,
        gain=(gain[0], gain[1], gain[2]),
        place=rng.randrange(camera.places),
        offset=rng.random(),
        blur=rng.uniform(0.0, 0.9) if camera.infrared else rng.uniform(0.0, 0.5),
        noise=rng.uniform(0.015, 0.05) if camera.infrared else rng.uniform(0.008, 0.022),
        grain=(rng.randrange(240), rng.randrange(240)),
        side=-1 if camera.number % 2 else 1,
        seen=seen,
        hidden=frozenset(hidden),
    )


def _replace(pair: tuple[float, float], n: int, value: float) -> tuple[float, float]:
    return (value, pair[1]) if n == 0 else (pair[0], value)


class Studio:
    """Turns looks into pixels; keeps the backgrounds and the grain of one benchmark.

    Args:
        height: height of an image; the width is half of it.
        seed: of backgrounds and grain.
    """

    def __init__(self, height: int, seed: int) -> None:
        if height < 32 or height % 2:
            raise ValueError(f"Image height {height}: give an even number of at least 32; the width is half of it.")
        self.height, self.width, self.seed = height, height // 2, seed
        # Drawn larger than written: reducing by a whole factor is what smooths the edges.
        self._factor = max(1, round(288 / height))
        rng = np.random.default_rng([seed, 11])
        side = max(height, self.width * 2) + 256
        self._grain = rng.standard_normal((side, side)).astype(np.float32)
        coarse = Image.fromarray((rng.random((side // 8, side // 8)) * 255).astype(np.uint8))
        self._cloth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1.0
        self._scenes: dict[tuple[int, bool, int], np.ndarray] = {}

    def photograph(self, person: Person, look: Look) -> np.ndarray:
        """Take the picture.

        Returns:
            (H, W, 3) uint8 of a visible camera, (H, W) uint8 of an infrared one.
        """
        k = self._factor
        parts = draw_parts(person, look.pose, self.width * k, self.height * k)
        if look.camera.infrared:
            return self._infrared(parts, person, look)
        return self._visible(parts, person, look)

    def _visible(self, parts: np.ndarray, person: Person, look: Look) -> np.ndarray:
        # A fourth channel of ones inside the figure averages to its coverage of each pixel.
        planes = Image.fromarray(_colours(person, look)[parts], "RGBX").reduce(self._factor)
        pixels = np.asarray(planes, np.float32)
        cover = pixels[..., 3:] / 255.0
        scene = self._scene(look)
        shade = self._shade(parts, look)
        image = pixels[..., :3] * shade[..., None] + scene * (1.0 - cover) * self._shadow(look)[..., None]
        image *= np.asarray(look.gain, np.float32)
        image = self._soften(image, look.blur)
        a, b = look.grain
        grain = np.stack([self._grain[a + n : a + n + self.height, b : b + self.width] for n in (0, 3, 7)], axis=-1)
        return np.clip(image + 255.0 * look.noise * grain, 0, 255).astype(np.uint8)

    def _infrared(self, parts: np.ndarray, person: Person, look: Look) -> np.ndarray:
        planes = Image.fromarray(_reflectances(person)[parts], "RGB").reduce(self._factor)
        pixels = np.asarray(planes, np.float32)
        cover = pixels[..., 1] / 255.0
        image = pixels[..., 0] * self._shade(parts, look) + self._scene(look)[..., 0] * (1.0 - cover)
        # The lamp beside the lens: bright where it points, dark towards the corners.
        rows = np.linspace(-1, 1, self.height, dtype=np.float32)[:, None] - 0.5 * (look.offset - 0.5)
        columns = np.linspace(-1, 1, self.width, dtype=np.float32)[None, :] + 0.4 * (look.offset - 0.5)
        image *= (1.06 - 0.28 * (rows**2 + columns**2)) * (0.7 + 0.5 * sum(look.gain) / 3.0)
        small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        glow = np.asarray(small.filter(ImageFilter.BoxBlur(self.height / 22.0)), np.float32)
        image = self._soften(0.86 * image + 0.22 * glow, look.blur)
        a, b = look.grain
        image += 255.0 * look.noise * self._grain[a : a + self.height, b : b + self.width]
        return np.clip(image + 8.0, 0, 255).astype(np.uint8)

    def _shade(self, parts: np.ndarray, look: Look) -> np.ndarray:
        """(H, W) factor: rounded bodies, an edge where one part stands out from another, creased cloth."""
        relief = Image.fromarray(_RELIEF_TABLE[parts]).reduce(self._factor)
        near = np.asarray(relief.filter(ImageFilter.BoxBlur(self.height / 110.0)), np.float32)
        wide = np.asarray(relief.filter(ImageFilter.BoxBlur(self.height / 48.0)), np.float32)
        slope = np.zeros_like(near)
        slope[:, 1:-1] = near[:, 2:] - near[:, :-2]
        slope[1:-1] += 0.6 * (near[2:] - near[:-2])
        a, b = look.grain
        cloth = self._cloth[b : b + self.height, a : a + self.width]
        shade = 0.62 + 0.38 * np.minimum(wide / 128.0, 1.0) + look.side * 0.0014 * slope + 0.06 * cloth
        return np.clip(shade, 0.4, 1.3)

    def _shadow(self, look: Look) -> np.ndarray:
        """(H, W) factor that darkens the ground at the feet."""
        pose = look.pose
        rows = (np.arange(self.height, dtype=np.float32) / self.height - pose.top - 0.985 * pose.height)[:, None] / 0.03
        columns = (np.arange(self.width, dtype=np.float32) / self.width - pose.centre - 0.06 * look.side)[None, :] / 0.3
        return 1.0 - 0.4 * np.exp(-(rows**2) - columns**2)

    def _soften(self, image: np.ndarray, radius: float) -> np.ndarray:
        radius *= self.height / 144.0
        if radius < 0.15:
            return image
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        return np.asarray(picture.filter(ImageFilter.BoxBlur(radius)), np.float32)

    def _scene(self, look: Look) -> np.ndarray:
        """(H, W, 3) float32: the stretch of this camera's surroundings that is behind the person."""
        key = (look.camera.number, look.camera.infrared, look.place)
        if key not in self._scenes:
            rng = random.Random(f"scene/{self.seed}/{key}")
            self._scenes[key] = _draw_scene(rng, sum(key), self.height, self.width * _SCENE_WIDTHS, look.camera.infrared)
        scene = self._scenes[key]
        left = int(look.offset * (scene.shape[1] - self.width))
        return scene[:, left : left + self.width]


def _table(values: dict[Part, int]) -> np.ndarray:
    table = np.full(len(Part), 150, np.uint8)
    table[Part.BACKGROUND] = 0
    for part, value in values.items():
        table[part] = value
    return table


_RELIEF_TABLE = _table(_RELIEF)


def _colours(person: Person, look: Look) -> np.ndarray:
    """(parts, 4) uint8: the colour of each part in this image, and 255 (0 for the background)."""
    table = np.zeros((len(Part), 4), np.float32)
    table[1:, 3] = 255
    table[Part.FEATURES, :3] = (38, 28, 28)
    for part, slot in _SLOT_OF_PART.items():
        n = _SLOTS.index(slot)
        colour = np.asarray(_rgb(slot, getattr(person.palette, slot)), np.float32)
        shade = np.asarray(person.palette.shades[n], np.float32)
        colour = colour * (1.0 + shade) + 12.0 * shade
        if slot in look.seen:
            colour = 0.1 * colour + 0.9 * np.asarray(_rgb(slot, look.seen[slot]), np.float32)
        table[part, :3] = colour * _DARKER.get(part, 1.0)
    return np.clip(table, 0, 255).astype(np.uint8)


def _rgb(slot: str, name: str) -> tuple[int, int, int]:
    if slot == "skin":
        return SKIN_TONES[name]
    return HAIR_COLOURS.get(name, CLOTHES_COLOURS.get(name, (0, 0, 0))) if slot == "hair" else CLOTHES_COLOURS[name]


def _reflectances(person: Person) -> np.ndarray:
    """(parts, 3) uint8: reflectance of each part, 255 inside the figure, unused."""
    table = np.zeros((len(Part), 3), np.float32)
    table[1:, 1] = 255
    table[Part.FEATURES, 0] = 50
    for part, slot in _SLOT_OF_PART.items():
        table[part, 0] = 225.0 * getattr(person.material, slot) * _DARKER.get(part, 1.0)
    return np.clip(table, 0, 255).astype(np.uint8)


def _draw_scene(rng: random.Random, number: int, height: int, width: int, infrared: bool) -> np.ndarray:
    """A strip of surroundings, (height, width, 3) float32: wall or trees, ground, things that stand about."""

    def tone(low: int, high: int, spread: int = 24) -> tuple[int, int, int]:
        level = rng.randint(low, high)
        colour = tuple(max(0, min(255, level + rng.randint(-spread, spread))) for _ in "rgb")
        return colour[0], colour[1], colour[2]

    def vary(colour: tuple[int, int, int], by: float) -> tuple[int, int, int]:
        return int(colour[0] * by), int(colour[1] * by), int(colour[2] * by)

    x: float
    y: float
    wall, ground = tone(105, 190), tone(70, 150)
    image = Image.new("RGB", (width, height), wall)
    draw = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.58, 0.8))
    style = ("bricks", "windows", "trees", "panels")[number % 4]
    step = max(3, height // 14)
    if style == "bricks":
        for row, y in enumerate(range(0, horizon, step)):
            for x in range(-(row % 2) * step, width, 2 * step):
                draw.rectangle((x, y, x + 2 * step - 2, y + step - 2), fill=vary(wall, rng.uniform(0.86, 1.05)))
    elif style == "panels":
        for x in range(0, width, 4 * step):
            draw.rectangle((x, 0, x + 4 * step - 2, horizon), fill=vary(wall, rng.uniform(0.82, 1.08)))
    elif style == "windows":
        for x in range(step, width, 6 * step):
            glass = tone(120, 210, 14)
            draw.rectangle((x, height // 10, x + 4 * step, int(horizon * 0.62)), fill=glass, outline=vary(wall, 0.6))
            draw.line((x + 2 * step, height // 10, x + 2 * step, int(horizon * 0.62)), fill=vary(wall, 0.6))
    else:
        for _ in range(width // (2 * step)):
            x, y, r = rng.randrange(width), rng.uniform(0, 0.75) * horizon, rng.uniform(1.2, 3.0) * step
            draw.ellipse((x - r, y - r, x + r, y + r), fill=vary((88, 122, 78), rng.uniform(0.65, 1.15)))
    draw.rectangle((0, horizon, width, height), fill=ground)
    for n in range(6):
        row = horizon + int((height - horizon) * (n / 6) ** 1.6)
        draw.line((0, row, width, row), fill=vary(ground, rng.uniform(0.85, 1.1)), width=1)
    for _ in range(5):
        left, thick = rng.randrange(width), rng.randint(2, max(2, height // 24))
        draw.rectangle((left, 0, left + thick, horizon + step), fill=vary(tone(60, 130), 0.8))
    image = image.filter(ImageFilter.GaussianBlur(height / 180.0))
    pixels = np.asarray(image, np.float32)
    light = 1.0 + 0.22 * np.sin(np.linspace(0, 4 * np.pi, width, dtype=np.float32) + rng.uniform(0, 6))
    pixels = pixels * light[None, :, None]
    if infrared:
        grey = pixels.mean(axis=2, keepdims=True)
        return np.repeat(grey * rng.uniform(0.18, 0.34), 3, axis=2)
    return pixels * rng.uniform(0.75, 1.0)

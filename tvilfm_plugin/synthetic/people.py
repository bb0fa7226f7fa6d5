"""People of the synthetic benchmark: what they look like, and how they are laid out on a grid.

A person is a *shape* (what infrared shows: build, cut and pattern of the garments, hair, bag) and a *palette* (what only a
visible image shows). People come in blocks of two or three shapes times two or three palettes: those who share a shape differ
in every colour, those who share a palette differ in every detail of the shape. Inside a block the shapes agree in the coarse
words that a caption uses ("a man in a striped jacket and pants") and differ in what it seldom says (stripes across or along,
slim or broad, hip or knee length). So infrared leaves two or three candidates, a caption leaves two or three, and the two
together leave one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields

VARIETIES: dict[str, dict[str, tuple[str, ...]]] = {
    "hair": {
        "short hair": ("crew cut", "quiff", "curls"),
        "long hair": ("loose hair", "ponytail", "bun", "pigtails"),
        "hat": ("cap", "beanie", "brimmed hat"),
    },
    "upper": {
        "t-shirt": ("tee", "tank top", "tunic tee"),
        "sweater": ("pullover", "hoodie", "long jumper"),
        "jacket": ("bomber", "parka", "coat"),
    },
    "pattern": {
        "plain": ("plain",),
        "striped": ("wide stripes", "thin stripes", "upright stripes", "slanted stripes"),
        "checked": ("tartan", "chequers", "windowpane"),
        "two-tone": ("chest band", "lower half", "side panels", "yoke"),
        "printed": ("disc", "box", "cross"),
    },
    "lower": {
        "pants": ("skinny pants", "flared pants", "cropped pants", "straight pants"),
        "shorts": ("hot pants", "bermudas", "baggy shorts"),
        "skirt": ("mini skirt", "pencil skirt", "wide skirt", "long skirt"),
    },
    "bag": {"": ("",), "bag": ("backpack", "shoulder bag", "handbag")},
}
"""Attribute -> the word a caption uses -> the varieties that it covers, which tell the shapes of a block apart."""

UNSAID: dict[str, tuple[str, ...]] = {
    "build": ("slim", "average", "broad"),
    "legs": ("short", "long"),
    "lower_pattern": ("plain", "side stripe", "hem band", "knee band"),
    "shoes": ("low", "boots", "sandals"),
}
"""Attribute of the shape that no caption mentions -> its values."""

CLOTHES_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (26, 26, 30),
    "white": (236, 236, 232),
    "grey": (132, 134, 138),
    "red": (196, 32, 38),
    "orange": (240, 130, 24),
    "yellow": (238, 214, 46),
    "green": (38, 134, 62),
    "blue": (34, 78, 186),
    "purple": (112, 46, 150),
    "pink": (240, 138, 176),
    "brown": (110, 70, 40),
}
HAIR_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (24, 22, 24),
    "brown": (98, 60, 34),
    "blonde": (224, 190, 108),
    "grey": (168, 168, 172),
}
SKIN_TONES: dict[str, tuple[int, int, int]] = {
    "pale": (240, 206, 182),
    "fair": (222, 176, 140),
    "tan": (176, 122, 84),
    "deep": (104, 66, 46),
}
LOOKS_LIKE: dict[str, tuple[str, ...]] = {
    "black": ("blue", "brown", "grey"),
    "white": ("grey", "yellow", "pink"),
    "grey": ("white", "blue", "black"),
    "red": ("orange", "pink", "brown"),
    "orange": ("red", "yellow", "brown"),
    "yellow": ("orange", "white", "green"),
    "green": ("blue", "yellow", "black"),
    "blue": ("purple", "black", "green"),
    "purple": ("pink", "blue", "black"),
    "pink": ("red", "purple", "white"),
    "brown": ("red", "black", "orange"),
    "blonde": ("brown", "grey"),
}
"""Colour -> the colours that bad light turns it into."""

_LONG_UPPERS = ("tunic tee", "long jumper", "coat")
_SHORT_LOWERS = ("hot pants", "mini skirt")
_DARK = ("black", "blue", "purple", "brown", "green", "red")
_LIGHT = ("white", "yellow", "pink", "orange")


@dataclass(frozen=True)
class Shape:
    """What infrared can show of a person. Values are those of `VARIETIES` and `UNSAID`."""

    gender: str
    build: str
    legs: str
    hair: str
    upper: str
    pattern: str
    lower: str
    lower_pattern: str
    shoes: str
    bag: str


@dataclass(frozen=True)
class Palette:
    """Colour names of a person, and the shade of each (relative change of red, green and blue, the same slots in order)."""

    upper: str
    second: str
    lower: str
    trim: str
    shoes: str
    bag: str
    hair: str
    skin: str
    shades: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Material:
    """Reflectance in infrared (0..1) of each slot, drawn per person without looking at the colours."""

    upper: float
    second: float
    lower: float
    trim: float
    shoes: float
    bag: float
    hair: float
    skin: float


@dataclass(frozen=True)
class Person:
    """One identity: a cell of the grid. `block` numbers the group of shapes x palettes that it belongs to."""

    shape: Shape
    palette: Palette
    material: Material
    bag_side: int
    block: int

    @property
    def looks(self) -> tuple[object, ...]:
        """What makes two people the same person: everything but the block's number and the infrared material."""
        return (*astuple(self.shape), *(getattr(self.palette, f.name) for f in fields(Palette) if f.name != "shades"))


def word_for(attribute: str, variety: str) -> str:
    """The coarse word that a caption uses for a variety, e.g. ("pattern", "tartan") -> "checked"."""
    return next(word for word, varieties in VARIETIES[attribute].items() if variety in varieties)


def block_sizes(count: int, rng: random.Random) -> list[tuple[int, int, int]]:
    """Split `count` people into blocks of (shapes, palettes, people).

    Every shape and every palette of a block has two or three people, as long as `count` can be so split (any count but
    1, 2, 3 and 5).
    """
    cells = {4: (2, 2), 6: (2, 3), 7: (3, 3), 8: (3, 3), 9: (3, 3)}
    splittable = [True, *([False] * count)]
    for n in range(1, count + 1):
        splittable[n] = any(n >= size and splittable[n - size] for size in cells)
    blocks = []
    while count:
        # 7 and 8 are full blocks with a corner missing: used only where the rest would not come out even.
        choices = [size for size in (4, 6, 6, 9, 9) if size <= count and splittable[count - size]]
        choices = choices or [size for size in (7, 8) if size <= count and splittable[count - size]] or [min(count, 9)]
        size = rng.choice(choices)
        shapes, palettes = cells.get(size, (2, 3) if size > 3 else (1, size))
        if size == 6 and rng.random() < 0.5:
            shapes, palettes = palettes, shapes
        blocks.append((shapes, palettes, size))
        count -= size
    return blocks


def draw_people(count: int, seed: int, *, avoid: Sequence[Person] = (), first_block: int = 0) -> list[Person]:
    """Draw `count` different people, block by block.

    Args:
        seed: the same seed gives the same people.
        avoid: people that must not be drawn again (another split, another benchmark).
        first_block: number of the first block.
    """
    rng = random.Random(f"people/{seed}/{count}")
    taken = {person.looks for person in avoid}
    coarse_taken: list[tuple[str, ...]] = []
    palettes_taken: set[tuple[str, str]] = set()
    people: list[Person] = []
    for number, (n_shapes, n_palettes, size) in enumerate(block_sizes(count, rng), first_block):
        for _ in range(1000):
            block = _draw_block(rng, n_shapes, n_palettes, size, number, coarse_taken, palettes_taken)
            looks = {person.looks for person in block}
            if len(looks) == len(block) and not looks & taken:
                break
        else:
            raise ValueError(f"Could not draw {count} different people: {len(taken)} are taken. Ask for fewer people.")
        taken |= looks
        people += block
    return people


def _draw_block(
    rng: random.Random,
    n_shapes: int,
    n_palettes: int,
    size: int,
    number: int,
    coarse_taken: list[tuple[str, ...]],
    palettes_taken: set[tuple[str, str]],
) -> list[Person]:
    coarse = max((_draw_coarse(rng) for _ in range(8)), key=lambda c: min((_differ(c, o) for o in coarse_taken), default=9))
    coarse_taken.append(coarse)
    shapes = _draw_shapes(rng, n_shapes, coarse)
    palettes = _draw_palettes(rng, n_palettes, hat=coarse[1] == "hat", taken=palettes_taken)
    # Cells of a block with missing corners go along the diagonal, so that no shape and no palette loses two people.
    cells = [(s, p) for s in range(n_shapes) for p in range(n_palettes)]
    for corner in range(len(cells) - size):
        cells.remove((corner % n_shapes, corner % n_palettes))
    sides = [rng.choice((-1, 1)) for _ in shapes]
    return [Person(shapes[s], palettes[p], _draw_material(rng), sides[s], number) for s, p in cells]


def _draw_coarse(rng: random.Random) -> tuple[str, ...]:
    gender = rng.choice(("man", "woman"))
    lower = rng.choice(("pants", "shorts", "skirt") if gender == "woman" else ("pants", "pants", "shorts"))
    pattern = rng.choice(("plain", "striped", "striped", "checked", "two-tone", "two-tone", "printed"))
    hair = rng.choice(
        ("short hair", "long hair", "hat") if gender == "man" else ("long hair", "long hair", "short hair", "hat")
    )
    return gender, hair, rng.choice(tuple(VARIETIES["upper"])), pattern, lower, rng.choice(("", "bag", "bag"))


def _differ(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def _draw_shapes(rng: random.Random, count: int, coarse: tuple[str, ...]) -> list[Shape]:
    gender, hair, upper, pattern, lower, bag = coarse

    def different(values: Sequence[str]) -> Iterator[str]:
        """A value per shape, no two equal while there are enough values."""
        pool: list[str] = []
        for _ in range(count):
            pool = pool or rng.sample(values, len(values))
            yield pool.pop()

    uppers, lowers = list(different(VARIETIES["upper"][upper])), list(different(VARIETIES["lower"][lower]))
    while any(u in _LONG_UPPERS and lo in _SHORT_LOWERS for u, lo in zip(uppers, lowers, strict=True)):
        # Nothing of the lower garment, and so of its colour, would be seen.
        lowers = list(different(VARIETIES["lower"][lower]))
    columns = [
        different(UNSAID["build"]),
        different(UNSAID["legs"]),
        different(VARIETIES["hair"][hair]),
        uppers,
        different(VARIETIES["pattern"][pattern]),
        lowers,
        different(UNSAID["lower_pattern"]),
        different(UNSAID["shoes"]),
        different(VARIETIES["bag"][bag]),
    ]
    return [Shape(gender, *values) for values in zip(*columns, strict=True)]


def _draw_palettes(rng: random.Random, count: int, *, hat: bool, taken: set[tuple[str, str]]) -> list[Palette]:
    clothes, hairs = list(CLOTHES_COLOURS), list(CLOTHES_COLOURS if hat else HAIR_COLOURS)
    for attempt in range(200):
        uppers, lowers = rng.sample(clothes, count), rng.sample(clothes, count)
        pairs = list(zip(uppers, lowers, strict=True))
        # A pair that another block has would make that block's people candidates too: avoided while there are others.
        if all(u != lo for u, lo in pairs) and (attempt > 150 or not taken & set(pairs)):
            break
    taken |= set(pairs)
    shoes, bags, hair = rng.sample(clothes, count), rng.sample(clothes, count), rng.sample(hairs, count)
    palettes = []
    for n in range(count):
        second = rng.choice(_LIGHT if uppers[n] in _DARK else _DARK)
        trim = rng.choice(_LIGHT if lowers[n] in _DARK else _DARK)
        shades = tuple((rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)) for _ in range(8))
        skin = rng.choice(tuple(SKIN_TONES))
        palettes.append(Palette(uppers[n], second, lowers[n], trim, shoes[n], bags[n], hair[n], skin, shades))
    return palettes


def _draw_material(rng: random.Random) -> Material:
    def contrast(value: float) -> float:
        return value - rng.uniform(0.4, 0.53) if value > 0.56 else value + rng.uniform(0.36, 0.44)

    upper, lower = rng.uniform(0.2, 0.95), rng.uniform(0.2, 0.95)
    second, trim = contrast(upper), contrast(lower)
    shoes, bag, hair = (rng.uniform(low, high) for low, high in ((0.2, 0.9), (0.15, 0.95), (0.3, 0.9)))
    return Material(upper, second, lower, trim, shoes, bag, hair, rng.uniform(0.7, 0.85))

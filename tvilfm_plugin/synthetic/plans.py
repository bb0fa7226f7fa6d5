"""What a synthetic benchmark consists of: its specification, its people, and the list of all images."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tvilfm_plugin.synthetic.looks import Camera
from tvilfm_plugin.synthetic.people import Person, draw_people

GENERATOR = 5
"""Raised whenever the same spec would give other files, so that a tree of the old kind is not taken for the new one."""

_DEFAULTS = {
    # images per person: training RGB, training IR, test RGB, test IR. Ten gallery draws take one image per (identity, camera):
    # the test folders hold more than that, so that a witness can describe an image outside all of them.
    "sysu": (8, 6, 24, 6),
    "regdb": (10, 10, 10, 10),
    "llcm": (9, 8, 36, 8),
    "own": (8, 6, 24, 6),
}
_CAMERAS = {
    "sysu": ((1, 2, 4, 5), (3, 6)),
    "regdb": ((1,), (2,)),
    "llcm": (tuple(range(1, 10)), (1, 2, 4, 5, 6, 7, 8, 9)),
    "own": ((1, 2, 4, 5), (3, 6)),
}


@dataclass(frozen=True)
class Spec:
    """Everything that decides the bytes of a benchmark.

    Attributes:
        layout: "sysu", "regdb", "llcm", or "own": folders and a table as docs/own_data.md describes them.
        ids: number of people, test people included.
        images_rgb, images_ir: images per training person, spread over the layout's cameras; 0 = the layout's default.
        test_images_rgb, test_images_ir: the same per test person (RegDB: everyone has as many as a training person).
        height: of the written images; the width is half of it.
        wrong, missing: probability that a caption names an attribute wrongly, or not at all.
        annotations: write for each image what each pixel shows, and from where it was seen.
    """

    layout: str
    ids: int = 464
    test_ids: int = 80
    seed: int = 0
    images_rgb: int = 0
    images_ir: int = 0
    test_images_rgb: int = 0
    test_images_ir: int = 0
    height: int = 144
    wrong: float = 0.12
    missing: float = 0.12
    annotations: bool = False

    def __post_init__(self) -> None:
        if self.layout not in _DEFAULTS:
            raise ValueError(f"Unknown layout {self.layout!r}; choices are {', '.join(_DEFAULTS)}.")
        if not 0 < self.test_ids < self.ids:
            raise ValueError(f"{self.test_ids} test people of {self.ids} people: both splits need at least one person.")
        if self.seed < 0:
            raise ValueError(f"The seed is {self.seed}; give a whole number of at least 0.")
        if not (0 <= self.wrong < 1 and 0 <= self.missing < 1):
            raise ValueError(f"Caption error rates wrong={self.wrong}, missing={self.missing} must lie in [0, 1).")
        names = ("images_rgb", "images_ir", "test_images_rgb", "test_images_ir")
        for name, default in zip(names, _DEFAULTS[self.layout], strict=True):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: give a number of images, or 0 for the layout's {default}.")
            object.__setattr__(self, name, getattr(self, name) or default)
        if self.layout == "regdb":
            # Every person is in the training half of some trial and in the test half of another.
            object.__setattr__(self, "test_images_rgb", self.images_rgb)
            object.__setattr__(self, "test_images_ir", self.images_ir)


class Shot(NamedTuple):
    """One image to take: who, by which camera, its number there, and where it goes (relative to the data set)."""

    pid: int
    camera: Camera
    number: int
    path: str
    caption_path: str


class Identities(NamedTuple):
    """The people of a benchmark by identity number, and the identities of the test split."""

    people: dict[int, Person]
    test_ids: list[int]


def draw_identities(spec: Spec) -> Identities:
    """Draw the people. Training and test people stand on grids of their own, so a grid is never cut in two."""
    test = draw_people(spec.test_ids, spec.seed)
    train = draw_people(spec.ids - spec.test_ids, spec.seed, avoid=test, first_block=test[-1].block + 1)
    numbers = list(range(1, spec.ids + 1))
    random.Random(f"identities/{spec.seed}").shuffle(numbers)
    people = dict(zip(numbers, test + train, strict=True))
    return Identities(dict(sorted(people.items())), sorted(numbers[: spec.test_ids]))


def plan(spec: Spec, drawn: Identities) -> list[Shot]:
    """Every image of the benchmark, person by person, visible cameras first."""
    shots = []
    test_ids = set(drawn.test_ids)
    for pid, person in drawn.people.items():
        test = pid in test_ids
        counts = (spec.test_images_rgb, spec.test_images_ir) if test else (spec.images_rgb, spec.images_ir)
        for infrared, cameras, count in zip((False, True), _CAMERAS[spec.layout], counts, strict=True):
            for n, camera in enumerate(cameras):
                # RegDB has one camera of each kind, carried about: it sees several places.
                view = Camera(camera, infrared, places=6 if spec.layout == "regdb" else 1)
                for k in range(1, count // len(cameras) + (n < count % len(cameras)) + 1):
                    path, caption_path = _paths(spec.layout, pid, person, view, k, test)
                    shots.append(Shot(pid, view, k, path, caption_path))
    return shots


def _paths(layout: str, pid: int, person: Person, camera: Camera, number: int, test: bool) -> tuple[str, str]:
    if layout == "sysu":
        path = f"cam{camera.number}/{pid:04d}/{number:04d}.jpg"
        return path, path
    if layout == "own":
        kind = "infrared" if camera.infrared else "visible"
        path = f"{'test' if test else 'train'}/{kind}/{pid:04d}/cam{camera.number}/{number:04d}.jpg"
        return path, path
    if layout == "regdb":
        folder, letter = ("Thermal", "t") if camera.infrared else ("Visible", "v")
        gender = "male" if person.shape.gender == "man" else "female"
        path = f"{folder}/{pid}/{gender}_{letter}_{number:05d}_{pid}.bmp"
        return path, path
    kind = "nir" if camera.infrared else "vis"
    name = f"{pid:04d}/{pid:04d}_c{camera.number:02d}_s{number:03d}_f{100 * number}_{kind}.jpg"
    # The released caption files name test images without their camera's folder.
    return f"test_{kind}/cam{camera.number}/{name}" if test else f"{kind}/{name}", f"{kind}/{name}"


def spec_of(spec: Spec) -> dict[str, Any]:
    """What `synthetic.json` holds: everything that decides the files."""
    return {"generator": GENERATOR, **asdict(spec)}

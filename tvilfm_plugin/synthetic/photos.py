"""Take the photographs of a benchmark, in several processes, and word what each of them shows."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from tvilfm_plugin.synthetic.captioning import Statement, describe, jot, observe, rephrase
from tvilfm_plugin.synthetic.looks import Camera, Look, draw_look
from tvilfm_plugin.synthetic.mesh import load_pack
from tvilfm_plugin.synthetic.people import Person
from tvilfm_plugin.synthetic.plans import Shot, Spec
from tvilfm_plugin.synthetic.rendering import Picture, Studio

_CHUNK = 32  # images that a process takes at a time
_GLIMPSE = 48  # height of the pictures that passers-by remember


class Photo(NamedTuple):
    """What is known of an image that was taken; `view` is its annotation, {} where none is asked for."""

    shot: Shot
    look: Look
    statement: Statement
    text: str
    rephrase: str
    view: Mapping[str, Any]


def take(shot: Shot, person: Person, spec: Spec) -> Photo:
    """Take one image by itself, and say in words what it shows."""
    return _shoot(shot, person, spec, Studio(spec.height, spec.seed))[0]


def _shoot(shot: Shot, person: Person, spec: Spec, studio: Studio) -> tuple[Photo, Picture]:
    rng = random.Random(f"image/{spec.seed}/{shot.pid}/{shot.camera.infrared}/{shot.camera.number}/{shot.number}")
    picture = studio.take(person, draw_look(person, shot.camera, rng, spec.wrong))
    statement = observe(person, picture.look, rng, wrong=spec.wrong, missing=spec.missing)
    view = _annotation(picture) if spec.annotations else {}
    return Photo(shot, picture.look, statement, describe(statement, rng), rephrase(statement, rng), view), picture


def _annotation(picture: Picture) -> dict[str, Any]:
    """The camera (decimetres, pixels) before the person at the origin, the person's turn, and how much is seen of what."""
    return {
        "camera": {name: round(value, 4) for name, value in asdict(picture.view).items() if name != "pitch"},
        "pitch_sine": round(picture.view.pitch[0], 6),
        "yaw": round(picture.look.pose.yaw, 6),
        "occluder": picture.look.occluder.kind if picture.look.occluder else "",
        "areas": {slot.name.lower(): round(share, 6) for slot, share in picture.areas.items() if share},
    }


def take_all(
    shots: Sequence[Shot], people: Mapping[int, Person], spec: Spec, root: Path, workers: int, progress: bool
) -> list[Photo]:
    """Take and write all images below `root`; the photos in the order of the shots."""
    jobs = [(shot, people[shot.pid], str(root)) for shot in shots]
    chunks = [jobs[n : n + _CHUNK] for n in range(0, len(jobs), _CHUNK)]
    photos: list[Photo] = []
    bar = tqdm(
        total=len(jobs), desc=f"drawing {spec.layout} people", unit="image", disable=None if progress else True, mininterval=1.0
    )
    with bar:
        for done in in_processes(_take_chunk, chunks, workers, _open_studio, (spec,)):
            photos += done
            bar.update(len(done))
    return photos


_Job = tuple[Shot, Person, str]


def in_processes(
    function: Callable[[Any], Any],
    chunks: Sequence[Any],
    workers: int,
    begin: Callable[..., None] = lambda: None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Any]:
    """`map`, shared by up to `workers` forked processes, each of which begins with `begin(*arguments)`."""
    if workers <= 1 or len(chunks) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        begin(*arguments)
        yield from map(function, chunks)
        return
    load_pack()  # once, for all processes
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), begin, arguments) as pool:
        yield from pool.map(function, chunks)


_studios: list[tuple[Spec, Studio]] = []  # the one studio of this process: people are dressed once, not once a chunk


def _open_studio(spec: Spec) -> None:
    _studios[:] = [(spec, Studio(spec.height, spec.seed))]


def _take_chunk(jobs: Sequence[_Job]) -> list[Photo]:
    (spec, studio) = _studios[0]
    photos = []
    for shot, person, root in jobs:
        photo, picture = _shoot(shot, person, spec, studio)
        image = Image.fromarray(picture.pixels)
        if shot.path.endswith(".jpg"):
            image.save(Path(root, shot.path), quality=93, subsampling=0)
        else:
            image.save(Path(root, shot.path))
        if spec.annotations:
            Image.fromarray(picture.mask).save(mask_file(Path(root), shot))
        photos.append(photo)
    return photos


def mask_file(root: Path, shot: Shot) -> Path:
    """Where the map of what each pixel shows is written."""
    return (root / "annotations" / shot.path).with_suffix(".png")


def remembered(people: Mapping[int, Person], spec: Spec) -> Iterable[tuple[int, str]]:
    """What one passer-by remembers of each person: seen once, in a place that has no camera, and put in key words."""
    studio = Studio(_GLIMPSE, spec.seed)
    for pid, person in people.items():
        rng = random.Random(f"phrase/{spec.seed}/{pid}")
        look = studio.take(person, draw_look(person, Camera(0, infrared=False), rng, spec.wrong)).look
        yield pid, jot(observe(person, look, rng, wrong=spec.wrong, missing=spec.missing), rng)

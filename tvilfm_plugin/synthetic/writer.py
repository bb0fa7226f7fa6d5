"""Write a synthetic benchmark to disk in the layout and with the caption files of SYSU-MM01, RegDB or LLCM, or as own data."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from tvilfm_plugin.synthetic.captioning import SAID, Statement, describe, jot, observe, rephrase
from tvilfm_plugin.synthetic.ceilings import ceilings
from tvilfm_plugin.synthetic.people import Person, draw_people
from tvilfm_plugin.synthetic.rendering import Camera, Look, Studio, draw_look
from tvilfm_plugin.synthetic.sheet import contact_sheet

GENERATOR = 4
"""Raised whenever the same spec would give other files, so that a tree of the old kind is not taken for the new one."""

_SPEC_FILE = "synthetic.json"
_TRIALS = 10
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

    def __post_init__(self) -> None:
        if self.layout not in _DEFAULTS:
            raise ValueError(f"Unknown layout {self.layout!r}; choices are {', '.join(_DEFAULTS)}.")
        if not 0 < self.test_ids < self.ids:
            raise ValueError(f"{self.test_ids} test people of {self.ids} people: both splits need at least one person.")
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
    """One image to take: who, by which camera, the how-manieth there, and where it goes (relative to the data set)."""

    pid: int
    camera: Camera
    number: int
    path: str
    caption_path: str


class Photo(NamedTuple):
    """What is known of an image that was taken."""

    shot: Shot
    look: Look
    statement: Statement
    text: str
    rephrase: str


class Cast(NamedTuple):
    """The people of a benchmark by identity number, and the identities of the test split."""

    people: dict[int, Person]
    test_ids: list[int]


def cast(spec: Spec) -> Cast:
    """Draw the people. Training and test people stand on grids of their own, so a grid is never cut in two."""
    test = draw_people(spec.test_ids, spec.seed)
    train = draw_people(spec.ids - spec.test_ids, spec.seed, avoid=test, first_block=test[-1].block + 1)
    numbers = list(range(1, spec.ids + 1))
    random.Random(f"identities/{spec.seed}").shuffle(numbers)
    people = dict(zip(numbers, test + train, strict=True))
    return Cast(dict(sorted(people.items())), sorted(numbers[: spec.test_ids]))


def plan(spec: Spec, cast_: Cast) -> list[Shot]:
    """Every image of the benchmark, person by person, visible cameras first."""
    shots = []
    test_ids = set(cast_.test_ids)
    for pid, person in cast_.people.items():
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


def take(shot: Shot, person: Person, spec: Spec) -> Photo:
    """Decide what one image looks like and what its caption says; no pixels are made."""
    rng = random.Random(f"image/{spec.seed}/{shot.pid}/{shot.camera.infrared}/{shot.camera.number}/{shot.number}")
    look = draw_look(person, shot.camera, rng, spec.wrong)
    statement = observe(person, look, rng, wrong=spec.wrong, missing=spec.missing)
    return Photo(shot, look, statement, describe(statement, rng), rephrase(statement, rng))


def make_synthetic(spec: Spec, out: str | os.PathLike[str], *, workers: int = 1, progress: bool = True) -> Path:
    """Write a benchmark to `out`, all or nothing.

    Args:
        out: folder of the data set itself (what holds cam1/, Visible/ or vis/). One that holds the same benchmark is left as
            it is, any other non-empty folder is refused.
        workers: processes that draw (they are forked; elsewhere one does).

    Returns:
        `out`, absolute.
    """
    out = Path(out).absolute()
    if is_made(spec, out):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not the benchmark {_spec_of(spec)}. Give another --out, or remove it first."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        partial.chmod(0o755)
        _write(spec, partial, workers, progress)
        try:
            os.rename(partial, out)
        except OSError:
            # Another process was quicker; its files are the same.
            if not is_made(spec, out):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def is_made(spec: Spec, out: Path) -> bool:
    """Whether `out` holds exactly this benchmark."""
    file = out / _SPEC_FILE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")) == _spec_of(spec)


def looks_in(out: Path) -> set[tuple[object, ...]]:
    """`Person.looks` of everyone in a benchmark on disk."""
    file = out / "attributes.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{out} is no synthetic benchmark: it has no attributes.json (tools/make_synthetic.py writes it)."
        )
    people = json.loads(file.read_text(encoding="utf-8"))["people"].values()
    return {(*person["shape"].values(), *person["palette"].values()) for person in people}


def _spec_of(spec: Spec) -> dict[str, Any]:
    return {"generator": GENERATOR, **asdict(spec)}


def _write(spec: Spec, root: Path, workers: int, progress: bool) -> None:
    cast_ = cast(spec)
    shots = plan(spec, cast_)
    photos = [take(shot, cast_.people[shot.pid], spec) for shot in shots]
    for folder in {(root / shot.path).parent for shot in shots}:
        folder.mkdir(parents=True, exist_ok=True)
    _develop(photos, cast_.people, spec, root, workers, progress)
    if spec.layout == "own":
        _write_tables(root, photos)
    else:
        _write_lists(spec, root, cast_, shots)
        for name, infrared in (("Blip_RGB", False), ("Blip_IR", True)):
            chosen = [photo for photo in photos if photo.shot.camera.infrared is infrared]
            _write_captions(spec.layout, root / "Text" / name, name, chosen)
    (root / "Text").mkdir(exist_ok=True)
    _write_phrases(root / "Text" / "human_phrases.txt", cast_.people, spec)
    facts = _facts(spec, cast_, photos)
    _write_json(root / "attributes.json", facts, indent=None)
    contact_sheet([cast_.people[pid] for pid in cast_.test_ids], Studio(spec.height, spec.seed)).save(root / "people.png")
    (root / "README.md").write_text(_readme(spec, facts), encoding="utf-8")
    _write_json(root / _SPEC_FILE, _spec_of(spec))


def _develop(
    photos: Sequence[Photo], people: Mapping[int, Person], spec: Spec, root: Path, workers: int, progress: bool
) -> None:
    """Make and write the pixels of all photos."""
    jobs = [(photo.look, people[photo.shot.pid], str(root / photo.shot.path)) for photo in photos]
    chunks = [jobs[n : n + 64] for n in range(0, len(jobs), 64)]
    bar = tqdm(
        total=len(jobs), desc=f"drawing {spec.layout} people", unit="image", disable=None if progress else True, mininterval=1.0
    )
    with bar:
        for done in _map_chunks(chunks, spec, workers):
            bar.update(done)


_Job = tuple[Look, Person, str]


def _map_chunks(chunks: Sequence[Sequence[_Job]], spec: Spec, workers: int) -> Iterator[int]:
    if workers <= 1 or len(chunks) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        _open_studio(spec.height, spec.seed)
        yield from map(_develop_chunk, chunks)
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_open_studio, initargs=(spec.height, spec.seed)
    ) as pool:
        yield from pool.map(_develop_chunk, chunks)


_studios: list[Studio] = []  # the one studio of this process: its backgrounds are drawn once, not once a chunk


def _open_studio(height: int, seed: int) -> None:
    _studios[:] = [Studio(height, seed)]


def _develop_chunk(jobs: Sequence[_Job]) -> int:
    for look, person, path in jobs:
        image = Image.fromarray(_studios[0].photograph(person, look))
        if path.endswith(".jpg"):
            image.save(path, quality=93, subsampling=0)
        else:
            image.save(path)
    return len(jobs)


# --- lists and captions -----------------------------------------------------------------------------------------------


def _write_lists(spec: Spec, root: Path, cast_: Cast, shots: Sequence[Shot]) -> None:
    train_ids = [pid for pid in cast_.people if pid not in set(cast_.test_ids)]
    if spec.layout == "sysu":
        (root / "exp").mkdir()
        held = max(1, len(train_ids) // 8) if len(train_ids) > 1 else 0
        parts = {"train": train_ids[held:], "val": train_ids[:held], "test": cast_.test_ids}
        for name, ids in parts.items():
            (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, ids)) + "\n")
        return
    (root / "idx").mkdir()
    if spec.layout == "llcm":
        labels = {pid: n for n, pid in enumerate(train_ids)}
        for kind, infrared in (("vis", False), ("nir", True)):
            chosen = [shot for shot in shots if shot.pid in labels and shot.camera.infrared is infrared]
            _write_list(root / "idx" / f"train_{kind}.txt", chosen, labels)
        (root / "idx" / "test_id.txt").write_text(",".join(map(str, cast_.test_ids)) + "\n")
        return
    for trial in range(1, _TRIALS + 1):
        test = set(cast_.test_ids) if trial == 1 else _draw_test_blocks(cast_, spec, trial)
        for split, ids in (("train", sorted(set(cast_.people) - test)), ("test", sorted(test))):
            labels = {pid: n for n, pid in enumerate(ids)}
            for kind, infrared in (("visible", False), ("thermal", True)):
                chosen = [shot for shot in shots if shot.pid in labels and shot.camera.infrared is infrared]
                _write_list(root / "idx" / f"{split}_{kind}_{trial}.txt", chosen, labels)


def _write_tables(root: Path, photos: Sequence[Photo]) -> None:
    """Own data twice: everything in table.csv, and what the folders do not say in captions.csv."""
    rows = []
    for photo in photos:
        split, modality, identity, camera, _ = photo.shot.path.split("/")
        rows.append([photo.shot.path, identity, camera, modality, split, photo.text, photo.rephrase])
    columns = ["path", "identity", "camera", "modality", "split", "caption", "rephrase"]
    for name, kept in (("table", columns), ("captions", ["path", "caption", "rephrase"])):
        with open(root / f"{name}.csv", "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(kept)
            writer.writerows([row[columns.index(column)] for column in kept] for row in rows)


def _write_list(file: Path, shots: Iterable[Shot], labels: Mapping[int, int]) -> None:
    file.write_text("".join(f"{shot.path} {labels[shot.pid]}\n" for shot in shots))


def _draw_test_blocks(cast_: Cast, spec: Spec, trial: int) -> set[int]:
    """Identities of whole blocks that are together as many as the test people."""
    blocks: dict[int, list[int]] = {}
    for pid, person in cast_.people.items():
        blocks.setdefault(person.block, []).append(pid)
    order = sorted(blocks)
    random.Random(f"trial/{spec.seed}/{trial}").shuffle(order)
    reached: dict[int, tuple[int, ...]] = {0: ()}  # number of people -> blocks that make it up
    for block in order:
        for total, chosen in list(reached.items()):
            reached.setdefault(total + len(blocks[block]), (*chosen, block))
        if len(cast_.test_ids) in reached:
            break
    return {pid for block in reached[len(cast_.test_ids)] for pid in blocks[block]}


def _write_captions(layout: str, folder: Path, name: str, photos: Sequence[Photo]) -> None:
    folder.mkdir(parents=True)
    prefix = f"datasets/{layout}"
    plain = {f"{prefix}/{photo.shot.caption_path}": {"description": photo.text} for photo in photos}
    both = {
        f"{prefix}/{photo.shot.caption_path}": {"description": photo.text, "aug_description": photo.rephrase}
        for photo in photos
    }
    by_person: dict[str, list[str]] = {}
    for photo in photos:
        texts = by_person.setdefault(str(photo.shot.pid), [])
        if photo.text not in texts:  # the released lists name a text once
            texts.append(photo.text)
    _write_json(folder / f"caption_dict_{name}.json", plain)
    _write_json(folder / f"caption_llm_dict_{name}.json", both)
    _write_json(folder / f"id_caption_map_{name}.json", by_person)


def _write_phrases(file: Path, people: Mapping[int, Person], spec: Spec) -> None:
    """What one passer-by remembers of each person: seen once, in a place that has no camera, and put in key words."""
    lines = []
    for pid, person in people.items():
        rng = random.Random(f"phrase/{spec.seed}/{pid}")
        look = draw_look(person, Camera(0, infrared=False), rng, spec.wrong)
        statement = observe(person, look, rng, wrong=spec.wrong, missing=spec.missing)
        lines.append(f"{pid}\t{jot(statement, rng)}\n")
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: Path, content: object, indent: int | None = 1) -> None:
    file.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


# --- truth ------------------------------------------------------------------------------------------------------------


def _facts(spec: Spec, cast_: Cast, photos: Sequence[Photo]) -> dict[str, Any]:
    """What was drawn and what was said of it: the truth that captioning and retrieval can be scored against."""
    test_ids = set(cast_.test_ids)
    people = {}
    for pid, person in cast_.people.items():
        palette = asdict(person.palette)
        del palette["shades"]
        people[str(pid)] = {
            "split": "test" if pid in test_ids else "train",
            "block": person.block,
            "shape": asdict(person.shape),
            "palette": palette,
        }
    images = {}
    for photo in photos:
        look, statement = photo.look, photo.statement
        images[photo.shot.path] = {
            "identity": photo.shot.pid,
            "view": ("back" if look.pose.back else "front") + {-1: ", turned left", 0: "", 1: ", turned right"}[look.pose.turn],
            "light": look.light,
            "hidden": sorted(look.hidden),
            "seen": look.seen,
            "said": dict(statement.said),
            "wrong": list(statement.wrong),
            "missing": list(statement.missing),
        }
    queries: dict[int, list[Statement]] = {}
    # Enough captions for a stable figure; the cost grows with the square of the number of people.
    per_person = max(1, min(6, 40_000 // len(test_ids) ** 2))
    for photo in photos:
        if photo.shot.pid in test_ids and not photo.shot.camera.infrared:
            queries.setdefault(photo.shot.pid, []).append(photo.statement)
    queries = {pid: statements[:: max(1, len(statements) // per_person)] for pid, statements in queries.items()}
    return {
        "synthetic": True,
        "spec": _spec_of(spec),
        "attributes": list(SAID),
        "rates": {
            name: error_rates([p.statement for p in photos if p.shot.camera.infrared is infrared])
            for name, infrared in (("rgb", False), ("ir", True))
        },
        "ceilings": ceilings({pid: cast_.people[pid] for pid in cast_.test_ids}, queries)._asdict(),
        "people": people,
        "images": images,
    }


def error_rates(statements: Sequence[Statement]) -> dict[str, float]:
    """Share of the named attributes that is named wrongly, and of the nameable ones that is left out."""
    said = sum(len(s.said) for s in statements)
    left_out = sum(len(s.missing) for s in statements)
    return {
        "wrong": round(sum(len(s.wrong) for s in statements) / max(1, said), 4),
        "missing": round(left_out / max(1, said + left_out), 4),
    }


def _readme(spec: Spec, facts: Mapping[str, Any]) -> str:
    rates, limits = facts["rates"], facts["ceilings"]
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in asdict(spec).items())
    return f"""# Synthetic people in the layout of {spec.layout}

Nobody in these pictures exists: every image and every caption was drawn by a program
(`python tools/make_synthetic.py {options}`). They show whether a method works and how fast; results on them say nothing
about real people, and must be called synthetic wherever they are shown.

- {spec.ids} people, {spec.test_ids} of them for testing; images of {spec.height} x {spec.height // 2} pixels. Some of the
  people: `people.png`.
- People stand on a grid: two or three share a shape and differ in all colours, two or three share all colours and differ in
  shape. Infrared images do not show colours, captions seldom tell the shapes of one grid apart.
- Captions err: of the attributes that visible images' captions name, {rates["rgb"]["wrong"]:.1%} are wrong, and
  {rates["rgb"]["missing"]:.1%} of those that they could name are missing (infrared: {rates["ir"]["wrong"]:.1%} and
  {rates["ir"]["missing"]:.1%}). Errors belong to the image: a bag on the far side is not mentioned, a colour that the light
  falsifies is named as it looks there.
- Rank-1 on the test people: by chance {limits["chance"]:.1%}; a perfect reader of shapes {limits["shape"]:.1%}, of one caption
  {limits["caption"]:.1%}, of both {limits["both"]:.1%}.
- `Text/human_phrases.txt` has one phrase per identity for text source `human`: what a passer-by noted, no less wrong.
- `attributes.json` holds the truth: each person's shape and palette; for each image its view, what is hidden, which colours its
  light falsifies, and what its caption says, says wrongly and leaves out.
"""

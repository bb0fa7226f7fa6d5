"""Synthetic pictures: dressed people, colours in visible ones only, the same bytes everywhere, a true account of what shows."""

import hashlib
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tvilfm_plugin.synthetic.accessories import extras_of
from tvilfm_plugin.synthetic.body import build_body
from tvilfm_plugin.synthetic.materials import Slot
from tvilfm_plugin.synthetic.mesh import load_pack
from tvilfm_plugin.synthetic.people import UNSAID, VARIETIES, Person, draw_people
from tvilfm_plugin.synthetic.raster import rasterise
from tvilfm_plugin.synthetic.rendering import Camera, Look, Studio, draw_look, posed
from tvilfm_plugin.synthetic.scenery import Occluder, Paint
from tvilfm_plugin.synthetic.sheet import contact_sheet
from tvilfm_plugin.synthetic.views import View
from tvilfm_plugin.synthetic.wardrobe import TWO_SIDED, Part, assemble

PEOPLE = draw_people(40, seed=3)
RGB, IR = Camera(1, False), Camera(3, True)


def look_at(person: Person, camera: Camera, key: object = 0, **changes: object) -> Look:
    look = draw_look(person, camera, random.Random(f"{key}"), wrong=0.0)
    return replace(look, **changes)


@pytest.mark.parametrize("height", [32, 96, 144, 288])
def test_sizes_and_kinds(height: int) -> None:
    studio = Studio(height, seed=0)
    rgb = studio.photograph(PEOPLE[0], look_at(PEOPLE[0], RGB))
    ir = studio.photograph(PEOPLE[0], look_at(PEOPLE[0], IR))
    for pixels in (rgb, ir):
        assert pixels.shape == (height, height // 2, 3) and pixels.dtype == np.uint8 and pixels.std() > 10
    assert (ir[..., :1] == ir).all() and not (rgb[..., :1] == rgb).all()


@pytest.mark.parametrize("height", [30, 97, 0])
def test_impossible_sizes_are_refused(height: int) -> None:
    with pytest.raises(ValueError, match="even number of at least 32"):
        Studio(height, seed=0)


def test_infrared_does_not_depend_on_colours() -> None:
    studio = Studio(96, seed=0)
    a, b = next((a, b) for a in PEOPLE for b in PEOPLE if a.shape == b.shape and a.palette.skin != b.palette.skin)
    recoloured = replace(a, palette=b.palette)
    assert np.array_equal(studio.photograph(a, look_at(a, IR)), studio.photograph(recoloured, look_at(a, IR)))
    visible, other = studio.take(a, look_at(a, RGB)), studio.take(recoloured, look_at(a, RGB))
    assert not np.array_equal(visible.pixels, other.pixels)
    # Face, build and clothes are the shape's, whatever the skin: the very same pixels show the very same things.
    assert np.array_equal(visible.mask, other.mask)


def test_pictures_are_repeatable_and_no_two_alike() -> None:
    studio, other = Studio(96, seed=0), Studio(96, seed=0)
    person = PEOPLE[5]
    looks = [look_at(person, RGB, key) for key in range(4)]
    pictures = [studio.photograph(person, look) for look in looks]
    again = [other.photograph(person, look) for look in reversed(looks)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))
    assert not any(np.array_equal(pictures[0], picture) for picture in pictures[1:])


PROGRAM = """
import hashlib, random, sys, types
package = types.ModuleType("tvilfm_plugin")  # without what it imports: torch alone takes seconds
package.__path__ = [sys.argv[1]]
sys.modules["tvilfm_plugin"] = package
from tvilfm_plugin.synthetic.people import draw_people
from tvilfm_plugin.synthetic.rendering import Camera, Studio, draw_look
studio, digest = Studio(64, 5), hashlib.sha256()
for n, person in enumerate(draw_people(30, 8)):
    for camera in (Camera(n % 9, False), Camera(n % 9, True)):
        digest.update(studio.photograph(person, draw_look(person, camera, random.Random(n), 0.1)).tobytes())
print(digest.hexdigest())
"""


def test_same_bytes_whatever_threads_blas_and_vector_units() -> None:
    settings = (
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
    )
    load_pack()
    root = Path(__file__).parents[2]
    runs = []
    for setting in settings:
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore", **setting}
        command = [sys.executable, "-c", PROGRAM, str(root / "tvilfm_plugin")]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    digests = {run.communicate()[0].strip() for run in runs}
    assert len(digests) == 1 and len(digests.pop()) == len(hashlib.sha256().hexdigest())


def test_a_falsified_colour_shows_in_the_picture() -> None:
    studio = Studio(96, seed=0)
    person = next(p for p in PEOPLE if p.palette.upper == "red" or p.palette.lower == "red")
    slot = "upper" if person.palette.upper == "red" else "lower"
    look = look_at(person, RGB)
    true, false = (studio.photograph(person, replace(look, seen=seen)).astype(int) for seen in ({}, {slot: "brown"}))
    assert (np.abs(true - false).max(axis=2) > 20).mean() > 0.02


def everybody() -> list[Person]:
    """Each variety of each attribute once, on bodies of both sexes and every build."""
    people = []
    for attribute, words in {**VARIETIES, **{a: {"": v} for a, v in UNSAID.items()}}.items():
        for n, variety in enumerate(variety for varieties in words.values() for variety in varieties):
            base = PEOPLE[(7 * n) % len(PEOPLE)]
            gender, build = ("man", "woman")[n % 2], UNSAID["build"][n % 3]
            shape = replace(base.shape, gender=gender, build=build, pattern="plain", bag="")
            people.append(replace(base, shape=replace(shape, **{attribute: variety})))
    return people


def test_nobody_is_drawn_undressed() -> None:
    """Property: in no pose is the mesh's skin in front where the smallest top or the shortest lower garment would be."""
    for n, person in enumerate([*everybody(), *PEOPLE[:20]]):
        body = build_body(person.shape)
        figure = assemble(person, body, extras_of(person, body))
        for back in (False, True):
            look = look_at(person, RGB, n)
            yaw = look.pose.yaw + (math.pi if back is not look.pose.back else 0.0)
            points, _ = posed(figure, person, replace(look, pose=replace(look.pose, back=back, yaw=yaw)))
            column, row, depth = View.towards(20.0, 60.0, 8.0).framed(points, top=4, height=184, centre=96).project(points)
            two_sided = np.isin(figure.part, [int(part) for part in TWO_SIDED])
            cover = figure.coordinates[:, 5]
            seen = rasterise(column, row, depth, figure.triangles, 192, 192, cover=cover, two_sided=two_sided)
            where = seen.blend(figure.coordinates, figure.triangles)
            across, up, arm, leg = np.abs(where[:, 0]), where[:, 1], where[:, 3], where[:, 4]
            skin = figure.part[seen.triangle] == Part.SKIN
            chest = skin & (up > 2.0) & (up < 4.4) & (across < 0.9) & (arm < 0.05)
            lap = skin & (leg > -0.3) & (leg < 0.2) & (arm < 0.05) & (across < 1.6)
            assert not chest.any() and not lap.any(), person.shape


def test_every_variety_draws_a_different_figure() -> None:
    base = PEOPLE[0]
    studio = Studio(144, seed=0)
    look = look_at(base, RGB, occluder=None)
    look = replace(look, pose=replace(look.pose, back=False, turn=0, yaw=0.3, height=0.85, top=0.08))
    shape = replace(base.shape, gender="woman", pattern="plain", lower="straight pants", lower_pattern="plain", bag="")
    for attribute, words in {**VARIETIES, **{a: {"": v} for a, v in UNSAID.items()}}.items():
        masks = []
        for variety in [variety for varieties in words.values() for variety in varieties]:
            person = replace(base, shape=replace(shape, **{attribute: variety}))
            masks.append(studio.take(person, look).mask)
        for n, mask in enumerate(masks):
            for other in masks[:n]:
                assert (mask != other).sum() > 20, attribute


def test_a_person_fills_the_frame_and_cut_feet_are_out_of_it() -> None:
    cut, studio = 0, Studio(64, seed=0)
    for n, person in enumerate(PEOPLE):
        for k in range(3):
            look = look_at(person, RGB, f"{n}/{k}", occluder=None)
            picture = studio.take(person, look)
            assert (picture.mask != Slot.BACKGROUND).mean() > 0.1
            assert (picture.mask[0] == Slot.BACKGROUND).mean() > 0.9  # nobody loses their head
            if look.pose.height < 1.0:
                rows = np.flatnonzero((picture.mask != Slot.BACKGROUND).any(axis=1))
                assert abs(len(rows) - look.pose.height * 64) < 3
            cut += look.pose.height > 1.0
    assert 3 < cut < 40


def test_what_is_hidden_is_counted_from_the_pixels() -> None:
    seen, hidden, studio = 0, 0, Studio(64, seed=0)
    for n, person in enumerate(PEOPLE):
        for k in range(3):
            picture = studio.take(person, look_at(person, RGB, f"{n}/{k}"))
            area = {slot: (picture.mask == slot).mean() for slot in Slot}
            for attribute, slot in (("bag", Slot.BAG), ("shoes", Slot.SHOES)):
                if attribute == "shoes" or person.shape.bag:
                    assert area[slot] > 0.0003 or attribute in picture.look.hidden
                    assert area[slot] < 0.012 or attribute not in picture.look.hidden
                    seen += attribute not in picture.look.hidden
                    hidden += attribute in picture.look.hidden
            if person.shape.pattern in ("disc", "box", "cross") and picture.look.pose.back:
                assert "pattern" in picture.look.hidden
    assert seen > hidden > 20


def test_what_stands_in_front_hides() -> None:
    person = next(p for p in PEOPLE if p.shape.shoes == "low" and p.shape.lower != "long skirt")
    studio = Studio(96, seed=0)
    look = look_at(person, RGB, occluder=None)
    look = replace(look, pose=replace(look.pose, height=0.9, top=0.05))
    wall = Occluder("wall", 2.0, 12.0, 6.0, Paint((0.3, 0.3, 0.3), 0.4))
    free, hidden = studio.take(person, look), studio.take(person, replace(look, occluder=wall))
    assert "shoes" not in free.look.hidden and "shoes" in hidden.look.hidden
    assert hidden.areas[Slot.OCCLUDER] > 0.05 > free.areas[Slot.OCCLUDER] == 0.0


def test_all_views_are_taken() -> None:
    looks = [look_at(PEOPLE[0], RGB, k) for k in range(200)]
    turns = sorted((look.pose.yaw + 1.0) % 6.3 for look in looks)
    assert max(b - a for a, b in pairwise(turns)) < 1.4
    assert 0.5 < sum(look.pose.step > 0.1 for look in looks) / 200 < 0.9


def test_contact_sheet_has_a_row_per_camera() -> None:
    sheet = contact_sheet(PEOPLE, Studio(64, seed=0), columns=6)
    assert sheet.size == (6 * 32, 5 * 64)
    pixels = np.asarray(sheet).astype(int)
    assert np.abs(pixels[..., 0] - pixels[..., 1])[: 3 * 64].mean() > 5  # visible rows have colour
    assert np.abs(pixels[..., 0] - pixels[..., 1])[3 * 64 :].max() == 0

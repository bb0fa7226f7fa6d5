"""Synthetic pictures: colours in visible ones only, the same person from every camera."""

import random
from dataclasses import replace

import numpy as np
import pytest

from tvilfm_plugin.synthetic.figure import Part, bag_is_hidden, draw_parts
from tvilfm_plugin.synthetic.people import UNSAID, VARIETIES, Person, draw_people
from tvilfm_plugin.synthetic.rendering import Camera, Look, Studio, draw_look
from tvilfm_plugin.synthetic.sheet import contact_sheet

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
    assert rgb.shape == (height, height // 2, 3) and rgb.dtype == np.uint8
    assert ir.shape == (height, height // 2) and ir.dtype == np.uint8
    assert rgb.std() > 10 and ir.std() > 10


@pytest.mark.parametrize("height", [30, 97, 0])
def test_impossible_sizes_are_refused(height: int) -> None:
    with pytest.raises(ValueError, match="even number of at least 32"):
        Studio(height, seed=0)


def test_infrared_does_not_depend_on_colours() -> None:
    studio = Studio(96, seed=0)
    a, b = next((a, b) for a in PEOPLE for b in PEOPLE if a.shape == b.shape and a is not b)
    recoloured = replace(a, palette=b.palette)
    assert np.array_equal(studio.photograph(a, look_at(a, IR)), studio.photograph(recoloured, look_at(a, IR)))
    assert not np.array_equal(studio.photograph(a, look_at(a, RGB)), studio.photograph(recoloured, look_at(a, RGB)))


def test_pictures_are_repeatable_and_no_two_alike() -> None:
    studio, other = Studio(96, seed=0), Studio(96, seed=0)
    person = PEOPLE[5]
    looks = [look_at(person, RGB, key) for key in range(4)]
    pictures = [studio.photograph(person, look) for look in looks]
    again = [other.photograph(person, look) for look in reversed(looks)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))
    assert not any(np.array_equal(pictures[0], picture) for picture in pictures[1:])


def test_a_falsified_colour_shows_in_the_picture() -> None:
    studio = Studio(96, seed=0)
    person = next(p for p in PEOPLE if p.palette.upper == "red" or p.palette.lower == "red")
    slot = "upper" if person.palette.upper == "red" else "lower"
    look = look_at(person, RGB)
    true, false = (studio.photograph(person, replace(look, seen=seen)).astype(int) for seen in ({}, {slot: "brown"}))
    assert (np.abs(true - false).max(axis=2) > 20).mean() > 0.02


def test_every_variety_draws_a_different_figure() -> None:
    base = PEOPLE[0]
    pose = replace(look_at(base, RGB).pose, back=False, turn=0, height=0.85, top=0.08)
    shape = replace(base.shape, gender="woman", pattern="plain", lower="straight pants", lower_pattern="plain", bag="")
    for attribute, words in {**VARIETIES, **{a: {"": v} for a, v in UNSAID.items()}}.items():
        figures = []
        for variety in [variety for varieties in words.values() for variety in varieties]:
            person = replace(base, shape=replace(shape, **{attribute: variety}))
            figures.append(draw_parts(person, pose, 144, 288))
        for n, figure in enumerate(figures):
            for other in figures[:n]:
                assert (figure != other).sum() > 60, attribute


def test_a_person_fills_the_frame_and_cut_feet_are_out_of_it() -> None:
    cut = 0
    for n, person in enumerate(PEOPLE):
        for k in range(5):
            look = look_at(person, RGB, f"{n}/{k}")
            parts = draw_parts(person, look.pose, 96, 192)
            assert (parts != Part.BACKGROUND).mean() > 0.12
            assert (parts[0] == Part.BACKGROUND).all()  # nobody loses their head
            shoes = (parts == Part.SHOES).any()
            assert shoes == ("shoes" not in look.hidden) or person.shape.shoes == "boots"
            cut += "shoes" in look.hidden
    assert 5 < cut < 60


def test_a_hidden_bag_or_print_is_not_in_the_picture() -> None:
    seen = hidden = 0
    for n, person in enumerate(PEOPLE):
        for k in range(6):
            look = look_at(person, RGB, f"{n}/{k}")
            parts = draw_parts(person, look.pose, 96, 192)
            if person.shape.bag:
                assert ("bag" in look.hidden) == bag_is_hidden(person, look.pose)
                area = (parts == Part.BAG).sum()
                assert (area > 60) or "bag" in look.hidden
                seen, hidden = seen + ("bag" not in look.hidden), hidden + ("bag" in look.hidden)
            if person.shape.pattern in ("disc", "box", "cross"):
                assert ("pattern" in look.hidden) == look.pose.back
                assert (parts == Part.SECOND).any() != look.pose.back
    assert seen > hidden > 10


def test_contact_sheet_has_a_row_per_camera() -> None:
    sheet = contact_sheet(PEOPLE, Studio(64, seed=0), columns=6)
    assert sheet.size == (6 * 32, 5 * 64)
    pixels = np.asarray(sheet).astype(int)
    assert np.abs(pixels[..., 0] - pixels[..., 1])[: 3 * 64].mean() > 5  # visible rows have colour
    assert np.abs(pixels[..., 0] - pixels[..., 1])[3 * 64 :].max() == 0

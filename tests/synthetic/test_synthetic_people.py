"""The grid of synthetic people and what it leaves to infrared, to a caption and to both."""

import random
from collections import Counter, defaultdict
from dataclasses import astuple

import pytest

from tvilfm_plugin.synthetic.captioning import observe
from tvilfm_plugin.synthetic.ceilings import ceilings
from tvilfm_plugin.synthetic.people import VARIETIES, block_sizes, draw_people, word_for
from tvilfm_plugin.synthetic.rendering import Camera, draw_look


@pytest.mark.parametrize("seed", range(3))
def test_people_share_a_shape_or_a_palette_with_one_or_two_others(seed: int) -> None:
    people = draw_people(80, seed)
    shapes, palettes = Counter(p.shape for p in people), Counter(p.palette for p in people)
    assert len(people) == 80 and len({p.looks for p in people}) == 80
    assert set(shapes.values()) <= {2, 3} and set(palettes.values()) <= {2, 3}
    assert len({(p.shape, p.palette) for p in people}) == 80


def test_inside_a_block_colours_differ_per_palette_and_details_per_shape() -> None:
    blocks = defaultdict(list)
    for person in draw_people(120, seed=5):
        blocks[person.block].append(person)
    for block in blocks.values():
        for a in block:
            for b in block:
                if a.shape == b.shape and a is not b:
                    assert a.palette.upper != b.palette.upper and a.palette.lower != b.palette.lower
                    assert a.palette.shoes != b.palette.shoes and a.palette.hair != b.palette.hair
                elif a.shape != b.shape:
                    assert a.shape.gender == b.shape.gender and a.shape.build != b.shape.build
                    for attribute in VARIETIES:
                        mine, other = getattr(a.shape, attribute), getattr(b.shape, attribute)
                        assert word_for(attribute, mine) == word_for(attribute, other)  # the coarse word does not tell
                        assert mine != other or len(VARIETIES[attribute][word_for(attribute, mine)]) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 80, 384, 395])
def test_any_number_of_people_is_split_into_blocks(count: int) -> None:
    for seed in range(5):
        blocks = block_sizes(count, random.Random(seed))
        assert sum(size for *_, size in blocks) == count
        assert all(size <= shapes * palettes <= 9 for shapes, palettes, size in blocks)
        if count not in (1, 2, 3, 5):
            assert all(size >= 4 and size != 5 for *_, size in blocks)


@pytest.mark.parametrize("count", [4, 6, 7, 8, 9])
def test_incomplete_blocks_leave_nobody_alone(count: int) -> None:
    people = draw_people(count, seed=1)
    assert min(Counter(p.shape for p in people).values()) >= 2
    assert min(Counter(p.palette for p in people).values()) >= 2


def test_people_are_repeatable_and_avoid_others() -> None:
    first = draw_people(30, seed=2)
    assert first == draw_people(30, seed=2)
    assert first != draw_people(30, seed=3)
    again = draw_people(30, seed=2, avoid=first, first_block=100)
    assert not {p.looks for p in first} & {p.looks for p in again}
    assert min(p.block for p in again) == 100


def test_infrared_material_is_independent_of_colour() -> None:
    people = draw_people(600, seed=9)
    by_colour = defaultdict(list)
    for person in people:
        by_colour[person.palette.upper].append(person.material.upper)
    means = [sum(v) / len(v) for v in by_colour.values() if len(v) > 30]
    assert max(means) - min(means) < 0.15  # sd of a mean of 30 is 0.037
    assert all(0 < value <= 1 for p in people for value in astuple(p.material))


def test_neither_infrared_nor_a_caption_settles_a_query_and_both_do() -> None:
    people = dict(enumerate(draw_people(80, seed=0)))
    captions = {}
    for pid, person in people.items():
        rng = random.Random(pid)
        looks = [draw_look(person, Camera(1 + n, infrared=False), rng, 0.12) for n in range(2)]
        captions[pid] = [observe(person, look, rng, wrong=0.12, missing=0.12) for look in looks]
    limits = ceilings(people, captions)
    assert limits.chance == 1 / 80
    assert 1 / 3 <= limits.shape <= 0.5
    assert 0.33 <= limits.caption <= 0.5
    assert limits.both > 0.9

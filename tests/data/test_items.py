import random

import numpy as np

from tvilfm_plugin.data.items import Item, draw_gallery, gallery_groups, group_by_person


def test_group_by_person_is_ascending_and_keeps_order():
    items = [Item("b", 7, 1), Item("a", 2, 1), Item("c", 7, 2)]
    assert list(group_by_person(items).items()) == [(2, [1]), (7, [0, 2])]


def test_cells_are_sorted_by_identity_camera_and_path():
    items = [Item("z", 2, 4), Item("y", 2, 1), Item("x", 1, 5), Item("a", 2, 4), Item("q", 1, 3)]
    assert gallery_groups(items, (1, 4, 5)) == [[2], [1], [3, 0]]


def test_draws_leave_the_global_generators_alone():
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].copy()
    draw_gallery([[0, 1, 2], [3, 4]], 1, seed=5)
    draw_gallery([[0, 1, 2], [3, 4]], 2, seed=5)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()


def test_single_shot_is_one_seeded_choice_per_cell():
    groups = [list(range(k, k + 9)) for k in range(0, 90, 9)]
    random.seed(4)
    expected = [random.choice(group) for group in groups]
    assert draw_gallery(groups, 1, seed=4) == expected


def test_a_short_cell_gives_everything_and_draws_nothing():
    full = list(range(20))
    assert draw_gallery([[50, 51], full], 10, seed=2) == [50, 51, *draw_gallery([full], 10, seed=2)]

import numpy as np
import pytest

from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.systems import open_system
from tvilfm_plugin.visualization.tsne import Map, build_maps, choose_images, choose_people, embed, letter, map_of


def test_people_and_images_are_chosen_by_the_seed_alone():
    query, gallery = np.array([5, 5, 7, 9, 9, 1]), np.array([1, 5, 5, 5, 9, 2])
    assert choose_people(query, gallery, 10).tolist() == [1, 5, 9]
    chosen = choose_people(query, gallery, 2, seed=3)
    assert len(chosen) == 2 and np.array_equal(chosen, choose_people(query, gallery, 2, seed=3))
    assert {tuple(choose_people(query, gallery, 2, seed)) for seed in range(20)} == {(1, 5), (1, 9), (5, 9)}
    rows = choose_images(gallery, np.array([5, 9]), most=2)
    assert len(rows) == 3 and gallery[rows].tolist() == [5, 5, 9] and np.all(np.diff(rows) > 0)


def test_neighbours_stay_neighbours_and_a_seed_repeats_the_map():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    code = np.repeat(np.arange(4), 8)
    features = centres[code] + 0.05 * rng.normal(size=(32, 12))
    places = embed(features)
    assert places.shape == (32, 2) and np.array_equal(places, embed(features))
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert np.array_equal(code[far.argmin(axis=1)], code)
    with pytest.raises(ValueError, match="at least 4 points, got 3"):
        embed(features[:3])


def test_every_point_is_drawn_where_it_lies():
    rng = np.random.default_rng(1)
    pids = np.repeat([3, 8], 6)
    one = Map(rng.normal(size=(12, 2)), pids, np.tile([False, True], 6), "a note")
    figure = build_maps({"first": one, "second": one._replace(position=2 * one.position)}, "title")
    for axis, factor in zip(figure.axes, (1, 2), strict=True):
        points = {found.get_gid(): np.asarray(found.get_offsets()) for found in axis.collections}
        for pid in (3, 8):
            for kind, visible in (("query", False), ("visible", True)):
                rows = (pids == pid) & (one.visible == visible)
                assert points[f"{kind} {pid}"] == pytest.approx(factor * one.position[rows])
        assert sorted(text.get_text() for text in axis.texts) == ["A", "A", "B", "B"]  # of queries, then of visible images
        letters = {text.get_text(): text.get_position() for text in axis.texts}
        assert letters["B"] == pytest.approx(factor * np.median(one.position[(pids == 8) & one.visible], axis=0))
        (line,) = [line for line in axis.lines if line.get_gid() == "line 3"]
        start, end = np.transpose(line.get_data())
        assert start == pytest.approx(factor * np.median(one.position[(pids == 3) & ~one.visible], axis=0))
        assert end == pytest.approx(np.array(letters["A"])) and axis.get_xlabel() == "a note"
    assert [letter(n) for n in (0, 25, 26, 53)] == ["A", "Z", "A1", "B2"]


def test_systems_show_the_same_people(tiny_evaluation):
    people = np.array([2, 5, 7])
    opened = [open_system("one", tiny_evaluation.folder, StoredEvaluation.load, query=q) for q in ("infrared", "ensemble")]
    maps = [map_of(one, people, most=3) for one in opened]
    for one in maps:
        assert one.pids.tolist() == [2] * 3 + [5] * 3 + [7] * 3 + [2] * 3 + [5] * 3 + [7] * 3
        assert one.visible.tolist() == [False] * 9 + [True] * 9
    assert not np.allclose(maps[0].position, maps[1].position)

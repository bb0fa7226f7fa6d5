import itertools
import json
import math
from pathlib import Path

import numpy as np
import oracles_evaluation as oracle
import pytest
import torch
from golden_inputs import EVAL_CASES, eval_case

from tvilfm_plugin.evaluation import ranking
from tvilfm_plugin.evaluation.protocols import LLCM, MARKET, REGDB, SYSU, Labels
from tvilfm_plugin.evaluation.ranking import chance_metrics, per_query, rank_metrics

GOLDENS = Path(__file__).parents[1] / "goldens"
PROTOCOLS = {"sysu": SYSU, "regdb": REGDB, "llcm": LLCM}
ERRORS = json.loads((GOLDENS / "eval_errors.json").read_text())


def problem(name):
    sim, q_pids, g_pids, q_cams, g_cams = eval_case(name)
    return -sim, Labels(q_pids, q_cams), Labels(g_pids, g_cams)


def golden_cases():
    with np.load(GOLDENS / "eval.npz") as data:
        names = sorted({key.rsplit("/", 1)[0] for key in data})
    # With ties the unstable numbers depend on the processor; where nothing ties both kinds must be equal.
    return [n for n in names if n.endswith("/stable") or EVAL_CASES[n.split("/")[0]].ties is None]


@pytest.mark.parametrize("name", golden_cases())
def test_equals_the_reference_numbers(name):
    case, rule, _ = name.split("/")
    cmc, mean_ap, mean_inp = rank_metrics(*problem(case), PROTOCOLS[rule])
    with np.load(GOLDENS / "eval.npz") as data:
        assert cmc.shape == data[f"{name}/cmc"].shape
        np.testing.assert_allclose(cmc, data[f"{name}/cmc"], rtol=0, atol=1e-6)  # stored as float32
        np.testing.assert_allclose([mean_ap, mean_inp], [data[f"{name}/mAP"], data[f"{name}/mINP"]], rtol=1e-12)


@pytest.mark.parametrize("case", EVAL_CASES)
@pytest.mark.parametrize("protocol", [SYSU, REGDB, LLCM, MARKET], ids=lambda p: p.name)
def test_every_case_equals_the_twin(case, protocol):
    dist, query, gallery = problem(case)
    if case == "o_none_matched":
        with pytest.raises(ValueError, match="None of the 5 queries has a match"):
            rank_metrics(dist, query, gallery, protocol)
        return
    assert_equal_to_twin(dist, query, gallery, protocol, 20)


def test_cases_in_which_the_reference_raises_are_the_two_known_ones():
    assert {key.split("/")[0] for key in ERRORS} == {"i_small_mixed", "o_none_matched"}


def assert_equal_to_twin(dist, query, gallery, protocol, max_rank):
    ours = rank_metrics(dist, query, gallery, protocol, max_rank)
    twin = oracle.rank_metrics(dist, query, gallery, protocol, max_rank)
    assert ours.cmc.shape == twin[0].shape
    np.testing.assert_allclose(ours.cmc, twin[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1:], twin[1:], rtol=1e-12)


def random_problem(rng):
    queries, images, ids = rng.integers(1, 9), rng.integers(1, 30), rng.integers(1, 8)
    names = rng.choice(50, 8, replace=False) - 20  # any integers, in no order
    gallery = Labels(names[rng.integers(0, ids, images)], rng.integers(1, 4, images))
    query = Labels(names[rng.integers(0, min(ids + 2, 8), queries)], rng.integers(1, 4, queries))
    dist = rng.standard_normal((queries, images))
    if rng.random() < 0.7:
        dist = np.round(dist, rng.integers(0, 2))  # also -0.0 beside 0.0, which are equal
    return dist.astype(rng.choice([np.float32, np.float64])), query, gallery


@pytest.mark.parametrize("protocol", [SYSU, REGDB, LLCM, MARKET], ids=lambda p: p.name)
def test_random_problems_equal_the_twin_query_by_query(protocol, monkeypatch):
    rng = np.random.default_rng(5)
    for _ in range(400):
        monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", int(rng.integers(1, 120)))
        dist, query, gallery = random_problem(rng)
        ours = per_query(dist, query, gallery, protocol)
        lists = ranking.ranking(dist, query, gallery, protocol, top=12)
        for q, row in enumerate(dist.tolist()):
            twin = oracle.rank_query(row, query.pids[q], query.camids[q], gallery, protocol)
            assert lists[q].tolist() == (twin.ranking + [-1] * 12)[:12]
            assert ours.valid[q] == (twin.first_match_rank is not None)
            assert ours.first_match_rank[q] == (twin.first_match_rank or 0)
            expected = [np.nan if value is None else value for value in (twin.ap, twin.inp)]
            np.testing.assert_allclose([ours.ap[q], ours.inp[q]], expected, rtol=1e-12)
        if ours.valid.any():
            assert_equal_to_twin(dist, query, gallery, protocol, int(rng.integers(1, 25)))


def test_ties_rank_by_gallery_index():
    gallery = Labels(np.array([2, 1, 2, 1]), np.array([1, 1, 1, 1]))
    query = Labels(np.array([1, 2]), np.array([6, 6]))
    result = per_query(np.zeros((2, 4)), query, gallery, REGDB)
    assert result.first_match_rank.tolist() == [2, 1]
    np.testing.assert_allclose(result.ap, [(1 / 2 + 2 / 4) / 2, (1 + 2 / 3) / 2])
    assert ranking.ranking(np.zeros((2, 4)), query, gallery, REGDB, 5).tolist() == [[0, 1, 2, 3, -1]] * 2


def test_float64_distances_are_not_rounded_to_float32():
    near = np.array([[1.0 + 1e-12, 1.0]])
    gallery = Labels(np.array([2, 1]), np.array([1, 1]))
    result = per_query(near, Labels(np.array([1]), np.array([3])), gallery, SYSU)
    assert result.first_match_rank.tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_input_equals_numpy_input(dtype):
    dist, query, gallery = problem("c_ties_30x120")
    tensor = torch.from_numpy(dist).to(dtype).requires_grad_()
    ours = rank_metrics(tensor, Labels(*map(torch.from_numpy, query)), gallery, SYSU)
    expected = rank_metrics(tensor.detach().double().numpy(), query, gallery, SYSU)
    assert ours[1:] == expected[1:] and ours.cmc.tolist() == expected.cmc.tolist()


def test_integer_distances_and_input_left_alone():
    dist, query, gallery = problem("d_ties_hard_20x90")
    whole = np.ascontiguousarray(dist).astype(np.int64)
    before = whole.copy()
    assert rank_metrics(whole, query, gallery, SYSU).mAP == rank_metrics(whole.astype(float), query, gallery, SYSU).mAP
    assert (whole == before).all()
    frozen = dist.copy()
    frozen.setflags(write=False)
    rank_metrics(frozen, query, gallery, SYSU)


def test_a_query_whose_filtered_ranking_is_shorter_than_the_cmc_keeps_its_last_value():
    # Without camera 2 only identity 1 is left for the camera-3 query: its curve has one entry, and stays there.
    gallery = Labels(np.array([1, 2, 3]), np.array([1, 2, 2]))
    query = Labels(np.array([1, 3]), np.array([3, 6]))
    metrics = rank_metrics(np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3]]), query, gallery, SYSU)
    assert metrics.cmc.tolist() == [0.5, 0.5, 1.0]


def test_queries_without_a_match_count_in_nothing():
    dist, query, gallery = problem("b_unmatched_50x150")
    known = np.isin(query.pids, gallery.pids)
    assert not known.all()
    some = rank_metrics(dist[known], Labels(query.pids[known], query.camids[known]), gallery, REGDB)
    every = rank_metrics(dist, query, gallery, REGDB)
    assert some.cmc.tolist() == every.cmc.tolist() and some[1:] == every[1:]
    results = per_query(dist, query, gallery, REGDB)
    assert (results.valid == known).all() and np.isnan(results.ap[~known]).all()
    assert (results.first_match_rank[~known] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_distances_raise_and_are_located(bad, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", 1000)
    dist, query, gallery = problem("a_rand_40x200")
    dist[31, 17] = bad
    with pytest.raises(ValueError, match="query 31 to gallery image 17"):
        rank_metrics(dist, query, gallery, SYSU)


def test_clear_errors_for_what_cannot_be_ranked():
    query, gallery = Labels(np.array([1]), np.array([3])), Labels(np.array([1, 2]), np.array([1, 1]))
    with pytest.raises(ValueError, match="2 columns"):
        rank_metrics(np.zeros((1, 2)), query, Labels(np.array([1]), np.array([1])), SYSU)
    with pytest.raises(ValueError, match="matrix"):
        rank_metrics(np.zeros(2), query, gallery, SYSU)
    with pytest.raises(ValueError, match="max_rank"):
        rank_metrics(np.zeros((1, 2)), query, gallery, SYSU, max_rank=0)
    none = Labels(np.array([], dtype=int), np.array([], dtype=int))
    with pytest.raises(ValueError, match="None of the 1 queries"):
        rank_metrics(np.zeros((1, 0)), query, none, SYSU)
    with pytest.raises(ValueError, match="None of the 0 queries"):
        rank_metrics(np.zeros((0, 2)), none, gallery, SYSU)


def test_rank_beyond_the_curve_keeps_its_last_value():
    metrics = ranking.RankMetrics(np.array([0.5, 0.75]), 0.4, 0.3)
    assert [metrics.rank(1), metrics.rank(2), metrics.rank(20)] == [0.5, 0.75, 0.75]
    with pytest.raises(ValueError, match="count from 1"):
        metrics.rank(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_that_cannot_tie_sort_as_distance_and_index(dtype):
    rng = np.random.default_rng(1)
    extremes = [
        0.0,
        -0.0,
        np.inf,
        1e-45,
        -1e-45,
        np.finfo(dtype).max,
        np.finfo(dtype).min,
        -1.0,
        1.0,
        np.nextafter(dtype(1), dtype(2)),
    ]
    dist = rng.choice(np.array(extremes, dtype), (20, 40))
    index = rng.permutation(40)
    keys = ranking._untied(dist, index)
    for row, key in zip(dist, keys, strict=True):
        expected = sorted(range(40), key=lambda c: (row[c], index[c]))
        assert np.argsort(key).tolist() == expected and len(set(key)) == 40


@pytest.mark.parametrize("rare", [True, False], ids=["few ties", "ties everywhere"])
def test_both_ways_of_breaking_ties_equal_the_twin(rare):
    rng = np.random.default_rng(2)
    dist = rng.standard_normal((30, 200)).astype(np.float32)
    if rare:
        dist[5, 10:14] = dist[5, 0]
    else:
        dist = dist.round(1)
    assert ranking._ties_everywhere(dist) != rare
    query, gallery = Labels(rng.integers(0, 9, 30), rng.choice([3, 6], 30)), Labels(np.arange(200) % 9, np.arange(200) % 5)
    assert_equal_to_twin(dist, query, gallery, SYSU, 20)


def test_distances_computed_row_by_row_rank_as_the_matrix(monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", 100)
    generator = torch.Generator().manual_seed(0)
    # Small integers: products are exact in any order, and tie.
    vectors = [torch.randint(-2, 3, (n, 8), generator=generator).float() for n in (13, 40)]
    query, gallery = Labels(np.arange(13) % 5, np.full(13, 3)), Labels(np.arange(40) % 5, np.arange(40) % 4)
    lazy, whole = ranking.MinusInnerProduct(*vectors), -(vectors[0] @ vectors[1].T)
    ours, expected = rank_metrics(lazy, query, gallery, SYSU), rank_metrics(whole, query, gallery, SYSU)
    assert ours[1:] == expected[1:] and ours.cmc.tolist() == expected.cmc.tolist()
    for a, b in zip(*(ranking.nearest(dist, query, gallery, SYSU, 45) for dist in (lazy, whole)), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="40 columns"):
        rank_metrics(lazy, query, query, SYSU)


def test_distances_of_a_ranking_are_infinite_where_nothing_is_left():
    gallery = Labels(np.array([1, 2, 3]), np.array([1, 2, 1]))
    index, distance = ranking.nearest(np.array([[0.5, 0.1, 0.2]]), Labels(np.array([1]), np.array([3])), gallery, SYSU, 4)
    assert index.tolist() == [[2, 0, -1, -1]] and distance.tolist() == [[0.2, 0.5, np.inf, np.inf]]


def test_agrees_with_scikit_learn():
    from sklearn.metrics import average_precision_score

    dist, query, gallery = problem("j_llcm_80x160")
    results = per_query(dist, query, gallery, LLCM)
    for q in np.flatnonzero(results.valid):
        same = gallery.pids == query.pids[q]
        kept = ~(same & (gallery.camids == query.camids[q]))
        assert results.ap[q] == pytest.approx(average_precision_score(same[kept], -dist[q, kept]), rel=1e-12)


def test_chance_level_of_a_balanced_gallery_is_one_in_the_number_of_identities():
    ids = np.arange(20).repeat(4)
    gallery, query = Labels(ids, np.tile([1, 2, 4, 5], 20)), Labels(np.arange(20).repeat(5), np.full(100, 6))
    chance = chance_metrics(query, gallery, SYSU)
    assert chance.rank(1) == pytest.approx(1 / 20, abs=0.01) and chance.rank(20) == 1
    assert chance.rank(10) == pytest.approx(1 / 2, abs=0.02)
    # Expected AP of a random ranking of n images with m matches.
    n, m = 80, 4
    harmonic = sum(1 / i for i in range(1, n + 1))
    assert chance.mAP == pytest.approx((m - 1) / (n - 1) + harmonic / n * (n - m) / (n - 1), abs=0.003)


def guessed(query, gallery, protocol, repeats=400, seed=0):
    """The mean over random rankings, which `chance_metrics` used to draw."""
    rng = np.random.default_rng(seed)
    drawn = [rank_metrics(rng.random((len(query.pids), len(gallery.pids))), query, gallery, protocol) for _ in range(repeats)]
    means = (np.mean([getattr(one, name) for one in drawn], axis=0) for name in ("cmc", "mAP", "mINP"))
    return tuple(means)


@pytest.mark.parametrize("protocol", [SYSU, REGDB, LLCM, MARKET])
def test_chance_level_is_the_mean_of_random_rankings(protocol):
    """Persons of one to nine images, some only seen by the query's own camera, some queries without a match."""
    rng = np.random.default_rng(1)
    gallery = Labels(np.repeat(np.arange(12), rng.integers(1, 10, 12)), rng.integers(1, 4, 100))
    gallery = Labels(gallery.pids, gallery.camids[: len(gallery.pids)])
    query = Labels(rng.integers(0, 14, 40), rng.integers(1, 4, 40))
    cmc, mean_ap, mean_inp = guessed(query, gallery, protocol)
    exact = chance_metrics(query, gallery, protocol)
    np.testing.assert_allclose(exact.cmc, cmc, atol=0.015)
    assert exact.mAP == pytest.approx(mean_ap, abs=0.006) and exact.mINP == pytest.approx(mean_inp, abs=0.006)


def test_chance_level_of_small_galleries_by_all_their_orders():
    gallery, query = Labels(np.array([0, 0, 1, 2, 2, 2]), np.ones(6, int)), Labels(np.array([0, 1, 2, 9]), np.full(4, 6))
    orders = np.array(list(itertools.permutations(range(6))), dtype=float)
    for protocol in (SYSU, REGDB):
        exact = chance_metrics(query, gallery, protocol)
        ranked = [rank_metrics(np.tile(order, (4, 1)), query, gallery, protocol) for order in orders]
        np.testing.assert_allclose(exact.cmc, np.mean([one.cmc for one in ranked], axis=0), atol=1e-9)
        assert exact.mAP == pytest.approx(np.mean([one.mAP for one in ranked]), abs=1e-12)
        assert exact.mINP == pytest.approx(np.mean([one.mINP for one in ranked]), abs=1e-12)


def test_chance_level_of_equal_persons_is_exact_and_costs_little():
    people = 395
    gallery = Labels(np.arange(people).repeat(100), np.tile([1, 2, 4, 5], people * 25))
    query = Labels(np.arange(people).repeat(15), np.full(people * 15, 3))
    chance = chance_metrics(query, gallery, SYSU)
    np.testing.assert_allclose(chance.cmc, np.arange(1, 21) / people, rtol=1e-9)


@pytest.mark.parametrize("people, most", [(3, 6), (40, 1), (60, 90)])
def test_chance_level_equals_sums_and_integrals_written_out(people, most):
    """INP as the sum over the place of the last right image, identity CMC as an integral, one query after the other."""
    rng = np.random.default_rng(people)
    sizes = rng.integers(1, most + 1, people)
    gallery = Labels(np.repeat(np.arange(people), sizes), np.ones(sizes.sum(), int))
    exact = chance_metrics(Labels(np.arange(people), np.full(people, 6)), gallery, SYSU)
    inp, cmc = [], []
    for own, m in enumerate(sizes.tolist()):
        total, others = int(sizes.sum()), np.delete(sizes, own).tolist()
        ways = [(m / place) * math.comb(place - 1, m - 1) / math.comb(total, m) for place in range(m, total + 1)]
        inp.append(math.fsum(ways))

        def before(left, others=others):
            chances = np.ones(1)
            for size in others:
                chances = np.convolve(chances, [left**size, 1 - left**size])[:20]
            return np.cumsum(np.pad(chances, (0, 20)))[:20]

        # Of the first own image: (1 - t)^m is uniform.
        nodes, weights = np.polynomial.legendre.leggauss(200)
        at = [((node + 1) / 2) ** (1 / m) for node in nodes]
        cmc.append((weights / 2) @ np.array([before(left) for left in at]))
    np.testing.assert_allclose(exact.cmc, np.mean(cmc, axis=0)[: len(exact.cmc)], atol=1e-5)
    assert exact.mINP == pytest.approx(np.mean(inp), abs=1e-12)


def test_chance_level_needs_a_match():
    with pytest.raises(ValueError, match="None of the 1 queries has a match"):
        chance_metrics(Labels(np.array([5]), np.array([1])), Labels(np.array([1]), np.array([1])), SYSU)

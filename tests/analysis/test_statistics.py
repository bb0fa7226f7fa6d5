import numpy as np
import oracles_stats as oracle
import pytest

from tvilfm_plugin.analysis.statistics import holm, identity_bootstrap, paired_randomisation
from tvilfm_plugin.evaluation.summary import summarise


def people(rng, ids=40, spread=0.3):
    """Per-query values in which the queries of a person resemble each other; persons have 1..30 queries."""
    pids = np.repeat(rng.permutation(1000)[:ids], rng.integers(1, 31, ids))
    level = dict(zip(np.unique(pids).tolist(), rng.normal(0.5, spread, ids), strict=True))
    return np.array([level[p] for p in pids.tolist()]) + rng.normal(0, 0.05, len(pids)), pids


def test_summary_is_students_interval():
    summary = summarise([80.0, 82.0, 81.0, 79.0])
    assert (summary.mean, summary.n) == (80.5, 4)
    assert summary.sd == pytest.approx(np.sqrt(5 / 3))
    half = 3.182446305284263 * summary.sd / 2  # t(0.975) with three degrees of freedom, from a table
    assert (summary.low, summary.high) == (pytest.approx(80.5 - half), pytest.approx(80.5 + half))


def test_one_trial_has_no_spread():
    summary = summarise([3.0])
    assert (summary.mean, summary.n) == (3.0, 1) and np.isnan([summary.sd, summary.low, summary.high]).all()


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_summary_refuses_what_it_cannot_average(values):
    with pytest.raises(ValueError, match="finite trials"):
        summarise(values)


def test_bootstrap_equals_the_twin_in_distribution_and_is_seeded():
    values, pids = people(np.random.default_rng(1))
    ours = identity_bootstrap(values, pids, resamples=4000, seed=7)
    twin = np.quantile(oracle.bootstrap_means(values, pids, 4000, seed=11), [0.025, 0.975])
    assert ours.mean == pytest.approx(values.mean()) and ours.n == 40
    assert [ours.low, ours.high] == pytest.approx(twin.tolist(), abs=0.1 * (twin[1] - twin[0]))
    assert ours == identity_bootstrap(values, pids, resamples=4000, seed=7)
    assert ours != identity_bootstrap(values, pids, resamples=4000, seed=8)


def test_identities_not_queries_are_resampled():
    # Every query of a person is the same: the interval must not shrink when each is repeated a hundred times.
    rng = np.random.default_rng(2)
    level = rng.normal(0.5, 0.1, 30)
    once = identity_bootstrap(level, np.arange(30))
    often = identity_bootstrap(level.repeat(100), np.arange(30).repeat(100))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        values, pids = people(rng)
        interval = identity_bootstrap(values, pids, resamples=300, seed=trial)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.86 <= hits / 200 <= 0.99


def test_queries_that_count_in_nothing_are_left_out():
    values, pids = people(np.random.default_rng(4))
    extra = np.append(values, [np.nan, np.nan]), np.append(pids, [pids[0], -5])
    assert identity_bootstrap(*extra) == identity_bootstrap(values, pids)
    with pytest.raises(ValueError, match="None of the 2 queries"):
        identity_bootstrap(np.array([np.nan, np.nan]), np.array([1, 2]))


def test_paired_test_is_exact_with_few_identities():
    # Differences 1, 2, 3: of the 8 sign patterns only +++ and --- reach |mean| 2.
    pids = np.array([1, 1, 2, 3])
    first, second = np.zeros(4), np.array([0.0, 2.0, 2.0, 3.0])
    test = paired_randomisation(first, second, pids)
    assert (test.difference, test.p_value, test.n) == (2.0, 0.25, 3)
    means = oracle.identity_means(second - first, pids)
    assert test.difference == np.mean(list(means.values()))


def test_equal_sign_patterns_count_as_equal_despite_rounding():
    # All differences are 0.1, so every sum that is really the largest must count, however it is rounded.
    test = paired_randomisation(np.zeros(10), np.full(10, 0.1), np.arange(10))
    assert test.p_value == 2 / 2**10


def test_random_patterns_agree_with_all_patterns():
    values, pids = people(np.random.default_rng(6), ids=12)
    other = values + np.random.default_rng(7).normal(0.02, 0.2, len(values))
    exact = paired_randomisation(values, other, pids, resamples=4096)
    drawn = paired_randomisation(values, other, pids, resamples=4095)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.03)


def test_p_values_are_uniform_without_and_small_with_a_difference():
    rng = np.random.default_rng(8)
    p_values = []
    for trial in range(200):
        values, pids = people(rng, spread=0.1)
        other = values + rng.normal(0, 0.1, len(values))
        p_values.append(paired_randomisation(values, other, pids, resamples=400, seed=trial).p_value)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1) and np.mean(np.array(p_values) < 0.05) < 0.11
    better = paired_randomisation(values, values + 0.1 + rng.normal(0, 0.05, len(values)), pids)
    assert better.p_value < 0.001 and better.low > 0 and better.low < better.difference < better.high
    worse = paired_randomisation(values + 0.1, values, pids)
    assert worse.difference == pytest.approx(-0.1)


def test_paired_test_needs_the_same_queries():
    with pytest.raises(ValueError, match="same queries"):
        paired_randomisation(np.array([1.0, np.nan]), np.array([1.0, 2.0]), np.array([1, 2]))


def test_holm_equals_the_twin():
    rng = np.random.default_rng(9)
    for n in (1, 2, 5, 20):
        p_values = np.round(rng.random(n) ** 3, 2)
        np.testing.assert_allclose(holm(p_values), oracle.holm(p_values.tolist()))
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match="lie in"):
        holm([0.5, 1.5])

import numpy as np
import pytest

from tvilfm_plugin.analysis.intervals import cmc_intervals, intervals_table, query_means, row_intervals
from tvilfm_plugin.analysis.statistics import identity_bootstrap
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import found_within


def test_every_row_has_an_interval_around_its_number(tiny_evaluation):
    run, folder = tiny_evaluation, tiny_evaluation.folder
    rows = row_intervals(StoredEvaluation.load(folder), folder, resamples=500)
    assert [row.label for row in rows] == [key.removesuffix("/mAP") for key in run.results if key.endswith("/mAP")]
    for row in rows:
        assert row.draws.n == 3 and row.text_seeds.n == (2 if row.source == "oracle" else 1)
        for metric, interval in row.intervals.items():
            assert 100 * interval.mean == pytest.approx(run.results[f"{row.label}/{metric}"])
            assert interval.low <= interval.mean <= interval.high and interval.n == 11
    assert np.ptp([row.intervals["mAP"].mean for row in rows]) > 0
    table = intervals_table(rows)
    assert "11 query identities" in table and table.count("|\n") == 8


def test_a_curve_of_intervals_equals_its_points():
    rng = np.random.default_rng(0)
    rank = rng.integers(0, 6, (2, 3, 40))
    rank[:, :, 7] = 0
    pids = np.repeat(np.arange(10), 4)
    means = query_means(found_within(rank, 2))
    for q in range(40):
        found = [rank[s, t, q] <= 2 for s in range(2) for t in range(3) if rank[s, t, q] > 0]
        assert np.isnan(means[q]) if not found else means[q] == pytest.approx(sum(found) / len(found))
    assert np.isnan(means[7])
    curve = cmc_intervals(rank, pids, 5, resamples=100, seed=3)
    assert curve[1] == identity_bootstrap(means, pids, resamples=100, seed=3) and curve[4].mean == 1 == curve[4].low

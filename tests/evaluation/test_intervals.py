import numpy as np
import pytest
from stored_runs import TinyEvaluation

from tvilfm_plugin.evaluation.intervals import intervals_table, row_intervals
from tvilfm_plugin.evaluation.stored import StoredEvaluation


def test_every_row_has_an_interval_around_its_number(tmp_path):
    run = TinyEvaluation(tmp_path)
    rows = row_intervals(StoredEvaluation.load(tmp_path), tmp_path, resamples=500)
    assert [row.label for row in rows] == [key.removesuffix("/mAP") for key in run.results if key.endswith("/mAP")]
    for row in rows:
        assert row.draws.n == 3 and row.text_seeds.n == (2 if row.source == "oracle" else 1)
        for metric, interval in row.intervals.items():
            assert 100 * interval.mean == pytest.approx(run.results[f"{row.label}/{metric}"])
            assert interval.low <= interval.mean <= interval.high and interval.n == 11
    assert np.ptp([row.intervals["mAP"].mean for row in rows]) > 0
    table = intervals_table(rows)
    assert "11 query identities" in table and table.count("|\n") == 8

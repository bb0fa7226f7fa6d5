import numpy as np
import pytest
from stored_runs import tiny_run

from tvilfm_plugin.visualization.cmc import cmc_cells, cmc_of, cmc_panel
from tvilfm_plugin.visualization.curves import build_curves
from tvilfm_plugin.visualization.stored import Ranked
from tvilfm_plugin.visualization.systems import evaluation_of


def test_the_curve_goes_through_the_evaluators_numbers(tmp_path):
    run = tiny_run(tmp_path, noise=2.0)
    found = {}
    for label in ("all/infrared", "all/ensemble"):
        ranked = Ranked.read(evaluation_of(tmp_path), label)
        found[ranked.query_type] = cmc = cmc_of(ranked, resamples=300)
        assert len(cmc) == 20 and cmc[0].n == 11
        for k in (1, 5, 10, 20):
            assert 100 * cmc[k - 1].mean == pytest.approx(run.results[f"{label}/R-{k}"])
        assert all(one.low <= one.mean <= one.high for one in cmc) and np.all(np.diff([one.mean for one in cmc]) >= 0)
    assert found["infrared"][0].low < found["infrared"][0].high
    panel = cmc_panel(found)
    assert panel["ensemble"].x == list(range(1, 21))
    assert panel["ensemble"].y[0] == pytest.approx(run.results["all/ensemble/R-1"])
    cells = cmc_cells(found)
    assert cells[0] == ["curve", *(f"R-{k} [95 % interval]" for k in (1, 5, 10, 20))]
    assert cells[1][1].startswith(f"{run.results['all/infrared/R-1']:.2f} [")

    (axis,) = build_curves({"": panel}, title="t", x_label="k", y_label="R-k, %").axes
    line = next(one for one in axis.lines if len(one.get_xdata()) == 20)
    assert line.get_ydata() == pytest.approx(panel["infrared"].y)
    bands = [path.get_paths()[0].vertices for path in axis.collections if len(path.get_paths()[0].vertices) > 40]
    assert len(bands) == 2
    assert bands[0][:, 1].min() == pytest.approx(min(panel["infrared"].low))
    assert bands[0][:, 1].max() == pytest.approx(max(panel["infrared"].high))

import numpy as np
import pytest

from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.distances import BINS, Distances, build_histograms, histogram_cells, pair_distances
from tvilfm_plugin.visualization.systems import open_system


@pytest.fixture(scope="module")
def system(tiny_evaluation):
    return open_system("ours", tiny_evaluation.folder, StoredEvaluation.load, query="ensemble")


def test_distances_are_those_of_the_ranked_pairs(system):
    found = pair_distances(system, draw=1)
    queries, gallery, labels, columns = system.embeddings(1)
    same, different = [], []
    for q, (pid, camid) in enumerate(zip(*system.stored.query, strict=True)):
        for g in columns:
            if camid == 3 and labels.camids[g] == 2:
                continue
            distance = 1 - float(queries[q].double() @ gallery[g].double())
            (same if labels.pids[g] == pid else different).append(distance)
    assert np.sort(found.same) == pytest.approx(np.sort(same), abs=1e-5)
    assert np.sort(found.different) == pytest.approx(np.sort(different), abs=1e-5)
    pairs = [(a < b) + 0.5 * (a == b) for a in found.same[:40] for b in found.different[:40]]
    assert Distances(found.same[:40], found.different[:40]).in_order == pytest.approx(np.mean(pairs))


def test_the_histograms_show_them(system):
    found = {"ours": pair_distances(system), "guess": Distances(np.array([0.2, 0.4, 0.9]), np.array([0.5, 0.6, 1.5]))}
    figure = build_histograms(found, "title")
    for axis, (name, one) in zip(figure.axes, found.items(), strict=True):
        assert axis.get_title() == name
        assert f"means {one.same.mean():.3f} / {one.different.mean():.3f}" in axis.get_xlabel()
        assert f"in order {100 * one.in_order:.1f} %" in axis.get_xlabel()
        lines = sorted(float(line.get_xdata()[0]) for line in axis.lines)
        assert lines == pytest.approx(sorted([one.same.mean(), one.different.mean()]))
        # Of either kind a filled histogram, whose bars have area 1.
        bars = [patch for patch in axis.patches if hasattr(patch, "get_height")]
        assert len(bars) == 2 * BINS
        for some in (bars[:BINS], bars[BINS:]):
            assert sum(bar.get_height() * bar.get_width() for bar in some) == pytest.approx(1)
    # One scale of distances for all systems.
    assert len({axis.get_xlim() for axis in figure.axes}) == 1
    cells = histogram_cells(found)
    assert cells[2] == ["guess", "0.500 ± 0.361", "0.867 ± 0.551", "3 / 3", "77.8 %"]

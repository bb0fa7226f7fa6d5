import numpy as np
import oracles_evaluation as oracle
import pytest
from stored_runs import DRAWS

from tvilfm_plugin.analysis.rules import Galleries, compare_rules, rules_table, stored_rules
from tvilfm_plugin.evaluation.protocols import LLCM, REGDB, SYSU, Labels, Protocol
from tvilfm_plugin.evaluation.ranking import rank_metrics
from tvilfm_plugin.evaluation.stored import StoredEvaluation


def random_galleries(rng, draws=2, decimals=8):
    query = Labels(rng.integers(0, 9, 30), rng.integers(1, 7, 30))
    gallery = [Labels(np.arange(50) % 9, rng.integers(1, 7, 50)) for _ in range(draws)]
    return Galleries([np.round(rng.random((30, 50)), decimals) for _ in range(draws)], query, gallery)


def find(rows, beginning):
    return next(row for row in rows if row.rule.startswith(beginning))


def test_every_rule_is_that_protocol():
    galleries = random_galleries(np.random.default_rng(0))
    rows = compare_rules(galleries, LLCM)
    expected = {
        "as reported": LLCM,
        "CMC over images": Protocol("", LLCM.is_junk, False),
        "nothing ignored; CMC over identities": Protocol("", REGDB.is_junk, True),
        "camera-3 queries ignore camera 2 (SYSU-MM01); CMC over identities": SYSU,
    }
    for name, protocol in expected.items():
        pairs = zip(galleries.dist, galleries.gallery, strict=True)
        metrics = [rank_metrics(dist, galleries.query, gallery, protocol) for dist, gallery in pairs]
        row = find(rows, name)
        assert row.values[0] == pytest.approx(100 * np.mean([m.rank(1) for m in metrics]))
        assert row.values[4] == pytest.approx(100 * np.mean([m.mAP for m in metrics]))
        np.testing.assert_allclose(row.difference, row.values - rows[0].values)
    singles = find(rows, "best single draw").values[4], find(rows, "worst single draw").values[4]
    assert singles[0] > rows[0].values[4] > singles[1]


def tied_share(galleries):
    """Share of neighbouring pairs in the sorted lists that have equal distances: how much a tie rule can matter."""
    ties = sum(int((np.diff(np.sort(d, axis=1), axis=1) == 0).sum()) for d in galleries.dist)
    return ties / max(1, sum(d.shape[0] * (d.shape[1] - 1) for d in galleries.dist))


def test_the_order_of_ties_is_turned_round():
    galleries = random_galleries(np.random.default_rng(1), draws=1, decimals=1)
    assert tied_share(galleries) > 0.5
    row = find(compare_rules(galleries, REGDB), "ties")
    dist, gallery = galleries.dist[0], galleries.gallery[0]
    values = []
    for q, pid in enumerate(galleries.query.pids):
        order = sorted(range(50), key=lambda g, q=q: (dist[q, g], -g))
        right = [g for g, image in enumerate(order, 1) if gallery.pids[image] == pid]
        values.append(np.mean([n / place for n, place in enumerate(right, 1)]))
    assert row.values[4] == pytest.approx(100 * np.mean(values)) and row.difference[4] != 0


def test_without_ties_their_order_changes_nothing():
    galleries = random_galleries(np.random.default_rng(2))
    assert tied_share(galleries) == 0
    assert not find(compare_rules(galleries, SYSU), "ties").difference.any()


def test_rules_of_a_stored_evaluation(tiny_evaluation):
    run, stored = tiny_evaluation, StoredEvaluation.load(tiny_evaluation.folder)
    rows = stored_rules(stored, "all/infrared")
    assert rows[0].values[[0, 4]] == pytest.approx([run.results["all/infrared/R-1"], run.results["all/infrared/mAP"]])
    # MIP's rule ignores the same person on the same camera, of which infrared and visible cameras have none in common.
    np.testing.assert_array_equal(
        find(rows, "same person and same camera").values, find(rows, "nothing ignored; CMC over identities").values
    )
    assert abs(find(rows, "similarities in float64").difference[4]) < 0.5
    assert find(rows, f"best single draw (of {DRAWS}").values[4] >= rows[0].values[4]
    table = rules_table(rows)
    assert table.count("\n") == len(rows) + 1 and "Δ mAP" in table


def test_twin_confirms_a_rule_change():
    galleries = random_galleries(np.random.default_rng(4), draws=1)
    row = find(compare_rules(galleries, SYSU), "nothing ignored; CMC over images")
    gallery = galleries.gallery[0]
    results = [
        oracle.rank_query(galleries.dist[0][q].tolist(), int(pid), int(camid), gallery, REGDB)
        for q, (pid, camid) in enumerate(zip(*galleries.query, strict=True))
    ]
    firsts = [r.first_match_rank for r in results if r.ap is not None]
    assert row.values[1] == pytest.approx(100 * np.mean([rank <= 5 for rank in firsts]))

import json

import numpy as np
import oracles_stats as oracle
import pytest
from stored_runs import TinyEvaluation

from tvilfm_plugin.analysis.verify import TOLERANCE, independent_scores, verification_table, verified, verify
from tvilfm_plugin.evaluation.protocols import LLCM, MARKET, REGDB, SYSU, Labels
from tvilfm_plugin.evaluation.ranking import per_query
from tvilfm_plugin.evaluation.stored import StoredEvaluation


@pytest.mark.parametrize("protocol", [SYSU, REGDB, LLCM, MARKET])
def test_scikit_learn_agrees_also_with_ties_and_junk(protocol):
    rng = np.random.default_rng(3)
    query = Labels(rng.integers(0, 9, 40), rng.integers(1, 7, 40))
    gallery = Labels(rng.integers(0, 8, 60), rng.integers(1, 7, 60))
    dist = np.round(rng.random((40, 60)), 1).astype(np.float32)  # ten distances for sixty images: ties everywhere
    ap, first = independent_scores(dist, query, gallery, protocol)
    ours = per_query(dist, query, gallery, protocol)
    np.testing.assert_array_equal(np.isfinite(ap), ours.valid)
    np.testing.assert_allclose(ap[ours.valid], ours.ap[ours.valid], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(first[ours.valid], ours.first_match_rank[ours.valid] == 1)


def test_the_list_is_the_one_that_is_meant():
    # Images 0 and 2 tie and 0 comes first; image 3 is junk (camera 2 for a camera-3 query).
    query, gallery = Labels(np.array([5]), np.array([3])), Labels(np.array([1, 5, 5, 5]), np.array([1, 1, 4, 2]))
    ap, first = independent_scores(np.array([[0.2, 0.9, 0.2, 0.0]]), query, gallery, SYSU)
    assert ap[0] == pytest.approx(oracle.average_precision([False, True, True])) and first[0] == 0


def test_a_stored_evaluation_is_verified(tiny_evaluation):
    checks = verify(StoredEvaluation.load(tiny_evaluation.folder))
    assert len(checks) == 6 and verified(checks)
    assert max(c.mAP for c in checks) <= TOLERANCE and max(c.rank1 for c in checks) == 0
    assert "verified (at most 1e-12 and 0)" in verification_table(checks)


def test_a_forged_number_is_found(tmp_path):
    TinyEvaluation(tmp_path)
    described = json.loads((tmp_path / "results.json").read_text())
    described["results"]["all/fusion/mAP"] += 0.1
    (tmp_path / "results.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"results\.json was changed after it was written"):
        StoredEvaluation.load(tmp_path)
    del described["digest"]
    (tmp_path / "results.json").write_text(json.dumps(described))
    checks = verify(StoredEvaluation.load(tmp_path))
    assert not verified(checks)
    assert [c.label for c in checks if c.stored > 1e-6] == ["all/fusion"]
    assert "the files were changed" in verification_table(checks)

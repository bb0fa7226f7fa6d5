"""Thresholds against a literal twin that looks at one pair at a time."""

import numpy as np
import pytest
from stored_runs import TinyEvaluation

from tvilfm_plugin.analysis.thresholds import Pairs, calibrate, held_out, operating_points, stored_pairs, thresholds_table
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.protocols import LLCM, SYSU
from tvilfm_plugin.evaluation.stored import StoredEvaluation


def twin_pairs(stored, label):
    """Every pair of the row as (similarity, same, query camera, gallery camera), one at a time."""
    card, kind, found = stored.card(label), stored.query_type(label), []
    for seed in card.text_seeds or (0,):
        for draw in range(len(stored.draws[card.setting])):
            embeddings, gallery = stored.drawn_gallery(card.setting, draw)
            queries = ensemble(stored.queries(card.setting, card.text_source, seed, draw, kind.members), kind.members)
            for q, (pid, camid) in enumerate(zip(*stored.query, strict=True)):
                mine = []
                for g, (other, camera) in enumerate(zip(*gallery, strict=True)):
                    junk = camid == 3 and camera == 2 if stored.protocol is SYSU else pid == other and camid == camera
                    if not junk:
                        mine.append((float(queries[q] @ embeddings[g]), bool(pid == other), int(camid), int(camera)))
                if any(same for _, same, _, _ in mine):
                    found += mine
    return found


def twin_threshold(wrong, rate):
    """Go down from the highest similarity until one more would be too many."""
    wrong = np.array(wrong)
    for value in sorted(set(wrong.tolist()), reverse=True):
        if (wrong >= value).sum() > rate * len(wrong) + 1e-9:
            return float(np.nextafter(np.float32(value), np.float32(np.inf)))
    raise AssertionError


@pytest.mark.parametrize("protocol", [SYSU, LLCM])
@pytest.mark.parametrize("name", ["ensemble", "text@self", "infrared"])
def test_points_equal_the_literal_twin(tmp_path, protocol, name):
    TinyEvaluation(tmp_path, protocol=protocol)
    stored = StoredEvaluation.load(tmp_path)
    pairs, twin = stored_pairs(stored, f"all/{name}"), twin_pairs(stored, f"all/{name}")
    np.testing.assert_allclose(np.sort(pairs.similarity), sorted(row[0] for row in twin), atol=1e-6)
    assert len(twin) == len(pairs.same) and sum(row[1] for row in twin) == pairs.same.sum()
    rows = list(zip(pairs.similarity, pairs.same, pairs.query_camids, pairs.gallery_camids, strict=True))
    for point in operating_points(pairs, (0.1, 0.01)):
        threshold = twin_threshold([s for s, same, _, _ in rows if not same], point.rate)
        some = rows if point.pairs == "all" else [r for r in rows if f"{r[2]} -> {r[3]}" == point.pairs]
        right, wrong = [s for s, same, *_ in some if same], [s for s, same, *_ in some if not same]
        assert point.threshold == threshold
        assert point.tpr == pytest.approx(sum(s >= threshold for s in right) / len(right) if right else np.nan, nan_ok=True)
        assert point.fpr == pytest.approx(sum(s >= threshold for s in wrong) / len(wrong))
        assert point.own_threshold == twin_threshold(wrong, point.rate)
        assert (point.right, point.wrong) == (len(right), len(wrong))
    cameras = {point.pairs for point in operating_points(pairs)}
    assert ("3 -> 2" in cameras) == (protocol is LLCM) and {"all", "6 -> 2"} <= cameras


def test_a_threshold_never_lets_more_wrong_pairs_through_than_asked_for():
    wrong = np.array([0.1, 0.5, 0.5, 0.5, 0.2, 0.3, 0.4, 0.0, 0.25, 0.35], dtype=np.float32)
    # Three tie for the best place: at 20 % all of them would be too many.
    assert (wrong >= calibrate(wrong, 0.2)).sum() == 0
    assert (wrong >= calibrate(wrong, 0.3)).sum() == 3
    assert (wrong >= calibrate(wrong, 0.4)).sum() == 4
    assert (wrong >= calibrate(wrong, 1e-3)).sum() == 0 and calibrate(wrong, 1e-3) == pytest.approx(0.5)


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1, not at 1.5"):
        calibrate(np.ones(3), 1.5)
    with pytest.raises(ValueError, match="pairs of different people"):
        calibrate(np.empty(0), 0.1)
    one = Pairs(*(np.ones(4, dtype=int) for _ in range(6)))
    with pytest.raises(ValueError, match="two identities or more"):
        held_out(one)


def test_held_out_people_are_not_those_that_calibrate():
    """Person 0 looks like nobody, person 1 like everybody: a threshold that fits one half cannot fit the other."""
    rng = np.random.default_rng(0)
    query, gallery = (a.reshape(-1) for a in np.meshgrid(np.repeat(np.arange(4), 30), np.repeat(np.arange(4), 10)))
    halves = set(np.random.default_rng(0).permutation(4)[:2].tolist())
    low = np.isin(query, list(halves))
    similarity = (rng.random(len(query)) + np.where(low, 0, 5) + 3 * (query == gallery)).astype(np.float32)
    pairs = Pairs(similarity, query == gallery, np.ones_like(query), np.ones_like(query), query, gallery)
    (found,) = held_out(pairs, (0.1,), seed=0)
    # One direction lets every wrong pair of the other half pass, the other none.
    assert found.fpr == pytest.approx(0.5) and found.tpr == pytest.approx(0.5)
    text = thresholds_table(operating_points(pairs, (0.1,)), [found])
    assert "on the other half: FPR 50.00 %, TPR 50.00 %" in text and "| 1 -> 1" in text

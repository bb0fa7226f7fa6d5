import json

import numpy as np
import pytest

from tvilfm_plugin.visualization.stored import BEST, Ranked, evaluations


def test_a_row_is_what_the_evaluation_stored(tiny_evaluation):
    folder = tiny_evaluation.folder
    described = json.loads((folder / "results.json").read_text())
    arrays = np.load(folder / "rankings.npz")
    ranked = Ranked.read(folder, "all/ensemble")
    assert ranked.query_type == "ensemble" and ranked.card.text_source == "oracle" and ranked.card.text_seeds == (0, 1)
    assert ranked.first_match_rank.shape == (2, 3, 48)
    for q in (0, 13, 30):
        row = ranked.row(q, "label", "heading")
        best = arrays["all/ensemble/top"][q][:BEST]
        assert [hit.image for hit in row.hits] == [described["gallery_paths"][g] for g in best]
        assert [hit.correct for hit in row.hits] == [arrays["gallery_pids"][g] == arrays["query_pids"][q] for g in best]
        assert [hit.score for hit in row.hits] == pytest.approx(arrays["all/ensemble/top_similarity"][q][:BEST].tolist())
        texts = described["texts"][arrays["all/oracle/0/rgb"][0][q]], described["texts"][arrays["all/oracle/0/ir"][q]]
        assert row.texts == texts and (row.label, row.heading) == ("label", "heading")
        assert ranked.row(q, filtered=False).texts == (texts[0], "")
        # A first hit that is right is what R-1 counts.
        assert row.hits[0].correct == (ranked.first_match_rank[0, 0, q] == 1)
    assert ranked.describe(5) == "person 2, camera 6, 5.png"
    assert Ranked.read(folder, "all/infrared").texts == [("", "")] * 48


def test_queries_are_spread_over_those_that_count(tiny_evaluation):
    ranked = Ranked.read(tiny_evaluation.folder, "all/infrared")
    # The last person's four queries have no match.
    assert ranked.spread(3) == [0, 21, 43] and ranked.spread(1000) == list(range(44))


def test_what_is_not_there_is_named(tiny_evaluation, tmp_path):
    with pytest.raises(KeyError, match="no query type 'sketch'; it has ensemble, ensemble@self, fusion"):
        Ranked.read(tiny_evaluation.folder, "all/sketch")
    with pytest.raises(FileNotFoundError, match="holds no evaluation"):
        evaluations(tmp_path)

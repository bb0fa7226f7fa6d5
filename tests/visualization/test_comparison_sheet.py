import numpy as np
import pytest

from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.comparison_sheet import comparison_rows, failure_rows, failures, sheet_title
from tvilfm_plugin.visualization.rank_sheet import NO_TEXT, build_figure
from tvilfm_plugin.visualization.systems import evaluation_of, open_system


@pytest.fixture(scope="module")
def systems(system_runs):
    asked = {"backbone": ("stage1", "infrared"), "baseline": ("baseline", "fusion"), "TVI-LFM": ("full", "ensemble")}
    return [
        open_system(name, evaluation_of(system_runs[run]), StoredEvaluation.load, query=query)
        for name, (run, query) in asked.items()
    ]


def test_every_system_answers_the_same_query_with_the_texts_that_it_used(systems):
    rows = comparison_rows(systems, [4, 9])
    assert [row.label for row in rows] == ["backbone", "baseline", "TVI-LFM"] * 2
    assert [bool(row.heading) for row in rows] == [True, False, False] * 2
    assert rows[0].heading.startswith("person 2, camera 3")
    assert {str(row.image)[-15:] for row in rows} == {"run/picture.png"}
    # No text, only the target description, both: as in the paper's Fig. 6.
    assert [tuple(map(bool, row.texts)) for row in rows[:3]] == [(False, False), (True, False), (True, True)]
    assert rows[1].texts[0] == rows[2].texts[0]
    for row, one, q in zip(rows, systems * 2, [4] * 3 + [9] * 3, strict=True):
        right = one.ranked.gallery_pids[one.ranked.top[q][:5]] == one.ranked.query_pids[q]
        assert [hit.correct for hit in row.hits] == right.tolist()
    drawn = [text.get_text() for text in build_figure(rows, sheet_title(systems)).texts]
    assert drawn.count(NO_TEXT) == 2 and drawn.count("baseline") == 2
    assert any(text.startswith("person 3, camera") for text in drawn)
    assert "TVI-LFM: ensemble" in sheet_title(systems) and "text source oracle" in sheet_title(systems)


def test_failures_are_the_worst_first_matches(systems):
    ranked = systems[2].ranked
    mean = {}
    for q in range(len(ranked.query_pids)):
        found = [ranked.first_match_rank[s, t, q] for s in range(2) for t in range(3) if ranked.first_match_rank[s, t, q] > 0]
        if ranked.first_match_rank[0, 0, q] > 0:
            mean[q] = sum(found) / len(found)
    expected = sorted(mean, key=lambda q: (-mean[q], q))[:5]
    found = failures(ranked, 5)
    assert [one.query for one in found] == expected
    assert [one.mean_rank for one in found] == pytest.approx([mean[q] for q in expected])
    assert [one.rank for one in found] == ranked.first_match_rank[0, 0, expected].tolist() and found[0].mean_rank > 1
    assert len(failures(ranked, 1000)) == 44 and np.all(np.diff([one.mean_rank for one in failures(ranked, 1000)]) <= 0)
    row = failure_rows(ranked, found[:1], filtered=True)[0]
    assert row.label == f"rank {found[0].rank}" and all(row.texts)
    assert row.heading.endswith(
        f"the right person is at rank {found[0].rank} in this gallery, at {found[0].mean_rank:.1f} on average over 6 trials"
    )

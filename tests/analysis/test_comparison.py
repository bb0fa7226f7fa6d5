from dataclasses import replace

import numpy as np
import oracles_stats as oracle
import pytest
from stored_runs import tiny_run

from tvilfm_plugin.analysis.comparison import (
    ProtocolMismatch,
    check_comparable,
    check_seeds,
    compare,
    comparison_table,
    differing_columns,
    identity_means,
    matching_rows,
    measured,
    rows,
    spread,
)
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError

FOLDER = "evaluation/TriSYSUMM01"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three trainings of a bad and of a better system."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        tiny_run(folder / f"bad{seed}", noise=2.5, seed=seed)
        tiny_run(folder / f"good{seed}", noise=1.3, seed=10 + seed)
    return folder


def load(runs, name, label="all/ensemble", metric="mAP"):
    folder = runs / name / FOLDER
    return measured(StoredEvaluation.load(folder), folder, label, metric, name)


def test_difference_and_p_value_equal_the_twin(runs):
    bad, good = load(runs, "bad0"), load(runs, "good0")
    result = compare([bad], [good], "all/ensemble", "mAP")
    a, b = (oracle.identity_means(run.values, run.pids) for run in (bad, good))
    differences = [b[pid] - a[pid] for pid in a]
    assert len(differences) == 11  # the twelfth person is in no gallery
    assert result.test.difference == pytest.approx(np.mean(differences))
    assert result.test.p_value == pytest.approx(oracle.sign_flip_p(differences))
    assert result.effect == pytest.approx(np.mean(differences) / np.std(differences, ddof=1))
    assert (result.better, result.worse) == (np.mean(np.array(differences) > 0), np.mean(np.array(differences) < 0))
    assert result.test.low < result.test.difference < result.test.high
    back = compare([good], [bad], "all/ensemble", "mAP")
    assert back.test.difference == pytest.approx(-result.test.difference) and back.test.p_value == result.test.p_value
    assert np.isnan(result.seed_p)


def test_a_system_does_not_differ_from_itself(runs):
    run = load(runs, "bad0", metric="R-1")
    result = compare([run], [run], "all/ensemble", "R-1")
    assert result.test.difference == 0 and result.test.p_value == 1


def test_sources_of_variation_are_kept_apart(runs):
    side = [load(runs, f"bad{seed}") for seed in range(3)]
    result = spread(side)
    means = 100 * np.array([np.nanmean(run.values, axis=2) for run in side])  # (training seeds, text seeds, draws)
    assert means.shape == (3, 2, 3)
    assert (result.draws.n, result.text_seeds.n, result.training_seeds.n) == (3, 2, 3)
    assert result.draws.sd == pytest.approx(np.std([means[:, :, t].mean() for t in range(3)], ddof=1))
    assert result.text_seeds.sd == pytest.approx(np.std([means[:, s].mean() for s in range(2)], ddof=1))
    assert result.training_seeds.sd == pytest.approx(np.std([means[r].mean() for r in range(3)], ddof=1))
    assert result.mean == pytest.approx(means.mean())


def test_several_trainings_are_averaged_and_tested_over_seeds(runs):
    bad, good = ([load(runs, f"{name}{seed}") for seed in range(3)] for name in ("bad", "good"))
    result = compare(bad, good, "all/ensemble", "mAP")
    a, b = (np.nanmean(np.array([run.values for run in side])[..., :44], axis=(0, 1, 2)) for side in (bad, good))
    pids = bad[0].pids[:44]
    assert result.test.difference == pytest.approx(np.mean(identity_means(b - a, pids)))
    assert result.test.p_value < 0.01 and result.seed_p < 0.05 and result.seed_difference[0] > 0
    table = comparison_table([result, compare(bad, good, "all/ensemble", "R-1")], ("bad", "good"), {})
    assert "A = bad" in table and "p (seeds, Holm)" in table and "(n=3)" in table and " *" in table
    assert "11 identities" in table and "2 compared rows" in table


def test_holm_is_taken_over_all_rows(runs):
    bad, good = load(runs, "bad0"), load(runs, "good0")
    one = compare([bad], [good], "all/ensemble", "mAP")
    single = comparison_table([one], ("a", "b"), {}).splitlines()[5]
    five = comparison_table([one] * 5, ("a", "b"), {}).splitlines()[5]
    assert f"{one.test.p_value:.4f}" in single and f"{5 * one.test.p_value:.4f}" in five


@pytest.mark.parametrize(
    "change", [{"shots": 10}, {"text_source": "witness"}, {"text_seeds": (0,)}, {"reranking": "k-reciprocal"}, {"draws": 1}]
)
def test_different_protocols_are_refused_by_name(runs, change):
    one, other = load(runs, "bad0"), load(runs, "good0")
    other = other._replace(card=replace(other.card, **change))
    column = next(iter(change))
    with pytest.raises(ProtocolMismatch, match=f"{column} is .*--despite {column}"):
        check_comparable([one, other])
    assert set(check_comparable([one, other], despite=[column])) == {column}
    with pytest.raises(ValueError, match="no column"):
        check_comparable([one, other], despite=["colour"])


def test_trainings_may_differ_in_seed_weights_and_version(runs):
    one, other = load(runs, "bad0"), load(runs, "good0")
    assert one.card.seed != other.card.seed and one.card.weights_sha256 != other.card.weights_sha256
    assert check_comparable([one, other]) == {}
    assert differing_columns([one.card, other.card], free=()) == {
        "seed": [0, 10], "weights_sha256": [one.card.weights_sha256, other.card.weights_sha256],
    }  # fmt: skip


def test_other_queries_under_equal_cards_are_refused(runs):
    one, other = load(runs, "bad0"), load(runs, "good0")
    moved = other._replace(galleries=(other.galleries[1], *other.galleries[1:]))
    with pytest.raises(ProtocolMismatch, match="gallery draws differ"):
        check_comparable([one, moved])


def test_one_training_does_not_count_twice(runs):
    with pytest.raises(ValueError, match="one training, not two"):
        check_seeds([load(runs, "bad0"), load(runs, "bad0")])
    check_seeds([load(runs, "bad0"), load(runs, "bad1")])


def test_rows_are_matched_by_what_they_are(runs):
    one = StoredEvaluation.load(runs / "bad0" / FOLDER)
    names = lambda query: [(str(a), str(b)) for a, b in matching_rows([one], [one], query)]
    assert [a for a, _ in names("ensemble")] == ["all/ensemble (oracle)", "all/ensemble (self)"]
    assert names("ensemble@self") == [("all/ensemble (self)", "all/ensemble (self)")]
    assert names("fusion:ensemble") == [("all/fusion (oracle)", "all/ensemble (oracle)")]
    assert names("infrared:ensemble@self") == [("all/infrared", "all/ensemble (self)")]
    assert len(names("all")) == len(one.cards) == len(rows(one))
    with pytest.raises(NotStoredError, match="all/fusion \\(oracle\\)"):
        names("colour")

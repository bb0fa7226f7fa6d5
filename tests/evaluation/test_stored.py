import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from flipped_bits import FLIPS, flipped
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_runs import DRAWS, TinyEvaluation

from tvilfm_plugin.evaluation.evaluator import distance_function
from tvilfm_plugin.evaluation.protocols import MARKET, SYSU, Protocol, nothing
from tvilfm_plugin.evaluation.stored import StoredEvaluation, registered_fusion
from tvilfm_plugin.evaluation.stored_files import NotStoredError, per_query_values, rank_of
from tvilfm_plugin.evaluation.summary import percent, row_arrays


def test_stored_parts_give_the_stored_numbers_exactly(tiny_evaluation):
    stored = StoredEvaluation.load(tiny_evaluation.folder)
    with np.load(tiny_evaluation.folder / "rankings.npz", allow_pickle=False) as arrays:
        for label in stored.cards:
            again = stored.evaluate(label)
            for metric, value in percent(again).items():
                assert value == tiny_evaluation.results[f"{label}/{metric}"] == stored.results[f"{label}/{metric}"]
            for key, values in row_arrays(label, again).items():
                np.testing.assert_array_equal(values, arrays[key], strict=True)
    assert set(stored.cards) == {
        "all/infrared", "all/text", "all/fusion", "all/ensemble", "all/text@self", "all/ensemble@self",
    }  # fmt: skip
    assert stored.card("all/ensemble").text_seeds == (0, 1)


def test_a_loaded_evaluation_saves_as_it_was(tiny_evaluation, tmp_path):
    stored = StoredEvaluation.load(tiny_evaluation.folder)
    stored.save(tmp_path, {})
    again = StoredEvaluation.load(tmp_path)
    assert again.cards == stored.cards and again.texts == stored.texts and again.protocol is SYSU
    assert percent(again.evaluate("all/fusion")) == percent(stored.evaluate("all/fusion"))


def test_single_draws_and_seeds_are_the_parts_of_the_whole(tiny_evaluation):
    stored = StoredEvaluation.load(tiny_evaluation.folder)
    whole = stored.trials("all", "oracle")["ensemble"]
    assert [len(of_draws) for of_draws in whole] == [DRAWS, DRAWS]
    one = stored.trials("all", "oracle", seeds=[1], draws=[2])["ensemble"][0][0]
    assert one.draw == 2 and one.metrics.mAP == whole[1][2].metrics.mAP != whole[1][0].metrics.mAP


def test_rules_and_distance_can_be_exchanged(tiny_evaluation):
    stored = StoredEvaluation.load(tiny_evaluation.folder)
    own = percent(stored.evaluate("all/infrared"))
    other = percent(stored.evaluate("all/infrared", protocol=MARKET))
    assert own["mAP"] != other["mAP"]
    backwards = percent(stored.evaluate("all/infrared", distance=lambda query, gallery: query @ gallery.T))
    assert backwards["mAP"] < own["mAP"]


def test_reranking_is_restored_with_its_parameters(tmp_path):
    # The host's TEST.RERANK.ENABLED and its k1 etc.
    run = TinyEvaluation(tmp_path, TEST__AQE=_aqe())
    with pytest.raises(NotStoredError, match="distance_function"):
        StoredEvaluation.load(tmp_path)
    stored = StoredEvaluation.load(tmp_path, make_distance=distance_function)
    assert stored.card("all/ensemble").reranking.startswith("query expansion")
    for label in stored.cards:
        assert percent(stored.evaluate(label))["mAP"] == run.results[f"{label}/mAP"]
    assert percent(replace(stored, distance=None).evaluate("all/text"))["mAP"] != run.results["all/text/mAP"]


def _aqe():
    from tvilfm_plugin.config import get_cfg

    section = get_cfg().TEST.AQE
    section.ENABLED = True
    return section


def test_fusion_is_found_by_name_with_its_weights():
    assert registered_fusion("Add", 4, {})(torch.ones(1, 4), torch.ones(1, 4), None).tolist() == [[2.0] * 4]
    with pytest.raises(KeyError, match="FilteredAdd"):
        registered_fusion("Tensor", 4, {})  # a name of the module, but no fusion
    with pytest.raises(RuntimeError, match="extra"):
        registered_fusion("Add", 4, {"extra": torch.ones(1)})


def test_unknown_protocol_must_be_given(tmp_path):
    odd = Protocol("Odd", nothing, count_identities=True)
    TinyEvaluation(tmp_path, protocol=odd)
    with pytest.raises(NotStoredError, match="'Odd'.*Give protocol="):
        StoredEvaluation.load(tmp_path)
    assert StoredEvaluation.load(tmp_path, protocol=odd).protocol is odd


@pytest.mark.parametrize("name", ["results.json", "rankings.npz", "parts.pt"])
def test_a_missing_file_is_named(tiny_evaluation, tmp_path, name):
    shutil.copytree(tiny_evaluation.folder, tmp_path, ignore=lambda *_: [name], dirs_exist_ok=True)
    with pytest.raises(FileNotFoundError, match=f"{name} is missing.*TEST.STORE True"):
        StoredEvaluation.load(tmp_path)


def test_files_of_two_evaluations_are_refused(tiny_evaluation, tmp_path):
    shutil.copytree(tiny_evaluation.folder, tmp_path, dirs_exist_ok=True)
    described = json.loads((tmp_path / "results.json").read_text())
    described["texts"].append("one more")
    del described["digest"]
    (tmp_path / "results.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="do not belong together.*texts"):
        StoredEvaluation.load(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="no valid JSON.*TEST.STORE True"):
        StoredEvaluation.load(tmp_path)


def test_nothing_that_is_stored_can_be_executed(tiny_evaluation, tmp_path):
    shutil.copytree(tiny_evaluation.folder, tmp_path, dirs_exist_ok=True)
    np.savez(tmp_path / "rankings.npz", query_pids=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        StoredEvaluation.load(tmp_path)
    torch.save({"query": print}, tmp_path / "parts.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        StoredEvaluation.load(tmp_path)


def test_what_is_not_stored_is_refused_with_the_choices(tiny_evaluation):
    stored = StoredEvaluation.load(tiny_evaluation.folder)
    with pytest.raises(NotStoredError, match="all/ensemble@self"):
        stored.evaluate("all/ensemble@human")
    with pytest.raises(NotStoredError, match="all/oracle/1"):
        stored.text("all", "oracle", 9)
    with pytest.raises(NotStoredError, match="choices are all"):
        stored.trials("indoor", "none")


def test_per_query_values(tiny_evaluation):
    folder = tiny_evaluation.folder
    ap = per_query_values(folder, "all/ensemble", "mAP")
    assert ap.shape == (2, DRAWS, len(tiny_evaluation.query_pids))
    assert 100 * np.nanmean(ap) == pytest.approx(tiny_evaluation.results["all/ensemble/mAP"])
    for metric in ("R-1", "R-5", "mINP"):
        values = per_query_values(folder, "all/ensemble", metric)
        assert 100 * np.nanmean(values) == pytest.approx(tiny_evaluation.results[f"all/ensemble/{metric}"])
    assert np.isnan(ap[..., -4:]).all()  # the person who is in no gallery
    with pytest.raises(NotStoredError, match="all/fusion"):
        per_query_values(folder, "all/other", "mAP")
    with pytest.raises(ValueError, match="mAP, mINP and R-K"):
        rank_of("R-0")


@pytest.fixture(scope="module")
def copied(tiny_evaluation, tmp_path_factory):
    return shutil.copytree(tiny_evaluation.folder, tmp_path_factory.mktemp("copied") / "evaluation")


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(["results.json", "rankings.npz", "parts.pt"]), flips=FLIPS)
def test_flipped_bits_are_refused_with_the_files_name_or_change_nothing(tiny_evaluation, copied, name, flips):
    content = (tiny_evaluation.folder / name).read_bytes()
    (copied / name).write_bytes(flipped(content, flips))
    try:
        found = StoredEvaluation.load(copied)
    except (ValueError, LookupError) as error:
        assert name in str(error) or "results.json" in str(error)
    else:
        truth = StoredEvaluation.load(tiny_evaluation.folder)
        for part in ("results", "cards", "texts", "query_paths", "gallery_paths"):
            assert getattr(found, part) == getattr(truth, part)
        assert name == "results.json" or flipped(content, flips) == content
    finally:
        (copied / name).write_bytes(content)


def test_a_file_of_another_evaluation_is_refused(tiny_evaluation, tmp_path):
    shutil.copytree(tiny_evaluation.folder, tmp_path, dirs_exist_ok=True)
    tensors = torch.load(tmp_path / "parts.pt", weights_only=True)
    torch.save(tensors | {"query": tensors["query"] + 1}, tmp_path / "parts.pt")
    with pytest.raises(ValueError, match=r"parts\.pt is not the file that results\.json was written with"):
        StoredEvaluation.load(tmp_path)

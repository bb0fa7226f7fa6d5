from dataclasses import replace

import numpy as np
import pytest
import torch
from stored_runs import DIM, TinyEvaluation

from tvilfm_plugin.analysis.robustness import (
    DROPPED,
    EMPTY,
    SWAPPED,
    TRUSTED,
    WRONG,
    Condition,
    as_table,
    conditions,
    curve_points,
    damage,
    damaged_modalities,
    damaged_words,
    default_source,
    joined,
    modality_table,
    trust_table,
)
from tvilfm_plugin.analysis.text_noise import swap_colours
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.text_trust import calibrate


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    return TinyEvaluation(tmp_path_factory.mktemp("robust"), noise=1.5)


def trusting(evaluation):
    """The stored evaluation, with trust that was learned on it: there are no training people here."""
    stored = StoredEvaluation.load(evaluation.folder)
    text = stored.text("all", "oracle", 1)
    rows = [stored.parts.query, *(stored.parts.texts[torch.from_numpy(some)] for some in (text.rgb[0], text.ir))]
    said, seen = ([stored.texts[row] for row in some] for some in (text.rgb[0], text.ir))
    learned = calibrate(*(stored.embed(some).detach().numpy() for some in rows), said, seen, stored.query.pids)
    return replace(stored, text_trust=learned)


@pytest.fixture(scope="module")
def curves(evaluation):
    """Points, and the strings that were encoded for them (each at random, as an encoder that never saw colours)."""
    encoded = []

    def encode(texts):
        encoded.extend(texts)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(texts), DIM, generator=generator)

    stored = trusting(evaluation)
    words = damaged_words(stored, encode, setting="all", source="oracle", text_seed=1, shares=(0.0, 0.5, 1.0))
    return {(p.kind, p.share, p.query): p for p in curve_points(words, stored.query.pids)}, encoded, words


def test_undamaged_texts_give_the_stored_numbers(evaluation, curves):
    points, *_ = curves
    stored = StoredEvaluation.load(evaluation.folder)
    trials = stored.trials("all", "oracle", seeds=[1])
    for kind in (WRONG, SWAPPED, DROPPED):
        for name in ("text", "fusion", "ensemble"):
            expected = 100 * np.mean([trial.metrics.mAP for trial in trials[name][0]])
            assert points[kind, 0.0, name].mAP == pytest.approx(expected, abs=0.02)  # sums in another order may turn a tie
    assert points["none", 0.0, "infrared"].mAP == pytest.approx(evaluation.results["all/infrared/mAP"])


def test_only_new_strings_are_encoded_and_once(evaluation, curves):
    _, encoded, _ = curves
    assert len(encoded) == len(set(encoded)) and not set(encoded) & set(StoredEvaluation.load(evaluation.folder).texts)
    assert "" in encoded and swap_colours(evaluation.strings[3]) in encoded


def test_bad_text_harms_and_trust_saves_most_of_it(curves):
    points, *_ = curves
    image = points["none", 0.0, "infrared"].mAP
    good, bad = points[WRONG, 0.0, "ensemble"].mAP, points[WRONG, 1.0, "ensemble"].mAP
    safe = points[WRONG, 1.0, TRUSTED]
    assert good > image > bad and safe.mAP > bad
    assert points[WRONG, 0.0, TRUSTED].trust > safe.trust + 0.2
    assert bad < points[WRONG, 0.5, "ensemble"].mAP < good
    empty = points[EMPTY, 1.0, TRUSTED]
    assert empty.trust == 0 and empty.mAP == pytest.approx(image, abs=0.02)


def test_one_table_of_bad_and_missing_modalities(evaluation, curves):
    points, *_ = curves
    stored = trusting(evaluation)
    encode = lambda texts: torch.randn(len(texts), DIM, generator=torch.Generator().manual_seed(0))
    noise = {"dark": torch.zeros_like(stored.parts.query) + 1}
    found = damaged_modalities(stored, encode, noise, setting="all", source="oracle", text_seed=1)
    table = modality_table([found]).splitlines()
    assert modality_table([found, found]).splitlines() == table
    rows = {tuple(cells[:2]): cells[2:] for line in table if (cells := [one.strip() for one in line.split("|")[1:-1]])}
    clean, wrong = rows["clean", "clean"], rows["clean", "wrong"]
    value = lambda cell: float(cell.split("/")[1])
    assert value(clean[2]) == pytest.approx(points[WRONG, 0.0, "ensemble"].mAP, abs=0.01)
    assert value(wrong[2]) == pytest.approx(points[WRONG, 1.0, "ensemble"].mAP, abs=0.01) and wrong[0] == clean[0]
    assert value(wrong[3]) == pytest.approx(points[WRONG, 1.0, TRUSTED].mAP, abs=0.01)
    assert value(rows["dark", "clean"][0]) < value(clean[0]) and rows["dark", "clean"][1] == clean[1]
    assert rows["absent", "clean"] == ["", clean[1], clean[1], clean[1]] and rows["clean", "absent"] == [
        clean[0],
        "",
        clean[0],
        clean[0],
    ]
    assert ("clean", "incomplete") in rows


def test_table_names_cost_and_gain(evaluation, curves):
    points, _, words = curves
    stored = StoredEvaluation.load(evaluation.folder)
    table = trust_table(words, stored.query.pids, stored.card("all/ensemble")).splitlines()
    assert table[2].startswith("| undamaged (oracle)") and sum("| undamaged" in line for line in table) == 1
    assert len([line for line in table if line.startswith("|")]) == 2 + 1 + 3 * 2 + 1
    cells = next(line for line in table if "wrong person, 100 %" in line).split("|")
    blind, safe = (points[WRONG, 1.0, name] for name in ("ensemble", TRUSTED))
    assert cells[3].strip() == f"{blind.R1:.2f} / {blind.mAP:.2f}" and float(cells[2]) == pytest.approx(safe.trust, abs=0.006)
    assert float(cells[5].split()[0]) == pytest.approx(safe.mAP - blind.mAP, abs=0.3)  # means over people, not over queries
    assert float(cells[6].split()[0]) == pytest.approx(safe.R1 - points["none", 0.0, "infrared"].R1, abs=0.3)
    assert safe.mAP_low < safe.mAP < safe.mAP_high and {"kind", "share", "mAP", "trust"} <= set(as_table([safe])[0])


def test_trainings_are_joined_query_by_query(curves):
    words = curves[2]
    twice = joined([words, words])
    assert all(np.array_equal(twice[key], np.concatenate([found] * 2), equal_nan=True) for key, found in words.items())


def test_without_a_calibration_trust_cannot_be_measured(evaluation):
    stored = StoredEvaluation.load(evaluation.folder)
    with pytest.raises(ValueError, match="text_trust"):
        damaged_words(stored, lambda texts: None, setting="all", source="oracle")


def test_default_source_prefers_the_honest_one(evaluation):
    stored = StoredEvaluation.load(evaluation.folder)
    assert default_source(stored) == ("all", "oracle", 0)


def test_conditions_and_damage():
    assert conditions((0.0, 1.0))[-1] == Condition(EMPTY, 1.0) and len(conditions((0.0, 1.0))) == 7
    texts, index, pids = ["red", "blue coat", "x"], np.array([[0, 1], [2, 0]]), np.array([1, 2])
    assert damage(texts, index, pids, Condition(WRONG, 1.0), 0) == [["blue coat", "red"], ["red", "x"]]
    assert damage(texts, index, pids, Condition(EMPTY, 1.0), 0) == [["", ""], ["", ""]]
    assert damage(texts, index, pids, Condition(DROPPED, 0.0), 0) == [["red", "blue coat"], ["x", "red"]]


def test_a_model_without_text_cannot_be_damaged(evaluation):
    stored = replace(StoredEvaluation.load(evaluation.folder), text_index={})
    with pytest.raises(LookupError, match="TEST.TEXT_SOURCES"):
        default_source(stored)

"""Questions to a simulated witness: right answers find people, a chosen question more of them than a fixed order."""

import random

import numpy as np
import pytest

from tvilfm_plugin.analysis.dialogue import WITNESSES, Curves, Witness, dialogue_table, interview, memory
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.description.questions import answers_read
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.evaluation.protocols import MARKET, Labels

COLOURS, GARMENTS = ("red", "blue", "green", "white", "black"), ("shirt", "jacket", "sweater")


@pytest.fixture(scope="module")
def world():
    rng = random.Random(0)
    texts = [
        f"a {rng.choice(('man', 'woman'))} in a {rng.choice(COLOURS)} {rng.choice(GARMENTS)}, "
        f"{rng.choice(COLOURS)} {rng.choice(('jeans', 'shorts', 'skirt'))} and {rng.choice(COLOURS)} shoes"
        for _ in range(40)
    ]
    people = np.arange(40)
    similarity = 0.3 * np.eye(40) + np.random.RandomState(0).randn(40, 40)
    query, gallery = Labels(people, np.full(40, 3)), Labels(people, np.full(40, 1))
    return similarity, answers_read([read(text) for text in texts]), [memory([text]) for text in texts], query, gallery


def test_memory_is_what_most_captions_say():
    said = ["a man in a red shirt", "a man in a red jacket", "a woman in a blue shirt and a hat", "a man", "a man", "a man"]
    found = memory(said)
    assert (found["sex"], found["upper_colour"], found["upper"]) == ("man", "red", "shirt") and "hat" not in found
    assert memory([]) == {}


def test_answers_find_people(world):
    similarity, answers, remembered, query, gallery = world
    curves = Curves(steps=3)
    for _ in range(2):
        curves.add(similarity, answers, remembered, query, gallery, MARKET)
    found = {curve.witness: curve for curve in curves.curves()}
    truthful, wrong = (found[witness.name].steps for witness in WITNESSES[:2])
    start = np.mean(similarity.argmax(axis=1) == np.arange(40))
    assert truthful[0].mean == wrong[0].mean == pytest.approx(start)
    assert truthful[3].mean > truthful[1].mean > start and truthful[3].mean > wrong[3].mean > start
    test = found["truthful"].against_fixed
    assert test is not None and test.difference > 0.1 and test.p_value < 0.05
    assert found["truthful, fixed order"].against_fixed is None and "| truthful " in dialogue_table(list(found.values()))


def test_who_knows_nothing_changes_nothing(world):
    similarity, answers, remembered, *_ = world
    weights = interview(similarity, answers, remembered, Witness("silent", unknown=1.0), 2)
    np.testing.assert_allclose(weights[2], weights[0])
    lied, told = (interview(similarity, answers, remembered, Witness("w", wrong=share), 1)[1] for share in (1.0, 0.0))
    assert np.diag(lied).mean() < np.diag(weights[0]).mean() < np.diag(told).mean()


def test_the_command_measures_runs(trained, tiny, tmp_path, capsys):
    with tiny.environment():
        words = ["results", "dialogue", f"{trained},{trained}/../{trained.name}", "--steps", "1", "--draws", "1"]
        assert main([*words, "--by", "captions", "model"]) == 2 and "name a folder" in capsys.readouterr().err
        assert main([*words, "--by", "captions", "model", "--out-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 trainings, answers by captions" in said and "2 trainings, answers by model" in said
    assert (tmp_path / "dialogue_all_infrared.md").is_file() and (tmp_path / "dialogue_all_infrared.png").is_file()

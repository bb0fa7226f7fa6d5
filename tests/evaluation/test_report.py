import json
import re

import numpy as np
import pytest

from tvilfm_plugin.evaluation.ranking import RankMetrics
from tvilfm_plugin.evaluation.report import ProtocolCard, ResultRow, results_table

CARD = ProtocolCard(
    dataset="SYSU-MM01",
    direction="infrared-to-visible",
    setting="all",
    shots=1,
    draws=10,
    gallery_source="random.seed(t), t = 0..9",
    cmc="identities",
    text_source="oracle",
    text_seeds=(0, 1),
)
CHANCE = [RankMetrics(np.linspace(0.01, 0.2, 20), 0.03, 0.02)]


def metrics(r1, entries=20):
    return RankMetrics(np.linspace(r1, 0.9, entries), r1 - 0.1, r1 - 0.2)


def row(query, source, *r1, note=""):
    return ResultRow(query=query, text_source=source, trials=[metrics(value) for value in r1], note=note)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_card_survives_json_and_prints_what_is_known():
    assert ProtocolCard(**json.loads(json.dumps(CARD.to_dict()))) == CARD
    text = str(CARD)
    assert "text source: oracle" in text and "text seeds: 0, 1" in text and "note" not in text and "weights" not in text
    with pytest.raises(ValueError, match="identities"):
        ProtocolCard(**{**CARD.to_dict(), "cmc": "both"})


def test_table_has_mean_and_deviation_and_the_text_source_of_every_row():
    table = results_table(
        [row("infrared", "none", 0.5, 0.6), row("ensemble", "oracle", 0.7, 0.8), row("ensemble", "witness", 0.6, 0.7)], CHANCE
    )
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert cells(lines[0]) == ["query", "text source", "R-1", "R-5", "R-10", "R-20", "mAP", "mINP"]
    assert re.fullmatch(r"[|:-]+", lines[1])
    assert [cells(line)[:3] for line in lines[2:]] == [
        ["infrared", "none", "55.00 ± 7.07"],
        ["ensemble", "oracle", "75.00 ± 7.07"],
        ["ensemble", "witness", "65.00 ± 7.07"],
        ["chance", "—", "1.00"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert "WARNING" not in table and "true identity" in table


def test_the_columns_are_the_named_ranks():
    cmc = np.arange(1, 21) / 20
    only = results_table([ResultRow(query="infrared", text_source="none", trials=[RankMetrics(cmc, 0.4, 0.3)])], CHANCE)
    assert cells(only.splitlines()[2])[2:] == ["5.00", "25.00", "50.00", "100.00", "40.00", "30.00"]


def test_a_short_curve_keeps_its_last_value_and_one_trial_has_no_deviation():
    table = results_table([ResultRow(query="infrared", text_source="none", trials=[metrics(0.5, 6)])], CHANCE)
    assert cells(table.splitlines()[2])[2:6] == ["50.00", "82.00", "90.00", "90.00"]
    assert "one trial" in table


def test_a_table_that_knows_only_the_oracle_says_so():
    assert "WARNING" in results_table([row("infrared", "none", 0.5), row("ensemble", "oracle", 0.7)], CHANCE)
    assert "WARNING" not in results_table([row("ensemble", "self", 0.5), row("ensemble", "oracle", 0.7)], CHANCE)


def test_notes_and_errors():
    noted = results_table([row("fusion", "self", 0.5, note="equals infrared")], CHANCE)
    assert "fusion (self): equals infrared" in noted
    with pytest.raises(ValueError, match="names no text source"):
        results_table([row("infrared", "", 0.5)], CHANCE)
    with pytest.raises(ValueError, match="no trials"):
        results_table([row("infrared", "none")], CHANCE)
    with pytest.raises(ValueError, match="at least one row"):
        results_table([], CHANCE)

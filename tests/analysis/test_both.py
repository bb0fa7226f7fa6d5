"""A gallery of visible and infrared images, against a literal twin."""

from dataclasses import replace

import numpy as np
import pytest
from oracles_evaluation import rank_query
from stored_runs import tiny_run

from tvilfm_plugin.analysis.both import both_report, search_both, with_infrared
from tvilfm_plugin.evaluation.mer import QueryType
from tvilfm_plugin.evaluation.protocols import LLCM, SYSU, Labels, Protocol
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.modality import Modality


@pytest.fixture(scope="module", params=[SYSU, LLCM], ids=lambda one: one.name)
def stored(request, tmp_path_factory):
    folder = tiny_run(tmp_path_factory.mktemp("run"), protocol=request.param).folder
    return StoredEvaluation.load(folder)


def nothing(pids, camids, gallery):
    return np.zeros((len(pids), len(gallery.pids)), bool)


def literal(stored, label, members, draw):
    """(mAP, R-1): each query by itself, against each image of a list without what it ignores."""
    card = stored.card(label)
    seed = card.text_seeds[0] if card.text_seeds else 0
    queries = stored.queries(card.setting, card.text_source, seed, draw, members)
    visible, labels = stored.drawn_gallery(card.setting, draw)
    infrared = stored.embed(stored.parts.query)
    images = [*visible.numpy(), *infrared.numpy()]
    pids, camids = [*labels.pids, *stored.query.pids], [*labels.camids, *stored.query.camids]
    aps, first = [], []
    for q, (pid, camid) in enumerate(zip(*stored.query, strict=True)):
        kept = []
        for g in range(len(images)):
            behind = stored.protocol.name == "SYSU-MM01" and camid == 3 and camids[g] == 2
            if not behind and not (pids[g] == pid and camids[g] == camid):
                kept.append(g)
        assert len(labels.pids) + q not in kept, "the query's own picture"
        row = [-sum(float(queries[m][q].numpy() @ images[g]) for m in members) for g in kept]
        gallery = Labels(np.array([pids[g] for g in kept]), np.array([camids[g] for g in kept]))
        found = rank_query(row, pid, camid, gallery, Protocol("", nothing, stored.protocol.count_identities))
        if found.ap is not None:
            aps.append(found.ap)
            first.append(found.first_match_rank == 1)
    return np.mean(aps), np.mean(first)


@pytest.mark.parametrize("query", ["infrared", "text", "ensemble"])
def test_a_row_is_the_literal_one(stored, query):
    label = f"all/{query}"
    members = stored.query_type(label).members
    card, trials = search_both(stored)[label]
    for draw in (0, 2):
        metrics = trials[0][draw].metrics
        mAP, first = literal(stored, label, members, draw)
        assert (metrics.mAP, metrics.rank(1)) == (pytest.approx(mAP, abs=1e-9), pytest.approx(first, abs=1e-9))
    asked = {"infrared": "infrared", "text": "text", "ensemble": "infrared+text"}[query]
    assert card.direction == f"{asked}-to-both" and card.rules == f"{stored.protocol.name} + own camera"
    assert card.gallery_source == "seeded draws, and all 48 infrared test images"


def test_the_report_has_every_row_its_card_and_chance(stored):
    found = search_both(stored)
    text = both_report(stored, found)
    assert all(f"- {label}: dataset" in text for label in stored.cards) and "| chance" in text
    assert "text-to-both" in text
    wider = with_infrared(stored)
    assert len(wider.gallery_paths) == len(wider.gallery.pids) == len(wider.parts.gallery)


def test_words_belong_to_infrared_queries(stored):
    with pytest.raises(ValueError, match="evaluated visible-to-infrared"):
        with_infrared(replace(stored, image_only=QueryType("visible", (Modality.RGB,))))

"""Modality ensemble retrieval from parts, against one query, one text and one gallery image at a time."""

import numpy as np
import oracles_evaluation as oracle
import pytest
import torch
from torch import nn

from tvilfm_plugin.evaluation import mer
from tvilfm_plugin.evaluation.mer import (
    IMAGE_ONLY,
    Parts,
    QueryType,
    TextIndex,
    batch_norm_affine,
    query_embeddings,
    query_types,
    rank_trials,
    unit_after,
)
from tvilfm_plugin.evaluation.protocols import SYSU, Labels
from tvilfm_plugin.modality import Modality

IR, TEXT, FUSION = Modality.IR, Modality.TEXT, Modality.FUSION
EVERYBODY = (IR, TEXT, FUSION)


def filtered_add(ir, text, ir_text):
    return ir + text - ir_text


@pytest.fixture
def case():
    """10 queries, 14 gallery images of 5 persons, 6 texts, 2 draws; a neck whose statistics are not 0 and 1."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    neck = nn.BatchNorm1d(8).eval()
    with torch.no_grad():
        for value in (neck.weight, neck.bias, neck.running_mean):
            value.uniform_(-1, 1)
        neck.running_var.uniform_(0.5, 2)
    parts = Parts(torch.randn(10, 8), torch.randn(14, 8), torch.randn(6, 8))
    query = Labels(np.arange(10) % 5, rng.choice([3, 6], 10))
    gallery = Labels(np.arange(14) % 5, rng.choice([1, 2, 4, 5], 14))
    text = TextIndex(rng.integers(0, 6, (2, 10)), rng.integers(0, 6, 10))
    draws = [np.sort(rng.choice(14, 9, replace=False)), np.sort(rng.choice(14, 11, replace=False))]
    return parts, text, draws, query, gallery, neck


def similarity_by_hand(case, members, draw, q, g):
    """Sum of the members' cosines for one query and one image of the union."""
    parts, text, _, _, _, neck = case
    normal = lambda raw: (lambda after: after / after.norm())(neck(raw[None])[0])
    ir = parts.query[q]
    t, f = parts.texts[text.rgb[draw, q]], parts.texts[text.ir[q]]
    raw = {IR: ir, TEXT: t, FUSION: ir + t - f}
    return sum(float(normal(raw[m]) @ normal(parts.gallery[g])) for m in members)


@pytest.mark.parametrize("members", [(IR,), (TEXT,), (FUSION,), (IR, TEXT), EVERYBODY])
def test_every_query_type_and_draw_equals_the_literal_twin(case, members):
    parts, text, draws, query, gallery, neck = case
    embed = unit_after(*batch_norm_affine(neck))
    with torch.no_grad():
        trials = list(
            rank_trials(parts, text, [QueryType("x", members)], draws, query, gallery, SYSU, filtered_add, embed, top=4)
        )
        assert [trial.draw for trial in trials] == [0, 1]
        for t, (trial, columns) in enumerate(zip(trials, draws, strict=True)):
            dist = np.array([[-similarity_by_hand(case, members, t, q, g) for g in columns] for q in range(10)])
            labels = Labels(gallery.pids[columns], gallery.camids[columns])
            cmc, mean_ap, mean_inp = oracle.rank_metrics(dist, query, labels, SYSU)
            assert trial.metrics.cmc == pytest.approx(cmc)
            assert (trial.metrics.mAP, trial.metrics.mINP) == pytest.approx((mean_ap, mean_inp))
            if t == 0:
                for q in range(10):
                    best = oracle.rank_query(dist[q].tolist(), query.pids[q], query.camids[q], labels, SYSU).ranking[:4]
                    assert trial.top[q].tolist() == [*columns[best].tolist(), *[-1] * (4 - len(best))]
                    assert trial.similarity[q, : len(best)] == pytest.approx(-dist[q][best], abs=1e-5)
            else:
                assert trial.top is None and trial.similarity is None


def test_without_the_whole_matrix_the_ranking_is_the_same(case, monkeypatch):
    parts, text, draws, query, gallery, neck = case
    types = [QueryType("x", EVERYBODY)]
    rank = lambda: list(
        rank_trials(parts, text, types, draws, query, gallery, SYSU, filtered_add, unit_after(*batch_norm_affine(neck)))
    )
    with torch.no_grad():
        whole = rank()
        monkeypatch.setattr(mer, "WHOLE_MATRIX", 0)
        monkeypatch.setattr(mer, "minus_inner_product", None)
        by_rows = rank()
    for one, other in zip(whole, by_rows, strict=True):
        assert one.metrics.mAP == other.metrics.mAP and (one.metrics.cmc == other.metrics.cmc).all()
    assert (whole[0].top == by_rows[0].top).all()
    np.testing.assert_allclose(by_rows[0].similarity, whole[0].similarity, atol=1e-6)


def test_several_types_at_once_are_those_types_alone(case):
    parts, text, draws, query, gallery, neck = case
    embed = unit_after(*batch_norm_affine(neck))
    run = lambda types: list(rank_trials(parts, text, types, draws, query, gallery, SYSU, filtered_add, embed))
    types = [QueryType(m.value, (m,)) for m in EVERYBODY] + [QueryType("ensemble", EVERYBODY)]
    together = run(types)
    assert [(t.query_type, t.draw) for t in together] == [(kind.name, draw) for draw in (0, 1) for kind in types]
    for kind in types:
        for one, other in zip(run([kind]), [t for t in together if t.query_type == kind.name], strict=True):
            assert one.metrics.mAP == other.metrics.mAP and (one.metrics.cmc == other.metrics.cmc).all()


def test_images_alone_need_neither_text_nor_fusion(case):
    parts, _, draws, query, gallery, neck = case
    embed = unit_after(*batch_norm_affine(neck))
    parts = parts._replace(texts=None)
    trials = list(rank_trials(parts, None, [IMAGE_ONLY], draws, query, gallery, SYSU, None, embed))
    assert len(trials) == 2
    with pytest.raises(ValueError, match="no text encoder"):
        query_embeddings(parts, np.zeros(10, int), np.zeros(10, int), (TEXT,), None, embed)
    with pytest.raises(ValueError, match="needs a fusion module"):
        query_embeddings(case[0], np.zeros(10, int), np.zeros(10, int), (FUSION,), None, embed)


def test_another_distance_is_asked_per_draw(case):
    parts, text, draws, query, gallery, neck = case
    asked = []

    def distance(queries, chosen):
        asked.append((queries.shape, chosen.shape))
        return np.tile(np.arange(len(chosen)), (len(queries), 1))

    trials = list(
        rank_trials(
            parts, text, [IMAGE_ONLY], draws, query, gallery, SYSU, filtered_add, unit_after(*batch_norm_affine(neck)), distance
        )
    )
    assert asked == [((10, 8), (9, 8)), ((10, 8), (11, 8))]
    assert (trials[0].top[query.camids == 6][:, :9] == draws[0]).all(), "camera 6 ignores nothing"


def test_query_types_of_the_sources():
    assert query_types("none", EVERYBODY) == (IMAGE_ONLY,)
    assert [(t.name, t.members) for t in query_types("witness", EVERYBODY)] == [
        ("text", (TEXT,)), ("fusion", (FUSION,)), ("ensemble", EVERYBODY),
    ]  # fmt: skip
    assert [(t.name, t.members) for t in query_types("self", EVERYBODY)] == [("text", (TEXT,)), ("ensemble", (IR, TEXT))]


def test_the_neck_as_scale_and_shift(case):
    neck = case[-1]
    raw = torch.randn(5, 8)
    with torch.no_grad():
        expected = nn.functional.normalize(neck(raw), dim=1)
    assert torch.allclose(unit_after(*batch_norm_affine(neck))(raw), expected, atol=1e-6)
    with pytest.raises(ValueError, match="no running statistics"):
        batch_norm_affine(nn.BatchNorm1d(8, track_running_stats=False))

"""Re-ranking against the authors' numbers, the host's, and what must hold without other queries."""

import re

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch
from fastreid.evaluation.rerank import re_ranking

from tvilfm_plugin.evaluation.evaluator import distance_function
from tvilfm_plugin.evaluation.reranking import rerank, rerank_by_gallery

KIND = {"baseline": "k-reciprocal"}
CASES = [key for key in inputs.golden("rerank.npz") if not key.endswith("original")]


def distances(case, dataset):
    """(32, 32): the mean over eight features of 1 - cosine; RegDB leaves the text one out."""
    features = [rows for n, rows in enumerate(inputs.rerank_features(case)) if dataset == "sysu" or n != 6]
    return np.mean([1 - rows @ rows.T for rows in features], axis=0)


@pytest.mark.parametrize("key", CASES)
def test_reference_numbers(key):
    case, dataset, method, setting, precision = key.split("/")
    k1, k2, lam, k3 = re.fullmatch(r"k1=(\d+),k2=(\d+),lam=([\d.]+),k3=(\w+)", setting).groups()
    setting = (int(k1), int(k2), float(lam), None if k3 == "None" else int(k3))
    ours = rerank(distances(case, dataset), 12, KIND.get(method, method), *setting, dtype=np.dtype(precision).type)
    expected = inputs.golden("rerank.npz")[key]
    assert np.abs(ours - expected).max() <= 1e-6


@pytest.mark.parametrize("kind", ["k-reciprocal", "constrained", "divided", "extended"])
def test_a_case_without_numbers_is_finite(kind):
    ours = rerank(distances("c", "sysu"), 12, kind, 6, 3, 0.2)
    assert np.isfinite(ours).all() and ours.min() >= 0


def test_k_reciprocal_is_the_hosts():
    d = distances("a", "sysu").clip(0)
    root = np.sqrt(d)
    host = re_ranking(root[:12, 12:], root[:12, :12], root[12:, 12:], 6, 3, 0.1)
    assert np.abs(rerank(d, 12, "k-reciprocal", 6, 3, 0.1) - host).max() < 1e-4  # the host keeps half-precision vectors


def test_gallery_only_knows_no_other_query():
    d = distances("b", "sysu")
    q_g, g_g = d[:12, 12:], d[12:, 12:]
    everyone = rerank_by_gallery(q_g, g_g, 6, 3, 0.3)
    alone = np.concatenate([rerank_by_gallery(q_g[row : row + 1], g_g, 6, 3, 0.3) for row in range(12)])
    assert np.array_equal(everyone, alone) and np.isfinite(everyone).all()
    assert np.array_equal(rerank_by_gallery(q_g, g_g, 6, 3, 1.0), q_g / q_g.max(axis=1, keepdims=True))


def test_gallery_only_twin():
    d = distances("a", "sysu")
    q_g, g_g = d[:12, 12:], d[12:, 12:]
    k1, count = 6, 20
    lists = [sorted(range(count), key=lambda g, row=row: row[g]) for row in g_g]

    def mutual(i, k):
        return {j for j in lists[i][: k + 1] if i in lists[j][: k + 1]}

    def grown(found):
        out = set(found)
        for c in found:
            if len(mutual(c, k1 // 2) & set(found)) > 2 / 3 * len(mutual(c, k1 // 2)):
                out |= mutual(c, k1 // 2)
        return out

    def weights(row, found):
        raw = {j: np.exp(-row[j] / max(row)) for j in found}
        return {j: w / sum(raw.values()) for j, w in raw.items()}

    gallery = [weights(g_g[g], grown(mutual(g, k1))) for g in range(count)]
    ours = rerank_by_gallery(q_g, g_g, k1, 1, 0.0)
    for q, row in enumerate(q_g):
        near = {g for g in sorted(range(count), key=lambda g: row[g])[:k1] if row[g] < g_g[g][lists[g][k1]]}
        mine = weights(row, grown(near))
        for g in range(count):
            shared = sum(min(mine.get(j, 0), gallery[g].get(j, 0)) for j in range(count))
            assert ours[q, g] == pytest.approx(1 - shared / (2 - shared))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "other"}, "choose k-reciprocal"), ({"k3": 1}, "k3 belongs"), ({"queries": 0}, "square"), ({"lam": 2.0}, "0..1")],
)
def test_wrong_settings(change, message):
    wanted = {"queries": 12, "kind": "divided", "k1": 6, "k2": 3, "lam": 0.1} | change
    with pytest.raises(ValueError, match=message):
        rerank(distances("a", "sysu"), **wanted)


@pytest.mark.parametrize("kind", ["constrained", "divided", "extended", "gallery-only"])
def test_kinds_by_the_config_name(kind):
    rows = torch.from_numpy(inputs.rerank_features("a")[0]).float()
    setting = {"k1": 6, "k2": 3, "lambda": 0.3}
    ours = distance_function({"rerank": setting | {"kind": kind}})(rows[:12], rows[12:])
    d = (1 - rows.double().numpy() @ rows.double().numpy().T).clip(0)
    if kind == "gallery-only":
        expected = rerank_by_gallery(d[:12, 12:], d[12:, 12:], 6, 3, 0.3)
    else:
        expected = rerank(d, 12, kind, 6, 3, 0.3)
    assert np.abs(ours - expected).max() < 1e-5

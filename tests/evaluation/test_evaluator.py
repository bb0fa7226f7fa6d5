"""MEREvaluator on the tiny data set, against a twin that encodes every image and text anew for every question."""

import json

import numpy as np
import oracles_evaluation as oracle
import pytest
import torch
from torch.nn.functional import normalize

pytest.importorskip("fastreid")

from fastreid.evaluation import ReidEvaluator, inference_on_dataset
from fastreid.evaluation.rerank import re_ranking
from two_processes import config

from tvilfm_plugin.data.text_sources import QueryTexts, draw_query_texts
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.engine.trained import load_for_test
from tvilfm_plugin.evaluation import mer
from tvilfm_plugin.evaluation.evaluator import MEREvaluator, distance_function
from tvilfm_plugin.evaluation.mer import minus_inner_product
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.host.replacing import lend
from tvilfm_plugin.modality import Modality

pytestmark = pytest.mark.filterwarnings("ignore:Cython rank evaluation")
IR, RGB, TEXT, FUSION = Modality.IR, Modality.RGB, Modality.TEXT, Modality.FUSION
METRICS = ("R-1", "R-5", "R-10", "R-20", "mAP", "mINP")


@pytest.fixture(scope="module")
def model(tiny, trained):
    cfg = config(tiny.config, tiny.folder, "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    built = TriTrainer.build_model(cfg)
    load_for_test(cfg, built)
    with torch.no_grad():
        built.text.text_projection.mul_(5)  # the tower is almost random: its features should count as much as the images'
    return built.eval()


@pytest.fixture
def parts_of(tiny):
    """Loader and evaluator for a config with overrides; nothing is stored unless an output folder is given."""

    def build(*overrides, out=None):
        store = ("TEST.STORE", out is not None)
        with tiny.environment():
            cfg = config(tiny.config, out or tiny.folder, *store, *overrides)
            return cfg, *TriTrainer.build_evaluator(cfg, "TriSYSUMM01")

    return build


def encode(model, loader, row, modality):
    """(D,) raw feature of one image, by itself."""
    return model.encode_images(loader.dataset[row]["images"][None], modality)[0]


# --- against the twin ------------------------------------------------------------------------------------------------


def test_every_question_equals_the_literal_twin(model, parts_of):
    cfg, loader, evaluator = parts_of()
    results = evaluator.run(model, loader)
    data = loader.data
    expected = {}
    with torch.no_grad():
        ir = [encode(model, loader, q, IR) for q in range(len(data.query))]
        rgb = [encode(model, loader, len(data.query) + g, RGB) for g in range(len(data.gallery))]
        unit = lambda raw: normalize(model.heads.neck(raw[None]), dim=1)[0]
        gallery = torch.stack([unit(raw) for raw in rgb])
        for setting in data.settings:
            questions = {"infrared": [(None, (IR,))]}
            for source in cfg.TEST.TEXT_SOURCES:
                end = "" if source == "witness" else f"@{source}"
                seeds = [draw_query_texts(source, data, setting, s) for s in ((0,) if source == "self" else (0, 1))]
                members = (IR, TEXT) if source == "self" else (IR, TEXT, FUSION)
                questions[f"text{end}"] = [(texts, (TEXT,)) for texts in seeds]
                questions[f"ensemble{end}"] = [(texts, members) for texts in seeds]
                if source != "self":
                    questions[f"fusion{end}"] = [(texts, (FUSION,)) for texts in seeds]
            for label, ways in questions.items():
                values = [
                    answer(model, data, ir, gallery, unit, texts, members, t, columns)
                    for texts, members in ways
                    for t, columns in enumerate(setting.draws)
                ]
                means = 100 * np.mean(values, axis=0)
                expected |= {f"{setting.name}/{label}/{m}": v for m, v in zip(METRICS, means, strict=True)}
    expected["metric"] = (expected["all/ensemble/R-1"] + expected["all/ensemble/mAP"]) / 2
    assert len(expected) == 2 * 12 * 6 + 1
    assert {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()} == results


def answer(model, data, ir, gallery, unit, texts, members, t, columns):
    """R-1, R-5, R-10, R-20, mAP and mINP of one query type with one text draw on one gallery draw."""
    dist = []
    for q, raw in enumerate(ir):
        embeddings = {IR: unit(raw)}
        if texts is not None:
            text = model.encode_text(tokenize([texts.table[texts.rgb[t, q]]]))[0]
            filtered = model.encode_text(tokenize([texts.table[texts.ir[q]]]))[0]
            embeddings |= {TEXT: unit(text), FUSION: unit(raw + text - filtered)}
        dist.append([-sum(float(embeddings[m] @ gallery[g]) for m in members) for g in columns])
    pids, camids = (np.array([getattr(item, what) for item in data.query]) for what in ("pid", "camid"))
    labels = Labels(*(np.array([getattr(data.gallery[g], what) for g in columns]) for what in ("pid", "camid")))
    cmc, mean_ap, mean_inp = oracle.rank_metrics(np.array(dist), Labels(pids, camids), labels, data.protocol)
    return [*(cmc[min(k, len(cmc)) - 1] for k in (1, 5, 10, 20)), mean_ap, mean_inp]


class WithTexts:
    """Test batches as the stock path sees them, where queries bring the tokens of their texts."""

    def __init__(self, loader, texts):
        self.loader, self.texts, self.dataset = loader, texts, loader.dataset

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            if self.texts is not None and batch["modality"][0] == "ir":
                rows = batch["row"].numpy()
                for key, index in (("rgb_tokens", self.texts.rgb[0]), ("ir_tokens", self.texts.ir)):
                    batch[key] = tokenize([self.texts.table[i] for i in index[rows]])
            yield batch


class Remembering(ReidEvaluator):
    """The stock evaluator, and the cosine of all its query and gallery rows."""

    def evaluate(self):
        rows = torch.cat([prediction["feats"] for prediction in self._predictions])
        rows = normalize(rows, dim=1)
        self.cosine = rows[: self._num_query] @ rows[self._num_query :].T
        return super().evaluate()


@pytest.mark.parametrize("source", ["oracle", "none"])
def test_the_stock_path_sees_the_same_similarities(model, parts_of, source):
    cfg, loader, evaluator = parts_of("TEST.TEXT_SOURCES", f"('{source}',)", "TEST.TEXT_SEEDS", (0,))
    data = loader.data
    texts = draw_query_texts(source, data, data.settings[0], 0) if source != "none" else None
    stock = Remembering(cfg, len(data.query))
    inference_on_dataset(model, WithTexts(loader, texts), stock)
    ours = ranked(evaluator, model, loader)
    # First the images alone on every draw; then, on the first draw, text, fusion and ensemble.
    draws = data.settings[0].draws
    similarity = -ours[0] if texts is None else -ours[len(draws) + 2] / 3
    assert torch.allclose(stock.cosine[:, draws[0]], similarity, atol=1e-5)


def ranked(evaluator, model, loader):
    """Every distance matrix that an evaluation ranks, in its order: per source, draw and query type."""
    found = []

    def keep(query, gallery):
        found.append(minus_inner_product(query, gallery))
        return found[-1]

    with lend(mer, minus_inner_product=keep):
        evaluator.run(model, loader)
    return found


# --- independence ----------------------------------------------------------------------------------------------------


def test_neither_batch_size_nor_order_matters(model, parts_of):
    _, loader, evaluator = parts_of("TEST.IMS_PER_BATCH", 16)
    expected = evaluator.run(model, loader)
    _, small, other = parts_of("TEST.IMS_PER_BATCH", 5)
    assert len(small) > len(loader)
    assert other.run(model, list(small)[::-1]) == pytest.approx(expected, abs=1e-4)


def test_a_run_leaves_the_model_as_it_was(model, parts_of):
    _, loader, evaluator = parts_of()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluator.run(model, loader)
    assert model.training and not model.visual.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()


def test_flip_averages_the_raw_features_of_both_views(model, parts_of, tmp_path):
    _, loader, evaluator = parts_of("TEST.FLIP.ENABLED", True, out=tmp_path)
    evaluator.run(model, loader)
    stored = torch.load(evaluator.folder / "parts.pt", weights_only=True)
    with torch.no_grad():
        for row, modality in ((0, IR), (len(loader.data.query), RGB)):
            image = loader.dataset[row]["images"][None]
            both = [model.encode_images(view, modality)[0] for view in (image, image.flip(3))]
            kept = stored["query"][0] if modality is IR else stored["gallery"][0]
            assert torch.allclose(kept, (both[0] + both[1]) / 2, atol=1e-5)
            assert not torch.allclose(both[0], both[1], atol=1e-4)


def test_half_precision_changes_features_a_little_and_says_so(model, parts_of, tmp_path):
    stored = {}
    for amp in (False, True):
        _, loader, evaluator = parts_of("TEST.AMP", amp, "TEST.TEXT_SOURCES", "('oracle',)", out=tmp_path / str(amp))
        evaluator.run(model, loader)
        stored[amp] = torch.load(evaluator.folder / "parts.pt", weights_only=True)
        cards = json.loads((evaluator.folder / "results.json").read_text())["cards"]
        assert all(("half precision" in card["note"]) == amp for card in cards.values())
    for name in ("query", "gallery", "texts"):
        exact, half = stored[False][name], stored[True][name]
        assert half.dtype == torch.float32 and not torch.equal(exact, half)
        assert torch.nn.functional.cosine_similarity(exact, half).min() > 0.999


# --- query expansion and re-ranking ----------------------------------------------------------------------------------


def test_expansion_and_reranking_run_and_say_so(model, parts_of, tmp_path):
    expansion = ["TEST.AQE.ENABLED", True, "TEST.AQE.QE_K", 3]
    rerank = ["TEST.RERANK.ENABLED", True, "TEST.RERANK.K1", 4, "TEST.RERANK.K2", 2]
    _, loader, evaluator = parts_of(*expansion, *rerank, "TEST.TEXT_SOURCES", "('oracle',)", out=tmp_path)
    results = evaluator.run(model, loader)
    cards = json.loads((evaluator.folder / "results.json").read_text())["cards"]
    assert all("query expansion" in card["reranking"] and "k1=4 k2=2" in card["reranking"] for card in cards.values())
    assert all(0 <= value <= 100 for value in results.values())
    _, loader, plain = parts_of("TEST.TEXT_SOURCES", "('oracle',)")
    assert plain.run(model, loader) != results


def test_expansion_is_the_mean_of_the_nearest_weighted_by_similarity():
    torch.manual_seed(0)
    query, gallery = torch.randn(4, 6) * 3, normalize(torch.randn(7, 6), dim=1)
    everybody = torch.cat([normalize(query, dim=1), gallery])
    expanded = []
    for row in everybody:
        similar = everybody @ row
        nearest = sorted(range(11), key=lambda n: -float(similar[n]))[:3]
        expanded.append(sum(similar[n] ** 3 * everybody[n] for n in nearest) / 3)
    expanded = normalize(torch.stack(expanded), dim=1)
    settings = {"aqe": {"times": 1, "k": 3, "alpha": 3.0}}
    assert distance_function(settings)(query, gallery) == pytest.approx((-expanded[:4] @ expanded[4:].T).numpy(), abs=1e-5)
    with pytest.raises(ValueError, match="QE_K is 11.*only 11 images"):
        distance_function({"aqe": {"times": 1, "k": 11, "alpha": 3.0}})(query, gallery)


def test_reranking_is_the_hosts_on_euclidean_distances_of_unit_rows():
    torch.manual_seed(0)
    query, gallery = torch.randn(6, 5), normalize(torch.randn(9, 5), dim=1)
    unit = normalize(query, dim=1)
    pairs = ((unit, gallery), (unit, unit), (gallery, gallery))
    expected = re_ranking(*(torch.cdist(a, b).numpy() for a, b in pairs), 4, 2, 0.3)
    distance = distance_function({"rerank": {"k1": 4, "k2": 2, "lambda": 0.3}})
    assert distance(query, gallery) == pytest.approx(expected, abs=1e-3)
    assert distance(3 * query, gallery) == pytest.approx(distance(query, gallery), abs=1e-4)


# --- storage and errors ----------------------------------------------------------------------------------------------


def test_what_is_stored(model, parts_of, tmp_path):
    _, loader, evaluator = parts_of(out=tmp_path)
    results = evaluator.run(model, loader)
    described = json.loads((evaluator.folder / "results.json").read_text())
    assert described["results"] == results and len(described["cards"]) == 2 * 12
    assert described["cards"]["all/ensemble@oracle"]["text_seeds"] == [0, 1]
    with np.load(evaluator.folder / "rankings.npz") as arrays:
        queries = len(loader.data.query)
        assert arrays["query_pids"].tolist() == [item.pid for item in loader.data.query]
        assert arrays["draw/indoor/1"].tolist() == loader.data.settings[1].draws[1].tolist()
        assert arrays["all/ensemble/ap"].shape == (2, 2, queries) and arrays["all/ensemble@self/ap"].shape == (1, 2, queries)
        assert arrays["all/witness/1/rgb"].shape == (2, queries) and arrays["all/witness/1/ir"].shape == (queries,)
        assert results["all/fusion/mAP"] == pytest.approx(100 * np.nanmean(arrays["all/fusion/ap"]))
    table = (evaluator.folder / "table.md").read_text()
    assert "Tri-SYSU-MM01, indoor" in table and "chance" in table and "oracle" in table


def test_features_that_are_not_finite_are_named(model, parts_of):
    _, loader, evaluator = parts_of()
    with torch.no_grad():
        value = model.text.text_projection[0, 0].clone()
        model.text.text_projection[0, 0] = float("nan")
    try:
        with pytest.raises(FloatingPointError, match=r"\d+ of \d+ texts have non-finite features"):
            evaluator.run(model, loader)
    finally:
        with torch.no_grad():
            model.text.text_projection[0, 0] = value


def test_missing_rows_and_texts_are_errors(model, parts_of):
    cfg, loader, evaluator = parts_of()
    with pytest.raises(RuntimeError, match="images of the evaluation are incomplete"):
        evaluator.run(model, list(loader)[1:])
    with pytest.raises(RuntimeError, match="call run"):
        evaluator.evaluate()
    queries = len(loader.data.query)
    holes = QueryTexts("human", 0, ("a person",), np.full((2, queries), -1), np.zeros(queries, int), "")
    bare = MEREvaluator(cfg, loader.data, {"all": [holes], "indoor": [holes]}, tokenize, None)
    with pytest.raises(ValueError, match="leaves 12 queries without a text"):
        bare.run(model, loader)

"""SYSU-MM01's evaluation with MER over ten gallery draws, measured on fewer images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import models, reference
from benchmarks.harness import Figure, Machine, ratio, timed
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.features import encode_texts
from tvilfm_plugin.evaluation.mer import (
    Parts,
    QueryType,
    TextIndex,
    batch_norm_affine,
    query_embeddings,
    rank_trials,
    unit_after,
)
from tvilfm_plugin.evaluation.protocols import SYSU, Labels
from tvilfm_plugin.modality import Modality

DRAWS = 10
BATCH = 32
# SYSU-MM01, all search, single shot: 3,803 queries and 301 gallery images a draw.
QUERIES_PER_GALLERY_IMAGE = 3803 / 301


@torch.no_grad()
def run(smoke: bool, machine: Machine) -> list[Figure]:
    # As many queries per gallery image as there; the union of ten draws holds 82 % of their images.
    gallery = 6 if smoke else 8
    queries = round(gallery * QUERIES_PER_GALLERY_IMAGE)
    cfg, model = models.build(2, smoke)
    model.eval()
    rng = np.random.RandomState(0)
    pool = round(0.82 * DRAWS * gallery)
    order = rng.permutation(pool)
    draws = [np.sort(np.take(order, np.arange(t * gallery, (t + 1) * gallery), mode="wrap")) for t in range(DRAWS)]
    query_pixels, gallery_pixels = models.images(cfg, queries, 1), models.images(cfg, pool, 2)
    rgb, ir = models.tokens(queries, 3), models.tokens(queries, 4)
    query = Labels(rng.randint(0, 6, queries), rng.choice([3, 6], queries))
    labels = Labels(np.arange(pool) % 6, rng.choice([1, 4, 5], pool))
    everything = torch.cat([rgb, ir])
    index = TextIndex(np.tile(np.arange(queries), (DRAWS, 1)), queries + np.arange(queries))
    members = tuple(model.members)
    embed = unit_after(*batch_norm_affine(model.heads.neck))
    types = [QueryType("ensemble", members)]

    def ours(amp: bool = False) -> tuple[Parts, list]:
        q, g = (
            torch.cat([model.encode_images(some, m, amp=amp) for some in pixels.split(BATCH)])
            for pixels, m in ((query_pixels, Modality.IR), (gallery_pixels, Modality.RGB))
        )
        strings = encode_texts(model, [str(i) for i in range(len(everything))], lambda rows: everything, amp=amp)
        parts = Parts(q, g, strings)
        trials = list(rank_trials(parts, index, types, draws, query, labels, SYSU, model.fusion, embed))
        return parts, [trial.metrics for trial in trials]

    def theirs() -> tuple[list, list]:
        features = [
            reference.query_features(model, *(model.visual.normalise(a), b, c))
            for a, b, c in zip(query_pixels.split(BATCH), rgb.split(BATCH), ir.split(BATCH), strict=True)
        ]
        blocks = [torch.cat(rows) for rows in zip(*features, strict=True)]
        scores, results = [], []
        for columns in draws:
            chosen = model.visual.normalise(gallery_pixels[columns])
            rows = torch.cat([reference.gallery_features(model, some) for some in chosen.split(BATCH)])
            similarity = torch.stack([block @ rows.T for block in blocks]).sum(dim=0)
            scores.append(similarity)
            results.append(reference.rank(-similarity.numpy(), *query, labels.pids[columns], labels.camids[columns]))
        return scores, results

    found: dict[str, Any] = {}

    def kept(name: str, work: Callable[[], Any]) -> tuple[float, float]:
        return timed(lambda: found.update({name: work()}))

    sides = {"ours": ours, "half": partial(ours, True), "theirs": theirs}
    times = [{name: kept(name, work) for name, work in sides.items()} for _ in range(3 if smoke else 1)]
    scores, results = found["theirs"]

    def similarity(parts: Parts) -> torch.Tensor:
        units = query_embeddings(parts, index.rgb[0], index.ir, members, model.fusion, embed)
        return ensemble(units, members) @ embed(parts.gallery[torch.from_numpy(draws[0])]).T

    apart = {name: float((similarity(found[name][0]) - scores[0]).abs().max()) for name in ("ours", "half")}
    mean_ap = {name: float(np.mean([m.mAP for m in found[name][1]])) for name in apart}
    reference_ap = reference.mean_over_draws(results)[1]
    if apart["ours"] > 1e-5 or abs(mean_ap["ours"] - reference_ap) > 1e-3:
        raise AssertionError(f"Similarities differ by {apart['ours']:.1e}, mAP is {mean_ap['ours']} and {reference_ap}.")
    gmac = (queries + pool) * models.visual_gmac(model, tuple(cfg.INPUT.SIZE_TEST))
    gmac += models.text_gmac(model, int((everything.argmax(dim=1) + 1).sum()))
    name = f"evaluation with MER, {queries} queries, {DRAWS} draws of {gallery}"
    note = "queries per gallery image as SYSU-MM01's, so the ratio is that of its 3,803 and 301"
    pairs = {side: [(one[side], one["theirs"]) for one in times] for side in apart}
    figures = [ratio(name, pairs["ours"], apart["ours"], target=3, gmac=gmac, rate=machine.float32, note=note)]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        note = f"TEST.AMP; mAP {100 * mean_ap['half']:.2f} instead of {100 * reference_ap:.2f} with random weights"
        half = ratio(f"{name}, bfloat16", pairs["half"], apart["half"], target=5, gmac=gmac, rate=machine.bfloat16, note=note)
        figures.append(half)
    return figures

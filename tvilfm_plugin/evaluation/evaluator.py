"""MEREvaluator: encode every image and every distinct text once, then answer every question from these parts."""

import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.evaluation.evaluator import DatasetEvaluator, inference_context
from fastreid.evaluation.query_expansion import aqe
from fastreid.evaluation.rerank import re_ranking
from fastreid.utils import comm
from fastreid.utils.registry import Registry
from torch import Tensor, nn
from tqdm import tqdm
from yacs.config import CfgNode

from tvilfm_plugin.evaluation.mer import (
    IMAGE_ONLY,
    Fusion,
    Parts,
    QueryType,
    TextIndex,
    Trial,
    batch_norm_affine,
    minus_inner_product,
    query_types,
    rank_trials,
    unit_after,
)
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.evaluation.ranking import RankMetrics, chance_metrics
from tvilfm_plugin.evaluation.report import ProtocolCard, ResultRow, results_table
from tvilfm_plugin.modality import Modality

logger = logging.getLogger("fastreid." + __name__)

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = "Evaluators for Tri- data sets, called as `obj(cfg, data, texts, tokenize, folder)`."

TEXT_BATCH = 256


@EVALUATOR_REGISTRY.register()
class MEREvaluator(DatasetEvaluator):
    """Modality ensemble retrieval under the data set's own protocol.

    Every query image, every gallery image of the union of all draws and every distinct text is encoded once; fusion, neck,
    ensemble and ranking follow per setting, text source, text seed and gallery draw. Rows carry their index, so neither
    batching nor several processes can disturb the order.

    Args:
        data: a `TriDataset`: query, gallery, settings, protocol.
        texts: per setting, the `QueryTexts` of every text source and seed.
        tokenize: strings -> (n, L) token ids.
        folder: where features, rankings, cards and tables are stored; None stores nothing.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data: Any,
        texts: Mapping[str, Sequence[Any]],
        tokenize: Callable[[Sequence[str]], Tensor],
        folder: str | None,
    ) -> None:
        self.cfg = cfg
        self.data = data
        self.texts = texts
        self.tokenize = tokenize
        self.folder = Path(folder) if folder else None
        self.table = sorted({text for drawn in texts.values() for one in drawn for text in one.table})
        self.query = Labels(*_labels(data.query))
        self.gallery = Labels(*_labels(data.gallery))
        self.reset()

    # --- collection --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        self.rows: list[Tensor] = []
        self.features: list[Tensor] = []

    def process(self, inputs: Mapping[str, Any], outputs: Tensor) -> None:
        """Keep a batch: `inputs["row"]` counts queries first, then the gallery union; `outputs` are raw (N, D) features."""
        self.rows.append(inputs["row"].cpu())
        self.features.append(outputs.detach().float().cpu())

    def run(self, model: Any, loader: Iterable[Mapping[str, Any]]) -> OrderedDict[str, Any]:
        """Encode everything with the (possibly DDP-wrapped) model and evaluate; other ranks than 0 get an empty result."""
        model = getattr(model, "module", model)
        self.reset()
        quiet = not comm.is_main_process()
        with inference_context(model), torch.no_grad():
            for batch in tqdm(loader, desc="Encoding images", unit="batch", disable=quiet or None, leave=False):
                modality = Modality(batch["modality"][0])
                raw = model.encode_images(batch["images"], modality, batch["camids"])
                if self.cfg.TEST.FLIP.ENABLED:
                    raw = (raw + model.encode_images(batch["images"].flip(dims=[3]), modality, batch["camids"])) / 2
                self.process(batch, raw)
            texts = self._encode_texts(model, quiet) if self.table else None
            images = self._gather(self.rows, self.features, len(self.data.query) + len(self.data.gallery), "images")
            if quiet:
                return OrderedDict()
            parts = Parts(images[: len(self.data.query)], images[len(self.data.query) :], texts)
            neck = batch_norm_affine(model.heads.neck)
            return self.evaluate_parts(parts, unit_after(*neck), getattr(model, "fusion", None), neck, model)

    def evaluate(self) -> OrderedDict[str, Any]:
        raise RuntimeError("MEREvaluator needs the model's text encoder and neck: call run(model, loader).")

    def _encode_texts(self, model: Any, quiet: bool) -> Tensor:
        """(S, D) raw features of the text table; each rank takes its share, in batches of similar length."""
        tokens = self.tokenize(self.table)
        length = (tokens != 0).sum(dim=1)
        order = torch.argsort(length)[comm.get_rank() :: comm.get_world_size()]
        device = next(model.parameters()).device
        rows, features = [], []
        for some in tqdm(order.split(TEXT_BATCH), desc="Encoding texts", unit="batch", disable=quiet or None, leave=False):
            batch = tokens[some, : int(length[some].max())].to(device)
            rows.append(some)
            features.append(model.encode_text(batch).float().cpu())
        return self._gather(rows, features, len(self.table), "texts")

    @staticmethod
    def _gather(rows: list[Tensor], features: list[Tensor], expected: int, what: str) -> Tensor:
        """All ranks' rows in the order of their index."""
        shares = comm.gather((torch.cat(rows), torch.cat(features)) if rows else None)
        if not comm.is_main_process():
            return torch.empty(0)
        shares = [share for share in shares if share is not None]
        index = torch.cat([share[0] for share in shares])
        if not torch.equal(index.sort().values, torch.arange(expected)):
            raise RuntimeError(f"The {what} of the evaluation are incomplete: {len(index)} rows for {expected}.")
        everything = torch.cat([share[1] for share in shares])
        if not torch.isfinite(everything).all():
            bad = int((~torch.isfinite(everything).all(dim=1)).sum())
            raise FloatingPointError(
                f"{bad} of {expected} {what} have non-finite features, which cannot be ranked. The weights have diverged or "
                "overflow in half precision: check the training loss, and evaluate in float32."
            )
        return everything[index.argsort()]

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate_parts(
        self,
        parts: Parts,
        embed: Callable[[Tensor], Tensor],
        fusion: Fusion | None,
        neck: tuple[Tensor, Tensor],
        model: nn.Module | None = None,
    ) -> OrderedDict[str, Any]:
        """Every setting, query type, text source and seed from the parts alone.

        Returns:
            Flat results in percent: `SETTING/TYPE/METRIC` for infrared and for the first text source,
            `SETTING/TYPE@SOURCE/METRIC` for the others; `metric` is the mean of R-1 and mAP of the first setting's
            ensemble (of the images alone without text), averaged over draws and text seeds.
        """
        results: OrderedDict[str, Any] = OrderedDict()
        stored: dict[str, np.ndarray] = {}
        report: list[str] = []
        cards: dict[str, Any] = {}
        weights = _sha256(model) if model is not None else ""
        position = {text: i for i, text in enumerate(self.table)}
        for setting in self.data.settings:
            rows: list[ResultRow] = []
            for drawn in self._grouped(setting.name):
                source = drawn[0].source if drawn else "none"
                types = query_types(source, self._members()) if drawn else (self._image_only(),)
                trials: dict[str, list[list[Trial]]] = {kind.name: [] for kind in types}
                for one in drawn or [None]:
                    index = None if one is None else _text_index(one, position)
                    run: dict[str, list[Trial]] = {kind.name: [] for kind in types}
                    for trial in rank_trials(
                        parts, index, types, setting.draws, self.query, self.gallery, self.data.protocol, fusion, embed,
                        distance=self._distance(),
                    ):  # fmt: skip
                        run[trial.query_type].append(trial)
                    for name, list_of_trials in run.items():
                        trials[name].append(list_of_trials)
                for name, of_seeds in trials.items():
                    card = self._card(setting, source, drawn, weights)
                    rows.append(ResultRow(query=name, text_source=source, trials=_per_draw(of_seeds), note=card.note))
                    label = f"{setting.name}/{name}" + ("" if source in ("none", self._first_source()) else f"@{source}")
                    for metric, value in _percent(of_seeds).items():
                        results[f"{label}/{metric}"] = value
                    cards[label] = card.to_dict()
                    stored.update(_arrays(label, of_seeds))
            drawn_gallery = Labels(*(labels[setting.draws[0]] for labels in self.gallery))
            table = results_table(rows, [chance_metrics(self.query, drawn_gallery, self.data.protocol)])
            report.append(f"## {self.data.name}, {setting.name}\n\n{table}")
            logger.info(f"{self.data.name}, {setting.name}:\n{table}")
        first = self.data.settings[0].name
        kind = "ensemble" if f"{first}/ensemble/R-1" in results else self._image_only().name
        results["metric"] = (results[f"{first}/{kind}/R-1"] + results[f"{first}/{kind}/mAP"]) / 2
        if self.folder is not None:
            self._store(parts, neck, results, stored, cards, "\n\n".join(report))
        return results

    def _members(self) -> tuple[Modality, ...]:
        return tuple(Modality(m) for m in self.cfg.TVILFM.MEMBERS)

    def _image_only(self) -> QueryType:
        return IMAGE_ONLY if self.data.query_modality is Modality.IR else QueryType("visible", IMAGE_ONLY.members)

    def _first_source(self) -> str:
        drawn = next(iter(self.texts.values()), ())
        return next((one.source for one in drawn if one.source != "none"), "none")

    def _grouped(self, setting: str) -> list[list[Any]]:
        """The images alone first, then the text draws of a setting by source."""
        groups: dict[str, list[Any]] = {}
        for one in self.texts.get(setting, ()):
            if one.source != "none":
                groups.setdefault(one.source, []).append(one)
        return [[], *groups.values()]

    def _distance(self) -> Callable[[Tensor, Tensor], Any]:
        test = self.cfg.TEST
        if not test.RERANK.ENABLED and not test.AQE.ENABLED:
            return minus_inner_product

        def distance(query: Tensor, gallery: Tensor) -> np.ndarray:
            if test.AQE.ENABLED:
                query, gallery = aqe(query, gallery, test.AQE.QE_TIME, test.AQE.QE_K, test.AQE.ALPHA)
            if not test.RERANK.ENABLED:
                return minus_inner_product(query, gallery).numpy()
            query = nn.functional.normalize(query, dim=1)
            q_g, q_q, g_g = (1 - a @ b.T for a, b in ((query, gallery), (query, query), (gallery, gallery)))
            rerank = test.RERANK
            return re_ranking(q_g.numpy(), q_q.numpy(), g_g.numpy(), rerank.K1, rerank.K2, rerank.LAMBDA)

        return distance

    def _reranking(self) -> str:
        test = self.cfg.TEST
        used = [f"query expansion x{test.AQE.QE_TIME} over {test.AQE.QE_K}"] if test.AQE.ENABLED else []
        if test.RERANK.ENABLED:
            used.append(f"k-reciprocal k1={test.RERANK.K1} k2={test.RERANK.K2} lambda={test.RERANK.LAMBDA}")
        return ", ".join(used) or "none"

    def _card(self, setting: Any, source: str, drawn: Sequence[Any], weights: str) -> ProtocolCard:
        cfg = self.cfg
        return ProtocolCard(
            dataset=self.data.name,
            direction=self.data.direction,
            setting=setting.name,
            shots=setting.shots,
            draws=len(setting.draws),
            gallery_source=getattr(self.data, "gallery_source", "seeded draws"),
            cmc="identities" if self.data.protocol.count_identities else "images",
            text_source=source,
            text_seeds=tuple(one.seed for one in drawn),
            reranking=self._reranking(),
            epoch_rule="last epoch",
            preset=cfg.TVILFM.PRESET,
            seed=cfg.SEED,
            note="; ".join(sorted({one.note for one in drawn if one.note})),
            weights_sha256=weights,
            version=_version(),
        )

    # --- storage -----------------------------------------------------------------------------------------------------

    def _store(
        self,
        parts: Parts,
        neck: tuple[Tensor, Tensor],
        results: Mapping[str, float],
        arrays: Mapping[str, np.ndarray],
        cards: Mapping[str, Any],
        report: str,
    ) -> None:
        """Write results.json, table.md, rankings.npz and parts.pt: pictures and statistics need nothing else."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = {
            f"{setting}/{one.source}/{one.seed}/{what}": np.asarray(values)
            for setting, drawn in self.texts.items()
            for one in drawn
            for what, values in zip(("rgb", "ir"), _text_index(one, {t: i for i, t in enumerate(self.table)}), strict=True)
        }
        labels = {
            "query_pids": self.query.pids,
            "query_camids": self.query.camids,
            "gallery_pids": self.gallery.pids,
            "gallery_camids": self.gallery.camids,
        }
        draws = {f"draw/{s.name}/{t}": d for s in self.data.settings for t, d in enumerate(s.draws)}
        everything: dict[str, Any] = {**labels, **draws, **texts, **arrays}
        _write(self.folder / "rankings.npz", lambda f: np.savez_compressed(f, **everything))
        tensors = {"query": parts.query, "gallery": parts.gallery, "neck_scale": neck[0], "neck_shift": neck[1]}
        if parts.texts is not None:
            tensors["texts"] = parts.texts
        _write(self.folder / "parts.pt", lambda f: torch.save(tensors, f))
        described = {
            "results": results,
            "cards": cards,
            "fusion": self.cfg.TVILFM.FUSION,
            "members": list(self.cfg.TVILFM.MEMBERS),
            "query_paths": [item.path for item in self.data.query],
            "gallery_paths": [item.path for item in self.data.gallery],
            "texts": self.table,
        }
        _write(self.folder / "results.json", lambda f: f.write(json.dumps(described, indent=1).encode()))
        _write(self.folder / "table.md", lambda f: f.write(report.encode()))
        logger.info(f"Features, rankings, cards and tables are in {self.folder}")


def _labels(items: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([item.pid for item in items]), np.array([item.camid for item in items])


def _text_index(drawn: Any, position: Mapping[str, int]) -> TextIndex:
    """A draw's indices, from its own table into the common one."""
    rows = np.array([position[text] for text in drawn.table], dtype=np.int64)
    if (drawn.rgb < 0).any() or (drawn.ir < 0).any():
        raise ValueError(
            f"Text source {drawn.source!r} leaves {int((drawn.rgb < 0).any(axis=0).sum())} queries without a text and "
            f"{int((drawn.ir < 0).sum())} without the filter text of their infrared image. Caption them "
            "(tools/generate_captions.py), or evaluate with TEST.TEXT_SOURCES '(\"none\",)'."
        )
    return TextIndex(rows[drawn.rgb], rows[drawn.ir])


def _per_draw(of_seeds: Sequence[Sequence[Trial]]) -> list[RankMetrics]:
    """Metrics of every gallery draw, averaged over the text seeds: the spread over draws is not that over texts."""
    per_draw = zip(*([trial.metrics for trial in trials] for trials in of_seeds), strict=True)
    return [RankMetrics(*(np.mean(values, axis=0) for values in zip(*seeds, strict=True))) for seeds in per_draw]


def _percent(of_seeds: Sequence[Sequence[Trial]]) -> dict[str, float]:
    """Means over text seeds and draws, in percent."""
    everything = _per_draw(of_seeds)
    values = {f"R-{k}": float(np.mean([100 * m.rank(k) for m in everything])) for k in (1, 5, 10, 20)}
    values["mAP"] = float(np.mean([100 * m.mAP for m in everything]))
    values["mINP"] = float(np.mean([100 * m.mINP for m in everything]))
    return values


def _arrays(label: str, of_seeds: Sequence[Sequence[Trial]]) -> dict[str, np.ndarray]:
    """Per-query values of every trial, (text seeds, draws, Q), and the best gallery images of the first draw, (Q, top)."""
    stack = lambda name: np.array([[getattr(t.per_query, name) for t in trials] for trials in of_seeds])
    first = of_seeds[0][0]
    assert first.top is not None and first.similarity is not None
    return {
        f"{label}/ap": stack("ap").astype(np.float32),
        f"{label}/inp": stack("inp").astype(np.float32),
        f"{label}/first_match_rank": stack("first_match_rank").astype(np.int32),
        f"{label}/top": first.top.astype(np.int32),
        f"{label}/top_similarity": first.similarity.astype(np.float32),
    }


def _sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tvilfm-plugin")
    except PackageNotFoundError:
        return "source"


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    """All or nothing: a killed process leaves the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)

"""MEREvaluator: encode every image and every distinct text once, then answer every question from these parts."""

import copy
import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.evaluation.evaluator import DatasetEvaluator, inference_context
from fastreid.evaluation.query_expansion import aqe
from fastreid.evaluation.rerank import re_ranking
from fastreid.utils import comm
from torch import Tensor, nn
from tqdm import tqdm
from yacs.config import CfgNode

from tvilfm_plugin.evaluation import mer
from tvilfm_plugin.evaluation.features import encode_texts, gather
from tvilfm_plugin.evaluation.fingerprint import data_sha256, version_of_software, weights_sha256
from tvilfm_plugin.evaluation.flips import encode_rows, encoding
from tvilfm_plugin.evaluation.fusion import LateJoin
from tvilfm_plugin.evaluation.protocols import PROTOCOLS, Labels, Protocol
from tvilfm_plugin.evaluation.provenance import NOT_RECORDED
from tvilfm_plugin.evaluation.ranking import chance_metrics
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, ResultRow, results_table
from tvilfm_plugin.evaluation.reranking import K_RECIPROCAL, rerank_vectors
from tvilfm_plugin.evaluation.sharing import Turns
from tvilfm_plugin.evaluation.stored import Distance, StoredEvaluation
from tvilfm_plugin.evaluation.summary import per_draw, percent, row_arrays
from tvilfm_plugin.evaluation.text_trust import TextTrust
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.registries import EVALUATOR_REGISTRY

logger = logging.getLogger("fastreid." + __name__)


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
        self.query = Labels.of(data.query)
        self.gallery = Labels.of(data.gallery)
        self.image_protocol = choose_protocol(cfg.TEST.IMAGE_PROTOCOL)
        self.epoch_rule = NOT_RECORDED
        self.text_trust: TextTrust | None = None
        self.data_hash = functools.cache(partial(data_sha256, data))
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
        """Encode everything with the (possibly DDP-wrapped) model and evaluate; other ranks than 0 get an empty result.

        Processes share the images, the texts, and the rankings; results are bit for bit those of one process.
        """
        model = getattr(model, "module", model)
        self.reset()
        quiet = not comm.is_main_process()
        stage1 = getattr(model, "stage1", None)
        precision = {"amp": True} if self.cfg.TEST.AMP else {}
        form, flip = encoding(model, self.cfg.TEST)
        encode = partial(form if stage1 is None else model.encode_images_both_ways, **precision)
        with inference_context(model), torch.no_grad():
            for batch in tqdm(loader, desc="Encoding images", unit="batch", disable=quiet or None, leave=False):
                modality = Modality(batch["modality"][0])
                self.process(batch, encode_rows(encode, batch["images"], modality, batch["camids"], flip))
            texts = encode_texts(model, self.table, self.tokenize, quiet, **precision) if self.table else None
            images = gather(self.rows, self.features, len(self.data.query) + len(self.data.gallery), "images")
            image_only = None
            if stage1 is not None:
                images, others = images.chunk(2, dim=1)
                image_only = self._parts(others, None), mer.batch_norm_affine(stage1.neck)
            parts = self._parts(images, texts)
            neck = mer.batch_norm_affine(model.heads.neck)
            # The parts are on the CPU, so a fusion with weights has to be there as well.
            fusion = copy.deepcopy(getattr(model, "fusion", None))
            fusion = fusion if fusion is None else fusion.cpu().eval()
            return self.evaluate_parts(parts, neck, fusion, weights_sha256(model), image_only)

    def _parts(self, images: Tensor, texts: Tensor | None) -> mer.Parts:
        return mer.Parts(images[: len(self.data.query)], images[len(self.data.query) :], texts)

    def evaluate(self) -> OrderedDict[str, Any]:
        raise RuntimeError("MEREvaluator needs the model's text encoder and neck: call run(model, loader).")

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate_parts(
        self,
        parts: mer.Parts,
        neck: tuple[Tensor, Tensor],
        fusion: mer.Fusion | None,
        weights: str = "",
        image_only: tuple[mer.Parts, tuple[Tensor, Tensor]] | None = None,
    ) -> OrderedDict[str, Any]:
        """Every setting, query type, text source and seed from the parts alone.

        Args:
            neck: (D,) scale and (D,) shift of the neck in eval mode.
            image_only: features and neck of the row without text, where they are not the same.

        Returns:
            Flat results in percent: `SETTING/TYPE/METRIC` for infrared and for the first text source,
            `SETTING/TYPE@SOURCE/METRIC` for the others; `metric` is the mean of R-1 and mAP of the first setting's
            ensemble (of the images alone without text), averaged over draws and text seeds.
        """
        results: OrderedDict[str, Any] = OrderedDict()
        arrays: dict[str, np.ndarray] = {}
        report: list[str] = []
        cards: dict[str, ProtocolCard] = {}
        everything = self._stored(parts, neck, fusion)
        if image_only is not None:
            everything = replace(everything, image_parts=image_only[0], image_neck=image_only[1])
        turns = Turns(comm.get_rank(), comm.get_world_size(), comm.gather)
        for setting in self.data.settings:
            rows: list[ResultRow] = []
            for card, name, of_seeds in self._trials(everything, setting, turns, weights):
                source = card.text_source
                rows.append(ResultRow(query=name, text_source=source, trials=per_draw(of_seeds), note=card.note))
                label = f"{setting.name}/{name}" + ("" if source in (NO_TEXT, self._first_source()) else f"@{source}")
                results.update({f"{label}/{metric}": value for metric, value in percent(of_seeds).items()})
                cards[label] = card
                arrays.update(row_arrays(label, of_seeds))
            if comm.is_main_process():
                drawn_gallery = self.gallery.at(setting.draws[0])
                table = results_table(rows, [chance_metrics(self.query, drawn_gallery, self.data.protocol)])
                report.append(f"## {self.data.name}, {setting.name}\n\n{table}")
                logger.info(f"{self.data.name}, {setting.name}:\n{table}")
        if not comm.is_main_process():
            return OrderedDict()
        results["metric"] = self._headline(results, everything.image_only.name)
        if self.folder is not None:
            replace(everything, cards=cards, results=results).save(self.folder, arrays)
            write_text(self.folder / "table.md", "\n\n".join(report))
            logger.info(f"Features, rankings, cards and tables are in {self.folder}")
        return results

    def _trials(
        self, everything: StoredEvaluation, setting: Any, turns: Turns, weights: str
    ) -> Iterator[tuple[ProtocolCard, str, list[list[mer.Trial]]]]:
        """Card, query type and trials (per text seed and draw) of every row; all processes have to go through them."""
        for drawn in self._grouped(setting.name):
            source = drawn[0].source if drawn else NO_TEXT
            card = self._card(setting, source, drawn, weights, other_neck=everything.image_parts is not None)
            for name, of_seeds in turns.trials(everything, setting.name, source).items():
                yield card, name, of_seeds

    def _headline(self, results: Mapping[str, Any], image_only: str) -> float:
        first = self.data.settings[0].name
        kind = "ensemble" if f"{first}/ensemble/R-1" in results else image_only
        return float(results[f"{first}/{kind}/R-1"] + results[f"{first}/{kind}/mAP"]) / 2

    def _stored(self, parts: mer.Parts, neck: tuple[Tensor, Tensor], fusion: mer.Fusion | None) -> StoredEvaluation:
        """The parts with the rules by which this data set ranks them."""
        position = {text: i for i, text in enumerate(self.table)}
        described = self._distance_settings()
        images = "infrared" if self.data.query_modality is Modality.IR else "visible"
        return StoredEvaluation(
            parts=parts,
            neck=neck,
            fusion=fusion,
            members=tuple(Modality(m) for m in self.cfg.TVILFM.MEMBERS),
            image_only=mer.IMAGE_ONLY._replace(name=images),
            query=self.query,
            gallery=self.gallery,
            protocol=self.data.protocol,
            image_protocol=self.image_protocol,
            draws={setting.name: tuple(setting.draws) for setting in self.data.settings},
            texts=tuple(self.table),
            text_index={
                (setting, one.source, one.seed): _text_index(one, position, fusion is None or getattr(fusion, "filters", True))
                for setting, drawn in self.texts.items()
                for one in drawn
                if one.source != NO_TEXT
            },
            query_paths=tuple(item.path for item in self.data.query),
            gallery_paths=tuple(item.path for item in self.data.gallery),
            fusion_name=LateJoin.__name__ if isinstance(fusion, LateJoin) else self.cfg.TVILFM.FUSION,
            distance_settings=described,
            distance=distance_function(described) if described else None,
            text_trust=self.text_trust,
        )

    def _first_source(self) -> str:
        return next((one.source for one in next(iter(self.texts.values()), ()) if one.source != NO_TEXT), NO_TEXT)

    def _grouped(self, setting: str) -> list[list[Any]]:
        """The images alone first, then the text draws of a setting by source."""
        groups: dict[str, list[Any]] = {}
        for one in self.texts.get(setting, ()):
            if one.source != NO_TEXT:
                groups.setdefault(one.source, []).append(one)
        return [[], *groups.values()]

    def _distance_settings(self) -> dict[str, Any]:
        """Query expansion and re-ranking as plain values, empty without; `distance_function` computes them."""
        test, described = self.cfg.TEST, {}
        if test.AQE.ENABLED:
            described["aqe"] = {"times": test.AQE.QE_TIME, "k": test.AQE.QE_K, "alpha": test.AQE.ALPHA}
        if test.RERANK.ENABLED:
            described["rerank"] = {"k1": test.RERANK.K1, "k2": test.RERANK.K2, "lambda": test.RERANK.LAMBDA}
            if test.RERANK.KIND != K_RECIPROCAL:
                described["rerank"]["kind"] = test.RERANK.KIND
        return described

    def _reranking(self) -> str:
        test = self.cfg.TEST
        used = [f"query expansion x{test.AQE.QE_TIME} over {test.AQE.QE_K}"] if test.AQE.ENABLED else []
        if test.RERANK.ENABLED:
            used.append(f"{test.RERANK.KIND} k1={test.RERANK.K1} k2={test.RERANK.K2} lambda={test.RERANK.LAMBDA}")
        return ", ".join(used) or "none"

    def _card(self, setting: Any, source: str, drawn: Sequence[Any], weights: str, other_neck: bool) -> ProtocolCard:
        cfg = self.cfg
        protocol = (self.image_protocol if source == NO_TEXT else None) or self.data.protocol
        notes = sorted({one.note for one in drawn if one.note}) if drawn else [self._image_note(other_neck)]
        if cfg.TVILFM.BANK.VIEWS:
            notes.append(f"trained on {cfg.TVILFM.BANK.VIEWS} stored views per image")
        if len(cfg.INPUT.IR_SCALING):
            low, high = cfg.INPUT.IR_SCALING
            notes.append(f"infrared counts {low:g}..{high:g} scaled to 8 bits (INPUT.IR_SCALING)")
        if source != NO_TEXT and self.text_trust is not None:
            notes.append(self.text_trust.note)
        if cfg.TEST.AMP:
            notes.append("features computed in half precision (TEST.AMP)")
        return ProtocolCard(
            dataset=self.data.name,
            direction=self.data.direction,
            setting=setting.name,
            shots=setting.shots,
            draws=len(setting.draws),
            gallery_source=getattr(self.data, "gallery_source", "seeded draws"),
            cmc=protocol.cmc,
            rules=protocol.name,
            text_source=source,
            text_seeds=tuple(one.seed for one in drawn),
            reranking=self._reranking(),
            epoch_rule=self.epoch_rule,
            preset=cfg.TVILFM.PRESET,
            seed=cfg.SEED,
            note="; ".join(note for note in notes if note),
            weights_sha256=weights,
            data_sha256=self.data_hash(source != NO_TEXT),
            version=version_of_software(),
        )

    def _image_note(self, other_neck: bool) -> str:
        """What must be said of the row without text."""
        protocol = self.image_protocol
        rules = "" if protocol in (None, self.data.protocol) else f"scored by the rules of {protocol.name}"
        neck = "through pooling and neck of stage 1" if other_neck else ""
        return "; ".join(note for note in (rules, neck, getattr(self.data, "note", "")) if note)


def choose_protocol(name: str) -> Protocol | None:
    """The rules that TEST.IMAGE_PROTOCOL names; None if it leaves them to the data set."""
    if name and name not in PROTOCOLS:
        raise ValueError(f"TEST.IMAGE_PROTOCOL is {name!r}; choices are {', '.join(PROTOCOLS)}, or '' for the data set's.")
    return PROTOCOLS[name] if name else None


def load_evaluation(folder: str | Path) -> StoredEvaluation:
    """A stored evaluation that ranks by the distance that it was made with, re-ranking and query expansion included."""
    return StoredEvaluation.load(folder, make_distance=distance_function)


def distance_function(described: Mapping[str, Any]) -> Distance:
    """Query expansion and re-ranking as `StoredEvaluation.distance_settings` describes them."""

    def distance(query: Tensor, gallery: Tensor) -> np.ndarray:
        # An ensemble query is longer than a gallery vector; as a neighbour it should weigh the same.
        query = nn.functional.normalize(query, dim=1)
        if expansion := described.get("aqe"):
            if expansion["k"] >= len(query) + len(gallery):
                everybody = len(query) + len(gallery)
                raise ValueError(f"TEST.AQE.QE_K is {expansion['k']}, but there are only {everybody} images to be neighbours.")
            query, gallery = aqe(query, gallery, expansion["times"], expansion["k"], expansion["alpha"])
            query, gallery = nn.functional.normalize(query, dim=1), nn.functional.normalize(gallery, dim=1)
        if "rerank" not in described:
            return mer.minus_inner_product(query, gallery).numpy()
        if kind := described["rerank"].get("kind"):
            return rerank_vectors(query.numpy(), gallery.numpy(), kind, described["rerank"])
        q_g, q_q, g_g = (_euclidean(a, b) for a, b in ((query, gallery), (query, query), (gallery, gallery)))
        rerank = described["rerank"]
        return re_ranking(q_g, q_q, g_g, rerank["k1"], rerank["k2"], rerank["lambda"])

    return distance


def _euclidean(a: Tensor, b: Tensor) -> np.ndarray:
    """Distances between unit rows, which re-ranking squares again."""
    return (2 - 2 * a @ b.T).clamp(min=0).sqrt().numpy()


def _text_index(drawn: Any, position: Mapping[str, int], filtered: bool) -> mer.TextIndex:
    """A draw's indices, from its own table into the common one; without `filtered`, T_ir may be absent."""
    rows = np.array([position[text] for text in drawn.table], dtype=np.int64)
    if (drawn.rgb < 0).any() or filtered and (drawn.ir < 0).any():
        raise ValueError(
            f"Text source {drawn.source!r} leaves {int((drawn.rgb < 0).any(axis=0).sum())} queries without a text and "
            f"{int((drawn.ir < 0).sum())} without the filter text of their infrared image. Caption them "
            "(`tvilfm captions generate`), or evaluate with TEST.TEXT_SOURCES '(\"none\",)'."
        )
    return mer.TextIndex(rows[drawn.rgb], rows[drawn.ir])

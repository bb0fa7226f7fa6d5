"""A stored evaluation: what the network said, once, and everything needed to ask it again without the network."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tvilfm_plugin.evaluation import mer, stored_files
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.fusion import FUSIONS
from tvilfm_plugin.evaluation.protocols import PROTOCOLS, Labels, Protocol
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard
from tvilfm_plugin.evaluation.stored_files import REMEDY, NotStoredError
from tvilfm_plugin.evaluation.text_trust import TextTrust, trust
from tvilfm_plugin.files.places import seen_from, travelling
from tvilfm_plugin.files.writing import atomic_file, make_folder, sha256_of
from tvilfm_plugin.modality import Modality

Distance = Callable[[Tensor, Tensor], Any]
"""(Q, D) query and (g, D) gallery vectors -> (Q, g) distances."""
MakeDistance = Callable[[Mapping[str, Any]], Distance]
"""Re-ranking and query expansion as a stored evaluation describes them -> the distance."""


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """The parts of one data set's evaluation, with the rules by which they are ranked.

    Attributes:
        parts: raw features of query, gallery union and distinct texts.
        neck: (D,) scale and (D,) shift of the neck in eval mode.
        fusion: raw infrared, text and filter text -> raw; None without text.
        members: the modalities of the ensemble.
        image_only: the query type without text.
        query, gallery: labels of the queries and of the gallery union.
        draws: setting -> per draw, the (g,) indices of its images in the union.
        texts: the distinct strings; row i of `parts.texts` is string i.
        text_index: (setting, source, seed) -> the string of every query.
        cards: label -> protocol card. A label is `SETTING/TYPE` or `SETTING/TYPE@SOURCE`.
        results: `LABEL/METRIC` -> percent, as they were printed.
        query_paths, gallery_paths: image files; stored below $FASTREID_DATASETS (`files.places`).
        distance_settings: re-ranking and query expansion as the evaluator describes them; empty without.
        distance: what computes them; None: minus the inner product.
        text_trust: weighs the words of every query in the ensemble; None: all count in full.
        image_parts, image_neck, image_protocol: what the row without text is searched with; None: the above.
    """

    parts: mer.Parts
    neck: tuple[Tensor, Tensor]
    fusion: mer.Fusion | None
    members: tuple[Modality, ...]
    image_only: mer.QueryType
    query: Labels
    gallery: Labels
    protocol: Protocol
    draws: Mapping[str, tuple[np.ndarray, ...]]
    texts: tuple[str, ...]
    text_index: Mapping[tuple[str, str, int], mer.TextIndex]
    cards: Mapping[str, ProtocolCard] = field(default_factory=dict)
    results: Mapping[str, float] = field(default_factory=dict)
    query_paths: tuple[str, ...] = ()
    gallery_paths: tuple[str, ...] = ()
    fusion_name: str = ""
    distance_settings: Mapping[str, Any] = field(default_factory=dict)
    distance: Distance | None = None
    text_trust: TextTrust | None = None
    image_parts: mer.Parts | None = None
    image_neck: tuple[Tensor, Tensor] | None = None
    image_protocol: Protocol | None = None

    def embed(self, raw: Tensor) -> Tensor:
        """raw (N, D) -> unit (N, D): the neck, then L2."""
        return mer.unit_after(*self.neck)(raw)

    def types(self, source: str) -> tuple[mer.QueryType, ...]:
        """The query types that a text source answers."""
        return (self.image_only,) if source == NO_TEXT else mer.query_types(source, self.members, self.fusion)

    def seeds(self, setting: str, source: str) -> list[int]:
        """Text seeds that are stored for a source, in stored order."""
        return [seed for kept, name, seed in self.text_index if (kept, name) == (setting, source)]

    def card(self, label: str) -> ProtocolCard:
        """The protocol card of a label."""
        if label not in self.cards:
            raise NotStoredError(f"There is no row {label!r}; choices are {', '.join(self.cards) or 'none'}.")
        return self.cards[label]

    def text(self, setting: str, source: str, seed: int) -> mer.TextIndex:
        """Which strings the queries carried."""
        if (setting, source, seed) not in self.text_index:
            known = ", ".join("/".join(map(str, key)) for key in self.text_index) or "none"
            raise NotStoredError(f"No texts of {setting}/{source}/{seed} (setting/source/seed) are stored, only {known}.")
        return self.text_index[setting, source, seed]

    def queries(self, setting: str, source: str, seed: int, draw: int, members: Sequence[Modality]) -> dict[Modality, Tensor]:
        """Unit (Q, D) embeddings of the members for one text seed and gallery draw."""
        rgb = ir = np.empty(0, np.int64)
        if source != NO_TEXT:
            text = self.text(setting, source, seed)
            rgb, ir = text.rgb[draw], text.ir
        with torch.no_grad():
            return mer.query_embeddings(self.parts, rgb, ir, members, self.fusion, self.embed)

    def voted(self, setting: str, source: str, seed: int, draw: int, members: Sequence[Modality]) -> Tensor:
        """(Q, D) sums of the members' unit embeddings (Eq. 10), the words weighted where the evaluation weighs them."""
        queries, trust = self.queries(setting, source, seed, draw, members), None
        if source != NO_TEXT and self.text_trust is not None:
            text = self.text(setting, source, seed)
            trust = self.trust(text.rgb[draw], text.ir)
        return ensemble(queries, members, trust)

    def trust(self, rgb: np.ndarray, ir: np.ndarray) -> Tensor:
        """(Q,) weights of the words, given the rows of words and captions in `parts.texts`."""
        assert self.text_trust is not None and self.parts.texts is not None
        with torch.no_grad():
            picture, words, caption = (
                self.embed(raw).numpy()
                for raw in (self.parts.query, self.parts.texts[torch.from_numpy(rgb)], self.parts.texts[torch.from_numpy(ir)])
            )
        said, seen = ([self.texts[row] for row in rows] for rows in (rgb, ir))
        odds = self.text_trust.log_odds(picture, words, caption, said, seen)
        return torch.from_numpy(trust(odds, self.text_trust.how, self.text_trust.stakes))

    def drawn_gallery(self, setting: str, draw: int) -> tuple[Tensor, Labels]:
        """Unit (g, D) embeddings and labels of one gallery draw."""
        columns = self._draws(setting)[draw]
        embeddings = self.embed(self.parts.gallery[torch.from_numpy(columns)])
        return embeddings, self.gallery.at(columns)

    def trials(
        self,
        setting: str,
        source: str,
        *,
        types: Sequence[mer.QueryType] | None = None,
        seeds: Sequence[int] | None = None,
        draws: Sequence[int] | None = None,
        protocol: Protocol | None = None,
        distance: Distance | None = None,
    ) -> dict[str, list[list[mer.Trial]]]:
        """Rank again: query type -> trials as [text seed][gallery draw].

        Args:
            source: a stored text source, or "none" for the images alone.
            types: query types; by default all that the source answers.
            seeds: text seeds; by default all that are stored.
            draws: gallery draws by number; by default all.
            protocol: other rules than the data set's.
        """
        if source == NO_TEXT and (self.image_parts or self.image_neck or self.image_protocol):
            return self.image_search().trials(setting, source, types=types, draws=draws, protocol=protocol, distance=distance)
        kinds = self.types(source) if types is None else tuple(types)
        galleries = self._draws(setting)
        chosen = range(len(galleries)) if draws is None else draws
        stored: list[mer.TextIndex | None] = [None]
        if source != NO_TEXT:
            stored = [self.text(setting, source, seed) for seed in (self.seeds(setting, source) if seeds is None else seeds)]
            if not stored:
                raise NotStoredError(f"No text seed of source {source!r} is stored in setting {setting!r}.")
        result: dict[str, list[list[mer.Trial]]] = {kind.name: [] for kind in kinds}
        for text in stored:
            picked = None if text is None else mer.TextIndex(text.rgb[list(chosen)], text.ir)
            run: dict[str, list[mer.Trial]] = {kind.name: [] for kind in kinds}
            with torch.no_grad():
                for trial in mer.rank_trials(
                    self.parts, picked, kinds, [galleries[t] for t in chosen], self.query, self.gallery,
                    protocol or self.protocol, self.fusion, self.embed, self.compared_by(distance),
                    trust=None if self.text_trust is None else self.trust,
                ):  # fmt: skip
                    run[trial.query_type].append(trial._replace(draw=chosen[trial.draw]))
            for name, of_draws in run.items():
                result[name].append(of_draws)
        return result

    def compared_by(self, distance: Distance | None = None) -> Distance | None:
        """A distance, or the stored one, of what the fusion makes comparable; None: minus the inner product."""
        chosen, comparable = distance or self.distance, getattr(self.fusion, "comparable", None)
        if chosen is None or comparable is None:
            return chosen
        return lambda query, gallery: chosen(*comparable(query, gallery))

    def evaluate(
        self, label: str, *, protocol: Protocol | None = None, distance: Distance | None = None
    ) -> list[list[mer.Trial]]:
        """One row of the result table again, trials as [text seed][gallery draw]; the other arguments as in `trials`."""
        card, kind = self.card(label), self.query_type(label)
        seeds = None if card.text_source == NO_TEXT else card.text_seeds
        found = self.trials(card.setting, card.text_source, types=(kind,), seeds=seeds, protocol=protocol, distance=distance)
        return found[kind.name]

    def query_type(self, label: str) -> mer.QueryType:
        """The query type of a label."""
        name = label.split("/", 1)[1].split("@")[0]
        return next(kind for kind in self.types(self.card(label).text_source) if kind.name == name)

    def image_search(self) -> "StoredEvaluation":
        """This evaluation with what the row without text is searched with in the place of the rest."""
        return replace(
            self,
            parts=self.image_parts or self.parts,
            neck=self.image_neck or self.neck,
            protocol=self.image_protocol or self.protocol,
            image_parts=None,
            image_neck=None,
            image_protocol=None,
        )

    def searched(self, label: str) -> "StoredEvaluation":
        """This evaluation with the features and rules by which a row was searched."""
        return self.image_search() if self.card(label).text_source == NO_TEXT else self

    def _draws(self, setting: str) -> tuple[np.ndarray, ...]:
        if setting not in self.draws:
            raise NotStoredError(f"There is no setting {setting!r}; choices are {', '.join(self.draws)}.")
        return self.draws[setting]

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write results.json, rankings.npz (with `arrays`, see `row_arrays`) and parts.pt, each all or nothing."""
        make_folder(folder)
        numbers: dict[str, Any] = {
            "query_pids": self.query.pids,
            "query_camids": self.query.camids,
            "gallery_pids": self.gallery.pids,
            "gallery_camids": self.gallery.camids,
        }
        numbers |= {f"draw/{name}/{t}": drawn for name, galleries in self.draws.items() for t, drawn in enumerate(galleries)}
        for (setting, source, seed), index in self.text_index.items():
            numbers |= {f"{setting}/{source}/{seed}/rgb": index.rgb, f"{setting}/{source}/{seed}/ir": index.ir}
        tensors = {"query": self.parts.query, "gallery": self.parts.gallery}
        tensors |= {"neck_scale": self.neck[0], "neck_shift": self.neck[1]}
        if self.parts.texts is not None:
            tensors["texts"] = self.parts.texts
        if self.image_parts is not None and self.image_neck is not None:
            tensors |= {"image_query": self.image_parts.query, "image_gallery": self.image_parts.gallery}
            tensors |= {"image_neck_scale": self.image_neck[0], "image_neck_shift": self.image_neck[1]}
        if isinstance(self.fusion, nn.Module):
            tensors |= {f"fusion.{name}": value.detach().cpu() for name, value in self.fusion.state_dict().items()}
        described = {
            "results": dict(self.results),
            "cards": {label: card.to_dict() for label, card in self.cards.items()},
            "protocol": self.protocol.name,
            "image_protocol": self.image_protocol.name if self.image_protocol else "",
            "fusion": self.fusion_name,
            "members": [m.value for m in self.members],
            "image_only": {"name": self.image_only.name, "members": [m.value for m in self.image_only.members]},
            "distance": dict(self.distance_settings),
            "text_trust": {} if self.text_trust is None else asdict(self.text_trust),
            "query_paths": [travelling(path) for path in self.query_paths],
            "gallery_paths": [travelling(path) for path in self.gallery_paths],
            "texts": list(self.texts),
            "datasets": seen_from(folder),
        }
        with atomic_file(folder / "rankings.npz") as file:
            np.savez_compressed(file, **{**numbers, **arrays})
        with atomic_file(folder / "parts.pt") as file:
            torch.save(tensors, file)
        described["sha256"] = {name: sha256_of(folder / name) for name in ("rankings.npz", "parts.pt")}
        stored_files.write_described(folder, described)

    @classmethod
    def load(cls, folder: str | Path, *, protocol: Protocol | None = None, make_distance: MakeDistance | None = None) -> Self:
        """Read a folder that an evaluation wrote. Nothing in it is executed.

        Args:
            folder: RUN/evaluation/DATASET.
            protocol: the rules, for a data set whose protocol is not one of `PROTOCOLS`.
            make_distance: builds re-ranking and query expansion from their stored description; they are the host's, so
                `evaluator.distance_function` is what does it.
        """
        folder = Path(folder)
        described, tensors = stored_files.read_described(folder), stored_files.read_parts(folder)
        arrays = stored_files.read_arrays(folder)
        stored_files.check_digests(folder, described.get("sha256", {}))
        cards = stored_files.read_cards(folder, described)
        members = tuple(Modality(m) for m in described["members"])
        image_only = described.get("image_only", {"name": "infrared", "members": ["ir"]})
        texts = tensors.get("texts")
        fusion = None
        if texts is not None and set(members) != {Modality.IR}:
            state = {key.removeprefix("fusion."): value for key, value in tensors.items() if key.startswith("fusion.")}
            fusion = registered_fusion(described["fusion"], tensors["query"].shape[1], state)
        other_images = "image_query" in tensors
        stored = cls(
            parts=mer.Parts(tensors["query"], tensors["gallery"], texts),
            image_parts=mer.Parts(tensors["image_query"], tensors["image_gallery"], None) if other_images else None,
            image_neck=(tensors["image_neck_scale"], tensors["image_neck_shift"]) if other_images else None,
            image_protocol=PROTOCOLS.get(described.get("image_protocol", "")),
            neck=(tensors["neck_scale"], tensors["neck_shift"]),
            fusion=fusion,
            members=members,
            image_only=mer.QueryType(image_only["name"], tuple(Modality(m) for m in image_only["members"])),
            query=Labels(arrays["query_pids"], arrays["query_camids"]),
            gallery=Labels(arrays["gallery_pids"], arrays["gallery_camids"]),
            protocol=protocol or _stored_protocol(folder, described, cards),
            draws=stored_files.draws_in(arrays),
            texts=tuple(described["texts"]),
            text_index=stored_files.texts_in(arrays),
            cards=cards,
            results=described["results"],
            query_paths=tuple(described["query_paths"]),
            gallery_paths=tuple(described["gallery_paths"]),
            fusion_name=described["fusion"],
            distance_settings=described.get("distance", {}),
            text_trust=TextTrust.from_dict(trusted, str(folder)) if (trusted := described.get("text_trust")) else None,
            distance=_stored_distance(folder, described, cards, make_distance),
        )
        stored._check(folder)
        return stored

    def _check(self, folder: Path) -> None:
        """Files of different evaluations in one folder must not pass as one."""
        sizes = {
            "queries": (len(self.parts.query), len(self.query.pids), len(self.query_paths)),
            "gallery images": (len(self.parts.gallery), len(self.gallery.pids), len(self.gallery_paths)),
            "texts": (0 if self.parts.texts is None else len(self.parts.texts), len(self.texts)),
        }
        for what, counts in sizes.items():
            if len(set(counts)) > 1:
                listed = " and ".join(map(str, counts))
                raise ValueError(f"The files in {folder} do not belong together: they count {listed} {what}. {REMEDY}")


def _stored_protocol(folder: Path, described: Mapping[str, Any], cards: Mapping[str, ProtocolCard]) -> Protocol:
    # Files written before the protocol was stored name it by the data set.
    name = described.get("protocol", next(iter(cards.values())).dataset.removeprefix("Tri-"))
    if name not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise NotStoredError(f"{folder} was ranked by the rules of {name!r}; known are {known}. Give protocol=.")
    return PROTOCOLS[name]


def _stored_distance(
    folder: Path, described: Mapping[str, Any], cards: Mapping[str, ProtocolCard], make: MakeDistance | None
) -> Distance | None:
    if not described.get("distance"):
        return None
    if make is None:
        raise NotStoredError(
            f"{folder} was ranked with {next(iter(cards.values())).reranking}; give "
            "make_distance=tvilfm_plugin.evaluation.evaluator.distance_function to rank it again."
        )
    return make(described["distance"])


def registered_fusion(name: str, dim: int, state: Mapping[str, Tensor]) -> mer.Fusion:
    """A fusion by the name that a config gives it, with its weights.

    Our own are known without the host; others are looked up where the config looks them up.
    """
    known = FUSIONS
    if name not in known:
        known = {**FUSIONS, **importlib.import_module("tvilfm_plugin.registries").FUSION_REGISTRY._obj_map}
    if name not in known:
        raise KeyError(f"The evaluation's fusion is {name!r}, but there are only {', '.join(known)}.")
    return known[name].restored(dim, state).eval()

"""A gallery of visible and infrared images, searched by infrared, by words and by both, from a stored evaluation.

To every gallery draw come all infrared test images. Two rules say what a query ignores: the data set's own, and Market-1501's
(the same person seen by the query's camera), which takes the query's own picture and its neighbours in time out of the ranking.
Queries by words obey the rules of the picture whose witness speaks, so that all rows rank the same images.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from tvilfm_plugin.evaluation.mer import Parts, Trial
from tvilfm_plugin.evaluation.protocols import Junk, Labels, Protocol, same_person_same_camera
from tvilfm_plugin.evaluation.ranking import chance_metrics
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, ResultRow, results_table
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.summary import per_draw
from tvilfm_plugin.modality import Modality


class Searched(NamedTuple):
    """A row of the stored table with the gallery of both: its card, and its trials as [text seed][gallery draw]."""

    card: ProtocolCard
    trials: list[list[Trial]]


def ignored(rule: Junk, pids: np.ndarray, camids: np.ndarray, gallery: Labels) -> np.ndarray:
    """What a data set's rule ignores, and the same person by the same camera. (Q, G)."""
    return np.asarray(rule(pids, camids, gallery) | same_person_same_camera(pids, camids, gallery))


def with_infrared(stored: StoredEvaluation) -> StoredEvaluation:
    """The evaluation with the queries' pictures at the end of every gallery draw. Cards and results stay as they were."""
    if stored.image_only.members != (Modality.IR,):
        raise ValueError("This run was evaluated visible-to-infrared: words belong to infrared queries (DATASETS.DIRECTION).")
    visible, parts, rule = len(stored.gallery.pids), stored.parts, stored.protocol
    added = np.arange(visible, visible + len(stored.query.pids))
    return replace(
        stored,
        parts=Parts(parts.query, torch.cat([parts.gallery, parts.query]), parts.texts),
        gallery=Labels(*(np.concatenate(both) for both in zip(stored.gallery, stored.query, strict=True))),
        gallery_paths=stored.gallery_paths + stored.query_paths,
        draws={name: tuple(np.concatenate([draw, added]) for draw in draws) for name, draws in stored.draws.items()},
        protocol=Protocol(f"{rule.name} + own camera", partial(ignored, rule.is_junk), rule.count_identities),
    )


def search_both(stored: StoredEvaluation) -> dict[str, Searched]:
    """Every row of the stored table, ranked among visible and infrared images."""
    found, wider = {}, {True: with_infrared(stored.image_search()), False: with_infrared(stored)}
    for label, card in stored.cards.items():
        kind, search = stored.query_type(label), wider[card.text_source == NO_TEXT]
        seeds = None if card.text_source == NO_TEXT else card.text_seeds
        trials = search.trials(card.setting, card.text_source, types=(kind,), seeds=seeds)[kind.name]
        asked = {"infrared"} if Modality.IR in kind.members or Modality.FUSION in kind.members else set()
        asked |= {"text"} if set(kind.members) != {Modality.IR} else set()
        source = f"{card.gallery_source}, and all {len(stored.query.pids)} infrared test images"
        direction = f"{'+'.join(sorted(asked))}-to-both"
        found[label] = Searched(replace(card, direction=direction, gallery_source=source, rules=search.protocol.name), trials)
    return found


def both_report(stored: StoredEvaluation, found: Mapping[str, Searched]) -> str:
    """A table of each setting, with its chance level, and the protocol card of every row."""
    parts, search = [], with_infrared(stored)
    for setting in dict.fromkeys(one.card.setting for one in found.values()):
        some = {label: one for label, one in found.items() if one.card.setting == setting}
        rows = [
            ResultRow(
                query=stored.query_type(label).name, text_source=one.card.text_source, trials=per_draw(one.trials),
                note=one.card.note,
            )
            for label, one in some.items()
        ]  # fmt: skip
        chance = chance_metrics(search.query, search.gallery.at(search.draws[setting][0]), search.protocol)
        cards = [f"- {label}: {one.card}" for label, one in some.items()]
        name = next(iter(some.values())).card.dataset
        head = f"## {name}, {setting}, visible and infrared images"
        parts.append("\n\n".join([head, results_table(rows, [chance]), "\n".join(cards)]))
    return "\n\n".join(parts)

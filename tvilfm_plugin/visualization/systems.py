"""The systems that the paper's pictures set side by side: initial model, VI-ReID backbone, baseline (B) and TVI-LFM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.analysis.comparison import FREE_COLUMNS, ProtocolMismatch, RowName, check_comparable, measured, rows
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.visualization.stored import Ranked, evaluations

IMAGE, FUSION, ENSEMBLE = "infrared", "fusion", "ensemble"
INITIAL, BACKBONE, BASELINE, OURS = "initial", "backbone", "baseline", "TVI-LFM"
# The query type by which each is asked: the paper's backbone has no text, its baseline no ensemble.
ASKED = {INITIAL: IMAGE, BACKBONE: IMAGE, BASELINE: FUSION, OURS: ENSEMBLE}
# The systems differ in what they are, and so may these columns of their cards; everything else has to be equal.
MAY_DIFFER = (*FREE_COLUMNS, "text_source", "text_seeds", "note", "epoch_rule", "preset")

Load = Callable[[Path], StoredEvaluation]


@dataclass(frozen=True)
class System:
    """One row of a run's stored evaluation under the name that it has in a picture."""

    name: str
    folder: Path
    stored: StoredEvaluation
    label: str

    @property
    def card(self) -> ProtocolCard:
        """How it was measured."""
        return self.stored.card(self.label)

    @cached_property
    def ranked(self) -> Ranked:
        """The stored ranking."""
        return Ranked.read(self.folder, self.label)

    @property
    def uses_filter(self) -> bool:
        """Whether the text of the infrared image takes part (Eq. 7); ablation B adds without filter."""
        return Modality.FUSION in self.stored.query_type(self.label).members and self.stored.fusion_name != "Add"

    def embeddings(self, draw: int = 0) -> tuple[Tensor, Tensor, Labels, np.ndarray]:
        """What was ranked, of the first text seed: unit (Q, D) queries, unit (G, D) gallery union, its labels, (g,) the draw.

        The ensemble of unit members is brought to length 1, which changes no ranking and makes the product a cosine.
        """
        card, searched = self.card, self.stored.searched(self.label)
        members = self.stored.query_type(self.label).members
        seed = card.text_seeds[0] if card.text_seeds else 0
        with torch.no_grad():
            query = F.normalize(searched.voted(card.setting, card.text_source, seed, draw, members), dim=1)
            return query, searched.embed(searched.parts.gallery), searched.gallery, searched.draws[card.setting][draw]


def evaluation_of(run: Path, dataset: str = "") -> Path:
    """The stored evaluation of a run; where there are several, the one named `dataset`."""
    found = {folder.name: folder for folder in evaluations(run)}
    if len(found) == 1 and not dataset:
        return next(iter(found.values()))
    if dataset not in found:
        raise LookupError(f"{run} holds the evaluations {', '.join(found)}; choose one with --dataset.")
    return found[dataset]


def open_system(name: str, folder: Path, load: Load, *, query: str, setting: str = "", source: str = "") -> System:
    """A system by its stored evaluation.

    Args:
        query: query type, e.g. "ensemble"; an image-only type needs no source.
        setting, source: by default the run's first ones.
    """
    stored = load(folder)
    setting = setting or next(iter(stored.cards.values())).setting
    found = rows(stored)
    image = query == IMAGE
    wanted = NO_TEXT if image else source or next((row.source for row in found if row.source != NO_TEXT), NO_TEXT)
    row = RowName(setting, stored.image_only.name if image else query, wanted)
    if row not in found:
        raise NotStoredError(f"{folder} has no row {row} for the system {name!r}; it has {', '.join(map(str, found))}.")
    return System(name, folder, stored, found[row])


def check_same_queries(systems: Sequence[System]) -> None:
    """Refuse systems that did not answer the same queries on the same galleries by the same rules."""
    if not systems:
        raise ValueError("There is no system to draw.")
    runs = [measured(one.stored, one.folder, one.label, "mAP", one.name) for one in systems]
    differing = check_comparable(runs, despite=MAY_DIFFER)
    sources = {one.card.text_source for one in systems} - {NO_TEXT}
    if len(sources) > 1:
        raise ProtocolMismatch(
            f"The systems were asked with texts of {' and '.join(sorted(sources))} ({differing.get('text_source')}): give one "
            "--source that all of them were evaluated with."
        )

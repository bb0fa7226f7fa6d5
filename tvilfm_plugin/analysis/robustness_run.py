"""Robustness of stored evaluations, with the models that were evaluated, written beside them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm import tqdm

from tvilfm_plugin.analysis import robustness
from tvilfm_plugin.analysis.table_text import csv_text
from tvilfm_plugin.evaluation.report import ProtocolCard
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError
from tvilfm_plugin.files.writing import make_folder, write_text


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """Texts to damage ("": the first setting; witness, else human, oracle, self), shares 0..1, gallery draws (None = all)."""

    setting: str = ""
    source: str = ""
    shares: Sequence[float] = robustness.SHARES
    seed: int = 0
    draws: int | None = None

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise ValueError(f"{self.draws} gallery draws: give at least 1, or leave it out for all.")
        if wrong := [share for share in self.shares if not 0 <= share <= 1]:
            raise ValueError(f"Damaged shares lie in 0 to 1, not {', '.join(map(str, wrong))}.")


class Measured(NamedTuple):
    """What one training did with the queries `pids` (Q,), by the protocol of `card`."""

    card: ProtocolCard
    pids: np.ndarray
    words: robustness.Values
    both: robustness.Cells


def measure_robustness(
    stored: StoredEvaluation,
    encode: Callable[[Any], Tensor],
    options: RobustnessOptions,
    run: Path,
    pictures: Mapping[str, Tensor],
) -> Measured:
    """Measure one training, stored with `text_trust`; `pictures`: damage -> raw (Q, D) features of query pictures."""
    setting, source, text_seed = robustness.default_source(stored)
    setting, source = options.setting or setting, options.source or source
    if setting not in stored.draws:
        raise NotStoredError(f"There is no setting {setting!r}; choices are {', '.join(stored.draws)}.")
    text_seed = next(iter(stored.seeds(setting, source)), text_seed)
    assert stored.parts.texts is not None
    check_same_weights(encode(stored.texts[:16]), stored.parts.texts[:16], run)
    draws = range(len(stored.draws[setting]))[: options.draws]
    words = robustness.damaged_words(
        stored, encode, setting=setting, source=source, text_seed=text_seed, shares=options.shares, seed=options.seed,
        draws=draws, progress=lambda draws: tqdm(draws, desc="Ranking", unit="draw", disable=None, leave=False),
    )  # fmt: skip
    both = robustness.damaged_modalities(
        stored, encode, pictures, setting=setting, source=source, text_seed=text_seed, seed=options.seed, draws=draws
    )
    card = next(c for c in stored.cards.values() if (c.setting, c.text_source) == (setting, source))
    return Measured(card, stored.query.pids, words, both)


def write_robustness(runs: Sequence[Measured], seed: int, folder: Path) -> tuple[dict[str, Any], str, Path]:
    """Write the points of the curves (CSV, JSON) and the tables of one or more trainings with the same test people.

    Returns:
        What the JSON file says, the tables under their heading, and the files' path without suffix.
    """
    card, pids = runs[0].card, runs[0].pids
    if any(not np.array_equal(run.pids, pids) for run in runs):
        raise ValueError("The runs were tested on other queries than the first of them: name runs of one data set.")
    words = robustness.joined([run.words for run in runs])
    points = robustness.as_table(robustness.curve_points(words, pids))
    table = f"{robustness.trust_table(words, pids, card)}\n\n{robustness.modality_table([run.both for run in runs])}"
    out = folder / f"robustness_{card.setting}_{card.text_source}"
    described = {"card": card.to_dict(), "trainings": len(runs), "seed": seed, "points": points}
    make_folder(out.parent)
    write_text(out.with_suffix(".csv"), csv_text(points))
    write_text(out.with_suffix(".json"), json.dumps(described, indent=1) + "\n")
    write_text(out.with_suffix(".md"), table + "\n")
    several = f", {len(runs)} trainings" if len(runs) > 1 else ""
    return described, f"## {card.dataset}, {card.setting}, text source {card.text_source}{several}\n\n{table}", out


def check_same_weights(encoded: Tensor, stored: Tensor, run: Path) -> None:
    """The model must be the one that was evaluated."""
    largest, scale = float((encoded - stored).abs().max()), float(stored.abs().max())
    if largest > 1e-3 * scale:
        raise ValueError(
            f"{run}: the model's features of known texts differ from the stored ones by {largest:.2g} (of {scale:.2g}). The "
            "weights are not those of the evaluation: evaluate them again (`tvilfm eval RUN`)."
        )

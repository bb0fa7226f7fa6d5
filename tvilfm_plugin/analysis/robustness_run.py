"""Robustness of a stored evaluation, with the model that was evaluated, written beside it."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from tvilfm_plugin.analysis.robustness import (
    SHARES,
    Point,
    as_table,
    cost_and_gain,
    default_source,
    modality_table,
    robustness_curves,
)
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError
from tvilfm_plugin.files.writing import write_text


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """What is damaged, and how much of it.

    Attributes:
        setting, source: of the evaluation; "" = the first setting, and witness, else human, oracle, self.
        shares: of the texts that are damaged, 0 to 1.
        seed: of the damage.
        draws: gallery draws to use, at least 1; None = all.
    """

    setting: str = ""
    source: str = ""
    shares: Sequence[float] = SHARES
    seed: int = 0
    draws: int | None = None

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise ValueError(f"{self.draws} gallery draws: give at least 1, or leave it out for all.")
        if wrong := [share for share in self.shares if not 0 <= share <= 1]:
            raise ValueError(f"Damaged shares lie in 0 to 1, not {', '.join(map(str, wrong))}.")


def measure_robustness(
    stored: StoredEvaluation,
    encode: Callable[[Any], Tensor],
    options: RobustnessOptions,
    folder: Path,
    pictures: Mapping[str, Tensor],
) -> tuple[dict[str, Any], str, Path]:
    """Measure the curves and write their points (CSV, JSON) and the tables.

    Args:
        stored: with `text_trust`.
        encode: texts -> (N, D) raw features by the model that was evaluated.
        folder: RUN/evaluation/DATASET, where the evaluation lies.
        pictures: damage -> raw (Q, D) features of the damaged query pictures.

    Returns:
        What the JSON file says, the tables under their heading, and the files' path without suffix.
    """
    setting, source, text_seed = default_source(stored)
    setting, source = options.setting or setting, options.source or source
    if setting not in stored.draws:
        raise NotStoredError(f"There is no setting {setting!r}; choices are {', '.join(stored.draws)}.")
    text_seed = next(iter(stored.seeds(setting, source)), text_seed)
    assert stored.parts.texts is not None
    check_same_weights(encode(stored.texts[:16]), stored.parts.texts[:16], folder.parents[1])
    points = robustness_curves(
        stored, encode, setting=setting, source=source, text_seed=text_seed, shares=options.shares, seed=options.seed,
        draws=range(len(stored.draws[setting]))[: options.draws],
        progress=lambda draws: tqdm(draws, desc="Ranking", unit="draw", disable=None, leave=False),
    )  # fmt: skip
    card = next(c for c in stored.cards.values() if (c.setting, c.text_source) == (setting, source))
    both = modality_table(
        stored, encode, pictures, setting=setting, source=source, text_seed=text_seed, seed=options.seed,
        draws=range(len(stored.draws[setting]))[: options.draws],
    )  # fmt: skip
    table = f"{cost_and_gain(points, card)}\n\n{both}"
    out = folder / f"robustness_{setting}_{source}"
    described = {"card": card.to_dict(), "seed": options.seed, "points": as_table(points)}
    write_text(out.with_suffix(".csv"), as_csv(points))
    write_text(out.with_suffix(".json"), json.dumps(described, indent=1) + "\n")
    write_text(out.with_suffix(".md"), table + "\n")
    return described, f"## {card.dataset}, {setting}, text source {source}\n\n{table}", out


def check_same_weights(encoded: Tensor, stored: Tensor, run: Path) -> None:
    """The model must be the one that was evaluated."""
    largest, scale = float((encoded - stored).abs().max()), float(stored.abs().max())
    if largest > 1e-3 * scale:
        raise ValueError(
            f"{run}: the model's features of known texts differ from the stored ones by {largest:.2g} (of {scale:.2g}). The "
            "weights are not those of the evaluation: evaluate them again (tools/train_net.py --eval-only)."
        )


def as_csv(points: list[Point]) -> str:
    """A line for every point."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=Point._fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_table(points))
    return file.getvalue()

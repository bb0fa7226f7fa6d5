"""The numbers that the paper prints, in percent, by data set, setting, row and metric."""

import json
from functools import cache
from pathlib import Path
from typing import Any

TRIALS = "trials"
"""Setting of RegDB's mean over its ten splits."""


@cache
def _file() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def published(dataset: str, setting: str, row: str) -> dict[str, float]:
    """Metric -> percent; empty where the paper has no number (every row of the synthetic benchmark, for example).

    Args:
        dataset: "sysu", "regdb", "llcm" or "synthetic".
        setting: "all", "indoor", or "trials" for the mean over RegDB's splits.
        row: e.g. "sff_mjl"; see `tables.TABLES`.
    """
    numbers = _file()["numbers"].get(dataset, {}).get(setting, {}).get(row)
    return _named(numbers) if numbers else {}


def unlike(row: str) -> str:
    """What a published number was measured by that ours is not; "" where nothing is known."""
    return str(_file()["unlike"].get(row, ""))


def elsewhere(dataset: str, setting: str) -> list[tuple[str, str, dict[str, float]]]:
    """(name, what was unlike, metric -> percent) of numbers that no row of ours answers."""
    label = f"{dataset}/{setting}"
    return [
        (one["name"], one["unlike"], _named(one["numbers"][label])) for one in _file()["elsewhere"] if label in one["numbers"]
    ]


def _named(numbers: list[float | None]) -> dict[str, float]:
    """Metric -> percent of those that are printed."""
    return {name: value for name, value in zip(_file()["metrics"], numbers, strict=True) if value is not None}


def published_draws(dataset: str) -> int | None:
    """How many gallery draws (RegDB: splits) the paper averages; None without numbers."""
    return _file()["draws"].get(dataset)

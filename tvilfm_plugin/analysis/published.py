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
    return dict(zip(_file()["metrics"], numbers, strict=True)) if numbers else {}


def published_draws(dataset: str) -> int | None:
    """How many gallery draws (RegDB: splits) the paper averages; None without numbers."""
    return _file()["draws"].get(dataset)

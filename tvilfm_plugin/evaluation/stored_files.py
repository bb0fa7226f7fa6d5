"""The files of a stored evaluation: results.json, rankings.npz and parts.pt, and what is read of them one by one."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from tvilfm_plugin.evaluation.mer import TextIndex
from tvilfm_plugin.evaluation.report import ProtocolCard
from tvilfm_plugin.files.arrays import open_arrays
from tvilfm_plugin.files.json import checked, digest_of, expect_object, read_json
from tvilfm_plugin.files.places import local
from tvilfm_plugin.files.weights import WeightsError, read_tensors
from tvilfm_plugin.files.writing import sha256_of, write_text

REMEDY = "`tvilfm eval RUN TEST.STORE True` writes it anew."


# What others may have written; files of older versions lack some.
SCHEMA: dict[str, Any] = {
    "results": dict[str, float],
    "cards": dict[str, dict[str, Any]],
    "protocol": str,
    "image_protocol": str,
    "fusion": str,
    "members": list[Literal["rgb", "ir", "text", "fusion"]],
    "image_only": dict[Literal["name", "members"], str | list[Literal["rgb", "ir", "text", "fusion"]]],
    "distance": dict[str, dict[str, Any]],
    "text_trust": dict[str, Any],
    "query_paths": list[str],
    "gallery_paths": list[str],
    "texts": list[str],
    "datasets": str,
    "sha256": dict[str, str],
    "digest": str,
}

# What `summary.row_arrays` keeps of each row.
ROW_ARRAYS = ("ap", "inp", "first_match_rank", "top", "top_similarity")


class NotStoredError(LookupError):
    """A stored evaluation does not hold what was asked for."""


def file_of(folder: Path, name: str) -> Path:
    """A file of the evaluation; raises with the remedy where it is missing."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no stored evaluation: {name} is missing. {REMEDY}")
    return path


def write_described(folder: Path, described: Mapping[str, Any]) -> None:
    """results.json, with its own digest."""
    write_text(folder / "results.json", json.dumps({**described, "digest": digest_of(described)}, indent=1))


def read_described(folder: Path) -> dict[str, Any]:
    """results.json, with the paths of pictures as they are on this machine."""
    path = file_of(folder, "results.json")
    try:
        described = expect_object(read_json(path), str(path))
    except ValueError as error:
        raise ValueError(f"{error} {REMEDY}") from None
    needed = ("cards", "results", "fusion", "members", "query_paths", "gallery_paths", "texts")
    missing = [key for key in needed if key not in described]
    if missing:
        raise NotStoredError(f"{path} lacks {', '.join(missing)}. {REMEDY}")
    for key, schema in SCHEMA.items():
        if key in described:
            checked({key: described[key]}, dict[str, schema], str(path))  # type: ignore[valid-type]
    if "digest" in described and described["digest"] != digest_of(described):
        raise ValueError(f"{path} was changed after it was written: its digest is another. {REMEDY}")
    if len(described.get("image_only", "ab")) < 2:
        raise NotStoredError(f"{path}: image_only lacks its name or its members. {REMEDY}")
    near = folder / described["datasets"] if described.get("datasets") else ""
    pictures = {key: [local(path, near) for path in described[key]] for key in ("query_paths", "gallery_paths")}
    return {**described, **pictures}


def read_cards(folder: Path, described: Mapping[str, Any]) -> dict[str, ProtocolCard]:
    """Label -> protocol card, of what results.json says."""
    path = folder / "results.json"
    cards = {}
    for label, card in described["cards"].items():
        try:
            cards[label] = ProtocolCard(**card)
        except (TypeError, ValueError) as error:
            raise NotStoredError(f"The protocol card {label!r:.60} in {path} cannot be read ({error}). {REMEDY}") from None
    if not cards:
        raise NotStoredError(f"{path} holds no protocol card: nothing says what was measured. {REMEDY}")
    return cards


def read_parts(folder: Path) -> dict[str, Tensor]:
    """parts.pt: the tensors."""
    path = file_of(folder, "parts.pt")
    try:
        tensors = read_tensors(path)
    except WeightsError as error:
        raise WeightsError(f"{error} {REMEDY}") from None
    missing = [key for key in ("query", "gallery", "neck_scale", "neck_shift") if key not in tensors]
    if missing:
        raise NotStoredError(f"{path} lacks {', '.join(missing)}. {REMEDY}")
    return tensors


def archive_of(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """rankings.npz, whose arrays are inflated when they are asked for."""
    return open_arrays(file_of(Path(folder), "rankings.npz"), REMEDY)


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """rankings.npz: labels, draws and texts. The values of single rows are most of it, and read one by one."""
    with archive_of(folder) as file:
        return {key: file[key] for key in file.files if key.rsplit("/", 1)[-1] not in ROW_ARRAYS}


def check_digests(folder: Path, stored: Mapping[str, str]) -> None:
    """The two other files must be those that results.json was written with; older evaluations have no digests."""
    for name, digest in stored.items():
        if name in ("rankings.npz", "parts.pt") and sha256_of(folder / name) != digest:
            raise ValueError(
                f"{folder / name} is not the file that results.json was written with (sha256): it was changed or is of "
                f"another evaluation. {REMEDY}"
            )


def draws_in(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, ...]]:
    """Setting -> the gallery images of each draw."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for key, value in arrays.items():
        if key.startswith("draw/"):
            setting, number = key.removeprefix("draw/").rsplit("/", 1)
            found.setdefault(setting, {})[int(number)] = value
    return {setting: tuple(galleries[t] for t in sorted(galleries)) for setting, galleries in found.items()}


def texts_in(arrays: Mapping[str, np.ndarray]) -> dict[tuple[str, str, int], TextIndex]:
    """(setting, source, seed) -> which text each query has."""
    found = {}
    for key, value in arrays.items():
        if key.endswith("/rgb"):
            setting, source, seed = key.removesuffix("/rgb").rsplit("/", 2)
            found[setting, source, int(seed)] = TextIndex(value, arrays[f"{setting}/{source}/{seed}/ir"])
    return found


def per_query_values(folder: Path, label: str, metric: str) -> np.ndarray:
    """(text seeds, draws, Q) stored values of a row: average precision, or 1 where the first hit is right; NaN if not valid.

    Args:
        metric: "mAP", "mINP" or "R-K".
    """
    rank = 0 if metric in ("mAP", "mINP") else rank_of(metric)
    name = "first_match_rank" if rank else metric[1:].lower()
    # Only what is asked for is inflated: the rankings beside it are most of the file.
    with archive_of(folder) as arrays:
        if f"{label}/ap" not in arrays.files:
            known = [key.removesuffix("/ap") for key in arrays.files if key.endswith("/ap")]
            raise NotStoredError(f"{folder} has no row {label!r}; choices are {', '.join(known)}.")
        values = arrays[f"{label}/{name}"]
    return found_within(values, rank) if rank else values.astype(np.float64)


def found_within(first_match_rank: np.ndarray, k: int) -> np.ndarray:
    """1 where the first match is among the first k, else 0; NaN where the query does not count (rank 0)."""
    return np.where(first_match_rank > 0, (first_match_rank <= k).astype(np.float64), np.nan)


def rank_of(metric: str) -> int:
    """K of "R-K"."""
    if not metric.startswith("R-") or not metric[2:].isdigit() or int(metric[2:]) < 1:
        raise ValueError(f"Unknown metric {metric!r}; choices are mAP, mINP and R-K, e.g. R-1.")
    return int(metric[2:])

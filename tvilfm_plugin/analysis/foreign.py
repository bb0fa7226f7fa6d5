"""Similarities of somebody else's model, scored by our protocols: the same ranking code, card and intervals as our own rows."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.analysis.intervals import query_means
from tvilfm_plugin.analysis.statistics import Interval, identity_bootstrap
from tvilfm_plugin.data.items import Item, draw_gallery, gallery_groups
from tvilfm_plugin.evaluation.fingerprint import version_of_software
from tvilfm_plugin.evaluation.protocols import Labels, Protocol
from tvilfm_plugin.evaluation.provenance import NOT_RECORDED
from tvilfm_plugin.evaluation.ranking import PerQuery, aggregate, chance_metrics, cmc_length, per_query
from tvilfm_plugin.evaluation.report import ProtocolCard, ResultRow, aligned, results_table
from tvilfm_plugin.evaluation.stored_files import found_within
from tvilfm_plugin.files.arrays import open_arrays
from tvilfm_plugin.files.text import read_text
from tvilfm_plugin.files.writing import sha256_of

# What nobody knows of a foreign program, on its card.
FOREIGN = {"reranking": NOT_RECORDED, "epoch_rule": NOT_RECORDED, "preset": "foreign"}
LABELS = ("query_pids", "query_camids", "gallery_pids", "gallery_camids")
LAYOUT = (
    "An .npz holds similarity or distance (Q, G), or query_features (Q, D) and gallery_features (G, D), beside "
    f"{', '.join(LABELS)} (or query_paths and gallery_paths). A .csv: two rows of gallery labels (person, then camera), each "
    "behind two empty cells; then a row per query: person, camera, its similarities."
)


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """What a file says: name and origin of its row, (Q, G) distances, labels (or None) and paths (or none) of both sides."""

    name: str
    note: str
    dist: np.ndarray
    query: Labels | None
    gallery: Labels | None
    query_paths: tuple[str, ...] = ()
    gallery_paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Galleries:
    """The galleries in which queries are searched, under one name ("all").

    Attributes:
        rows, columns: (Q,) and (G,) indices into the file's matrix, in the order of the labels.
        draws: per draw, indices of its images in `columns`.
    """

    setting: str
    shots: int
    rows: np.ndarray
    columns: np.ndarray
    query: Labels
    gallery: Labels
    draws: Sequence[np.ndarray]


def read_similarities(file: str | Path) -> Similarities:
    """Similarities and labels of an .npz or .csv file, see LAYOUT; nothing in it is executed."""
    path = Path(file)
    readers: Mapping[str, Callable[[Path], Similarities]] = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} is neither .npz nor .csv. {LAYOUT}")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    found = readers[path.suffix.lower()](path)
    if wrong := int((~np.isfinite(found.dist)).sum()):
        raise ValueError(f"{path}: {wrong} of {found.dist.size} similarities are not finite, so they cannot be ranked.")
    for what, labels, paths, size in (
        ("queries", found.query, found.query_paths, found.dist.shape[0]),
        ("gallery images", found.gallery, found.gallery_paths, found.dist.shape[1]),
    ):
        counts = {size, *(len(one) for one in labels or ()), *({len(paths)} if paths else ())}
        if len(counts) > 1:
            raise ValueError(f"{path} counts {' and '.join(map(str, sorted(counts)))} {what}: matrix and labels differ.")
        if labels is None and not paths:
            raise ValueError(f"{path} names neither persons and cameras of its {what} nor their paths. {LAYOUT}")
    return found


def _read_npz(path: Path) -> Similarities:
    with open_arrays(path, LAYOUT) as file:
        arrays = {name: file[name] for name in file.files}
    kinds = [kind for kind in ("similarity", "distance", "query_features") if kind in arrays]
    if len(kinds) != 1 or kinds == ["query_features"] and "gallery_features" not in arrays:
        raise ValueError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}. {LAYOUT}")
    if kinds == ["query_features"]:
        query, gallery = (_unit(arrays[f"{name}_features"], path, name) for name in ("query", "gallery"))
        dist = -(query @ gallery.T)
    else:
        dist = _numbers(arrays[kinds[0]], path, kinds[0], 2) * (-1 if kinds == ["similarity"] else 1)
    labels = {
        name: Labels(*(_whole(arrays[f"{name}_{kind}"], path, f"{name}_{kind}") for kind in ("pids", "camids")))
        for name in ("query", "gallery")
        if f"{name}_pids" in arrays and f"{name}_camids" in arrays
    }
    paths = {name: tuple(map(str, arrays.get(f"{name}_paths", ()))) for name in ("query", "gallery")}
    return Similarities(
        name=path.stem, note=_origin(path), dist=dist, query=labels.get("query"), gallery=labels.get("gallery"),
        query_paths=paths["query"], gallery_paths=paths["gallery"],
    )  # fmt: skip


def _read_csv(path: Path) -> Similarities:
    rows = [row for row in csv.reader(read_text(path).splitlines()) if row]
    if len(rows) < 3 or any(cell.strip() for row in rows[:2] for cell in row[:2]):
        raise ValueError(f"{path} has {len(rows)} rows, or does not begin as expected. {LAYOUT}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}, row {number} has {len(row)} cells, the first has {len(rows[0])}.")
    try:
        gallery = Labels(*(np.array([int(cell) for cell in row[2:]]) for row in rows[:2]))
        query = Labels(*(np.array([int(row[column]) for row in rows[2:]]) for column in (0, 1)))
        dist = -np.array([[float(cell) for cell in row[2:]] for row in rows[2:]])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; persons and cameras are whole numbers, similarities numbers. {LAYOUT}") from None
    return Similarities(name=path.stem, note=_origin(path), dist=dist, query=query, gallery=gallery)


def _origin(path: Path) -> str:
    return f"similarities of another program: {path.name}, sha256 {sha256_of(path)}"


def _numbers(array: np.ndarray, path: Path, name: str, dims: int) -> np.ndarray:
    if array.dtype.kind not in "fiu" or array.ndim != dims or not array.size:
        raise ValueError(f"{path}: {name} is {array.dtype} of shape {array.shape}; expected numbers in {dims} dimensions.")
    return array if array.dtype.kind == "f" and array.itemsize >= 4 else array.astype(np.float64)


def _unit(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    features = _numbers(array, path, f"{name}_features", 2)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(f"{path}: {int((lengths == 0).sum())} of {len(features)} {name} features are zero.")
    return features / lengths


def _whole(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{path}: {name} is {array.dtype} of shape {array.shape}; expected a list of whole numbers.")
    return array.astype(np.int64)


def galleries_of_file(found: Similarities, shots: int, draws: int) -> list[Galleries]:
    """By the file's own labels: every image (`shots` 0), or seeded draws of `shots` images per (identity, camera)."""
    if found.query is None or found.gallery is None:
        raise ValueError(f"{found.name} names paths alone: say whose they are by --dataset, or add {', '.join(LABELS)}.")
    everything = np.arange(len(found.gallery.pids))
    drawn: list[np.ndarray] = [everything]
    if shots:
        names = found.gallery_paths or tuple(f"{n:09d}" for n in everything)
        items = [Item(*one) for one in zip(names, *(labels.tolist() for labels in found.gallery), strict=True)]
        groups = gallery_groups(items, set(found.gallery.camids.tolist()))
        drawn = [np.array(draw_gallery(groups, shots, seed)) for seed in range(draws)]
    name = "every-image" if not shots else "all" if shots == 1 else f"all-{shots}shot"
    return [
        Galleries(setting=name, shots=shots, rows=np.arange(len(found.query.pids)), columns=everything, query=found.query,
                  gallery=found.gallery, draws=drawn)
    ]  # fmt: skip


def galleries_of_dataset(found: Similarities, data: Any) -> list[Galleries]:
    """By a data set's own labels and draws; the file's paths say which image is which."""
    places = []
    for what, items, paths in (("query", data.query, found.query_paths), ("gallery", data.gallery, found.gallery_paths)):
        if not paths:
            raise ValueError(f"{found.name} has no {what}_paths, so nothing says which images of {data.name} these are.")
        place = {data.relative(path): number for number, path in enumerate(paths)}
        missing = [item.path for item in items if data.relative(item.path) not in place]
        if missing:
            raise ValueError(
                f"{found.name} lacks {len(missing)} of the {len(items)} {what} images of {data.name}, e.g. "
                f"{data.relative(missing[0])}."
            )
        places.append(np.array([place[data.relative(item.path)] for item in items]))
    query, gallery = Labels.of(data.query), Labels.of(data.gallery)
    return [
        Galleries(setting=one.name, shots=one.shots, rows=places[0], columns=places[1], query=query, gallery=gallery,
                  draws=one.draws)
        for one in data.settings
    ]  # fmt: skip


def score(
    found: Similarities, galleries: Sequence[Galleries], protocol: Protocol, text_source: str, **card: Any
) -> tuple[str, dict[str, Any]]:
    """The report, and the same as plain values: per setting the table, intervals and card.

    Args:
        text_source: what the foreign queries said: "none", "oracle", "witness" ...
        card: further fields of the protocol card: dataset, direction, gallery_source, data_sha256 ...
    """
    sections, described = [], {}
    for one in galleries:
        results, trials = [], []
        dist = found.dist[np.ix_(one.rows, one.columns)]
        for draw in one.draws:
            gallery = one.gallery.at(draw)
            results.append(per_query(dist[:, draw], one.query, gallery, protocol))
            trials.append(aggregate(results[-1], cmc_length(gallery, protocol)))
        row = ResultRow(query=found.name, text_source=text_source, trials=trials)
        table = results_table([row], [chance_metrics(one.query, one.gallery.at(one.draws[0]), protocol)])
        intervals = _intervals(results, one.query.pids)
        made = ProtocolCard(
            setting=one.setting, shots=one.shots, draws=len(one.draws), cmc=protocol.cmc, rules=protocol.name,
            text_source=text_source, note=found.note, version=version_of_software(), **{**FOREIGN, **card},
        )  # fmt: skip
        sections.append(f"## {made.dataset}, {one.setting}\n\n{table}\n\n{_interval_lines(intervals)}\n\nProtocol card: {made}")
        described[one.setting] = {
            "card": made.to_dict(),
            "intervals": {name: [100 * part for part in value[:3]] for name, value in intervals.items()},
            "draws": [{"mAP": 100 * t.mAP, "mINP": 100 * t.mINP, "cmc": (100 * t.cmc).tolist()} for t in trials],
        }
    return "\n\n".join(sections), described


def _intervals(results: Sequence[PerQuery], pids: np.ndarray) -> dict[str, Interval]:
    values = {"R-1": [found_within(one.first_match_rank, 1) for one in results], "mAP": [one.ap for one in results]}
    return {name: identity_bootstrap(query_means(np.array([found])), pids) for name, found in values.items()}


def _interval_lines(intervals: Mapping[str, Interval]) -> str:
    rows = [["metric", "mean", "95 % interval"]]
    rows += [[name, f"{100 * v.mean:.2f}", f"[{100 * v.low:.2f}, {100 * v.high:.2f}]"] for name, v in intervals.items()]
    people = next(iter(intervals.values())).n
    return "\n".join([*aligned(rows, names=1), "", f"- Percentile bootstrap over the {people} query identities."])

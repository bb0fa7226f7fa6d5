"""The geometry under the pictures, against slow literal twins: rasteriser, camera, skinning, shadows, tables."""

import math

import numpy as np
import pytest

from tvilfm_plugin.synthetic.body import build_body, normals, pose_bones, relax, skin_vertices, surfaces
from tvilfm_plugin.synthetic.light import ShadowMap, expose, linear, sunlight
from tvilfm_plugin.synthetic.looks import Pose
from tvilfm_plugin.synthetic.mesh import BONES
from tvilfm_plugin.synthetic.noise import noise2
from tvilfm_plugin.synthetic.people import draw_people
from tvilfm_plugin.synthetic.raster import rasterise
from tvilfm_plugin.synthetic.views import View

STANDING = Pose(False, 0, 0.0, (0.2, 0.2), (0.1, 0.1), 0.0, 0.0, 0.9, 0.5, 0.05)


def slow_raster(x, y, depth, triangles, height, width, cover, two_sided):
    """One triangle and one pixel after the other: the number of the triangle that is seen, -1 where none is."""
    shown, nearest = np.full((height, width), -1), np.full((height, width), np.inf)
    for n, (i, j, k) in enumerate(triangles):
        area = (x[j] - x[i]) * (y[k] - y[i]) - (x[k] - x[i]) * (y[j] - y[i])
        if area == 0 or (area > 0 and not two_sided[n]):
            continue
        for row in range(height):
            for column in range(width):
                px, py = column + 0.5, row + 0.5
                a = ((px - x[i]) * (y[k] - y[i]) - (x[k] - x[i]) * (py - y[i])) / area
                b = ((x[j] - x[i]) * (py - y[i]) - (px - x[i]) * (y[j] - y[i])) / area
                if a < 0 or b < 0 or a + b > 1 or (1 - a - b) * cover[i] + a * cover[j] + b * cover[k] <= 0:
                    continue
                z = (1 - a - b) * depth[i] + a * depth[j] + b * depth[k]
                if z < nearest[row, column]:
                    shown[row, column], nearest[row, column] = n, z
    return shown


def test_the_rasteriser_shows_what_a_slow_one_shows() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-4, 24, (40, 2)).astype(np.float32)
    depth, cover = rng.uniform(1, 9, 40).astype(np.float32), rng.uniform(-1, 2, 40).astype(np.float32)
    triangles = np.stack([rng.permutation(40)[:3] for _ in range(30)])
    two_sided = rng.random(30) < 0.5
    seen = rasterise(points[:, 0], points[:, 1], depth, triangles, 18, 20, cover=cover, two_sided=two_sided)
    fast = np.full(18 * 20, -1)
    fast[seen.pixel] = seen.triangle
    slow = slow_raster(*points.astype(float).T, depth.astype(float), triangles, 18, 20, cover.astype(float), two_sided)
    assert (fast.reshape(18, 20) == slow).mean() > 0.995  # a pixel on an edge may round to the other side
    assert len(seen.pixel) > 100
    # What is blended is what the corners hold.
    values = np.stack([points[:, 0], points[:, 1], depth], axis=1)
    blended = seen.blend(values, triangles)
    assert np.allclose(blended[:, 0], seen.pixel % 20 + 0.5, atol=1e-3)
    assert np.allclose(blended[:, 1], seen.pixel // 20 + 0.5, atol=1e-3)
    assert np.allclose(blended[:, 2], seen.depth, atol=1e-4)


def test_rays_go_through_what_they_project_to() -> None:
    points = np.random.default_rng(0).uniform(-6, 16, (50, 3)).astype(np.float32)
    view = View.towards(24.0, 60.0, 8.0).framed(points, top=5, height=80, centre=24)
    column, row, depth = view.project(points)
    assert row.min() == pytest.approx(5, abs=1e-3) and row.max() == pytest.approx(85, abs=1e-3)
    x, y, z = view.rays(96, 48)
    for c, r, d, point in zip(column, row, depth, points, strict=True):
        if 1 < c < 46 and 1 < r < 94:
            i, j = int(r), int(c)
            at = [float(part[i, j]) * d for part in (x, y, z)]
            hit = (at[0], view.height + at[1], view.distance + at[2])
            assert math.dist(hit, point) < 1.2 * d / view.scale
    fine = view.zoomed(2).project(points)
    assert np.allclose(fine[0], 2 * column, atol=1e-3) and np.allclose(fine[1], 2 * row, atol=1e-3)


def test_bones_move_their_vertices_and_keep_lengths() -> None:
    person = draw_people(6, 1)[0]
    body, surface = build_body(person.shape), surfaces()["body"]
    out = normals(surface, body.points["body"])
    moves = pose_bones(STANDING, person.shape, body.joints)
    placed, turned = skin_vertices(body.points["body"], out, surface.bones, surface.weights, moves)
    assert np.allclose(np.sqrt((turned**2).sum(axis=1)), 1, atol=1e-4)
    # A vertex of one bone alone is moved as that bone says.
    alone = np.flatnonzero(surface.weights[:, 0] > 0.999)
    for v in alone[:: max(1, len(alone) // 40)]:
        move = moves[surface.bones[v, 0]].astype(float)
        assert np.allclose(placed[v], move[:, :3] @ body.points["body"][v] + move[:, 3], atol=1e-3)
    for move in moves[: len(BONES)]:
        assert np.allclose(move[:, :3] @ move[:, :3].T, np.eye(3), atol=1e-5)  # rotations
    # Arms hang: hands lower than elbows, elbows lower than shoulders, on both sides.
    joint = lambda bone: moves[BONES.index(bone)][:, :3] @ body.joints[BONES.index(bone)] + moves[BONES.index(bone)][:, 3]
    for side in "lr":
        assert joint(f"hand_{side}")[1] < joint(f"lowerarm_{side}")[1] - 1.5 < joint(f"upperarm_{side}")[1] - 3.0


def test_smoothing_and_normals_are_the_literal_ones() -> None:
    surface = surfaces()["skirt"]
    points = surface.place
    once = relax(surface, points, np.float32(0.5))
    out = normals(surface, points)
    for v in range(0, len(points), 37):
        around = sorted({w for corners in surface.triangles if v in corners for w in corners} - {v})
        assert np.allclose(once[v], 0.5 * points[v] + 0.5 * points[around].mean(axis=0), atol=1e-5)
        total = sum(np.cross(points[b] - points[a], points[c] - points[a]) for a, b, c in surface.triangles if v in (a, b, c))
        assert np.allclose(out[v], total / np.linalg.norm(total), atol=1e-4)


def test_a_shadow_falls_behind_what_stands_in_the_light() -> None:
    wall = np.stack(np.meshgrid(np.linspace(-3, 3, 60), np.linspace(0, 16, 150)), axis=-1).reshape(-1, 2)
    points = np.stack([wall[:, 0], wall[:, 1], np.zeros(len(wall))], axis=1).astype(np.float32)
    shadows = ShadowMap(points, sunlight(0.0, 0.8, 1.0))
    spots = np.asarray([[0, 0, -8], [0, 0, 8], [0, 0, -40], [9, 0, -8], [0, 10, 2]], np.float32)
    assert shadows.lit(spots).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_film_is_monotone_and_undoes_no_colour() -> None:
    light = np.linspace(0, 3, 400, dtype=np.float32)
    for infrared in (False, True):
        value = expose(light, infrared)
        assert (np.diff(value) >= 0).all() and 0 <= value[0] < 0.02 and 0.85 < value[-1] <= 1
    assert linear((255, 0, 127.5)) == pytest.approx((1, 0, 0.5**2.2), abs=1e-6)
    at = np.arange(64, dtype=np.float32)
    assert np.array_equal(noise2(at, at), noise2(at + 64, at - 64)) and np.abs(noise2(at * 0.37, at)).max() <= 1

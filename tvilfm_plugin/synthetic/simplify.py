"""Make a triangle mesh coarser by half-edge collapses, cheapest first by quadric error (Garland and Heckbert 1997).

Vertices stay a subset of the given ones, so whatever belongs to a vertex (targets, weights) is inherited by its index.
Plain Python floats: the result is the same on every machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Point = tuple[float, float, float]
Quadric = tuple[float, ...]
"""Upper triangle of a symmetric 4 x 4 matrix, row by row."""


def simplify(
    points: Sequence[Point], triangles: Sequence[tuple[int, int, int]], keep: int, importance: Sequence[float]
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Collapse edges until about `keep` vertices are left.

    Args:
        points: V vertices.
        triangles: of vertex numbers.
        importance: factor of the error per vertex (V); larger keeps more of it.

    Returns:
        The vertices that stay, in order, and the triangles between them (numbers into the first).
    """
    mesh = _Mesh(points, triangles, importance)
    heap = [entry for u in range(len(points)) for entry in mesh.offers(u)]
    heapq.heapify(heap)
    alive = sum(1 for faces in mesh.faces_of if faces)
    while alive > keep and heap:
        _, u, v, stamp_u, stamp_v = heapq.heappop(heap)
        if (stamp_u, stamp_v) != (mesh.stamps[u], mesh.stamps[v]) or not mesh.can_collapse(u, v):
            continue
        mesh.collapse(u, v)
        alive -= 1
        for entry in mesh.offers(v):
            heapq.heappush(heap, entry)
        for w in sorted(mesh.neighbours(v)):
            heapq.heappush(heap, mesh.offer(w, v))
    kept = [v for v, faces in enumerate(mesh.faces_of) if faces]
    number = {v: n for n, v in enumerate(kept)}
    return kept, [(number[a], number[b], number[c]) for a, b, c in (f for f in mesh.faces if f is not None)]


class _Mesh:
    def __init__(self, points: Sequence[Point], triangles: Sequence[tuple[int, int, int]], importance: Sequence[float]) -> None:
        self.points, self.importance = points, importance
        self.faces: list[tuple[int, int, int] | None] = list(triangles)
        self.faces_of: list[set[int]] = [set() for _ in points]
        edges: dict[tuple[int, int], list[int]] = {}
        for n, (a, b, c) in enumerate(triangles):
            for v, w in ((a, b), (b, c), (c, a)):
                self.faces_of[v].add(n)
                edges.setdefault((min(v, w), max(v, w)), []).append(n)
        self.stamps = [0] * len(points)
        self.quadrics: list[Quadric] = [(0.0,) * 10] * len(points)
        for a, b, c in triangles:
            plane = _plane(points[a], points[b], points[c])
            for v in (a, b, c):
                self.quadrics[v] = _add(self.quadrics[v], plane)
        self.rim = [False] * len(points)
        for (v, w), owners in edges.items():
            if len(owners) == 1:  # a wall on the rim keeps its outline
                a, b, c = triangles[owners[0]]
                normal = _cross(_minus(points[b], points[a]), _minus(points[c], points[a]))
                along = _minus(points[w], points[v])
                wall = _plane(points[v], points[w], _plus(points[v], _scaled(normal, 1.0 / _length(along))))
                for x in (v, w):
                    self.rim[x] = True
                    self.quadrics[x] = _add(self.quadrics[x], tuple(30.0 * q for q in wall))

    def neighbours(self, v: int) -> set[int]:
        return {w for n in self.faces_of[v] for w in self.faces[n] or ()} - {v}

    def offer(self, u: int, v: int) -> tuple[float, int, int, int, int]:
        quadric = _add(self.quadrics[u], self.quadrics[v])
        along = _minus(self.points[u], self.points[v])
        cost = _error(quadric, self.points[v]) * self.importance[u] + 1e-7 * _dot(along, along)
        return cost, u, v, self.stamps[u], self.stamps[v]

    def offers(self, u: int) -> list[tuple[float, int, int, int, int]]:
        return [self.offer(u, v) for v in sorted(self.neighbours(u))]

    def can_collapse(self, u: int, v: int) -> bool:
        shared = self.faces_of[u] & self.faces_of[v]
        if not shared or (self.rim[u] and not self.rim[v]) or (self.rim[u] and len(shared) != 1):
            return False
        if len(self.neighbours(u) & self.neighbours(v)) != len(shared):
            return False
        at = self.points[v]
        for n in self.faces_of[u] - shared:
            face = self.faces[n]
            assert face is not None
            while face[0] != u:
                face = (face[1], face[2], face[0])
            a, b = self.points[face[1]], self.points[face[2]]
            before = _cross(_minus(a, self.points[u]), _minus(b, self.points[u]))
            after = _cross(_minus(a, at), _minus(b, at))
            if _dot(before, after) <= 0.25 * _length(before) * _length(after) or _length(after) < 1e-6:
                return False
        return True

    def collapse(self, u: int, v: int) -> None:
        for n in sorted(self.faces_of[u]):
            face = self.faces[n]
            assert face is not None
            if v in face:
                for w in face:
                    self.faces_of[w].discard(n)
                self.faces[n] = None
            else:
                self.faces[n] = tuple(v if w == u else w for w in face)  # type: ignore[assignment]
                self.faces_of[v].add(n)
        self.faces_of[u] = set()
        self.quadrics[v] = _add(self.quadrics[v], self.quadrics[u])
        self.stamps[u] += 1
        self.stamps[v] += 1


def _plus(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _scaled(a: Point, by: float) -> Point:
    return a[0] * by, a[1] * by, a[2] * by


def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _length(a: Point) -> float:
    return _dot(a, a) ** 0.5


def _plane(a: Point, b: Point, c: Point) -> Quadric:
    """Squared distance to the triangle's plane, weighted by its area."""
    normal = _cross(_minus(b, a), _minus(c, a))
    area = _length(normal)
    if area < 1e-12:
        return (0.0,) * 10
    x, y, z = _scaled(normal, 1.0 / area)
    d = -(x * a[0] + y * a[1] + z * a[2])
    return tuple(area * q for q in (x * x, x * y, x * z, x * d, y * y, y * z, y * d, z * z, z * d, d * d))


def _add(a: Quadric, b: Quadric) -> Quadric:
    return tuple(p + q for p, q in zip(a, b, strict=True))


def _error(q: Quadric, p: Point) -> float:
    x, y, z = p
    xx = q[0] * x * x + q[4] * y * y + q[7] * z * z + q[9]
    return xx + 2.0 * (q[1] * x * y + q[2] * x * z + q[3] * x + q[5] * y * z + q[6] * y + q[8] * z)

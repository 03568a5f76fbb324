"""A closed triangle surface that is driven to the brain's edge by the image around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.pieces import filled

Float64 = NDArray[np.float64]
Int = NDArray[np.int64]

_SMALLEST_RADIUS_MM = 3.33
_LARGEST_RADIUS_MM = 10.0
_LARGEST_EDGE_MM = 5.0
_MARGIN_MM = 2.5
_COARSE_SUBDIVISIONS = 3
_COARSE_STEPS, _FINE_STEPS = 200, 100


@dataclass(frozen=True)
class Surface:
    """A closed surface of triangles.

    Attributes
    ----------
    vertices : ndarray of float64, shape (n, 3)
    faces : ndarray of int, shape (2 n - 4, 3)
        Vertices of each triangle, anticlockwise seen from outside.
    """

    vertices: Float64
    faces: Int


@dataclass(frozen=True)
class Drive:
    """What moves the surface: see equations 2 to 14 of the paper.

    Attributes
    ----------
    least, threshold, median : float
        Robust least intensity, that which parts head from air, and that of the brain.
    fraction : float
        Where between the least intensity and the local brightest the edge lies; a larger one
        makes a smaller brain.
    reach_mm : int
        How far inwards the least intensity is sought; the brightest, half as far.
    """

    least: float
    threshold: float
    median: float
    fraction: float
    reach_mm: int


def grow(
    volume: Float32,
    voxel_mm: tuple[float, float, float],
    centre_mm: Float64,
    radius_mm: float,
    drive: Drive,
) -> Surface:
    """Return the surface (mm) after a sphere within the brain has moved to the brain's edge.

    A coarse surface moves first; it is refined near the edge.

    References
    ----------
    Smith 2002, 10.1002/hbm.10062.
    """
    sphere = icosphere(_COARSE_SUBDIVISIONS)
    surface = Surface(centre_mm + radius_mm * sphere.vertices, sphere.faces)
    surface = _moved(surface, volume, voxel_mm, drive, _COARSE_STEPS)
    return _moved(_subdivided(surface), volume, voxel_mm, drive, _FINE_STEPS)


def _moved(
    surface: Surface,
    volume: Float32,
    voxel_mm: tuple[float, float, float],
    drive: Drive,
    steps: int,
) -> Surface:
    neighbours = _neighbours(surface.faces, len(surface.vertices))
    intensities = (drive.least, drive.threshold, drive.median)
    points, new_points = surface.vertices.copy(), np.empty_like(surface.vertices)
    for _ in range(steps):
        _step(
            points,
            new_points,
            neighbours,
            volume,
            voxel_mm,
            intensities,
            drive.fraction,
            drive.reach_mm,
        )
        points, new_points = new_points, points
    return Surface(points, surface.faces)


def icosphere(subdivisions: int) -> Surface:
    """Return a unit sphere: an icosahedron, its triangles cut in four ``subdivisions`` times."""
    golden = (1 + 5**0.5) / 2
    points = np.array([(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)], np.float64)
    vertices = np.concatenate([np.roll(points, shift, axis=1) for shift in range(3)])
    sphere = Surface(_unit(vertices), _hull_faces(vertices))
    for _ in range(subdivisions):
        sphere = _subdivided(sphere)
        sphere = Surface(_unit(sphere.vertices), sphere.faces)
    return sphere


def _unit(vectors: Float64) -> Float64:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _hull_faces(vertices: Float64) -> Int:
    """Return the icosahedron's triangles: the triples of vertices one edge apart."""
    distance = np.linalg.norm(vertices[:, None] - vertices, axis=-1)
    edge = np.isclose(distance, distance[distance > 0].min())
    n = len(vertices)
    triples = [
        (a, b, c)
        for a in range(n)
        for b in range(a + 1, n)
        for c in range(b + 1, n)
        if edge[a, b] and edge[b, c] and edge[a, c]
    ]
    outward = [np.linalg.det(vertices[list(t)]) > 0 for t in triples]
    return np.array([t if o else t[::-1] for t, o in zip(triples, outward, strict=True)])


def _subdivided(surface: Surface) -> Surface:
    """Return the surface with a vertex in the middle of each edge: four triangles for each."""
    vertices, faces = surface.vertices, surface.faces
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    a, b, c = faces.T
    ab, bc, ca = (inverse.reshape(-1) + len(vertices)).reshape(3, -1)
    corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return Surface(
        np.concatenate([vertices, vertices[unique].mean(axis=1)]),
        np.concatenate([np.stack(corner, axis=1) for corner in corners]),
    )


def _neighbours(faces: Int, n: int) -> Int:
    """Return the 5 or 6 neighbours of each vertex, anticlockwise; -1 fills the sixth place."""
    following: list[dict[int, int]] = [{} for _ in range(n)]
    for a, b, c in faces.tolist():
        following[a][b], following[b][c], following[c][a] = c, a, b
    neighbours = np.full((n, 6), -1)
    for vertex, step in enumerate(following):
        current = min(step)
        for k in range(len(step)):
            neighbours[vertex, k] = current
            current = step[current]
    return neighbours


@njit(cache=True)
def _nearest_index(position, margin, last):  # type: ignore[no-untyped-def]
    """Return the nearest index along an axis, -1 where it is too far away.

    Close outside the volume it is the nearest voxel's: so the surface passes the volume's end
    where the image cuts the brain, but does not run away.
    """
    if position < 0.0:
        return 0 if -position <= margin else -1
    if position > last:
        return last if position - last <= margin else -1
    return int(position + 0.5)


@njit(cache=True)
def _along_normal(volume, margins, start, inwards, reach_mm, darkest, brightest):  # type: ignore[no-untyped-def]
    """Return the least intensity inwards over the reach, and the largest over half of it.

    The start, and the steps of 1 mm, are in voxels.
    """
    nx, ny, nz = volume.shape
    for step in range(reach_mm + 1):
        i = _nearest_index(start[0] + step * inwards[0], margins[0], nx - 1)
        j = _nearest_index(start[1] + step * inwards[1], margins[1], ny - 1)
        k = _nearest_index(start[2] + step * inwards[2], margins[2], nz - 1)
        value = volume[i, j, k] if i >= 0 and j >= 0 and k >= 0 else np.float32(0)
        darkest = min(darkest, value)
        if 2 * step <= reach_mm:
            brightest = max(brightest, value)
    return darkest, brightest


@njit(cache=True)
def _step_to(points, vertex, other):  # type: ignore[no-untyped-def]
    return (
        points[other, 0] - points[vertex, 0],
        points[other, 1] - points[vertex, 1],
        points[other, 2] - points[vertex, 2],
    )


@njit(cache=True)
def _shape_at(points, neighbours, vertex):  # type: ignore[no-untyped-def]
    """Return the step to the neighbours' mean, the outward normal and the mean edge length."""
    count = 6 if neighbours[vertex, 5] >= 0 else 5
    edge = mean_x = mean_y = mean_z = x = y = z = 0.0
    a = _step_to(points, vertex, neighbours[vertex, count - 1])
    for k in range(count):
        b = _step_to(points, vertex, neighbours[vertex, k])
        edge += np.sqrt(b[0] ** 2 + b[1] ** 2 + b[2] ** 2)
        mean_x, mean_y, mean_z = mean_x + b[0], mean_y + b[1], mean_z + b[2]
        x += a[1] * b[2] - b[1] * a[2]
        y += a[2] * b[0] - b[2] * a[0]
        z += a[0] * b[1] - b[0] * a[1]
        a = b
    size = np.sqrt(x**2 + y**2 + z**2) + 1e-12
    mean = (mean_x / count, mean_y / count, mean_z / count)
    return mean, (x / size, y / size, z / size), edge / count


@njit(cache=True)
def _moved_vertex(  # type: ignore[no-untyped-def]
    points, vertex, neighbours, volume, voxel_mm, intensities, fraction, reach_mm
):
    """Return where a vertex moves (equations 2 to 14 of the paper)."""
    least, threshold, median = intensities
    largest, smallest = 1.0 / _SMALLEST_RADIUS_MM, 1.0 / _LARGEST_RADIUS_MM
    centre, steepness = (largest + smallest) / 2, 6.0 / (largest - smallest)
    mean, normal, edge = _shape_at(points, neighbours, vertex)
    along = mean[0] * normal[0] + mean[1] * normal[1] + mean[2] * normal[2]
    curvature = 2.0 * abs(along) / (edge * edge)
    smoothness = 0.5 * (1.0 + np.tanh(steepness * (curvature - centre)))
    x, y, z = points[vertex]
    darkest, brightest = _along_normal(
        volume,
        (_MARGIN_MM / voxel_mm[0], _MARGIN_MM / voxel_mm[1], _MARGIN_MM / voxel_mm[2]),
        (x / voxel_mm[0], y / voxel_mm[1], z / voxel_mm[2]),
        (-normal[0] / voxel_mm[0], -normal[1] / voxel_mm[1], -normal[2] / voxel_mm[2]),
        reach_mm,
        median,
        threshold,
    )
    darkest, brightest = max(darkest, least), min(brightest, median)
    local = (brightest - least) * fraction + least
    force = 2.0 * (darkest - local) / (brightest - least)
    outward = smoothness * along + 0.05 * force * min(edge, _LARGEST_EDGE_MM) - 0.5 * along
    return (
        x + 0.5 * mean[0] + outward * normal[0],
        y + 0.5 * mean[1] + outward * normal[1],
        z + 0.5 * mean[2] + outward * normal[2],
    )


@njit(cache=True)
def _step(  # type: ignore[no-untyped-def]
    points, new_points, neighbours, volume, voxel_mm, intensities, fraction, reach_mm
):
    """Move each vertex once."""
    for vertex in range(points.shape[0]):
        x, y, z = _moved_vertex(
            points, vertex, neighbours, volume, voxel_mm, intensities, fraction, reach_mm
        )
        new_points[vertex, 0] = x
        new_points[vertex, 1] = y
        new_points[vertex, 2] = z


def inside_of(
    surface: Surface, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]
) -> Bool:
    """Return the voxels that a closed surface (mm) encloses.

    The surface is drawn on a grid that is wider by the margin to which it may leave the volume;
    its own voxels do not count as inside.
    """
    margin = [int(np.ceil(_MARGIN_MM / v)) + 2 for v in voxel_mm]
    drawn = np.zeros([n + 2 * m for n, m in zip(shape, margin, strict=True)], np.bool_)
    _draw(drawn, surface.vertices / np.array(voxel_mm) + np.array(margin), surface.faces)
    inside = filled(drawn) & ~drawn
    return inside[tuple(slice(m, m + n) for n, m in zip(shape, margin, strict=True))]


@njit(cache=True)
def _draw(drawn, points, faces):  # type: ignore[no-untyped-def]
    """Set the voxels that triangles (in voxel units) pass through."""
    nx, ny, nz = drawn.shape
    for f in range(faces.shape[0]):
        x, y, z = points[faces[f, 0]]
        b = _step_to(points, faces[f, 0], faces[f, 1])
        c = _step_to(points, faces[f, 0], faces[f, 2])
        longest = 0.0
        for axis in range(3):
            longest = max(longest, abs(b[axis]), abs(c[axis]), abs(c[axis] - b[axis]))
        n = int(np.ceil(3 * longest)) + 1
        for i in range(n + 1):
            for j in range(n + 1 - i):
                u, v = i / n, j / n
                px = int(np.floor(x + b[0] * u + c[0] * v + 0.5))
                py = int(np.floor(y + b[1] * u + c[1] * v + 0.5))
                pz = int(np.floor(z + b[2] * u + c[2] * v + 0.5))
                if 0 <= px < nx and 0 <= py < ny and 0 <= pz < nz:
                    drawn[px, py, pz] = True

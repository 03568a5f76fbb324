from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.surface import Surface, _neighbours, icosphere, inside_of


@pytest.mark.parametrize(("subdivisions", "n"), [(0, 12), (1, 42), (3, 642)])
def test_icosphere_is_a_closed_sphere_facing_outwards(subdivisions, n):
    sphere = icosphere(subdivisions)
    assert sphere.vertices.shape == (n, 3)
    assert sphere.faces.shape == (2 * n - 4, 3)
    np.testing.assert_allclose(np.linalg.norm(sphere.vertices, axis=1), 1)
    a, b, c = sphere.vertices[sphere.faces].transpose(1, 0, 2)
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.6 / 4**subdivisions)


def test_each_vertex_has_five_or_six_neighbours_one_edge_away():
    sphere = icosphere(2)
    neighbours = _neighbours(sphere.faces, len(sphere.vertices))
    assert ((neighbours >= 0).sum(axis=1) == 5).sum() == 12
    for vertex, around in enumerate(neighbours):
        for other in around[around >= 0]:
            assert vertex in neighbours[other]


def test_the_inside_of_a_sphere_is_the_sphere():
    shape, voxel_mm, radius = (40, 44, 30), (1.0, 1.1, 1.7), 17.0
    centre = np.array([20.0, 24.0, 25.0])
    sphere = icosphere(4)
    inside = inside_of(Surface(centre + radius * sphere.vertices, sphere.faces), shape, voxel_mm)
    distance = np.sqrt(
        sum((i * v - c) ** 2 for i, v, c in zip(np.indices(shape), voxel_mm, centre, strict=True))
    )
    assert inside[distance < radius - 2].all()
    assert not inside[distance > radius].any()


def test_a_surface_that_leaves_the_volume_keeps_the_end_slices():
    sphere = icosphere(3)
    surface = Surface(np.array([10.0, 10.0, 4.0]) + 6.0 * sphere.vertices, sphere.faces)
    inside = inside_of(surface, (21, 21, 9), (1.0, 1.0, 1.0))
    assert inside[10, 10].all()

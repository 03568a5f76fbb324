from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from bids_qsm.numerics.background.lbv import _harmonic, lbv

VOXEL_MM = (1.0, 1.2, 2.0)


def direct_solution(field: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Solve the seven-point Laplace equation with a sparse factorisation."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    matrix = sparse.lil_matrix((inside.sum(), inside.sum()))
    right = np.zeros(inside.sum())
    for voxel in np.argwhere(inside):
        row = number[tuple(voxel)]
        for axis, size in enumerate(VOXEL_MM):
            for step in (-1, 1):
                other = voxel.copy()
                other[axis] += step
                matrix[row, row] += 1 / size**2
                if inside[tuple(other)]:
                    matrix[row, number[tuple(other)]] -= 1 / size**2
                else:
                    right[row] += field[tuple(other)] / size**2
    out = field.astype(float).copy()
    out[inside] = spsolve(matrix.tocsr(), right)
    return out


def test_solution_over_several_grids_is_that_of_a_direct_solver(rng) -> None:
    x, y, z = np.ogrid[-14:15, -11:12, -7:8]
    domain = np.pad((x / 14) ** 2 + (y / 11) ** 2 + (z / 7) ** 2 <= 1, 1)
    inside = ndimage.binary_erosion(domain)
    field = np.where(domain, rng.normal(size=domain.shape), 0).astype(np.float32)
    found = _harmonic(field, domain, inside, VOXEL_MM, 1e-5, 300)
    np.testing.assert_allclose(found, direct_solution(field, inside), atol=1e-4)


def test_one_layer_is_lost_and_what_is_peeled(make_total, ball, head_geometry) -> None:
    total = make_total(np.zeros((48, 45, 38)))
    np.testing.assert_array_equal(lbv(total, peel_mm=0.0).mask, ndimage.binary_erosion(total.mask))
    depth = ndimage.distance_transform_edt(total.mask, sampling=head_geometry.voxel_mm)
    peeled = ndimage.binary_erosion(depth > 3.0)
    np.testing.assert_array_equal(lbv(total, peel_mm=3.0).mask, peeled)


def test_unknown_voxels_in_the_depth_are_no_boundary(
    make_total, outer_field, head_geometry, ball
) -> None:
    total = make_total(outer_field)
    clean = lbv(total).field_ppm
    bad = ball(head_geometry, (23.0, 22.0, 18.0), 6.0)
    total.field_ppm[bad] = 5.0
    total.noise_ppm[bad] = np.inf
    local = lbv(total).field_ppm
    assert (local[bad] == 0).all()
    assert np.abs(local - clean)[~bad].max() < 0.01 * np.abs(outer_field[~bad & total.mask]).max()


def test_a_shim_that_is_not_harmonic_is_removed(make_total) -> None:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (48, 45, 38)], indexing="ij")
    field = 2 * x * x + y * z - 0.3 * z + 5
    total = make_total(field)
    assert np.abs(lbv(total, polynomial_order=-1).field_ppm).max() > 0.3
    # the edge is a staircase of voxels: there the solution differs a little from a polynomial
    assert np.abs(lbv(total).field_ppm).max() < 0.04

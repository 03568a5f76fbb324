from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.grids import coarser, deep_inside, largest_component, near, on_grid
from bids_qsm.images import Image


def test_coarser_keeps_positions(oblique_affine):
    """A linear ramp in the world is the same ramp at the coarser voxels' positions."""
    slope = np.array([0.3, -0.7, 0.2])
    voxels = np.indices((12, 13, 9)).reshape(3, -1)
    world = oblique_affine[:3, :3] @ voxels + oblique_affine[:3, 3:]
    image = Image((slope @ world).reshape(12, 13, 9).astype(np.float32), oblique_affine)
    small = coarser(image, 2.0)
    assert small.shape == (6, 6, 9)  # voxels of 1, 1, 2 mm; the odd last row is left out
    voxels = np.indices(small.shape).reshape(3, -1)
    world = small.affine[:3, :3] @ voxels + small.affine[:3, 3:]
    np.testing.assert_allclose(small.data.ravel(), slope @ world, atol=1e-4)


@pytest.fixture
def oblique_affine() -> np.ndarray:
    turn = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.2, 1.0, 0.3], [0.1, -0.3, 1.0]]))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.0, 2.0])
    affine[:3, 3] = (-5.0, 7.0, 2.0)
    return affine


def test_on_grid_moves_a_voxel_to_its_place():
    data = np.zeros((5, 6, 7), np.int16)
    data[1, 2, 3] = 17
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 4
    reference = Image(np.zeros((5, 6, 7)), flipped)
    moved = on_grid(Image(data, np.eye(4)), reference, order=0)
    assert moved.data.dtype == np.int16
    np.testing.assert_array_equal(moved.data, data[::-1])


def test_near_and_deep_inside_are_balls_in_mm():
    point = np.zeros((11, 11, 11), bool)
    point[5, 5, 5] = True
    ball = near(point, 4.0, (1.0, 1.0, 2.0))
    assert ball[9, 5, 5] and not ball[10, 5, 5]
    assert ball[5, 5, 7] and not ball[5, 5, 8]
    assert not deep_inside(ball, 4.5, (1.0, 1.0, 2.0)).any()
    assert deep_inside(ball, 2.0, (1.0, 1.0, 2.0))[5, 5, 5]


def test_largest_component_within_a_region(rng):
    mask = np.zeros((20, 5, 5), bool)
    mask[:4], mask[6:20] = True, True
    assert largest_component(mask).sum() == 14 * 25
    within = np.zeros_like(mask)
    within[:8] = True
    assert largest_component(mask, within)[0, 0, 0]
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()
    noise = ndimage.gaussian_filter(rng.standard_normal((30, 30, 30)), 1.5) > 0.03
    naive = max(
        (ndimage.label(noise)[0] == k for k in range(1, ndimage.label(noise)[1] + 1)),
        key=np.count_nonzero,
    )
    np.testing.assert_array_equal(largest_component(noise), naive)

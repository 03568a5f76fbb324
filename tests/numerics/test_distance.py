from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.distance import deeper_than, distance_mm


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.9), (3.0, 0.5, 1.0)])
@pytest.mark.parametrize("density", [0.3, 0.9, 0.999])
def test_as_scipy_has_it(voxel_mm, density, rng):
    mask = rng.random((19, 24, 17)) < density
    expected = ndimage.distance_transform_edt(mask, sampling=voxel_mm)
    np.testing.assert_allclose(distance_mm(mask, voxel_mm), expected, rtol=1e-13)


def test_whole_voxels_have_exact_distances(rng):
    mask = ndimage.binary_dilation(rng.random((40, 30, 20)) < 0.002, iterations=6)
    expected = ndimage.distance_transform_edt(mask)
    np.testing.assert_array_equal(distance_mm(mask, (1.0, 1.0, 1.0)), expected)


def test_axes_may_be_turned(rng):
    mask, voxel_mm = rng.random((9, 12, 15)) < 0.97, (0.8, 1.1, 2.3)
    turned = distance_mm(np.flip(mask, 1).transpose(2, 0, 1), (2.3, 0.8, 1.1))
    back = np.flip(turned.transpose(1, 2, 0), 1)
    np.testing.assert_allclose(back, distance_mm(mask, voxel_mm), rtol=1e-13)


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.9), (3.0, 0.5, 1.0)])
@pytest.mark.parametrize("density", [0.9, 0.99, 0.9999])
@pytest.mark.parametrize("depth_mm", [0.4, 1.0, 3.0, 4.5, 50.0])
def test_a_depth_is_passed_where_the_distance_passes_it(voxel_mm, density, depth_mm, rng):
    mask = rng.random((19, 24, 17)) < density
    expected = distance_mm(mask, voxel_mm) > depth_mm
    np.testing.assert_array_equal(deeper_than(mask, voxel_mm, depth_mm), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (5, 1, 4)])
def test_nothing_outside_or_nothing_inside(shape):
    assert np.isinf(distance_mm(np.ones(shape, bool), (1.0, 2.0, 3.0))).all()
    assert not distance_mm(np.zeros(shape, bool), (1.0, 2.0, 3.0)).any()
    assert deeper_than(np.ones(shape, bool), (1.0, 2.0, 3.0), 2.0).all()
    assert not deeper_than(np.zeros(shape, bool), (1.0, 2.0, 3.0), 2.0).any()

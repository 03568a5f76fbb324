from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.background.vsharp import _radii, _subtract_spherical_means, vsharp
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry

GEOMETRY = Geometry((24, 20, 18), (1.0, 1.2, 2.0), (0.0, 0.0, 1.0))


def test_radii_fall_to_one_voxel() -> None:
    assert _radii(GEOMETRY, 5.0) == pytest.approx([5.0, 4.0, 3.0, 2.0])
    assert _radii(GEOMETRY, 1.0) == [2.0]


def test_spherical_means_are_those_of_a_plain_loop(ball, rng) -> None:
    mask = ball(GEOMETRY, (11.0, 10.0, 8.0), 7.5)
    field = np.where(mask, rng.normal(size=GEOMETRY.shape), 0).astype(np.float32)
    filtered, fits = _subtract_spherical_means(field, mask, GEOMETRY, [4.0, 2.0])
    expected = np.zeros_like(field)
    done = np.zeros_like(mask)
    for radius in (4.0, 2.0):
        sphere = ball(Geometry((9, 9, 9), GEOMETRY.voxel_mm), (4.0, 4.0, 4.0), radius)
        inside = ndimage.binary_erosion(mask, sphere) & ~done
        mean = ndimage.convolve(field, sphere / sphere.sum(), mode="constant")
        expected[inside] = (field - mean)[inside]
        done |= inside
    np.testing.assert_array_equal(fits, done)
    np.testing.assert_allclose(filtered, expected, atol=1e-5)


def test_only_the_outer_layer_of_the_mask_is_lost(ball) -> None:
    geometry = Geometry((30, 30, 30), (1.0, 1.0, 1.0))
    mask = ball(geometry, (15.0, 15.0, 15.0), 11.0)
    zero = np.zeros(geometry.shape, np.float32)
    local = vsharp(FieldMap(zero, zero, zero, mask, geometry))
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1))
    np.testing.assert_array_equal(local.mask, eroded)

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.background.spheres import Padded, deconvolve, eroded
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import Geometry, sphere_kernel

GEOMETRY = Geometry((24, 21, 18), (1.0, 1.2, 2.0))


def test_erosion_is_that_of_a_plain_loop(ball, rng) -> None:
    mask = ball(GEOMETRY, (11.0, 10.0, 8.0), 7.5)
    mask[9, 8, 7] = False
    expected = ndimage.binary_erosion(
        mask, ball(Geometry((9,) * 3, GEOMETRY.voxel_mm), (4,) * 3, 3)
    )
    found = eroded(mask, sphere_kernel(GEOMETRY, 3.0))
    assert expected.any()
    np.testing.assert_array_equal(found, expected)


def test_deconvolution_undoes_the_filter_where_it_is_strong(rng) -> None:
    sphere = sphere_kernel(GEOMETRY, 5.0)
    field = rng.normal(size=GEOMETRY.shape).astype(np.float32)
    strong = convolve(field, (np.abs(1 - sphere) >= 0.2).astype(np.float32))
    filtered = field - convolve(field, sphere)
    np.testing.assert_allclose(deconvolve(filtered, sphere, 0.2), strong, atol=1e-4)
    assert not np.allclose(strong, field, atol=1e-2)


def test_the_box_has_room_for_the_sphere_and_goes_back_to_its_place(make_total, rng) -> None:
    total = make_total(rng.normal(size=(48, 45, 38)))
    padded = Padded.of(total, 6.0)
    inner = [s.stop - s.start for s in padded.box]
    room = [
        (p - n) * v
        for p, n, v in zip(padded.geometry.shape, inner, padded.geometry.voxel_mm, strict=True)
    ]
    assert min(room) >= 8.0
    back = padded.local_map(total, padded.field, padded.mask)
    np.testing.assert_array_equal(back.field_ppm, total.field_ppm)
    np.testing.assert_array_equal(back.mask, total.mask)
    assert padded.weights[padded.mask].mean() == pytest.approx(1, abs=1e-5)

from __future__ import annotations

import numba
import numpy as np
import pytest

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import Geometry, dipole_kernel, sphere_kernel

OBLIQUE = tuple(np.array([0.2, -0.4, 0.9]) / np.linalg.norm([0.2, -0.4, 0.9]))
SHAPES = [(40, 18, 15), (15, 14, 9), (8, 9, 10), (7, 70, 3), (1, 6, 5), (5, 1, 8), (6, 5, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_of", [dipole_kernel, lambda g: sphere_kernel(g, 2.5)])
def test_a_convolution_is_that_of_a_library_s_transforms(shape, kernel_of, rng) -> None:
    kernel = kernel_of(Geometry(shape, (1.0, 0.8, 2.0), OBLIQUE))
    volume = rng.normal(size=shape).astype(np.float32)
    expected = np.fft.irfftn(np.fft.rfftn(volume) * kernel, shape, axes=(0, 1, 2))
    np.testing.assert_allclose(convolve(volume, kernel), expected, atol=2e-6)


def test_the_convolution_with_a_point_is_the_kernel() -> None:
    kernel = dipole_kernel(Geometry((12, 10, 9), (1.0, 0.8, 2.0), OBLIQUE))
    point = np.zeros((12, 10, 9), np.float32)
    point[0, 0, 0] = 1
    expected = np.fft.irfftn(kernel, point.shape, axes=(0, 1, 2))
    np.testing.assert_allclose(convolve(point, kernel), expected, atol=1e-7)


def test_a_volume_in_any_order_of_axes_is_read_as_it_is(rng) -> None:
    kernel = dipole_kernel(Geometry((12, 10, 9), (1.0, 0.8, 2.0), OBLIQUE))
    volume = rng.normal(size=(12, 10, 9)).astype(np.float32)
    turned = np.asfortranarray(volume)
    np.testing.assert_array_equal(convolve(turned, kernel), convolve(volume, kernel))


def test_a_convolution_is_the_same_on_any_number_of_threads(rng) -> None:
    kernel = dipole_kernel(Geometry((30, 27, 20), (1.0, 0.8, 2.0), OBLIQUE))
    volume = rng.normal(size=(30, 27, 20)).astype(np.float32)
    threads, found = numba.get_num_threads(), []
    try:
        for n in (1, threads):
            numba.set_num_threads(n)
            found.append(convolve(volume, kernel))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(found[0], found[1])

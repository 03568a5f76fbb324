from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.smoothing import _convolved, _convolved_lines, smooth_phase

GEOMETRY = Geometry((40, 36, 20), (1.0, 1.2, 2.0))


def ball() -> np.ndarray:
    x, y, z = np.indices(GEOMETRY.shape)
    return ((x - 20) / 18) ** 2 + ((y - 18) / 16) ** 2 + ((z - 10) / 9) ** 2 < 1


def quartic() -> np.ndarray:
    x, y, z = (np.indices(GEOMETRY.shape).T / 20.0).T
    return (0.4 * x**4 - x * y * z + y**2 - 0.3 * z)[ball()]


def test_a_quartic_stays_as_it_is_up_to_the_rim():
    phase = quartic()
    smooth = smooth_phase(phase, np.ones_like(phase), ball(), GEOMETRY, 4.0)
    np.testing.assert_allclose(smooth, phase, atol=1e-5)


def test_noise_is_averaged_with_its_weights(rng):
    truth = quartic()
    sd = np.where(rng.random(truth.size) < 0.5, 0.2, 0.8)
    smooth = smooth_phase(truth + sd * rng.normal(size=sd.shape), sd**-2, ball(), GEOMETRY, 4.0)
    assert np.std(smooth - truth) < 0.05


def test_turns_do_not_matter(rng):
    truth = quartic() / 4
    turned = truth + 2 * np.pi * (rng.random(truth.size) < 0.02)
    smooth = smooth_phase(turned, np.ones_like(truth), ball(), GEOMETRY, 3.0)
    assert np.abs(smooth - truth).max() < 0.05


def test_without_any_weight_nothing_is_changed():
    phase = quartic()
    np.testing.assert_array_equal(
        smooth_phase(phase, np.zeros_like(phase), ball(), GEOMETRY, 4.0), phase
    )


@pytest.mark.parametrize("n", [1, 3, 5, 40])
def test_convolution_is_scipys_along_each_axis(n, rng):
    maps = rng.normal(size=(6, n, 4)).astype(np.float32)
    kernel = rng.random(7).astype(np.float32)
    kernel += kernel[::-1]
    expected = ndimage.convolve1d(maps.astype(float), kernel, axis=1, mode="constant")
    np.testing.assert_allclose(_convolved(maps, kernel), expected, atol=1e-5)
    lines = np.ascontiguousarray(maps.transpose(0, 2, 1)).reshape(-1, n)
    found = _convolved_lines(lines, kernel).reshape(6, 4, n).transpose(0, 2, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.fourier import axis_of, transform


def transformed(re: np.ndarray, im: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, lanes = re.shape
    room = np.empty((4, n * lanes), np.float32)
    room[0], room[1] = re.ravel(), im.ravel()
    found_re, found_im, _, _ = transform(*room, lanes, axis_of(n))
    return found_re.reshape(n, lanes), found_im.reshape(n, lanes)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 25, 30, 49, 72, 77, 101, 840])
@pytest.mark.parametrize("lanes", [1, 5, 64])
def test_a_transform_is_that_of_numpy(n, lanes, rng) -> None:
    re, im = rng.normal(size=(2, n, lanes)).astype(np.float32)
    expected = np.fft.fft(re + 1j * im, axis=0)
    found_re, found_im = transformed(re, im)
    # rounding errors grow with the number of steps, and those add up randomly
    tolerance = 3e-7 * np.sqrt(n) * (1 + np.log2(n))
    np.testing.assert_allclose(found_re, expected.real, atol=tolerance)
    np.testing.assert_allclose(found_im, expected.imag, atol=tolerance)


@pytest.mark.parametrize("n", [7, 30, 64])
def test_with_its_parts_exchanged_it_is_the_inverse(n, rng) -> None:
    re, im = rng.normal(size=(2, n, 5)).astype(np.float32)
    spectrum_re, spectrum_im = transformed(re, im)
    found_im, found_re = transformed(spectrum_im, spectrum_re)
    np.testing.assert_allclose(found_re / n, re, atol=2e-6)
    np.testing.assert_allclose(found_im / n, im, atol=2e-6)


@pytest.mark.parametrize("n", [1, 2, 12, 35, 121, 1001])
def test_the_factors_of_an_axis_make_it(n) -> None:
    factors, cos, sin = axis_of(n)
    assert np.prod(factors) == n
    np.testing.assert_allclose(cos + 1j * sin, np.exp(-2j * np.pi * np.arange(n) / n), atol=1e-7)

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from bids_qsm.numerics.noise import (
    misfit_factor,
    misfit_limits,
    sigma_from_details,
    sigma_from_residuals,
)


@pytest.mark.parametrize("freedom", [1, 3, 8])
def test_residuals_show_the_noise_and_not_the_outliers(freedom, rng):
    squares = (2.5**2) * rng.chisquare(freedom, 20000)
    squares[:500] = 1e6
    assert sigma_from_residuals(squares, freedom) == pytest.approx(2.5, rel=0.06)
    assert sigma_from_residuals(squares[:0], freedom) == 0


@pytest.mark.parametrize("n", [1, 2, 7, 8, 1000])
def test_noise_is_that_of_the_median(n, rng):
    squares = rng.chisquare(3, n)
    expected = np.sqrt(np.median(squares) / special.chdtri(3, 0.5))
    assert sigma_from_residuals(squares, 3) == pytest.approx(expected, rel=1e-12)


def test_only_a_misfit_beyond_the_noise_counts(rng):
    limits = misfit_limits(3, 2.5)
    squares = (2.5**2) * rng.chisquare(3, 20000)
    factors = [misfit_factor(square, 3, 2.5, limits) for square in squares]
    assert np.mean(np.array(factors) > 1) == pytest.approx(1e-3, abs=7e-4)
    assert misfit_factor(3e4 * 2.5**2, 3, 2.5, limits) == pytest.approx(100)
    assert misfit_factor(5.0, 3, 2.5, limits) == 1
    assert misfit_factor(1e9, 0, 2.5, limits) == 1
    assert misfit_factor(4.0, 3, 0.0, misfit_limits(3, 0.0)) == 1


def test_details_show_the_noise_and_not_the_anatomy(rng):
    x, y, z = np.indices((40, 40, 30))
    anatomy = 100 + 20 * np.sin(x / 4) + 10 * np.cos(y / 5 + z / 6) + 30 * (x + y > 40)
    magnitude = (anatomy + 3 * rng.normal(size=anatomy.shape)).astype(np.float32)
    mask = x > 2
    assert sigma_from_details(magnitude, mask) == pytest.approx(3.0, rel=0.05)
    assert sigma_from_details(magnitude[:, :, :1], mask[:, :, :1]) == pytest.approx(3.0, rel=0.15)
    assert sigma_from_details(magnitude, np.zeros_like(mask)) == 0

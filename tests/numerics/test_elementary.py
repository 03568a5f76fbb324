from __future__ import annotations

import numba
import numpy as np
import pytest

from bids_qsm.numerics.elementary import exponential, logarithm, sine_and_versine


@numba.njit
def in_a_loop(x):
    """What the compiler makes of the functions in a loop."""
    results = np.empty((4, x.size))
    for i in range(x.size):
        results[0, i], results[1, i] = sine_and_versine(x[i])
        results[2, i], results[3, i] = exponential(x[i]), logarithm(exponential(x[i]))
    return results


def test_sine_and_versine():
    for angle in np.linspace(-4, 4, 801):
        sine, versine = sine_and_versine(angle)
        assert sine == pytest.approx(np.sin(angle), abs=2e-11)
        assert versine == pytest.approx(1 - np.cos(angle), abs=2e-11)


def test_versine_of_a_small_angle_is_exact():
    for angle in (1e-2, 1e-5, 1e-9):
        assert sine_and_versine(angle)[1] == pytest.approx(2 * np.sin(angle / 2) ** 2, rel=1e-14)


def test_sine_and_versine_repeat_every_turn():
    found = sine_and_versine(0.7 + 40 * np.pi)
    assert found == pytest.approx(sine_and_versine(0.7), abs=1e-13)


def test_exponential():
    for x in np.linspace(-10, 10, 401):
        assert exponential(x) == pytest.approx(np.exp(x), rel=1e-13)
    for x in (-87.0, -50.0, 50.0, 87.0):
        assert exponential(x) == pytest.approx(np.exp(x), rel=3e-6)


def test_exponential_stays_finite():
    assert exponential(1e4) == exponential(87.0) < np.inf
    assert exponential(-np.inf) == exponential(-87.0) < 1e-37


def test_logarithm():
    for x in np.geomspace(1e-30, 1e30, 2001).astype(np.float32):
        assert logarithm(x) == pytest.approx(np.log(np.float64(x)), abs=4e-9)
    assert logarithm(1.0) == 0.0


def test_a_vector_at_once_gives_the_same():
    x = np.linspace(-3, 3, 1001)
    sine, versine, power, back = in_a_loop(x)
    np.testing.assert_allclose(sine, np.sin(x), atol=2e-11)
    np.testing.assert_allclose(versine, 1 - np.cos(x), atol=2e-11)
    np.testing.assert_allclose(power, np.exp(x), rtol=1e-13)
    np.testing.assert_allclose(back, x, atol=1e-7)

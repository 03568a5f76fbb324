from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import integrate, optimize

from bids_qsm.numerics.relaxometry import METHODS, arlo, loglinear, nonlinear, t2star_s

FIVE = (0.004, 0.010, 0.016, 0.022, 0.028)
TEN = tuple(0.0029 + 0.0041 * i for i in range(10))
UNEVEN = (0.003, 0.007, 0.013, 0.022, 0.036)


def echoes(r2star, te_s, snr, rng=None, shape=(20, 20, 20)):
    """Magnitude with unit noise in each channel."""
    signal = snr * np.exp(-np.broadcast_to(r2star, shape)[..., None] * np.asarray(te_s))
    if rng is not None:
        signal = np.abs(signal + rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    return signal.astype(np.float32)


def everywhere(magnitude):
    return np.ones(magnitude.shape[:3], bool)


@pytest.mark.parametrize("te_s", [FIVE, TEN, UNEVEN, FIVE[:2], FIVE[:3]])
@pytest.mark.parametrize("name", METHODS)
def test_noise_free_decay_is_recovered(name, te_s):
    r2star = np.linspace(2, 80, 8000).reshape(20, 20, 20)
    magnitude = echoes(r2star, te_s, 1000.0)
    fit = METHODS[name](magnitude, te_s, everywhere(magnitude))
    # the parabola's error grows with the fourth power of R2* times the spacing
    tolerance = 0.02 if name == "arlo" else 1e-3
    np.testing.assert_allclose(fit.r2star_per_s, r2star, rtol=tolerance)
    np.testing.assert_allclose(fit.s0, 1000.0, rtol=tolerance)


@pytest.mark.parametrize("te_s", [FIVE, TEN, UNEVEN])
@pytest.mark.parametrize("r2star", [20.0, 40.0, 60.0])
@pytest.mark.parametrize("name", METHODS)
def test_bias_is_below_two_percent_at_a_signal_to_noise_ratio_of_25(name, r2star, te_s, rng):
    magnitude = echoes(r2star, te_s, 25.0, rng, (30, 30, 30))
    fit = METHODS[name](magnitude, te_s, everywhere(magnitude))
    assert fit.r2star_per_s.mean(dtype=float) == pytest.approx(r2star, rel=0.02)
    assert fit.s0.mean(dtype=float) == pytest.approx(25.0, rel=0.02)


def test_the_noise_floor_matters_where_echoes_reach_it(rng):
    magnitude = echoes(60.0, TEN, 12.5, rng, (30, 30, 30))
    with_floor, without = (
        nonlinear(magnitude, TEN, everywhere(magnitude), noise_floor=floor).r2star_per_s.mean()
        for floor in (True, False)
    )
    assert with_floor == pytest.approx(60.0, rel=0.015)
    assert without < 0.96 * 60.0


def test_nonlinear_without_floor_is_the_least_squares_solution(rng):
    magnitude = echoes(35.0, UNEVEN, 20.0, rng)
    fit = nonlinear(magnitude, UNEVEN, everywhere(magnitude), noise_floor=False)
    te = np.asarray(UNEVEN)
    for voxel in rng.integers(0, 20, size=(25, 3)):
        best, _ = optimize.curve_fit(
            lambda t, s0, rate: s0 * np.exp(-rate * t), te, magnitude[tuple(voxel)], (20.0, 30.0)
        )
        assert fit.s0[tuple(voxel)] == pytest.approx(best[0], rel=1e-4)
        assert fit.r2star_per_s[tuple(voxel)] == pytest.approx(best[1], rel=1e-3)


def test_noise_of_nonlinear_is_no_larger_than_that_of_the_others(rng):
    magnitude = echoes(40.0, TEN, 25.0, rng, (30, 30, 30))
    spread = {
        name: method(magnitude, TEN, everywhere(magnitude)).r2star_per_s.std()
        for name, method in METHODS.items()
    }
    assert spread["nonlinear"] <= 1.01 * min(spread.values())
    assert spread["nonlinear"] < 0.9 * spread["arlo"]


def test_parabola_weights_integrate_a_parabola_exactly():
    from bids_qsm.numerics.relaxometry import _parabola_weights

    weights = _parabola_weights(UNEVEN)
    te = np.asarray(UNEVEN) * 100

    def parabola(t):
        return 3 - 2 * t + 0.7 * t**2

    for i, row in enumerate(weights * 100):
        exact, _ = integrate.quad(parabola, te[i], te[i + 2])
        assert row @ parabola(te[i : i + 3]) == pytest.approx(exact, rel=1e-12)


def test_arlo_is_the_published_solution_for_even_spacing(rng):
    magnitude = echoes(30.0, FIVE, 50.0, rng)
    fit = arlo(magnitude, FIVE, everywhere(magnitude), noise_floor=False)
    s = magnitude.astype(float)
    third = 0.006 / 3
    integral = third * (s[..., :-2] + 4 * s[..., 1:-1] + s[..., 2:])
    fall = s[..., :-2] - s[..., 2:]
    t2star = ((integral**2 + third * integral * fall).sum(-1)) / (
        (integral * fall + third * fall**2).sum(-1)
    )
    np.testing.assert_allclose(fit.r2star_per_s, 1 / t2star, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_scaling_the_magnitude_scales_s0_alone(name, rng):
    magnitude = echoes(30.0, FIVE, 40.0, rng)
    mask = everywhere(magnitude)
    one, other = (METHODS[name](magnitude * np.float32(k), FIVE, mask) for k in (1, 4096))
    np.testing.assert_allclose(one.r2star_per_s, other.r2star_per_s, rtol=1e-4)
    np.testing.assert_allclose(4096 * one.s0, other.s0, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_unusable_and_growing_signals(name, rng):
    magnitude = echoes(30.0, FIVE, 40.0, rng)
    magnitude[0, 0, 0, 3], magnitude[1, 1, 1], magnitude[2, 2, 2] = np.nan, 0.0, [1, 2, 3, 4, 5]
    magnitude[3, 3, 3] = [1e3, 1e-3, 1e-3, 1e-3, 1e-3]
    magnitude[4, 4, 4, 3:] = 0.0
    mask = everywhere(magnitude)
    mask[5, 5, 5] = False
    fit = METHODS[name](magnitude, FIVE, mask, max_r2star_per_s=300.0)
    assert np.isfinite(fit.r2star_per_s).all()
    assert np.isfinite(fit.s0).all()
    for voxel in ((0, 0, 0), (1, 1, 1), (5, 5, 5)):
        assert fit.r2star_per_s[voxel] == fit.s0[voxel] == 0
    assert fit.r2star_per_s[2, 2, 2] == 0
    assert fit.s0[2, 2, 2] == pytest.approx(3.0, rel=0.2)
    assert fit.r2star_per_s.max() <= 300.0


def test_two_echoes_have_a_closed_form(rng):
    magnitude = echoes(25.0, FIVE[:2], 50.0, rng)
    closed = np.log(magnitude[..., 0] / magnitude[..., 1]) / 0.006
    mask = everywhere(magnitude)
    np.testing.assert_allclose(
        loglinear(magnitude, FIVE[:2], mask).r2star_per_s, np.maximum(closed, 0), atol=1e-3
    )
    np.testing.assert_allclose(
        nonlinear(magnitude, FIVE[:2], mask, noise_floor=False).r2star_per_s,
        np.maximum(closed, 0),
        atol=2e-2,
    )


@pytest.mark.parametrize("name", METHODS)
def test_same_result_with_any_number_of_threads(name, rng):
    magnitude = echoes(30.0, FIVE, 25.0, rng)
    before = numba.get_num_threads()
    try:
        fits = []
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            fits.append(METHODS[name](magnitude, FIVE, everywhere(magnitude)))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(fits[0].r2star_per_s, fits[1].r2star_per_s)


def test_errors_are_sentences():
    magnitude = echoes(30.0, FIVE, 25.0)
    with pytest.raises(ValueError, match="at least two echoes"):
        nonlinear(magnitude[..., :1], FIVE[:1], everywhere(magnitude))
    with pytest.raises(ValueError, match="must fit the mask"):
        arlo(magnitude, FIVE[:4], everywhere(magnitude))
    with pytest.raises(ValueError, match="positive and rising"):
        loglinear(magnitude, FIVE[::-1], everywhere(magnitude))


def test_t2star_is_the_inverse_where_there_is_one():
    np.testing.assert_array_equal(
        t2star_s(np.array([0.0, 20.0, 50.0], np.float32)), np.array([0, 0.05, 0.02], np.float32)
    )

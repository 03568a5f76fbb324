from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import integrate, optimize

from bids_qsm.numerics.decay_blocks import loglinear_voxels, nonlinear_voxels
from bids_qsm.numerics.relaxometry import (
    METHODS,
    _fit_lines,
    _noise_level,
    _usable,
    arlo,
    loglinear,
    nonlinear,
    t2star_s,
)

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


def test_nonlinear_with_floor_is_the_least_squares_solution(rng):
    magnitude = echoes(60.0, UNEVEN, 8.0, rng)
    fit = nonlinear(magnitude, UNEVEN, everywhere(magnitude))
    te = np.asarray(UNEVEN)
    usable = _usable(magnitude, UNEVEN, everywhere(magnitude), None, False)
    sigma = _noise_level(usable, _fit_lines(usable), magnitude)

    def expected(t, s0, rate):
        nu = s0 * np.exp(-rate * t)
        extra = (np.pi / 2 - 1) * np.exp(-0.3 * (nu / sigma) ** 2)
        return np.sqrt(nu**2 + sigma**2 * (1 + extra))

    for voxel in map(tuple, rng.integers(0, 20, size=(25, 3))):
        if 0 < fit.r2star_per_s[voxel] < 300:
            start_at = fit.s0[voxel], fit.r2star_per_s[voxel]
            best, _ = optimize.curve_fit(expected, te, magnitude[voxel], start_at)
            assert fit.r2star_per_s[voxel] == pytest.approx(
                best[1], abs=0.02 * float(fit.r2star_sd_per_s[voxel])
            )


def voxel_by_voxel(signal, te, floor):
    """S0, R2* and squared distance of a least-squares fit of each voxel, to the last digit."""

    def expected(parameters):
        nu = parameters[0] * np.exp(-parameters[1] * te)
        extra = (np.pi / 2 - 1) * np.exp(-0.3 * (nu / floor) ** 2) if floor else 0.0
        return nu if not floor else np.sqrt(nu**2 + floor**2 * (1 + extra))

    rows = []
    for one in signal.astype(float):
        best = optimize.least_squares(
            lambda x, one=one: expected(x) - one, (one[0], 30.0), x_scale=(10, 30),
            xtol=1e-14, ftol=1e-14, gtol=1e-14,
        )  # fmt: skip
        s0, rate = best.x
        variance = np.linalg.inv(best.jac.T @ best.jac)[1, 1]
        rows.append([s0, rate, ((one - s0 * np.exp(-rate * te)) ** 2).sum(), variance])
    return np.array(rows).T


@pytest.mark.parametrize("floor", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 127, 300])
def test_blocks_give_what_a_fit_of_each_voxel_gives(n, floor, rng):
    te = np.asarray(UNEVEN)
    signals = echoes(np.linspace(5, 60, 1000).reshape(10, 10, 10), UNEVEN, 40.0, rng, (10, 10, 10))
    signals = signals.reshape(-1, te.size)
    indices = np.arange(0, 3 * n, 3)
    data = signals, indices, te, np.zeros((n if n > 1 else 0, 3), np.float32), False
    fits = np.empty((5, n), np.float32)
    loglinear_voxels(*data, fits)
    nonlinear_voxels(*data, 1.0, floor, fits)
    rate, s0, variance, squares, counts = fits
    expected = voxel_by_voxel(signals[indices], te, floor)
    deviation = np.sqrt(expected[3])
    off = np.abs(rate - expected[1]) / deviation
    assert np.median(off) < 2e-3
    assert off.max() < 0.03
    np.testing.assert_allclose(s0, expected[0], rtol=3e-3)
    np.testing.assert_allclose(squares, expected[2], rtol=0.02, atol=0.02)
    assert (counts == te.size).all()
    if not floor:
        np.testing.assert_allclose(variance, expected[3], rtol=0.01)


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
        assert np.isinf(fit.r2star_sd_per_s[voxel])
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
    np.testing.assert_array_equal(fits[0].r2star_sd_per_s, fits[1].r2star_sd_per_s)


@pytest.mark.parametrize("snr", [20.0, 50.0, 100.0])
@pytest.mark.parametrize("te_s", [FIVE, TEN, UNEVEN, FIVE[:3], FIVE[:2]])
@pytest.mark.parametrize("name", METHODS)
def test_standard_deviation_covers_the_truth_as_often_as_it_says(name, te_s, snr, rng):
    """Each voxel along the first axis is measured 200 times, along the two others."""
    r2star = np.linspace(10, 60, 40)[:, None, None]
    magnitude = echoes(r2star, te_s, snr, rng, (40, 20, 10))
    fit = METHODS[name](magnitude, te_s, everywhere(magnitude))
    z = (fit.r2star_per_s - r2star) / fit.r2star_sd_per_s
    covered = np.abs(z) < 1.96
    assert 0.93 <= covered.mean() <= 0.97
    # over 200 repeats two binomial standard deviations are 0.03; two noisy echoes reach R2* = 0,
    # where it is cut, which takes away errors
    by_voxel = covered.mean(axis=(1, 2))
    least, most = 0.90, 0.98 if len(te_s) > 2 else 1.0
    assert np.mean((by_voxel >= least) & (by_voxel <= most)) > 0.85
    assert abs(z.mean()) < 0.1


def test_standard_deviation_grows_with_the_noise_and_with_a_misfit(rng):
    magnitude = echoes(30.0, FIVE, 50.0, rng)
    quiet = nonlinear(magnitude * np.float32(100), FIVE, everywhere(magnitude))
    loud = nonlinear(echoes(30.0, FIVE, 25.0, rng), FIVE, everywhere(magnitude))
    ratio = np.median(loud.r2star_sd_per_s) / np.median(quiet.r2star_sd_per_s)
    assert ratio == pytest.approx(2.0, rel=0.1)
    magnitude[3, 3, 3] *= [1.0, 0.6, 1.4, 0.6, 1.4]
    disturbed = nonlinear(magnitude, FIVE, everywhere(magnitude))
    assert disturbed.r2star_sd_per_s[3, 3, 3] > 4 * quiet.r2star_sd_per_s[3, 3, 3]


def dephased(r2star, te_s, change_hz, snr, rng=None, shape=(20, 20, 20)):
    """Magnitude of slices of many spins in a linear field, and that field."""
    position = (np.arange(400) + 0.5) / 400 - 0.5
    turns = change_hz * np.multiply.outer(np.asarray(te_s), position)
    left = np.abs(np.exp(2j * np.pi * turns).mean(axis=1))
    signal = snr * left * np.exp(-r2star * np.asarray(te_s)) * np.ones((*shape, 1))
    if rng is not None:
        signal = np.abs(signal + rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    field_hz = change_hz * np.indices(shape)[2]
    return signal.astype(np.float32), field_hz.astype(np.float32)


@pytest.mark.parametrize("change_hz", [-12.0, 20.0, 30.0])
@pytest.mark.parametrize("name", METHODS)
def test_gradient_through_the_slice_is_corrected(name, change_hz):
    magnitude, field_hz = dephased(25.0, FIVE, change_hz, 1000.0)
    mask = everywhere(magnitude)
    mask[:, :, :3], field_hz[:, :, :3] = False, 0.0  # the field is unknown outside the mask
    fit = METHODS[name](magnitude, FIVE, mask, field_hz, sliced=True)
    np.testing.assert_allclose(fit.r2star_per_s[mask], 25.0, rtol=0.02)
    np.testing.assert_allclose(fit.s0[mask], 1000.0, rtol=0.02)
    off = METHODS[name](magnitude, FIVE, mask, field_hz, sliced=True, gradient_correction=False)
    assert off.r2star_per_s[mask].min() > 1.1 * 25.0
    plain = METHODS[name](magnitude, FIVE, mask)
    np.testing.assert_array_equal(off.r2star_per_s, plain.r2star_per_s)


@pytest.mark.parametrize("name", METHODS)
def test_gradient_correction_in_noise(name, rng):
    magnitude, field_hz = dephased(30.0, FIVE, 20.0, 40.0, rng)
    fit = METHODS[name](magnitude, FIVE, everywhere(magnitude), field_hz, sliced=True)
    assert fit.r2star_per_s.mean(dtype=float) == pytest.approx(30.0, rel=0.02)
    z = (fit.r2star_per_s - 30.0) / fit.r2star_sd_per_s
    assert 0.93 <= np.mean(np.abs(z) < 1.96) <= 0.97


@pytest.mark.parametrize("name", METHODS)
def test_echoes_that_dephasing_has_put_out_are_left_out(name):
    """At 40 Hz per voxel the signal is gone at 25 ms and comes back with the opposite sign."""
    magnitude, field_hz = dephased(25.0, FIVE, 40.0, 1000.0)
    magnitude[..., 3:] = 77.0
    fit = METHODS[name](magnitude, FIVE, everywhere(magnitude), field_hz, sliced=True)
    np.testing.assert_allclose(fit.r2star_per_s, 25.0, rtol=0.03)


def encoded_in_k_space(r2star, te_s, curve_hz):
    """Magnitude of voxels whose k-space was cut to their size, and the field at their centres.

    The field is a parabola along the first axis: it changes ever faster from its middle on.
    """
    n, fine = 96, 32
    position = (np.arange(n * fine) - n * fine / 2 + 0.5) / fine
    smooth_object = np.exp(-((position / 20) ** 2))
    field_hz = curve_hz * position**2 / 2
    magnitude = []
    for te in te_s:
        spectrum = np.fft.fft(smooth_object * np.exp(2j * np.pi * field_hz * te - r2star * te))
        lowest = np.fft.ifftshift(np.arange(n) - n // 2)
        ramp = np.exp(2j * np.pi * lowest / (n * fine) * (fine - 1) / 2)
        magnitude.append(np.abs(np.fft.ifft(spectrum[lowest] * ramp)) / fine)
    lines = np.ones((n, 3, 3, 1)) * np.array(magnitude).T[:, None, None] * 1000
    field_hz = field_hz.reshape(n, fine).mean(axis=1)[:, None, None] * np.ones((n, 3, 3))
    return lines.astype(np.float32), field_hz.astype(np.float32)


@pytest.mark.parametrize("name", METHODS)
def test_echoes_that_have_left_k_space_are_left_out(name):
    magnitude, field_hz = encoded_in_k_space(25.0, TEN, 0.6)
    mask = np.zeros(magnitude.shape[:3], bool)
    mask[12:-12] = True
    turns = 0.6 * np.abs(np.arange(96) - 47.5)[12:-12] * TEN[-1]
    error, error_off = (
        np.abs(
            METHODS[name](
                magnitude, TEN, mask, field_hz, gradient_correction=correction
            ).r2star_per_s[12:-12, 1, 1]
            - 25.0
        )
        for correction in (True, False)
    )
    assert turns.max() > 0.8  # the last echo is lost far out
    assert error_off[turns > 0.55].mean() > 5
    assert error.mean() < 0.02 * 25
    # nothing is taken from what has no need of it (the noise level, of all voxels, differs)
    np.testing.assert_allclose(error[turns < 0.35], error_off[turns < 0.35], atol=0.02)


def test_two_echoes_are_never_left_out(rng):
    magnitude = echoes(25.0, FIVE[:2], 60.0, rng)
    _, steep = dephased(25.0, FIVE, 300.0, 60.0)
    mask = everywhere(magnitude)
    np.testing.assert_array_equal(
        nonlinear(magnitude, FIVE[:2], mask, steep).r2star_per_s,
        nonlinear(magnitude, FIVE[:2], mask).r2star_per_s,
    )


def test_field_changes_are_those_within_the_mask(rng):
    from bids_qsm.numerics.decay import field_changes

    field_hz = rng.normal(size=(5, 6, 4)).astype(np.float32)
    mask = rng.random((5, 6, 4)) < 0.7
    indices = np.flatnonzero(mask)
    found = field_changes(field_hz, mask, indices)
    for voxel, changes in zip(np.argwhere(mask), found, strict=True):
        for axis in range(3):
            ends = []
            for step in (-1, 1):
                end = voxel.copy()
                end[axis] += step
                inside = 0 <= end[axis] < mask.shape[axis] and mask[tuple(end)]
                ends.append(tuple(end if inside else voxel))
            span = ends[1][axis] - ends[0][axis]
            expected = (field_hz[ends[1]] - field_hz[ends[0]]) / span if span else 0.0
            assert changes[axis] == pytest.approx(expected, abs=1e-6)


def test_errors_are_sentences():
    magnitude = echoes(30.0, FIVE, 25.0)
    with pytest.raises(ValueError, match="at least two echoes"):
        nonlinear(magnitude[..., :1], FIVE[:1], everywhere(magnitude))
    with pytest.raises(ValueError, match="must fit the mask"):
        arlo(magnitude, FIVE[:4], everywhere(magnitude))
    with pytest.raises(ValueError, match="positive and rising"):
        loglinear(magnitude, FIVE[::-1], everywhere(magnitude))
    with pytest.raises(ValueError, match=r"the field .* must fit the mask"):
        nonlinear(magnitude, FIVE, everywhere(magnitude), np.zeros((3, 3, 3), np.float32))


def test_t2star_is_the_inverse_where_there_is_one():
    np.testing.assert_array_equal(
        t2star_s(np.array([0.0, 20.0, 50.0], np.float32)), np.array([0, 0.05, 0.02], np.float32)
    )

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import optimize

from bids_qsm.numerics import field
from bids_qsm.numerics.field import METHODS, linear, nonlinear, weighted_average
from bids_qsm.numerics.field_blocks import fit_voxels
from bids_qsm.numerics.geometry import Geometry

EVEN = (0.004, 0.010, 0.016, 0.022, 0.028)
UNEVEN = (0.003, 0.007, 0.013, 0.022, 0.036)
SHAPE = (24, 22, 20)
GEOMETRY = Geometry(SHAPE, (2.0, 2.0, 2.0))
EVERYWHERE = np.ones(SHAPE, bool)


def smooth_maps() -> tuple[np.ndarray, np.ndarray]:
    """Field (Hz) and phase offset (rad) that vary slowly."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    field_hz = 20 * x + 10 * y * z + 5 * np.sin(3 * z)
    phase0 = 0.8 * x**2 - 0.5 * y * z + 0.3 * z + 0.2
    return field_hz, phase0


def measured(te_s, snr, rng, phase0=None, r2star=20.0):
    """Unwrapped phase and magnitude of simulated echoes; the noise of each channel is 1."""
    te = np.asarray(te_s)
    field_hz, offset = smooth_maps()
    offset = offset if phase0 is None else np.full(SHAPE, phase0)
    true_phase = offset[..., None] + 2 * np.pi * field_hz[..., None] * te
    signal = snr * np.exp(-r2star * te + 1j * true_phase)
    if rng is not None:
        signal = signal + rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    phase = true_phase + np.angle(signal * np.exp(-1j * true_phase))
    return phase.astype(np.float32), np.abs(signal).astype(np.float32), field_hz, offset


@pytest.mark.parametrize("te_s", [EVEN, UNEVEN])
@pytest.mark.parametrize("offset", ["free", "smooth"])
@pytest.mark.parametrize("method", [nonlinear, linear])
def test_noise_free_field_and_offset_are_exact(te_s, offset, method):
    phase, magnitude, field_hz, phase0 = measured(te_s, 100.0, None)
    fit = method(phase, magnitude, te_s, EVERYWHERE, GEOMETRY, offset=offset)
    np.testing.assert_allclose(fit.field_hz, field_hz, atol=2e-3)
    np.testing.assert_allclose(fit.phase0_rad, phase0, atol=2e-4)
    assert fit.residual.max() < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_no_offset(name):
    phase, magnitude, field_hz, _ = measured(EVEN, 100.0, None, phase0=0.0)
    options = {} if name == "weighted-average" else {"offset": "zero"}
    fit = METHODS[name](phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, **options)
    np.testing.assert_allclose(fit.field_hz, field_hz, atol=1e-4)


def test_nonlinear_is_the_least_squares_solution(rng):
    phase, magnitude, _, _ = measured(UNEVEN, 8.0, rng)
    fit = nonlinear(phase, magnitude, UNEVEN, EVERYWHERE, GEOMETRY, offset="free")
    te = np.asarray(UNEVEN)
    for voxel in rng.integers(0, SHAPE, size=(25, 3)):
        p, m = phase[tuple(voxel)], magnitude[tuple(voxel)].astype(float)

        def residuals(parameters, p=p, m=m):
            e = m * (np.exp(1j * (parameters[0] + 2 * np.pi * parameters[1] * te - p)) - 1)
            return np.concatenate([e.real, e.imag])

        start = [fit.phase0_rad[tuple(voxel)], fit.field_hz[tuple(voxel)]]
        best = optimize.least_squares(residuals, start, x_scale=[1, 10], xtol=1e-12, ftol=1e-12)
        np.testing.assert_allclose(start, best.x, atol=1e-3)


def test_linear_is_the_weighted_straight_line(rng):
    phase, magnitude, _, _ = measured(UNEVEN, 30.0, rng)
    fit = linear(phase, magnitude, UNEVEN, EVERYWHERE, GEOMETRY, offset="free")
    for voxel in rng.integers(0, SHAPE, size=(10, 3)):
        slope, intercept = np.polyfit(UNEVEN, phase[tuple(voxel)], 1, w=magnitude[tuple(voxel)])
        assert fit.field_hz[tuple(voxel)] == pytest.approx(slope / (2 * np.pi), abs=1e-3)
        assert fit.phase0_rad[tuple(voxel)] == pytest.approx(intercept, abs=1e-4)


@pytest.mark.parametrize("snr", [15.0, 60.0])
@pytest.mark.parametrize(
    ("method", "options", "te_s"),
    [
        (nonlinear, {"offset": "free"}, EVEN),
        (nonlinear, {"offset": "smooth"}, EVEN),
        (nonlinear, {"offset": "smooth"}, UNEVEN),
        (nonlinear, {"offset": "zero"}, EVEN[:2]),
        (nonlinear, {"offset": "zero"}, EVEN[1:2]),
        (linear, {"offset": "free"}, EVEN[:3]),
        (weighted_average, {}, EVEN),
    ],
)
def test_noise_is_calibrated(method, options, te_s, snr, rng):
    known_offset = None if options.get("offset") in ("free", "smooth") else 0.0
    phase, magnitude, field_hz, _ = measured(te_s, snr, rng, known_offset)
    fit = method(phase, magnitude, te_s, EVERYWHERE, GEOMETRY, **options)
    z = (fit.field_hz - field_hz) / fit.noise_hz
    assert 0.90 <= np.mean(np.abs(z) < 1.96) <= 0.98
    assert abs(z.mean()) < 0.1


def test_smooth_offset_is_less_noisy_than_a_free_one(rng):
    phase, magnitude, field_hz, _ = measured(EVEN, 30.0, rng)
    error = {
        offset: np.std(
            nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, offset=offset).field_hz
            - field_hz
        )
        for offset in ("smooth", "free")
    }
    assert error["smooth"] < 0.6 * error["free"]


def test_a_turn_too_many_in_one_echo_hardly_matters_to_the_complex_fit(rng):
    phase, magnitude, field_hz, _ = measured(EVEN, 100.0, rng)
    phase[:2, ..., 1] += 2 * np.pi
    fits = [
        method(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, offset="free")
        for method in (nonlinear, linear)
    ]
    errors = [np.abs(fit.field_hz - field_hz)[:2].max() for fit in fits]
    assert errors[0] < 2.0 < errors[1]


@pytest.mark.parametrize("snr", [4.0, 40.0])
def test_more_steps_would_change_the_fit_by_less_than_a_hundredth_of_its_noise(snr, rng):
    phase, magnitude, _, _ = measured(EVEN, snr, rng)
    known = EVERYWHERE.ravel()
    data = field._listed(phase, magnitude, known.reshape(SHAPE))
    radians_per_hz = 2 * np.pi * np.asarray(EVEN)
    results = np.empty((6, known.size))
    fit_voxels(*data, radians_per_hz, np.zeros(known.size), True, 13, results)
    found, _, information, _, squares, _ = results
    p, m = (array.reshape(-1, len(EVEN)).astype(float) for array in (phase, magnitude))
    f, c = found.copy(), nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, offset="free")
    c = c.phase0_rad.ravel().astype(float)
    w = m**2
    s0, s1, s2 = (np.sum(w * radians_per_hz**k, axis=1) for k in range(3))
    for _ in range(40):
        e = w * np.sin(p - c[:, None] - f[:, None] * radians_per_hz)
        b0, b1 = e.sum(axis=1), (e * radians_per_hz).sum(axis=1)
        f += (s0 * b1 - s1 * b0) / (s0 * s2 - s1**2)
        c += (s2 * b0 - s1 * b1) / (s0 * s2 - s1**2)
    assert np.quantile(np.abs(f - found) * np.sqrt(information), 0.999) < 0.01
    exact = (2 * w * (1 - np.cos(p - c[:, None] - f[:, None] * radians_per_hz))).sum(axis=1)
    np.testing.assert_allclose(squares, exact, rtol=1e-3, atol=1e-3)


def voxel_by_voxel(phase, magnitude, te_s, free):
    """Field and squared residual of the same fit, without blocks and to the last digit."""
    turns = 2 * np.pi * np.asarray(te_s)
    found = np.zeros((2, len(phase)))
    for i, (p, w) in enumerate(zip(phase.astype(float), magnitude.astype(float) ** 2, strict=True)):
        design = np.stack([turns, np.ones_like(turns)], 1)[:, : 2 if free else 1]
        if free and (w > 0).sum() < 2:
            continue
        matrix = design.T @ (w[:, None] * design)
        fitted = np.linalg.solve(matrix, design.T @ (w * p))
        for _ in range(200):
            fitted = fitted + np.linalg.solve(matrix, design.T @ (w * np.sin(p - design @ fitted)))
        found[:, i] = fitted[0], 2 * w @ (1 - np.cos(p - design @ fitted))
    return found


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("n", [1, 127, 300])
def test_blocks_give_what_a_fit_of_each_voxel_gives(n, free, rng):
    phase, magnitude, _, _ = measured(UNEVEN, 20.0, rng, None if free else 0.0)
    data = [array.reshape(-1, len(UNEVEN)) for array in (phase, magnitude)]
    data[1][5, 1:], data[1][7, 3] = 0.0, 0.0
    indices = np.arange(0, 3 * n, 3) if n > 1 else np.array([5])
    turns = 2 * np.pi * np.asarray(UNEVEN)
    fit = np.empty((6, n))
    fit_voxels(*data, indices, turns, np.zeros(n), free, 13, fit)
    expected, squares = voxel_by_voxel(data[0][indices], data[1][indices], UNEVEN, free)
    off = np.abs(fit[0] - expected) * np.sqrt(fit[2])
    assert np.median(off) < 1e-4
    assert off.max() < 0.01
    np.testing.assert_allclose(fit[4], squares, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(fit[5], (data[1][indices].astype(float) ** 2).sum(axis=1))


def test_misfit_raises_the_noise(rng):
    phase, magnitude, _, _ = measured(EVEN, 60.0, rng)
    ordinary = nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY)
    phase[5, 5, 5] += [0.0, 0.5, -0.5, 0.5, 0.0]
    disturbed = nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY)
    assert disturbed.noise_hz[5, 5, 5] > 5 * ordinary.noise_hz[5, 5, 5]


def test_scaling_the_magnitude_changes_nothing(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    one, other = (
        nonlinear(phase, magnitude * np.float32(scale), EVEN, EVERYWHERE, GEOMETRY)
        for scale in (1.0, 1e4)
    )
    np.testing.assert_allclose(one.field_hz, other.field_hz, atol=1e-4)
    np.testing.assert_allclose(one.noise_hz, other.noise_hz, rtol=1e-4)


def test_flips_and_permutations(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    mask = rng.random(SHAPE) < 0.95
    geometry = Geometry(SHAPE, (1.0, 2.0, 3.0))
    there = nonlinear(phase, magnitude, EVEN, mask, geometry)
    turned = [np.flip(a.transpose(2, 0, 1, *range(3, a.ndim)), 1) for a in (phase, magnitude, mask)]
    permuted = Geometry((SHAPE[2], SHAPE[0], SHAPE[1]), (3.0, 1.0, 2.0))
    back = nonlinear(*turned[:2], EVEN, turned[2], permuted)
    np.testing.assert_allclose(
        np.flip(there.field_hz.transpose(2, 0, 1), 1), back.field_hz, atol=1e-4
    )


@pytest.mark.parametrize("name", METHODS)
def test_unusable_voxels_are_unknown(name, rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    clean = METHODS[name](phase, magnitude, EVEN, EVERYWHERE, GEOMETRY)
    phase[1, 1, 1, 2], magnitude[2, 2, 2, 0], magnitude[3, 3, 3] = np.nan, np.inf, 0.0
    mask = EVERYWHERE.copy()
    mask[4, 4, 4] = False
    fit = METHODS[name](phase, magnitude, EVEN, mask, GEOMETRY)
    for voxel in ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)):
        assert np.isinf(fit.noise_hz[voxel])
        assert fit.field_hz[voxel] == 0
    assert np.isinf(fit.noise_hz).sum() == 4
    np.testing.assert_allclose(fit.field_hz[10:], clean.field_hz[10:], atol=0.02)


def test_a_line_through_one_echo_is_unknown(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    magnitude[1, 1, 1, 1:] = 0.0
    fit = nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, offset="free")
    assert np.isinf(fit.noise_hz[1, 1, 1])
    assert fit.field_hz[1, 1, 1] == 0


def test_an_empty_mask_gives_an_unknown_field(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    fit = nonlinear(phase, magnitude, EVEN, ~EVERYWHERE, GEOMETRY)
    assert np.isinf(fit.noise_hz).all()
    assert not fit.field_hz.any()


def test_same_result_with_any_number_of_threads(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    before = numba.get_num_threads()
    try:
        fits = []
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            fits.append(nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(fits[0].field_hz, fits[1].field_hz)
    np.testing.assert_array_equal(fits[0].noise_hz, fits[1].noise_hz)


def test_errors_are_sentences(rng):
    phase, magnitude, _, _ = measured(EVEN, 30.0, rng)
    with pytest.raises(ValueError, match="offset must be one of smooth, free, zero"):
        nonlinear(phase, magnitude, EVEN, EVERYWHERE, GEOMETRY, offset="none")
    with pytest.raises(ValueError, match="must fit the grid"):
        field.linear(phase, magnitude, EVEN[:3], EVERYWHERE, GEOMETRY)
    with pytest.raises(ValueError, match="positive and differ"):
        field.linear(phase, magnitude, (0.004, 0.004, 0.01, 0.02, 0.03), EVERYWHERE, GEOMETRY)

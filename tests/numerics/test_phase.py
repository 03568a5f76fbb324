"""Stored phase: scales, wrapping, high-pass filters, alternating slices."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.numerics.phase import (
    _large_scale_spread_rad,
    all_whole,
    find_units_per_turn,
    looks_high_pass_filtered,
    to_polar,
    to_radians,
    undo_slice_alternation,
    wrap,
)

TURN = 2 * np.pi


@pytest.mark.parametrize(
    ("minimum", "maximum", "is_integer", "units"),
    [
        (-3.14159, 3.1405, False, TURN),
        (0.0, 6.2829, False, TURN),
        (-3142, 3141, True, 1000 * TURN),
        (-3141.59, 3140.9, False, 1000 * TURN),
        (0, 6283, True, 1000 * TURN),
        (0, 4095, True, 4096),
        (0.0, 4094.2, False, 4096),
        (-2048, 2047, True, 4096),
        (-4096, 4095, True, 8192),
        (-4096, 4094, True, 8192),
        (0, 65535, True, 65536),
        (-180, 179, True, 360),
        (0.0, 359.9, False, 360),
    ],
)
def test_every_vendor_s_range_has_its_scale(minimum, maximum, is_integer, units):
    assert find_units_per_turn(minimum, maximum, is_integer) == pytest.approx(units)


@pytest.mark.parametrize(
    ("minimum", "maximum", "is_integer", "words"),
    [
        (-0.00367, 0.00367, False, "from -0.00367 to 0.00367"),
        (-1.0, 1.0, False, "units_per_turn = X"),
        (-21.0, 35.0, False, "fits no known scale"),  # unwrapped
        (-2.0, 4.28, False, "fits no known scale"),  # one turn, but nowhere near a known one
        (-3, 3, True, "whole numbers from -3 to 3"),
        (0, 255, True, "fits no known scale"),
        (0, 3000, True, "fits no known scale"),
        (7.0, 7.0, False, "constant, with 7"),
        (np.nan, 3.0, False, "no numbers"),
        (-np.inf, 3.0, False, "no numbers"),
    ],
)
def test_other_ranges_are_refused_with_a_sentence(minimum, maximum, is_integer, words):
    with pytest.raises(ValueError, match=words) as error:
        find_units_per_turn(minimum, maximum, is_integer)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("units", "lowest", "step"),
    [(TURN, -np.pi, 0), (1000 * TURN, -1000 * np.pi, 1), (4096, 0, 1), (8192, -4096, 2)],
)
def test_all_echoes_are_scaled_by_one_rule(rng, units, lowest, step):
    phase = rng.uniform(-np.pi, np.pi, (9, 8, 7, 2))
    phase[..., 1] *= 0.3  # an echo that does not fill its turn
    stored = (phase + np.pi) / TURN * units
    stored = (np.floor(stored / step) * step if step else stored) + lowest
    stored = stored.astype(np.float32)
    found = find_units_per_turn(stored.min(), stored.max(), bool(step))

    radians = to_radians(stored.copy(), found)

    assert found == pytest.approx(units)
    assert radians.dtype == np.float32
    difference = np.angle(np.exp(1j * (radians - phase)))
    assert np.abs(difference).max() <= TURN * max(step, 0.001) / units * 1.01
    assert np.abs(radians).max() <= np.float32(np.pi)


def test_to_radians_needs_no_second_array_for_float32(rng):
    stored = rng.uniform(-3, 3, (5, 4, 3, 2)).astype(np.float32)
    assert to_radians(stored, TURN) is stored
    assert to_radians(np.zeros((2, 2, 2, 1), np.int16), 360.0).dtype == np.float32


def test_wrap_keeps_the_angle_and_the_half_open_interval(rng):
    angles = rng.uniform(-100, 100, 10_000).astype(np.float32)
    wrapped = wrap(angles)
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-4)
    assert np.abs(wrapped).max() <= np.float32(np.pi)
    pi = np.float32(np.pi)
    np.testing.assert_array_equal(wrap(np.array([-pi, pi, 0.0], np.float32)), [pi, pi, 0.0])


def test_whole_numbers(rng):
    stored = rng.integers(-50, 60, (5, 4, 3)).astype(np.float32)
    assert all_whole(stored)
    stored[3, 1, 2] += 0.5
    assert not all_whole(stored)


def test_polar_parts(rng):
    real, imaginary = rng.normal(size=(2, 5, 4, 3, 2)).astype(np.float32)
    signal = real + 1j * imaginary
    to_polar(real, imaginary)
    np.testing.assert_allclose(real, np.abs(signal), rtol=1e-6)
    np.testing.assert_allclose(imaginary, np.angle(signal), atol=1e-6)


def test_large_scale_spread_is_that_of_the_filtered_spectrum(rng):
    shape = (13, 10, 5)
    phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    magnitude = rng.random(shape).astype(np.float32)
    spectrum = np.fft.fftn(magnitude * np.exp(1j * phase))
    for axis, n in enumerate(shape):
        highest = min(3, (n - 1) // 2)
        periods = np.r_[0 : highest + 1, -highest:0]
        hann = np.cos(np.pi / 2 * periods / (highest + 1)) ** 2
        spectrum = np.moveaxis(np.moveaxis(spectrum, axis, -1)[..., periods] * hann, -1, axis)
    smooth = np.fft.ifftn(spectrum)
    strength = np.abs(smooth)
    resultant = abs((strength * smooth).sum()) / (strength**2).sum()
    expected = np.sqrt(-2 * np.log(resultant))
    assert _large_scale_spread_rad(phase, magnitude) == pytest.approx(expected, rel=1e-4)


def _homodyne(phase, magnitude, n_pixels):
    """Divide each slice by its copy after a Hann window over ``n_pixels`` of k-space."""
    signal = magnitude * np.exp(1j * phase)
    spectrum = np.fft.fft2(signal, axes=(0, 1))
    for axis in (0, 1):
        k = np.fft.fftfreq(signal.shape[axis], 1 / signal.shape[axis])
        window = np.where(np.abs(k) < n_pixels / 2, np.cos(np.pi * k / n_pixels) ** 2, 0)
        spectrum *= window.reshape([-1 if i == axis else 1 for i in range(signal.ndim)])
    return np.angle(signal * np.fft.ifft2(spectrum, axes=(0, 1)).conj()).astype(np.float32)


def _head(rng, te_s):
    """Ball with a shim's field of some 15 Hz, fine structure and noise."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (96, 96, 32)), indexing="ij")
    x, y, z = axes
    ball = x**2 + y**2 + z**2 < 0.8
    field_hz = 25 * (x * y - z**2 + 0.5 * x) + 4 * np.sin(40 * x) * np.sin(35 * y)
    times = np.asarray(te_s)
    signal = ball[..., None] * np.exp(1j * TURN * field_hz[..., None] * times)
    noise = 0.02 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    signal = signal * np.exp(-20 * times) + noise
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


@pytest.mark.parametrize("te_s", [(0.02,), (0.005, 0.010, 0.020)])
def test_filtered_phase_is_told_from_unfiltered(rng, te_s):
    phase, magnitude = _head(rng, te_s)
    assert not looks_high_pass_filtered(phase, magnitude, te_s)
    assert not looks_high_pass_filtered(phase, 1000 * magnitude, te_s, magnitude[..., 0] > 0.3)
    for n_pixels in (32, 64):
        filtered = _homodyne(phase, magnitude, n_pixels)
        assert looks_high_pass_filtered(filtered, magnitude, te_s)
        shifted = wrap(filtered + np.float32(2))  # a constant does not hide it
        assert looks_high_pass_filtered(shifted, 0.01 * magnitude, te_s, magnitude[..., 0] > 0.3)


def test_noise_and_empty_magnitude_do_not_look_filtered(rng):
    phase = rng.uniform(-np.pi, np.pi, (12, 10, 3, 2)).astype(np.float32)
    assert not looks_high_pass_filtered(phase, np.ones_like(phase), (0.01, 0.02))
    assert not looks_high_pass_filtered(phase, np.zeros_like(phase), (0.01, 0.02))


@pytest.mark.shared
def test_real_phase_is_told_from_its_filtered_copy(shared_data):
    anat = shared_data / "philips3T" / "sub-philips" / "anat"
    phase, magnitude = (
        np.stack(
            [
                nib.load(anat / f"sub-philips_echo-{echo}_part-{part}_MEGRE.nii.gz").get_fdata()
                for echo in (1, 2)
            ],
            axis=-1,
        ).astype(np.float32)
        for part in ("phase", "mag")
    )
    te_s = (0.0023, 0.0046)
    assert find_units_per_turn(phase.min(), phase.max(), False) == pytest.approx(TURN)
    assert not looks_high_pass_filtered(phase, magnitude, te_s)
    assert looks_high_pass_filtered(_homodyne(phase, magnitude, 64), magnitude, te_s)


@pytest.mark.parametrize("n_slices", [3, 8])
def test_alternating_slices_are_undone(rng, n_slices):
    phase = rng.uniform(-1, 1, (16, 16, 1, 2)) + 0.6 * np.arange(n_slices)[:, None]
    real, imaginary = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
    sign = np.where(np.arange(n_slices) % 2, -1, 1).astype(np.float32)[:, None]

    fixed_real, fixed_imaginary, undone = undo_slice_alternation(real * sign, imaginary * sign)
    assert undone
    np.testing.assert_array_equal(fixed_real, real)
    np.testing.assert_array_equal(fixed_imaginary, imaginary)

    same_real, same_imaginary, undone = undo_slice_alternation(real.copy(), imaginary.copy())
    assert not undone
    np.testing.assert_array_equal(same_real, real)
    np.testing.assert_array_equal(same_imaginary, imaginary)

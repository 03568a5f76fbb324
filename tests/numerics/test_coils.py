"""Removal of the phase offset."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from bids_qsm.numerics.coils import left_in, looks_bipolar, mcpc3ds, off, second_echo
from bids_qsm.numerics.geometry import Geometry

TURN = 2 * np.pi
GEOMETRY = Geometry((44, 40, 36), (2.0, 2.0, 2.5))
EVEN = (0.004, 0.009, 0.014, 0.019)
UNEVEN = (0.0025, 0.0061, 0.0107, 0.0199)


def _coordinates():
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in GEOMETRY.shape), indexing="ij")


def _ball():
    x, y, z = _coordinates()
    return x**2 + y**2 + z**2 < 0.8


def _offset():
    """Smooth phase of several turns."""
    x, y, z = _coordinates()
    return 4.0 * (x**2 + 0.5 * y - z * x) + 1.5 * np.sin(2.5 * z) - 1.0


def _field_hz():
    x, y, z = _coordinates()
    return 60 * (x * y + z**2 - 0.4) + 8 * np.sin(9 * x) * np.cos(8 * y)


def _echoes(rng, te_s, offsets=None, snr=60.0):
    times = np.asarray(te_s)
    phase = (offsets if offsets is not None else _offset()[..., None]) + TURN * _field_hz()[
        ..., None
    ] * times
    signal = np.exp(1j * phase - 25 * times)
    signal = (
        signal + (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape)) / snr
    )
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


def _apart(a, b, mask):
    """Return angles between a and b in the mask, without their common angle."""
    between = np.exp(1j * (a - b))[mask]
    return np.angle(between * np.conj(between.mean()))


@pytest.mark.parametrize("te_s", [EVEN, UNEVEN, EVEN[:2]])
def test_a_smooth_offset_is_recovered(rng, te_s):
    mask = _ball()
    phase, magnitude = _echoes(rng, te_s)
    result = mcpc3ds(phase.copy(), magnitude, te_s, mask, GEOMETRY)

    assert result.warnings == ()
    assert result.offset_rad.dtype == result.phase.dtype == np.float32
    error = _apart(result.offset_rad, _offset(), mask)
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.abs(error).max() < 0.12  # at the rim
    # what is left is the field's alone, with no constant either
    for echo, te in enumerate(te_s):
        rest = np.angle(np.exp(1j * (result.phase[..., echo] - TURN * te * _field_hz())))[mask]
        assert abs(rest.mean()) < 0.01
        assert rest.std() < 1.2 / 60 * np.exp(25 * te)
    assert np.abs(result.phase).max() <= np.float32(np.pi)


def test_phase_outside_the_mask_is_left_alone(rng):
    mask = _ball()
    phase, magnitude = _echoes(rng, EVEN)
    result = mcpc3ds(phase.copy(), magnitude, EVEN, mask, GEOMETRY)
    np.testing.assert_array_equal(result.phase[~mask], phase[~mask])
    assert not result.offset_rad[~mask].any()


def test_the_number_of_threads_does_not_matter(rng):
    mask = _ball()
    phase, magnitude = _echoes(rng, EVEN)
    before = numba.get_num_threads()
    results = []
    for threads in (1, before):
        numba.set_num_threads(threads)
        results.append(mcpc3ds(phase.copy(), magnitude, EVEN, mask, GEOMETRY))
    np.testing.assert_array_equal(results[0].phase, results[1].phase)
    np.testing.assert_array_equal(results[0].offset_rad, results[1].offset_rad)


def test_voxels_far_smaller_than_the_bins(rng):
    """The same head in voxels of half the size, where bins hold several of them."""
    fine = Geometry(GEOMETRY.shape, (1.0, 1.0, 1.25))
    mask = _ball()
    phase, magnitude = _echoes(rng, EVEN)
    result = mcpc3ds(phase.copy(), magnitude, EVEN, mask, fine, sigma_mm=3.5)
    error = _apart(result.offset_rad, _offset(), mask)
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.abs(error).max() < 0.12


def test_magnitude_s_unit_does_not_matter(rng):
    mask = _ball()
    phase, magnitude = _echoes(rng, EVEN)
    one = mcpc3ds(phase.copy(), magnitude, EVEN, mask, GEOMETRY).offset_rad
    other = mcpc3ds(phase.copy(), magnitude * 4096, EVEN, mask, GEOMETRY).offset_rad
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_bipolar_readout_is_corrected(rng):
    mask = _ball()
    x, _, _ = _coordinates()
    delay = 1.3 * x + 0.4
    even = np.arange(len(UNEVEN)) % 2 == 1
    offsets = _offset()[..., None] + delay[..., None] * even
    phase, magnitude = _echoes(rng, UNEVEN, offsets)

    result = mcpc3ds(phase.copy(), magnitude, UNEVEN, mask, GEOMETRY, bipolar=True)
    assert result.warnings == ()
    for echo, te in enumerate(UNEVEN):
        error = _apart(result.phase[..., echo], TURN * te * _field_hz(), mask)
        assert error.std() < 1.2 / 60 * np.exp(25 * te)
    plain = mcpc3ds(phase.copy(), magnitude, UNEVEN, mask, GEOMETRY)
    error = _apart(plain.phase[..., 2], TURN * UNEVEN[2] * _field_hz(), mask)
    assert error.std() > 0.1, "the read-out direction should matter here"


def test_bipolar_readout_that_was_not_stated_is_noticed(rng):
    mask = _ball()
    x, y, _ = _coordinates()
    even = np.arange(len(EVEN)) % 2 == 1
    for delay in (0.4 * x, -0.5 * y + 0.2, 0 * x + 0.6):
        offsets = _offset()[..., None] + delay[..., None] * even
        phase, magnitude = _echoes(rng, EVEN, offsets, snr=20.0)
        assert looks_bipolar(phase, magnitude, EVEN, mask)
        (warning,) = mcpc3ds(phase.copy(), magnitude, EVEN, mask, GEOMETRY).warnings
        assert "bipolar = true" in warning
        stated = mcpc3ds(phase, magnitude, EVEN, mask, GEOMETRY, bipolar=True)
        assert stated.warnings == ()


@pytest.mark.parametrize("te_s", [EVEN, UNEVEN, EVEN[:2], EVEN[:1]])
@pytest.mark.parametrize("snr", [3.0, 60.0])
def test_ordinary_echoes_do_not_look_bipolar(rng, te_s, snr):
    phase, magnitude = _echoes(rng, te_s, snr=snr)
    assert not looks_bipolar(phase, magnitude, te_s, _ball())


def test_two_bipolar_echoes_fall_back_with_a_warning(rng):
    mask = _ball()
    phase, magnitude = _echoes(rng, EVEN[:2])
    result = mcpc3ds(phase.copy(), magnitude, EVEN[:2], mask, GEOMETRY, bipolar=True)
    assert "bipolar" in result.warnings[0]
    expected = mcpc3ds(phase.copy(), magnitude, EVEN[:2], mask, GEOMETRY)
    np.testing.assert_array_equal(result.phase, expected.phase)


def test_one_echo_is_left_alone_with_a_warning(rng):
    phase, magnitude = _echoes(rng, EVEN[:1])
    result = mcpc3ds(phase.copy(), magnitude, EVEN[:1], _ball(), GEOMETRY)
    assert "One echo" in result.warnings[0]
    np.testing.assert_array_equal(result.phase, phase)
    assert not result.offset_rad.any()


def test_off_changes_nothing(rng):
    phase, magnitude = _echoes(rng, EVEN)
    result = off(phase, magnitude, EVEN, _ball(), GEOMETRY)
    assert result.phase is phase
    assert not result.offset_rad.any()


@pytest.mark.parametrize(
    ("te_s", "expected"),
    [
        ((0.004, 0.010, 0.016), 1),
        ((0.006, 0.008, 0.010, 0.012), 2),
        ((0.020, 0.022, 0.024), 2),
        ((0.0001, 0.0046), 1),
    ],
)
def test_echoes_to_compare_are_far_enough_apart(te_s, expected):
    assert second_echo(te_s) == expected


def test_an_empty_mask_is_refused(rng):
    phase, magnitude = _echoes(rng, EVEN)
    with pytest.raises(ValueError, match="mask is empty"):
        mcpc3ds(phase, magnitude, EVEN, np.zeros(GEOMETRY.shape, bool), GEOMETRY)


def test_an_offset_that_is_left_in_is_said(rng) -> None:
    mask = np.ones((20, 20, 20), bool)
    mask[:2] = False
    ramp = np.linspace(-3, 3, 20, dtype=np.float32)[:, None, None] * np.ones(mask.shape, np.float32)
    assert "varies by 2.1 rad" in left_in(ramp, mask)[0]
    turned = np.float32(2.0) + np.float32(2 * np.pi) * rng.integers(-1, 2, mask.shape)
    assert left_in(turned.astype(np.float32), mask) == ()
    assert left_in(np.zeros(mask.shape, np.float32), ~mask & False) == ()

"""Every stored form means the same series."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.phantom.options import VENDORS
from bids_qsm.phantom.vendors import stored_parts

QUANTUM_RAD = {"radians": 1e-6, "siemens": 2 * np.pi / 4096, "siemens-signed": 2 * np.pi / 4096,
               "philips": 2 * np.pi / 4096}  # fmt: skip


@pytest.fixture
def signal(rng) -> np.ndarray:
    shape = (12, 10, 7, 3)
    size = rng.uniform(0.2, 1.0, shape)
    return (size * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))).astype(np.complex64)


def _read_phase(part, vendor):
    true = part.slope * part.data.astype(float) + part.intercept
    if vendor == "siemens":
        return true * 2 * np.pi / 4096 - np.pi
    if vendor == "siemens-signed":
        return true * np.pi / 4096
    return true


@pytest.mark.parametrize("vendor", sorted(QUANTUM_RAD))
def test_phase_is_kept_within_quantisation(signal, vendor):
    magnitude, phase = stored_parts(signal, vendor)
    assert (magnitude.name, phase.name) == ("mag", "phase")
    error = np.angle(np.exp(1j * (_read_phase(phase, vendor) - np.angle(signal))))
    assert np.abs(error).max() <= QUANTUM_RAD[vendor] * 0.51
    ratio = magnitude.data / np.abs(signal)
    assert np.ptp(ratio) / ratio.mean() < (0.01 if vendor != "radians" else 1e-5)


@pytest.mark.parametrize(
    ("vendor", "lowest", "highest", "dtype", "units"),
    [
        ("radians", -np.pi, np.pi, np.float32, "rad"),
        ("siemens", 0, 4095, np.int16, "arbitrary"),
        ("siemens-signed", -4096, 4094, np.int16, "arbitrary"),
        ("philips", 0, 4095, np.int16, "rad"),
    ],
)
def test_range_and_type_are_the_vendors(signal, vendor, lowest, highest, dtype, units):
    phase = stored_parts(np.tile(signal, (20, 1, 1, 1)), vendor)[1]
    assert phase.data.dtype == dtype and phase.units == units
    assert lowest - 1e-6 <= phase.data.min() and phase.data.max() <= highest + 1e-6
    assert np.ptp(phase.data) > 0.99 * (highest - lowest)


def test_ge_changes_sign_from_slice_to_slice(signal):
    real, imaginary = stored_parts(signal, "ge")
    assert (real.name, imaginary.name) == ("real", "imag") and real.data.dtype == np.int16
    sign = np.where(np.arange(7) % 2, -1, 1)[None, None, :, None]
    ratio = (real.data + 1j * imaginary.data) / signal
    assert np.abs(np.angle(ratio * sign)).max() < 0.01


def test_fewer_bits_give_fewer_values(signal):
    big = np.tile(signal, (20, 1, 1, 1))
    magnitude, phase = stored_parts(big, "siemens", bits=8)
    assert np.unique(phase.data).size == 256 and phase.data.max() == 4080
    assert 120 < magnitude.data.max() < 140


def test_unknown_vendor_is_refused(signal):
    assert "radians" in VENDORS
    with pytest.raises(ValueError, match="vendor"):
        stored_parts(signal, "hitachi")

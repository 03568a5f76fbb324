"""The total field of series with one, two and many echoes, with either read-out."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.bids.echoes import Echoes
from bids_qsm.choices import method
from bids_qsm.numerics.geometry import Geometry
from bids_qsm.participant import FIELD_STEPS, fit_total_field
from bids_qsm.settings import processing_from

GEOMETRY = Geometry((44, 48, 40), (2.0, 2.0, 2.5))
SNR = 50.0
TWELVE = tuple(0.003 + 0.0028 * n for n in range(12))


def _coordinates() -> list[np.ndarray]:
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in GEOMETRY.shape), indexing="ij")


def _field_hz() -> np.ndarray:
    x, y, z = _coordinates()
    return 40 * (x * y + z**2 - 0.4) + 6 * np.sin(9 * x) * np.cos(8 * y)


def _brain() -> np.ndarray:
    x, y, z = _coordinates()
    return x**2 + y**2 + z**2 < 0.8


def fitted(te_s, tables=None, offset=True, bipolar=False):
    """Return the total field of a simulated head by the methods that the settings ask for."""
    rng = np.random.default_rng(5)
    x, y, z = _coordinates()
    phase = 2 * np.pi * _field_hz()[..., None] * np.asarray(te_s)
    if offset:
        phase = phase + (2.0 * x**2 - 1.5 * y * z + 0.8 * z + 0.4)[..., None]
    if bipolar:
        phase = phase + (1.1 * x + 0.3)[..., None] * (np.arange(len(te_s)) % 2)
    signal = np.where(_brain()[..., None], np.exp(1j * phase - 20 * np.asarray(te_s)), 0)
    signal = signal + (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)) / SNR
    magnitude, wrapped = np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32)
    echoes = Echoes(magnitude, wrapped, tuple(te_s), 3.0, GEOMETRY, np.eye(4), ())
    processing = processing_from(tables or {})
    chosen = {step: method(processing, step) for step in FIELD_STEPS}
    return fit_total_field(echoes, magnitude.mean(axis=3), _brain(), chosen)


def error_hz(total) -> np.ndarray:
    assert total.mask[_brain()].mean() > 0.85
    return (total.field_hz - _field_hz())[total.mask & _brain()]


def noise_hz(te_s) -> float:
    """Return the field's standard deviation by theory, the phase at TE = 0 being known."""
    te = np.asarray(te_s)
    return 1 / (2 * np.pi * SNR * np.sqrt((te**2 * np.exp(-40 * te)).sum()))


@pytest.mark.parametrize("unwrapping", ["romeo", "laplacian", "best-path"])
@pytest.mark.parametrize("te_s", [(0.005, 0.012), (0.004, 0.010, 0.017), TWELVE])
def test_offset_and_field_are_told_apart(te_s, unwrapping) -> None:
    """Within 0.5 Hz of bias and 1.3 times the theory's noise, with two echoes and more."""
    total = fitted(te_s, {"unwrapping": {"method": unwrapping}})
    error = error_hz(total)
    assert total.warnings == ()
    assert abs(np.median(error)) < 0.5
    assert np.percentile(np.abs(error - np.median(error)), 68) < 1.3 * noise_hz(te_s)
    assert np.mean(np.abs(error) > 8 * noise_hz(te_s)) < 1e-3


def test_single_echo() -> None:
    """Within the theory's noise, if there is no offset; that one stays in it is said."""
    total = fitted((0.02,), offset=False)
    error = error_hz(total)
    assert "One echo" in total.warnings[0]
    assert abs(np.median(error)) < 0.1
    assert error.std() < 1.3 * noise_hz((0.02,))
    x, y, z = _coordinates()
    with_offset = fitted((0.02,))
    expected = (2.0 * x**2 - 1.5 * y * z + 0.8 * z + 0.4) / (2 * np.pi * 0.02)
    both = with_offset.mask & total.mask
    difference = (with_offset.field_hz - total.field_hz - expected)[both]
    # the two have the same noise, turned by the offset
    assert abs(difference.mean()) < 0.05
    assert difference.std() < 2 * noise_hz((0.02,))


@pytest.mark.parametrize("te_s", [TWELVE[:3], TWELVE[:5], TWELVE])
def test_bipolar_readout_by_the_settings(te_s) -> None:
    """Within 0.5 Hz and twice the theory's noise: half of the echoes tell each offset."""
    total = fitted(te_s, {"offset": {"method": "mcpc3ds", "bipolar": True}}, bipolar=True)
    error = error_hz(total)
    assert total.warnings == ()
    assert abs(np.median(error)) < 0.5
    assert np.percentile(np.abs(error - np.median(error)), 68) < 2 * noise_hz(te_s)


def test_bipolar_readout_that_is_not_stated_is_warned_of() -> None:
    total = fitted(TWELVE, bipolar=True)
    assert "bipolar = true" in total.warnings[0]


def test_two_bipolar_echoes_leave_a_linear_field_alone() -> None:
    """Their delay cannot be told from a gradient, which the background's removal takes off."""
    te_s = (0.005, 0.012)
    total = fitted(te_s, {"offset": {"method": "mcpc3ds", "bipolar": True}}, bipolar=True)
    assert "bipolar" in total.warnings[0]
    inside = total.mask & _brain()
    x, y, z = (axis[inside] for axis in _coordinates())
    terms = np.stack([np.ones(x.size), x, y, z], axis=1)
    error = error_hz(total)
    ramp, *_ = np.linalg.lstsq(terms, error, rcond=None)
    assert ramp[1] == pytest.approx(1.1 / (2 * np.pi * 0.007), rel=0.1)
    assert np.percentile(np.abs(error - terms @ ramp), 68) < 1.5 * noise_hz(te_s)

"""Combination of single coils."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bids_qsm.numerics.coil_combination import combine_coils
from bids_qsm.numerics.coils import mcpc3ds
from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.phase import wrap

TURN = 2 * np.pi
GEOMETRY = Geometry((36, 40, 28), (3.0, 2.5, 4.0))
TE_S = (0.005, 0.011, 0.018)
N_COILS = 8
R2STAR = 20.0


def _coordinates():
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in GEOMETRY.shape), indexing="ij")


def _head():
    x, y, z = _coordinates()
    return x**2 + y**2 + z**2 < 0.8


def _field_hz():
    x, y, z = _coordinates()
    return 50 * (x * y + z**2 - 0.4) + 6 * np.sin(7 * x) * np.cos(6 * y)


def _sensitivities():
    """Coils at the corners of a cube: near ones are bright, and each has a phase of its own."""
    x, y, z = _coordinates()
    for number, (a, b, c) in enumerate(itertools.product((-1.3, 1.3), repeat=3)):
        distance = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)
        yield np.exp(-1.2 * distance + 1j * (1.7 * number + 1.5 * distance + 0.8 * a * y))


@pytest.fixture(scope="module")
def coils():
    """Signals of all coils, shape (coil, x, y, z, echo), with noise, and without."""
    rng = np.random.default_rng(11)
    times = np.asarray(TE_S)
    truth = _head()[..., None] * np.exp((TURN * 1j * _field_hz()[..., None] - R2STAR) * times)
    clean = np.stack([s[..., None] * truth for s in _sensitivities()])
    noise = rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)
    return (clean + _SIGMA * noise).astype(np.complex64), clean.astype(np.complex64)


_SIGMA = 0.01


def combined(signals, te_s=TE_S):
    return combine_coils(lambda coil: signals[coil], len(signals), te_s, GEOMETRY)


def _inner_head():
    x, y, z = _coordinates()
    return x**2 + y**2 + z**2 < 0.65


def test_phase_is_the_field_s_but_for_a_common_offset(coils):
    inside = _inner_head()
    _, phase = combined(coils[1])
    assert phase.dtype == np.float32
    rest = [wrap(phase[..., e] - (TURN * te * _field_hz())) for e, te in enumerate(TE_S)]
    for other in rest[1:]:  # all echoes have the same
        assert np.abs(wrap(other - rest[0])[inside]).max() < 1e-3
    assert np.abs(np.diff(np.unwrap(rest[0], axis=0), axis=0)[inside[1:] & inside[:-1]]).max() < 0.3


def test_magnitude_is_that_of_the_sum_of_squares_and_decays_as_the_tissue(coils):
    inside = _inner_head()
    magnitude, _ = combined(coils[1])
    assert magnitude.dtype == np.float32
    squares = np.sqrt((np.abs(coils[1]) ** 2).sum(axis=0))
    # within the smoothing's bias of the weights
    ratio = magnitude[inside] / squares[inside]
    assert np.all((ratio > 0.97) & (ratio < 1.0001))
    decay = magnitude[inside, 2] / magnitude[inside, 0]
    np.testing.assert_allclose(decay, np.exp(-R2STAR * (TE_S[2] - TE_S[0])), rtol=1e-4)


def test_noise_is_that_of_the_best_combination(coils):
    inside = _inner_head()
    noisy, phase = combined(coils[0])
    clean, clean_phase = combined(coils[1])
    for echo in range(len(TE_S)):
        noise = (noisy - clean)[inside, echo]
        assert noise.std() == pytest.approx(_SIGMA, rel=0.1)
        assert abs(noise.mean()) < 0.1 * _SIGMA
    # the offset that all echoes share has noise of its own, which is smooth
    rotation = wrap(phase - clean_phase)[inside]
    deviation = _SIGMA * np.hypot(1 / clean[inside, 0], 1 / clean[inside, 2])
    z = wrap(rotation[:, 2] - rotation[:, 0]) / deviation
    assert z.std() == pytest.approx(1.0, rel=0.1)


def test_the_offset_s_removal_leaves_the_field_alone(coils):
    inside = _inner_head()
    magnitude, phase = combined(coils[0])
    free = mcpc3ds(phase, magnitude, TE_S, _head(), GEOMETRY).phase
    for echo, te in enumerate(TE_S):
        error = wrap(free[..., echo] - TURN * te * _field_hz())[inside]
        bound = 1.5 * _SIGMA / np.median(magnitude[inside, echo])
        assert abs(error.mean()) < 0.01
        assert error.std() < bound + 0.01


def test_phases_of_the_coils_do_not_matter(coils):
    turned = coils[0] * np.exp(1j * np.arange(N_COILS) ** 2)[:, None, None, None, None]
    one, other = combined(coils[0]), combined(turned.astype(np.complex64))
    inside = _inner_head()
    np.testing.assert_allclose(one[0], other[0], atol=1e-4)
    assert np.abs(wrap(one[1] - other[1])[inside]).max() < 1e-3


def test_order_of_the_coils_does_not_matter(coils):
    one, other = combined(coils[0]), combined(coils[0][::-1])
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)


def test_bipolar_readout_stays_in_the_phase_as_an_offset(coils):
    x, _, _ = _coordinates()
    ramp = np.stack([0 * x, 1.2 * x + 0.5, 0 * x], -1)
    _, plain = combined(coils[1])
    _, bipolar = combined((coils[1] * np.exp(1j * ramp)).astype(np.complex64))
    inside = _inner_head()
    between = wrap(wrap(bipolar - plain) - ramp.astype(np.float32))
    for echo in (1, 2):
        assert np.abs(wrap(between[..., echo] - between[..., 0])[inside]).max() < 1e-3


def test_two_coils_are_never_held_at_once(coils):
    asked = []

    def signal_of(coil):
        asked.append(coil)
        return coils[0][coil]

    combine_coils(signal_of, N_COILS, TE_S, GEOMETRY)
    assert asked == [*range(N_COILS)] * 2


def test_a_single_echo_is_refused(coils):
    with pytest.raises(ValueError, match="single echo cannot be combined"):
        combined(coils[0][..., :1], TE_S[:1])

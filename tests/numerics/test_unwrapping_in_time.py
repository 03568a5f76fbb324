"""The later echoes' kernels against a fit of each voxel by itself."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.geometry import bounding_box
from bids_qsm.numerics.unwrapping_in_time import predict_phase, unwrap_in_time

SHAPE = (5, 4, 3)
TE_S = np.array([0.004, 0.009, 0.015, 0.02])


@pytest.fixture
def measured(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase near a line through zero that turns often, magnitude, and a mask."""
    rate = rng.uniform(-1500, 1500, SHAPE)
    noise = rng.normal(0, 0.2, (*SHAPE, TE_S.size))
    phase = (rate[..., None] * TE_S + noise).astype(np.float32)
    magnitude = rng.uniform(0.3, 2, phase.shape).astype(np.float32)
    return phase, magnitude, rng.random(SHAPE) > 0.2


def fitted(phase: np.ndarray, magnitude: np.ndarray, known: list[int], echo: int) -> float:
    """Return what a line through zero, weighted by squared magnitude, says of an echo."""
    weights = magnitude[known].astype(float)
    slope = np.linalg.lstsq((weights * TE_S[known])[:, None], weights * phase[known], rcond=None)[0]
    return float(slope[0] * TE_S[echo])


@pytest.mark.parametrize(("known", "echo"), [([0, 1, 2], 3), ([2], 0), ([1, 3], 2)])
def test_prediction_is_a_weighted_line_through_zero(measured, known, echo) -> None:
    phase, magnitude, mask = measured
    predicted = predict_phase(phase, magnitude, TE_S, np.array(known), echo, mask)
    assert predicted[~mask].tolist() == [0] * np.count_nonzero(~mask)
    for voxel in np.argwhere(mask):
        expected = fitted(phase[tuple(voxel)], magnitude[tuple(voxel)], known, echo)
        assert predicted[tuple(voxel)] == pytest.approx(expected, abs=1e-4)


def test_echoes_get_the_turns_nearest_to_the_prediction(measured) -> None:
    phase, magnitude, mask = measured
    wrapped = np.angle(np.exp(1j * phase)).astype(np.float32)
    order = np.array([1, 0, 2, 3])
    unwrapped, (x, y, z) = wrapped.copy(), bounding_box(mask)
    template = np.ascontiguousarray(phase[x, y, z, 1])
    unwrap_in_time(template, (x.start, y.start, z.start), unwrapped, magnitude, TE_S, order, mask)
    assert not unwrapped[~mask].any()
    np.testing.assert_array_equal(unwrapped[mask][:, 1], phase[mask][:, 1])
    turns = (unwrapped - wrapped)[mask] / (2 * np.pi)
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-5)
    for place in (1, 2, 3):
        known, echo = order[:place], int(order[place])
        predicted = predict_phase(unwrapped, magnitude, TE_S, known, echo, mask)
        assert np.abs(unwrapped[..., echo] - predicted)[mask].max() <= np.pi + 1e-4
    true = np.abs(unwrapped - phase)[mask].max(axis=1) < 1e-3
    assert true.mean() > 0.95

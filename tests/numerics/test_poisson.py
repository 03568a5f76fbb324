"""Poisson's equation in a mask."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from bids_qsm.numerics.poisson import solve_poisson, wrapped_steps

TURN = 2 * np.pi


def _edges(mask):
    """Return the axis and the two flat voxels of each pair of neighbours in the mask."""
    number = np.arange(mask.size).reshape(mask.shape)
    for axis in range(3):
        low = np.moveaxis(number, axis, 0)[:-1].ravel()
        high = np.moveaxis(number, axis, 0)[1:].ravel()
        both = mask.ravel()[low] & mask.ravel()[high]
        yield from ((axis, a, b) for a, b in zip(low[both], high[both], strict=True))


def test_wrapped_steps_are_those_of_the_formula(rng):
    phase = rng.uniform(-20, 20, (5, 4, 6)).astype(np.float32)
    mask = rng.random(phase.shape) < 0.8
    steps = wrapped_steps(phase, mask)
    expected = np.zeros((3, phase.size))
    for axis, a, b in _edges(mask):
        expected[axis, a] = np.angle(np.exp(1j * (phase.flat[b] - float(phase.flat[a]))))
    np.testing.assert_allclose(steps.reshape(3, -1), expected, atol=1e-5)


def test_solution_is_the_dense_least_squares_solution(rng):
    mask = rng.random((5, 6, 4)) < 0.75
    steps = np.zeros((3, *mask.shape), np.float32)
    rows, right_side = [], []
    for axis, a, b in _edges(mask):
        steps[axis].flat[a] = rng.normal()
        row = np.zeros(mask.size)
        row[[a, b]] = -1, 1
        rows.append(row)
        right_side.append(steps[axis].flat[a])
    matrix = np.stack(rows)
    expected, *_ = np.linalg.lstsq(matrix, np.array(right_side), rcond=None)
    found = solve_poisson(steps, mask, tolerance=1e-6)
    np.testing.assert_allclose(matrix @ found.ravel(), matrix @ expected, atol=1e-4)
    assert not found[~mask].any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 1), (21, 18, 33), (48, 9, 8)])
def test_a_true_gradient_is_integrated_exactly(shape):
    x, y, z = np.indices(shape, np.float32)
    true = 0.9 * x - 0.02 * x * y + 0.4 * np.sin(z)
    mask = np.ones(shape, bool)
    mask[2::7, ::2, 3::6] = False
    steps = np.zeros((3, *shape), np.float32)
    for axis, a, b in _edges(mask):
        steps[axis].flat[a] = true.flat[b] - true.flat[a]
    error = (solve_poisson(steps, mask) - true)[mask]
    assert np.ptp(error) < 5e-3


def test_iterations_do_not_grow_with_the_grid():
    """The preconditioner is what makes this converge in so few steps."""
    for n in (16, 40):
        x, y, z = np.indices((n, n, n)) - (n - 1) / 2
        mask = x**2 + y**2 + z**2 < (n / 2.2) ** 2
        true = (x + 0.02 * x * y).astype(np.float32)
        steps = wrapped_steps(true, mask)
        error = (solve_poisson(steps, mask, max_iterations=12) - true)[mask]
        assert np.ptp(error) < 0.02


def test_the_result_does_not_depend_on_threads(rng):
    phase = rng.uniform(-np.pi, np.pi, (17, 14, 11)).astype(np.float32)
    mask = rng.random(phase.shape) < 0.9
    threads = numba.get_num_threads()
    expected = solve_poisson(wrapped_steps(phase, mask), mask)
    numba.set_num_threads(1)
    try:
        np.testing.assert_array_equal(solve_poisson(wrapped_steps(phase, mask), mask), expected)
    finally:
        numba.set_num_threads(threads)

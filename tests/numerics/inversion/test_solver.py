from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from scipy.sparse import linalg

from bids_qsm.numerics.geometry import dipole_kernel, forward_fft, inverse_fft
from bids_qsm.numerics.inversion.solver import (
    conjugate_gradient,
    edge_strength,
    gradient,
    gradient_adjoint,
    has_settled,
    inner,
    laplacian_spectrum,
    magnitude_edges,
    point_source_amplitude,
    step_sizes,
)


def test_inner_product_is_that_of_float64_whatever_the_threads(rng) -> None:
    a, b = rng.normal(size=(2, 31, 17, 13)).astype(np.float32)
    before = numba.get_num_threads()
    results = set()
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.add(inner(a, b))
    numba.set_num_threads(before)
    assert len(results) == 1
    assert results.pop() == pytest.approx(np.vdot(a.astype(float), b.astype(float)), rel=1e-12)


def test_gradient_is_that_of_numpy(oblique_geometry, rng) -> None:
    steps = step_sizes(oblique_geometry)
    volume = rng.normal(size=oblique_geometry.shape).astype(np.float32)
    expected = [(np.roll(volume, -1, i) - volume) / steps[i] for i in range(3)]
    np.testing.assert_allclose(gradient(volume, steps), expected, rtol=1e-5, atol=1e-6)


def test_steps_are_in_proportion_to_the_voxels_and_of_mean_one(oblique_geometry) -> None:
    steps = step_sizes(oblique_geometry)
    assert np.prod(steps) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(steps / steps[0], [1.0, 1.2, 1.9], rtol=1e-6)


def test_gradient_and_its_adjoint(oblique_geometry, rng, assert_adjoint) -> None:
    steps = step_sizes(oblique_geometry)
    volume = rng.normal(size=oblique_geometry.shape).astype(np.float32)
    field = rng.normal(size=(3, *oblique_geometry.shape)).astype(np.float32)
    assert_adjoint(
        lambda x: gradient(x, steps), lambda y: gradient_adjoint(y, steps), volume, field
    )


def test_laplacian_spectrum_is_that_of_gradient_and_adjoint(oblique_geometry, rng) -> None:
    steps = step_sizes(oblique_geometry)
    volume = rng.normal(size=oblique_geometry.shape).astype(np.float32)
    spectrum = forward_fft(volume) * laplacian_spectrum(oblique_geometry, steps)
    np.testing.assert_allclose(
        gradient_adjoint(gradient(volume, steps), steps),
        inverse_fft(spectrum, volume.shape),
        atol=2e-5,
    )


def test_conjugate_gradients_agree_with_scipy(rng) -> None:
    square = rng.normal(size=(60, 60))
    matrix = (square @ square.T + 20 * np.eye(60)).astype(np.float32)
    right = rng.normal(size=60).astype(np.float32)
    solution = conjugate_gradient(lambda x: matrix @ x, right, tolerance=1e-6, max_iterations=200)
    expected, failed = linalg.cg(matrix.astype(float), right.astype(float), rtol=1e-10)
    assert not failed
    assert solution.relative_residual <= 1e-6
    np.testing.assert_allclose(solution.value, expected, rtol=1e-3, atol=1e-5)


def test_conjugate_gradients_stop_at_the_limit_and_at_nothing() -> None:
    diagonal = np.arange(1, 31, dtype=np.float32)
    right = np.ones(30, np.float32)
    assert (
        conjugate_gradient(lambda x: diagonal * x, right, tolerance=0, max_iterations=4).iterations
        == 4
    )
    nothing = conjugate_gradient(lambda x: diagonal * x, 0 * right, tolerance=0.1, max_iterations=4)
    assert nothing.iterations == 0
    assert not nothing.value.any()


@pytest.mark.parametrize("depth", [24, 25])
def test_point_source_amplitude_is_the_centre_of_the_point_spread(oblique_geometry, depth) -> None:
    geometry = oblique_geometry.with_shape((22, 21, depth))
    response = np.abs(dipole_kernel(geometry))
    spread = np.fft.irfftn(response, s=geometry.shape, axes=(0, 1, 2))
    assert point_source_amplitude(response, depth) == pytest.approx(spread[0, 0, 0], rel=1e-5)


def test_a_preconditioner_saves_iterations_and_not_accuracy(rng) -> None:
    diagonal = np.geomspace(1, 1e4, 60).astype(np.float32)
    square = 0.1 * rng.normal(size=(60, 60))
    matrix = (np.diag(diagonal) + square @ square.T).astype(np.float32)
    right = rng.normal(size=60).astype(np.float32)
    plain = conjugate_gradient(lambda x: matrix @ x, right, tolerance=1e-5, max_iterations=500)
    better = conjugate_gradient(
        lambda x: matrix @ x,
        right,
        tolerance=1e-5,
        max_iterations=500,
        precondition=lambda x: x / diagonal,
    )
    assert better.iterations < plain.iterations / 2
    np.testing.assert_allclose(better.value, np.linalg.solve(matrix, right), rtol=1e-3, atol=1e-5)


def test_edge_strength_is_in_proportion_to_variance_over_spread(make_head) -> None:
    local = make_head().local
    strength, spread = edge_strength(local, 0.5)
    inside = local.field_ppm[local.mask]
    assert 0.2 * inside.std() < spread <= 1.5 * inside.std()
    assert strength == pytest.approx(0.5 * 0.0005**2 / spread, rel=1e-4)
    unknown = dataclasses.replace(local, noise_ppm=np.full_like(local.field_ppm, np.inf))
    assert edge_strength(unknown, 1.0)[0] == pytest.approx(1e-4 * spread, rel=1e-5)
    nothing = dataclasses.replace(local, field_ppm=np.zeros_like(local.field_ppm))
    assert edge_strength(nothing, 1.0) == (0.0, 0.0)


def test_edges_of_the_magnitude_are_the_largest_differences_in_the_mask(
    oblique_geometry, ball
) -> None:
    centre = (16.0, 14.0, 12.0)
    mask, nucleus = ball(oblique_geometry, centre, 12.0), ball(oblique_geometry, centre, 5.0)
    magnitude = np.where(mask, 2 - nucleus, 0).astype(np.float32)
    edges = magnitude_edges(magnitude, mask, 0.3, oblique_geometry)
    for axis in range(3):
        surface = nucleus != np.roll(nucleus, -1, axis)
        np.testing.assert_array_equal(edges[axis], surface)
    assert not magnitude_edges(mask.astype(np.float32), mask, 0.3, oblique_geometry).any()


@pytest.mark.parametrize("size", [1, 100, 40_000])
def test_a_map_has_settled_when_it_changed_by_less_than_a_share(size, rng) -> None:
    now = rng.normal(size=size).astype(np.float32)
    change = rng.normal(size=size).astype(np.float32)
    share = float(np.linalg.norm(change) / np.linalg.norm(now))
    assert has_settled(now - change, now, share * 1.001)
    assert not has_settled(now - change, now, share * 0.999)

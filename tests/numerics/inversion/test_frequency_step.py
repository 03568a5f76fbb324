from __future__ import annotations

import numba
import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry, dipole_kernel, forward_fft, inverse_fft
from bids_qsm.numerics.inversion.frequency_step import System, solve
from bids_qsm.numerics.inversion.solver import band_edge_penalty, laplacian_spectrum, step_sizes

OBLIQUE = tuple(np.array([0.2, -0.4, 0.9]) / np.linalg.norm([0.2, -0.4, 0.9]))
PENALTY = np.float32(1.3)


def solved_with_a_library(geometry, field, edges) -> tuple[np.ndarray, np.ndarray]:
    kernel = dipole_kernel(geometry)
    system = kernel**2 + PENALTY * laplacian_spectrum(geometry, step_sizes(geometry))
    system += band_edge_penalty(geometry)
    system[0, 0, 0] = 1
    chi = (kernel * forward_fft(field) + PENALTY * forward_fft(edges)) / system
    return inverse_fft(chi.copy(), geometry.shape), inverse_fft(kernel * chi, geometry.shape)


@pytest.mark.parametrize(
    "shape", [(40, 18, 15), (15, 14, 9), (8, 9, 10), (7, 70, 3), (1, 6, 5), (2, 1, 1)]
)
def test_a_step_is_that_of_a_library_s_transforms(shape, rng) -> None:
    geometry = Geometry(shape, (1.0, 0.8, 2.0), OBLIQUE)
    field, edges = rng.normal(size=(2, *shape)).astype(np.float32)
    chi, chi_field = solved_with_a_library(geometry, field, edges)
    solve(System.of(geometry, PENALTY), field, edges)
    np.testing.assert_allclose(field, chi, atol=2e-6 * np.abs(chi).max())
    np.testing.assert_allclose(edges, chi_field, atol=2e-6 * np.abs(chi).max())


def test_a_step_is_the_same_on_any_number_of_threads(rng) -> None:
    geometry = Geometry((30, 27, 20), (1.0, 0.8, 2.0), OBLIQUE)
    given = rng.normal(size=(2, *geometry.shape)).astype(np.float32)
    system, threads = System.of(geometry, PENALTY), numba.get_num_threads()
    found = []
    try:
        for n in (1, threads):
            numba.set_num_threads(n)
            field, edges = given.copy()
            solve(system, field, edges)
            found.append((field, edges))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(found[0], found[1])

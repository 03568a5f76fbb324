"""Hybrid data fidelity: edges are sparse, and what noise cannot explain pulls little."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numba
import numpy as np

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, crop, dipole_kernel, place
from bids_qsm.numerics.inversion.admm import Problem, State, advance, data_step
from bids_qsm.numerics.inversion.edges import RELAXATION
from bids_qsm.numerics.inversion.solver import edge_strength


def hd_qsm(
    local: FieldMap,
    *,
    regularisation: float = 0.8,
    outlier: float = 6.0,
    first_iterations: int = 30,
    edge_scale: float = 0.5,
    max_iterations: int = 60,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility with few edges: misfits count by size first, by square then.

    The first stage takes a few steps towards the minimum of
    :math:`\tau \|w (d * \chi - f)\|_1 + \lambda \|\nabla\chi\|_{2,1}`, whose misfits may be large
    where the field is wrong.  The second starts there and minimises
    :math:`\frac12 \|w' (d * \chi - f)\|^2 + \lambda \|\nabla\chi\|_{2,1}`, as ``tv`` does and
    with the same :math:`\lambda`, for it deals better with noise.  As that problem is convex, its
    solution would not depend on the start: voxels whose misfit *m* after the first stage is
    above :math:`\tau / w` therefore keep the pull that they had,
    :math:`w'^2 = w^2 \min(1, \tau / (w |m|))`.

    Parameters
    ----------
    local : FieldMap
        Local field.
    regularisation : float
        Sets :math:`\lambda`, as in ``tv``.
    outlier : float
        The factor of :math:`\tau` over the median noise: misfits above it are no longer noise.
    first_iterations : int
        Number of iterations of the first stage.
    edge_scale : float
        Edges shrink in steps of this times the field's spread: speed, not the solution.
    max_iterations, tolerance : int, float
        When to stop the second stage: number of iterations, relative change of the map in one.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some fourteen padded volumes.

    References
    ----------
    Lambert 2022, 10.1002/mrm.29218; Milovic 2022, 10.1002/mrm.28957 (the first stage).
    """
    brain, box = local.boxed()
    strength, spread = edge_strength(brain, regularisation)
    if not spread:
        return np.zeros(local.mask.shape, np.float32)
    problem = Problem.of(
        brain, strength=strength, threshold=edge_scale * spread, margin_mm=margin_mm
    )
    noise = np.sqrt(edge_strength(brain, 1.0)[0] * spread)
    stages = ((first_iterations, 0.0), (max_iterations, tolerance))
    found = _two_stages(problem, np.float32(outlier * noise), stages)
    inside = np.where(brain.mask, crop(found, brain.mask.shape), np.float32(0))
    return place(inside, box, local.mask.shape)


def _two_stages(
    problem: Problem, limit: np.float32, stages: tuple[tuple[int, float], tuple[int, float]]
) -> Float32:
    """Return the susceptibility on the padded grid; a stage is its iterations and tolerance."""
    state = State.zero(problem.geometry.shape)
    weights = np.sqrt(problem.weight)
    advance(state, problem, partial(_absolute_data_step, limit * weights), *stages[0])
    state.field = convolve(state.chi, dipole_kernel(problem.geometry))
    misfit = weights * np.abs(state.field - problem.field)
    weakened = problem.weight * np.minimum(1, limit / np.maximum(misfit, limit))
    state.split[:] = state.field
    state.dual[:] = 0  # that of the first stage is of another size
    advance(state, replace(problem, weight=weakened), data_step, *stages[1])
    return state.chi


def _absolute_data_step(
    limit: Float32, problem: Problem, field: Float32, split: Float32, dual: Float32
) -> None:
    """Do what the squared misfit's step does: here the dual is the misfit, up to the limit."""
    _limited_step(field, split, dual, problem.field, limit)


@numba.njit(parallel=True, cache=True)
def _limited_step(field, split, dual, measured, limit):  # type: ignore[no-untyped-def]
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                most = limit[x, y, z]
                new = relax * field[x, y, z] + (one - relax) * split[x, y, z] + dual[x, y, z]
                dual[x, y, z] = min(max(new - measured[x, y, z], -most), most)
                split[x, y, z] = new - dual[x, y, z]
                field[x, y, z] = new - 2 * dual[x, y, z]

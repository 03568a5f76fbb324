"""Hybrid data fidelity: edges are sparse, and what noise cannot explain pulls little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, convolve, crop, forward_fft, inverse_fft, place
from bids_qsm.numerics.inversion.solver import inner
from bids_qsm.numerics.inversion.tv import (
    _DATA_PENALTY,
    _LEAST_NOISE,
    _RELAXATION,
    _combine,
    _data_step,
    _edge_step,
    _edge_target,
    _noise_ppm,
    _Problem,
    _spread_ppm,
)


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
    spread = _spread_ppm(brain)
    if spread == 0:
        return np.zeros(local.mask.shape, np.float32)
    noise = max(_noise_ppm(brain), _LEAST_NOISE * spread)
    threshold = edge_scale * spread
    problem = _Problem.of(
        brain, regularisation * noise**2 / spread / threshold, threshold, margin_mm
    )
    stages = ((first_iterations, 0.0), (max_iterations, tolerance))
    found = _two_stages(problem, np.float32(outlier * noise), stages)
    inside = np.where(brain.mask, crop(found, brain.mask.shape), np.float32(0))
    return place(inside, box, local.mask.shape)


def _two_stages(
    problem: _Problem, limit: np.float32, stages: tuple[tuple[int, float], tuple[int, float]]
) -> Float32:
    """Return the susceptibility on the padded grid; a stage is its iterations and tolerance."""
    shape = problem.geometry.shape
    state = _State(
        np.zeros((3, *shape), np.float32), *(np.zeros(shape, np.float32) for _ in range(3))
    )
    weights = np.sqrt(_DATA_PENALTY * problem.share / (1 - problem.share))
    _advance(state, problem, _absolute_data_step, limit * weights / _DATA_PENALTY, stages[0])
    state.field = convolve(state.chi, problem.kernel)
    misfit = weights * np.abs(state.field - problem.field)
    squares = weights**2 * np.minimum(1, limit / np.maximum(misfit, limit))
    state.data[:] = state.field  # no dual: that of the first stage is of another size
    _advance(state, problem, _data_step, squares / (squares + _DATA_PENALTY), stages[1])
    return state.chi


@dataclass
class _State:
    """What ADMM hands from one iteration, and one stage, to the next."""

    edges: Float32
    data: Float32
    chi: Float32
    field: Float32


def _advance(
    state: _State,
    problem: _Problem,
    data_step: Callable[..., None],
    limit_or_share: Float32,
    stop: tuple[int, float],
) -> None:
    """Iterate until the map changes little, or often enough."""
    shape = problem.geometry.shape
    target = np.empty(shape, np.float32)
    for _ in range(stop[0]):
        data_step(state.field, state.data, problem.field, limit_or_share)
        _edge_target(state.edges, problem.steps, problem.threshold, target)
        chi_spectrum, field_spectrum = forward_fft(state.field), forward_fft(target)
        _combine(
            chi_spectrum, field_spectrum, problem.kernel, problem.inverse, problem.edge_penalty
        )
        change, state.chi = state.chi, inverse_fft(chi_spectrum, shape)
        state.field = inverse_fft(field_spectrum, shape)
        _edge_step(state.chi, state.edges, problem.steps, problem.threshold)
        change -= state.chi
        if inner(change, change) <= stop[1] ** 2 * inner(state.chi, state.chi):
            break


@numba.njit(parallel=True, cache=True)
def _absolute_data_step(field, data, measured, limit):  # type: ignore[no-untyped-def]
    """Do what the squared misfit's step does: here the dual is the misfit, up to the limit."""
    relax, one = _RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                most, here = limit[x, y, z], measured[x, y, z]
                dual = min(max(data[x, y, z] - here, -most), most)
                split = data[x, y, z] - dual
                new = relax * field[x, y, z] + (one - relax) * split + dual
                data[x, y, z] = new
                field[x, y, z] = new - 2 * min(max(new - here, -most), most)

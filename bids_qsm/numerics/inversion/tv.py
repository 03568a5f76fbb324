"""Susceptibility with sparse edges: weighted least squares with total variation, by ADMM."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Float32,
    Geometry,
    crop,
    dipole_kernel,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)
from bids_qsm.numerics.inversion.solver import inner, laplacian_spectrum, step_sizes

_RELAXATION = np.float32(1.7)
"""Over-relaxation of both splittings; 1 is plain ADMM, 2 the limit of convergence."""
_DATA_PENALTY = np.float32(1)
"""Penalty of the data splitting: the size of a typical squared weight."""


def tv(
    local: FieldMap,
    *,
    regularisation: float = 0.8,
    edge_scale: float = 0.5,
    max_iterations: int = 60,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility that explains the field with few and small edges.

    Minimises :math:`\frac12 \|w (d * \chi - f)\|^2 + \lambda \|\nabla\chi\|_{2,1}`, where the
    weights *w* are the inverse noise, of mean one, and
    :math:`\lambda = r \sigma^2 / s`, with the median noise :math:`\sigma` and the spread *s* of
    the field *f*: the most probable map if the noise is Gaussian and edges, of a size in
    proportion to the field, are exponentially distributed.  So one value of *r* serves every
    noise level, and the result scales with the field.  The data term is split from the
    regularisation, so that each step is solved exactly, in space or in frequency.

    Parameters
    ----------
    local : FieldMap
        Local field.
    regularisation : float
        The factor *r*.  For noise alone 0.4 is best; what background removal leaves behind is
        not in the noise, and with it 0.8 to 1.5 is, on simulated heads.
    edge_scale : float
        Edges shrink in steps of this times *s*: it changes the speed, not the solution.
    max_iterations, tolerance : int, float
        When to stop: number of iterations, relative change of the map in one.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some twelve padded volumes.

    References
    ----------
    Bilgic 2014, 10.1002/mrm.25029; Milovic 2018, 10.1002/mrm.27073 (the weighted data term);
    Eckstein and Bertsekas 1992, 10.1007/BF01581204 (over-relaxation).
    """
    brain, box = local.boxed()
    chi = np.zeros(local.mask.shape, np.float32)
    spread, noise = _spread_ppm(brain), _noise_ppm(brain)
    if spread > 0:
        strength = regularisation * max(noise, _LEAST_NOISE * spread) ** 2 / spread
        threshold = edge_scale * spread
        problem = _Problem.of(brain, strength / threshold, threshold, margin_mm)
        found = _admm(problem, max_iterations, tolerance)
        inside = np.where(brain.mask, crop(found, brain.mask.shape), np.float32(0))
        chi = place(inside, box, local.mask.shape)
    return chi


_LEAST_NOISE = 0.01
"""Noise over spread below which the regularisation stays: without it nothing tames the cone."""


def _spread_ppm(brain: FieldMap) -> float:
    """Return the field's standard deviation, from the quartiles: strong sources do not count."""
    lower, upper = np.percentile(brain.field_ppm[brain.mask], (25, 75))
    return float(upper - lower) / 1.349


def _noise_ppm(brain: FieldMap) -> float:
    noise = brain.noise_ppm[brain.mask]
    noise = noise[np.isfinite(noise)]
    return float(np.median(noise)) if noise.size else 0.0


@dataclass(frozen=True)
class _Problem:
    """What stays the same from step to step, on the padded grid."""

    field: Float32
    share: Float32  # of the data in the data step: w^2 / (w^2 + penalty)
    kernel: Float32
    inverse: Float32  # of the normal equations' spectrum
    steps: Float32
    edge_penalty: np.float32
    threshold: np.float32
    geometry: Geometry

    @staticmethod
    def of(brain: FieldMap, edge_penalty: float, threshold: float, margin_mm: float) -> _Problem:
        geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
        steps = step_sizes(geometry)
        kernel = dipole_kernel(geometry)
        inverse = _DATA_PENALTY * kernel**2
        inverse += np.float32(edge_penalty) * laplacian_spectrum(geometry, steps)
        inverse[0, 0, 0] = 1  # the mean is free: any value but 0
        np.reciprocal(inverse, out=inverse)
        share = pad(brain.weights(), geometry.shape) ** 2
        share /= share + _DATA_PENALTY
        field = pad(brain.field_ppm, geometry.shape)
        return _Problem(
            field,
            share,
            kernel,
            inverse,
            steps,
            np.float32(edge_penalty),
            np.float32(threshold),
            geometry,
        )


def _admm(problem: _Problem, max_iterations: int, tolerance: float) -> Float32:
    """Return the susceptibility on the padded grid."""
    shape = problem.geometry.shape
    edges = np.zeros((3, *shape), np.float32)
    data, chi, field = (np.zeros(shape, np.float32) for _ in range(3))
    edge_target = np.empty(shape, np.float32)
    for _ in range(max_iterations):
        _data_step(field, data, problem.field, problem.share)
        _edge_target(edges, problem.steps, problem.threshold, edge_target)
        chi_spectrum, field_spectrum = forward_fft(field), forward_fft(edge_target)
        _combine(
            chi_spectrum, field_spectrum, problem.kernel, problem.inverse, problem.edge_penalty
        )
        change = chi
        chi = inverse_fft(chi_spectrum, shape)
        field = inverse_fft(field_spectrum, shape)
        _edge_step(chi, edges, problem.steps, problem.threshold)
        change -= chi
        if inner(change, change) <= tolerance**2 * inner(chi, chi):
            break
    return chi


# In the kernels below one array holds what ADMM keeps as two.  With t = (gradient + scaled dual),
# the split variable is keep * t and the dual (1 - keep) * t; likewise for the data.


@numba.njit(parallel=True, cache=True)
def _data_step(field, data, measured, share):  # type: ignore[no-untyped-def]
    """Take the model's field into ``data``; leave the field that the model should have next."""
    relax, one = _RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                dual = share[x, y, z] * (data[x, y, z] - measured[x, y, z])
                split = data[x, y, z] - dual
                new = relax * field[x, y, z] + (one - relax) * split + dual
                data[x, y, z] = new
                field[x, y, z] = new - 2 * share[x, y, z] * (new - measured[x, y, z])


@numba.njit(inline="always")
def _keep(edges, x, y, z, threshold):  # type: ignore[no-untyped-def]
    """Return the factor by which soft thresholding shrinks an edge vector."""
    size = np.sqrt(edges[0, x, y, z] ** 2 + edges[1, x, y, z] ** 2 + edges[2, x, y, z] ** 2)
    return np.float32(1) - threshold / size if size > threshold else np.float32(0)


@numba.njit(parallel=True, cache=True)
def _edge_step(chi, edges, steps, threshold):  # type: ignore[no-untyped-def]
    """Take the gradient of ``chi`` into ``edges``."""
    relax, one = _RELAXATION, np.float32(1)
    nx, ny, nz = chi.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                old = one - relax * _keep(edges, x, y, z, threshold)
                here = chi[x, y, z]
                dx = relax * (chi[x1, y, z] - here) / steps[0]
                dy = relax * (chi[x, y1, z] - here) / steps[1]
                dz = relax * (chi[x, y, z1] - here) / steps[2]
                edges[0, x, y, z] = dx + old * edges[0, x, y, z]
                edges[1, x, y, z] = dy + old * edges[1, x, y, z]
                edges[2, x, y, z] = dz + old * edges[2, x, y, z]


@numba.njit(parallel=True, cache=True)
def _edge_target(edges, steps, threshold, out):  # type: ignore[no-untyped-def]
    """Write the adjoint of the gradient of the edges that ``chi`` should have next."""
    two, one = np.float32(2), np.float32(1)
    _, nx, ny, nz = edges.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                # index -1 is the last voxel: periodic
                here = two * _keep(edges, x, y, z, threshold) - one
                kx = two * _keep(edges, x - 1, y, z, threshold) - one
                ky = two * _keep(edges, x, y - 1, z, threshold) - one
                kz = two * _keep(edges, x, y, z - 1, threshold) - one
                out[x, y, z] = (
                    (kx * edges[0, x - 1, y, z] - here * edges[0, x, y, z]) / steps[0]
                    + (ky * edges[1, x, y - 1, z] - here * edges[1, x, y, z]) / steps[1]
                    + (kz * edges[2, x, y, z - 1] - here * edges[2, x, y, z]) / steps[2]
                )


@numba.njit(parallel=True, cache=True)
def _combine(first, second, kernel, inverse, edge_penalty):  # type: ignore[no-untyped-def]
    """From the spectra of both targets make those of chi (in ``first``) and its field."""
    nx, ny, nz = kernel.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                dipole = kernel[x, y, z]
                target = _DATA_PENALTY * dipole * first[x, y, z] + edge_penalty * second[x, y, z]
                first[x, y, z] = target * inverse[x, y, z]
                second[x, y, z] = dipole * first[x, y, z]

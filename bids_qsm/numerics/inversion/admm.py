"""ADMM for noise-weighted data and sparse edges: what inversions with total variation share.

The field of the map and the map's gradient are split off, so that each step is solved exactly, in
space or in frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Float32,
    Geometry,
    dipole_kernel,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
)
from bids_qsm.numerics.inversion.solver import (
    inner,
    laplacian_spectrum,
    magnitude_edges,
    step_sizes,
)

RELAXATION = np.float32(1.7)
"""Over-relaxation of all splittings; 1 is plain ADMM, 2 the limit of convergence."""
_NEWTON_STEPS = 4


@dataclass(frozen=True)
class Problem:
    """What stays the same from step to step, on the padded grid.

    Attributes
    ----------
    field, weight : ndarray of float32, shape (x, y, z)
        Field in ppm, and squared weights of mean about one, which is the data splitting's penalty.
    radians_per_ppm : float32
        Phase of a shift of 1 ppm, if complex signals are compared; 0: fields are.
    edge_penalty, threshold : float32
        Penalty of the gradient's splitting, and the edge (ppm) that it shrinks to nothing; the
        weight of the edges in the cost is their product.
    free : ndarray of uint8, shape (x, y, z)
        Bit *i* is set where the gradient along axis *i* is not penalised.
    geometry : Geometry
    """

    field: Float32
    weight: Float32
    radians_per_ppm: np.float32
    edge_penalty: np.float32
    threshold: np.float32
    free: np.ndarray
    geometry: Geometry

    @staticmethod
    def of(
        brain: FieldMap,
        *,
        strength: float,
        threshold: float,
        margin_mm: float,
        radians_per_ppm: float = 0.0,
        edge_fraction: float = 0.0,
    ) -> Problem:
        """Return the problem of a field map within a margin of zeros.

        ``strength`` is the weight of the edges, and ``edge_fraction`` the share of the magnitude's
        differences that are taken for edges of the map too, and are free.
        """
        geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
        free = np.zeros(geometry.shape, np.uint8)
        if edge_fraction > 0:
            edges = magnitude_edges(brain.magnitude, brain.mask, edge_fraction, brain.geometry)
            bits = (edges * np.array([1, 2, 4], np.uint8)[:, None, None, None]).sum(0)
            free = pad(bits.astype(np.uint8), geometry.shape)
        return Problem(
            pad(brain.field_ppm, geometry.shape),
            pad(brain.weights(), geometry.shape) ** 2,
            np.float32(radians_per_ppm),
            np.float32(strength / threshold),
            np.float32(threshold),
            free,
            geometry,
        )


def total_variation(problem: Problem, max_iterations: int, tolerance: float) -> Float32:
    """Return the susceptibility (ppm) on the padded grid that is best with sparse edges.

    Memory: some thirteen padded volumes.

    References
    ----------
    Bilgic 2014, 10.1002/mrm.25029; Milovic 2018, 10.1002/mrm.27073; Eckstein and Bertsekas 1992,
    10.1007/BF01581204 (over-relaxation).
    """
    shape, steps = problem.geometry.shape, step_sizes(problem.geometry)
    kernel = dipole_kernel(problem.geometry)
    inverse = kernel**2
    inverse += problem.edge_penalty * laplacian_spectrum(problem.geometry, steps)
    inverse[0, 0, 0] = 1  # the mean is free: any value but 0
    np.reciprocal(inverse, out=inverse)
    edges = np.zeros((3, *shape), np.float32)
    # a signal far from the one measured might settle a turn away from it: start there
    start = 1 if problem.radians_per_ppm else 0
    field, split = (np.float32(start) * problem.field for _ in range(2))
    dual, chi = (np.zeros(shape, np.float32) for _ in range(2))
    edge_target = np.empty(shape, np.float32)
    for _ in range(max_iterations):
        data_step(problem, field, split, dual)
        _edge_target(edges, steps, problem.threshold, problem.free, edge_target)
        chi_spectrum, field_spectrum = forward_fft(field), forward_fft(edge_target)
        _combine(chi_spectrum, field_spectrum, kernel, inverse, problem.edge_penalty)
        change = chi
        chi = inverse_fft(chi_spectrum, shape)
        field = inverse_fft(field_spectrum, shape)
        _edge_step(chi, edges, steps, problem.threshold, problem.free)
        change -= chi
        if inner(change, change) <= tolerance**2 * inner(chi, chi):
            break
    return chi


def data_step(problem: Problem, field: Float32, split: Float32, dual: Float32) -> None:
    """Move the split-off field and its dual on; leave in ``field`` what the model's should be."""
    if problem.radians_per_ppm:
        _signal_step(field, split, dual, problem.field, problem.weight, problem.radians_per_ppm)
    else:
        _field_step(field, split, dual, problem.field, problem.weight)


@numba.njit(parallel=True, cache=True)
def _field_step(field, split, dual, measured, weight):  # type: ignore[no-untyped-def]
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                new = relax * field[x, y, z] + (one - relax) * split[x, y, z] + dual[x, y, z]
                share = weight[x, y, z] / (weight[x, y, z] + one)
                dual[x, y, z] = share * (new - measured[x, y, z])
                split[x, y, z] = new - dual[x, y, z]
                field[x, y, z] = new - 2 * dual[x, y, z]


@numba.njit(cache=True)
def nearest_signal(offset, weight, scale):  # type: ignore[no-untyped-def]
    """Return the d with the least weight (1 - cos(scale d)) / scale^2 + (d - offset)^2 / 2.

    Newton's method from the solution for small angles; where the cosine is negative its size is
    taken, so that each step goes downhill.
    """
    one = np.float32(1)
    d = offset / (weight + one)
    for _ in range(_NEWTON_STEPS):
        slope = weight * np.sin(scale * d) / scale + d - offset
        d -= slope / (one + weight * abs(np.cos(scale * d)))
    return d


@numba.njit(parallel=True, cache=True)
def _signal_step(field, split, dual, measured, weight, scale):  # type: ignore[no-untyped-def]
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                new = relax * field[x, y, z] + (one - relax) * split[x, y, z] + dual[x, y, z]
                if weight[x, y, z] > 0:
                    offset = new - measured[x, y, z]
                    dual[x, y, z] = offset - nearest_signal(offset, weight[x, y, z], scale)
                split[x, y, z] = new - dual[x, y, z]
                field[x, y, z] = new - 2 * dual[x, y, z]


# In the kernels below one array holds what ADMM keeps as two.  With t = (gradient + scaled dual),
# the split variable is keep * t and the dual (1 - keep) * t.


@numba.njit(cache=True)
def _keep(edges, x, y, z, threshold, free):  # type: ignore[no-untyped-def]
    """Return the factor by which soft thresholding shrinks the penalised part of an edge."""
    bits = free[x, y, z]
    squared = np.float32(0)
    for axis in range(3):
        if not (bits >> axis) & 1:
            squared += edges[axis, x, y, z] ** 2
    size = np.sqrt(squared)
    return np.float32(1) - threshold / size if size > threshold else np.float32(0)


@numba.njit(parallel=True, cache=True)
def _edge_step(chi, edges, steps, threshold, free):  # type: ignore[no-untyped-def]
    """Take the gradient of ``chi`` into ``edges``."""
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = chi.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                bits = free[x, y, z]
                here = chi[x, y, z]
                keep = _keep(edges, x, y, z, threshold, free)
                dx = relax * (chi[x1, y, z] - here) / steps[0]
                dy = relax * (chi[x, y1, z] - here) / steps[1]
                dz = relax * (chi[x, y, z1] - here) / steps[2]
                edges[0, x, y, z] = (
                    dx + (one - relax * (one if bits & 1 else keep)) * edges[0, x, y, z]
                )
                edges[1, x, y, z] = (
                    dy + (one - relax * (one if bits & 2 else keep)) * edges[1, x, y, z]
                )
                edges[2, x, y, z] = (
                    dz + (one - relax * (one if bits & 4 else keep)) * edges[2, x, y, z]
                )


@numba.njit(cache=True)
def _next_edge(edges, axis, x, y, z, threshold, free):  # type: ignore[no-untyped-def]
    """Return the split variable less the dual: what the gradient should be next."""
    edge = edges[axis, x, y, z]
    if (free[x, y, z] >> axis) & 1:
        return edge
    return (np.float32(2) * _keep(edges, x, y, z, threshold, free) - np.float32(1)) * edge


@numba.njit(parallel=True, cache=True)
def _edge_target(edges, steps, threshold, free, out):  # type: ignore[no-untyped-def]
    """Write the adjoint of the gradient of the edges that ``chi`` should have next."""
    _, nx, ny, nz = edges.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                # index -1 is the last voxel: periodic
                out[x, y, z] = (
                    (
                        _next_edge(edges, 0, x - 1, y, z, threshold, free)
                        - _next_edge(edges, 0, x, y, z, threshold, free)
                    )
                    / steps[0]
                    + (
                        _next_edge(edges, 1, x, y - 1, z, threshold, free)
                        - _next_edge(edges, 1, x, y, z, threshold, free)
                    )
                    / steps[1]
                    + (
                        _next_edge(edges, 2, x, y, z - 1, threshold, free)
                        - _next_edge(edges, 2, x, y, z, threshold, free)
                    )
                    / steps[2]
                )


@numba.njit(parallel=True, cache=True)
def _combine(first, second, kernel, inverse, edge_penalty):  # type: ignore[no-untyped-def]
    """From the spectra of both targets make those of chi (in ``first``) and its field."""
    nx, ny, nz = kernel.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                dipole = kernel[x, y, z]
                target = dipole * first[x, y, z] + edge_penalty * second[x, y, z]
                first[x, y, z] = target * inverse[x, y, z]
                second[x, y, z] = dipole * first[x, y, z]

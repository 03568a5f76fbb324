"""Laplacian boundary values: the background is the harmonic field with the total field's edge."""

from __future__ import annotations

import numba
import numpy as np
from scipy import ndimage

from bids_qsm.numerics.background.polynomial import without_polynomial
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, place
from bids_qsm.numerics.inversion.solver import conjugate_gradient

_COARSEST_VOXELS = 24
"""Below this size along every axis a grid is solved without a coarser one to start from."""


def lbv(
    total: FieldMap,
    *,
    peel_mm: float = 2.0,
    polynomial_order: int = 2,
    tolerance: float = 0.001,
    max_iterations: int = 200,
) -> FieldMap:
    """Subtract the solution of Laplace's equation whose boundary values are the total field's.

    At the mask's outermost voxels the local field is taken to be zero.  What it is there leaves a
    smooth error, and so do shims that do not solve Laplace's equation: a polynomial, fitted
    with weights from the noise, takes both.  The equation is solved by conjugate gradients from
    grid to ever finer grid.

    Parameters
    ----------
    total : FieldMap
        Total field.  The solution runs through voxels in which it is unknown.
    peel_mm : float
        What is taken off the mask first, where its outermost voxels are not to be trusted.
    polynomial_order : int
        Highest total power of the polynomial; -1 for none.
    tolerance : float
        Relative residual at which each grid's solution stops.
    max_iterations : int
        Most steps of the conjugate gradients on each grid.

    Returns
    -------
    FieldMap
        Local field.  Its mask lacks the boundary: one layer, and what was peeled.  Memory: some
        ten volumes of the mask's bounding box.

    References
    ----------
    Zhou 2014, 10.1002/nbm.3064; Bornemann and Deuflhard 1996, 10.1007/s002110050234 (cascadic
    multigrid).
    """
    brain, box = total.boxed()
    known = brain.mask & np.isfinite(brain.noise_ppm)
    # unknown voxels in the depth need no boundary of their own: the solution runs through them
    whole = ndimage.binary_fill_holes(known) & brain.mask
    domain = np.pad(_peeled(whole, brain.geometry, peel_mm), 1)
    known = np.pad(known, 1)
    field = np.where(domain & known, np.pad(brain.field_ppm, 1), np.float32(0))
    inside = ndimage.binary_erosion(domain)
    background = _harmonic(
        field, domain, inside, brain.geometry.voxel_mm, tolerance, max_iterations
    )
    local = without_polynomial(
        np.where(known, field - background, np.float32(0)),
        np.pad(brain.weights(), 1),
        inside,
        brain.geometry,
        polynomial_order,
    )
    local[~known] = 0
    core, shape = (slice(1, -1),) * 3, total.mask.shape
    return FieldMap(
        place(local[core], box, shape),
        total.noise_ppm,
        total.magnitude,
        place(inside[core], box, shape),
        total.geometry,
    )


def _peeled(mask: Bool, geometry: Geometry, peel_mm: float) -> Bool:
    """Return the voxels of the mask that are more than ``peel_mm`` from its outside."""
    if peel_mm <= 0:
        return mask
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=geometry.voxel_mm)
    return np.asarray(depth[(slice(1, -1),) * 3] > peel_mm)


def _harmonic(
    field: Float32,
    domain: Bool,
    inside: Bool,
    voxel_mm: tuple[float, ...],
    tolerance: float,
    max_iterations: int,
) -> Float32:
    """Return ``field`` with its values ``inside`` replaced by those that solve Laplace's equation.

    Arrays have at least one layer of voxels around ``inside``.
    """
    solution = np.where(inside, np.float32(0), field)
    if not inside.any():
        return solution
    weights = np.array([1 / v**2 for v in voxel_mm])
    weights = (weights / (2 * weights.sum())).astype(np.float32)

    def negative_laplacian(volume: Float32) -> Float32:
        out = np.zeros_like(volume)
        _negative_laplacian(volume, inside, weights, out)
        return out

    size = float(np.sqrt(np.sum(negative_laplacian(solution) ** 2, dtype=np.float64)))
    if max(field.shape) > _COARSEST_VOXELS:
        start = _from_coarser(field, domain, inside, voxel_mm, tolerance, max_iterations)
        solution[inside] = start[inside]
    residual = -negative_laplacian(solution)
    left = float(np.sqrt(np.sum(residual**2, dtype=np.float64)))
    if left > tolerance * size:
        solution += conjugate_gradient(
            negative_laplacian,
            residual,
            tolerance=tolerance * size / left,
            max_iterations=max_iterations,
        ).value
    return solution


def _from_coarser(
    field: Float32,
    domain: Bool,
    inside: Bool,
    voxel_mm: tuple[float, ...],
    tolerance: float,
    max_iterations: int,
) -> Float32:
    """Return the solution on the grid with voxels about twice as large, interpolated."""
    finest = min(voxel_mm)
    factors = [
        2 if v < 1.5 * finest and n > 3 else 1 for v, n in zip(voxel_mm, field.shape, strict=True)
    ]
    counts = _block_sums(domain.astype(np.float32), factors)
    means = _block_sums(np.where(domain, field, np.float32(0)), factors)
    np.divide(means, counts, out=means, where=counts > 0)
    coarse_inside = _block_sums(inside.astype(np.float32), factors) == np.prod(factors)
    coarse_mm = tuple(v * f for v, f in zip(voxel_mm, factors, strict=True))
    solution = _harmonic(
        np.pad(means, 1),
        np.pad(counts > 0, 1),
        np.pad(coarse_inside, 1),
        coarse_mm,
        tolerance,
        max_iterations,
    )
    coarse = solution[(slice(1, -1),) * 3]
    return _interpolated(coarse, counts > 0, factors, field.shape)


def _block_sums(volume: Float32, factors: list[int]) -> Float32:
    """Return sums over blocks; the last block may be cut short."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            volume = np.add.reduceat(volume, range(0, volume.shape[axis], factor), axis)
    return volume


def _interpolated(
    coarse: Float32, known: Bool, factors: list[int], shape: tuple[int, ...]
) -> Float32:
    """Return linear interpolation between the centres of those blocks that are known."""
    values, share = coarse * known, known.astype(np.float32)
    for axis, (factor, n) in enumerate(zip(factors, shape, strict=True)):
        if factor > 1:
            values, share = (_doubled(volume, axis, n) for volume in (values, share))
    return np.divide(values, share, out=np.zeros_like(values), where=share > 0)


def _doubled(volume: Float32, axis: int, n: int) -> Float32:
    """Return 3/4 of each voxel and 1/4 of its neighbour on that side, at twice the rate."""
    volume = np.moveaxis(volume, axis, 0)
    padded = np.concatenate([volume[:1], volume, volume[-1:]])
    out = np.empty((2 * len(volume), *volume.shape[1:]), np.float32)
    out[0::2] = np.float32(0.75) * volume + np.float32(0.25) * padded[:-2]
    out[1::2] = np.float32(0.75) * volume + np.float32(0.25) * padded[2:]
    return np.ascontiguousarray(np.moveaxis(out[:n], 0, axis))


@numba.njit(parallel=True, cache=True)
def _negative_laplacian(volume, inside, weights, out):  # type: ignore[no-untyped-def]
    """Write, inside, each voxel less its neighbours' mean, weighted by inverse squared distance."""
    nx, ny, nz = volume.shape
    wx, wy, wz = weights[0], weights[1], weights[2]
    for x in numba.prange(1, nx - 1):
        for y in range(1, ny - 1):
            for z in range(1, nz - 1):
                if inside[x, y, z]:
                    out[x, y, z] = (
                        volume[x, y, z]
                        - wx * (volume[x - 1, y, z] + volume[x + 1, y, z])
                        - wy * (volume[x, y - 1, z] + volume[x, y + 1, z])
                        - wz * (volume[x, y, z - 1] + volume[x, y, z + 1])
                    )

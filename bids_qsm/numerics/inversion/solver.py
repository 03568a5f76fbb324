"""Pieces that the inversions share: gradient and its adjoint, shrinkage, conjugate gradients.

All sums run in a fixed order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from bids_qsm.numerics.geometry import Float32, Geometry, frequencies


def inner(a: Float32, b: Float32) -> float:
    """Return the inner product of two equally shaped arrays, summed in float64.

    BLAS would sum in an order that depends on its threads.  Memory: one number for each plane.
    """
    rows = a.shape[0]
    return float(_partial_inner(a.reshape(rows, -1), b.reshape(rows, -1)).sum())


@numba.njit(parallel=True, cache=True)
def _partial_inner(a, b):  # type: ignore[no-untyped-def]
    partial = np.zeros(a.shape[0], np.float64)
    for i in numba.prange(a.shape[0]):
        total = 0.0
        for j in range(a.shape[1]):
            total += np.float64(a[i, j]) * np.float64(b[i, j])
        partial[i] = total
    return partial


def step_sizes(geometry: Geometry) -> Float32:
    """Return the voxel size along each axis over its geometric mean.

    Differences divided by it are per mean voxel: a regularisation weight keeps its meaning from
    one voxel size to the next, and anisotropic voxels are weighed by their true distance.
    """
    voxel = np.asarray(geometry.voxel_mm)
    return (voxel / np.prod(voxel) ** (1 / 3)).astype(np.float32)


def gradient(volume: Float32, steps: Float32) -> Float32:
    """Return periodic forward differences.

    Parameters
    ----------
    volume : ndarray of float32, shape (x, y, z)
    steps : ndarray of float32, shape (3,)
        Distance between neighbours along each axis.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Memory: three volumes.
    """
    out = np.empty((3, *volume.shape), np.float32)
    _gradient(volume, steps, out)
    return out


def gradient_adjoint(field: Float32, steps: Float32) -> Float32:
    """Return the adjoint of :func:`gradient` (minus the divergence); memory: one volume."""
    out = np.empty(field.shape[1:], np.float32)
    _gradient_adjoint(field, steps, out)
    return out


@numba.njit(parallel=True, cache=True)
def _gradient(volume, steps, out):  # type: ignore[no-untyped-def]
    nx, ny, nz = volume.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                here = volume[x, y, z]
                out[0, x, y, z] = (volume[x1, y, z] - here) / steps[0]
                out[1, x, y, z] = (volume[x, y1, z] - here) / steps[1]
                out[2, x, y, z] = (volume[x, y, z1] - here) / steps[2]


@numba.njit(parallel=True, cache=True)
def _gradient_adjoint(field, steps, out):  # type: ignore[no-untyped-def]
    _, nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                # index -1 is the last voxel: periodic
                out[x, y, z] = (
                    (field[0, x - 1, y, z] - field[0, x, y, z]) / steps[0]
                    + (field[1, x, y - 1, z] - field[1, x, y, z]) / steps[1]
                    + (field[2, x, y, z - 1] - field[2, x, y, z]) / steps[2]
                )


def laplacian_spectrum(geometry: Geometry, steps: Float32) -> Float32:
    """Return the half spectrum of the adjoint of the gradient times the gradient (>= 0)."""
    total = np.float32(0)
    for k, voxel, step in zip(frequencies(geometry), geometry.voxel_mm, steps, strict=True):
        total = total + (2 * np.sin(np.pi * k * np.float32(voxel)) / step) ** 2
    return np.asarray(total, np.float32)


@dataclass(frozen=True)
class Solution:
    """What :func:`conjugate_gradient` found, and after how many iterations."""

    value: Float32
    iterations: int
    relative_residual: float


def conjugate_gradient(
    normal: Callable[[Float32], Float32],
    right_side: Float32,
    *,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Solve ``normal(x) = right_side`` for a positive semi-definite operator, from zero.

    Stops when the residual's norm falls below ``tolerance`` times that of the right side.
    Memory: three arrays of the size of ``right_side``, and what ``normal`` takes.

    References
    ----------
    Hestenes and Stiefel 1952, 10.6028/jres.049.044.
    """
    x = np.zeros_like(right_side)
    residual = right_side.copy()
    direction = right_side.copy()
    start = squared = inner(residual, residual)
    iteration = 0
    while iteration < max_iterations and squared > tolerance**2 * start:
        image = normal(direction)
        curvature = inner(direction, image)
        if curvature <= 0:  # the rest of the right side lies in the null space
            break
        step = np.float32(squared / curvature)
        _add_scaled(x, direction, step)
        _add_scaled(residual, image, -step)
        previous, squared = squared, inner(residual, residual)
        direction *= np.float32(squared / previous)
        direction += residual
        iteration += 1
    return Solution(x, iteration, float(np.sqrt(squared / start)) if start else 0.0)


def _add_scaled(target: Float32, other: Float32, scale: np.float32) -> None:
    """Add ``scale * other`` to ``target`` without a temporary array."""
    rows = target.shape[0]
    _add_scaled_rows(target.reshape(rows, -1), other.reshape(rows, -1), scale)


@numba.njit(parallel=True, cache=True)
def _add_scaled_rows(target, other, scale):  # type: ignore[no-untyped-def]
    for i in numba.prange(target.shape[0]):
        for j in range(target.shape[1]):
            target[i, j] += scale * other[i, j]

"""Poisson's equation in a mask: the volume whose steps between neighbours fit given ones.

A step is named by its axis and its lower voxel; ``steps[axis, x, y, z]`` leads from voxel
(x, y, z) to the next one along ``axis``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from scipy import fft

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.inversion.solver import inner

_TURN = 2 * math.pi


@njit(parallel=True, cache=True)
def wrapped_steps(phase: Float32, mask: Bool) -> Float32:
    """Return the steps of the phase (rad) between neighbours, wrapped; zero across the rim.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z)
        Wrapped or not.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
    """
    nx, ny, nz = phase.shape
    steps = np.zeros((3, nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                for axis in range(3):
                    here = (x, y, z)
                    there = (x + (axis == 0), y + (axis == 1), z + (axis == 2))
                    if there[0] == nx or there[1] == ny or there[2] == nz:
                        continue
                    if mask[here] and mask[there]:
                        step = phase[there] - phase[here]
                        steps[axis, x, y, z] = step - _TURN * np.rint(step / _TURN)
    return steps


@njit(parallel=True, cache=True)
def _divergence(steps, out):  # type: ignore[no-untyped-def]
    """Add up, in each voxel, the steps that lead to it less those that lead on."""
    nx, ny, nz = out.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                total = -steps[0, x, y, z] - steps[1, x, y, z] - steps[2, x, y, z]
                if x > 0:
                    total += steps[0, x - 1, y, z]
                if y > 0:
                    total += steps[1, x, y - 1, z]
                if z > 0:
                    total += steps[2, x, y, z - 1]
                out[x, y, z] = total


@njit(parallel=True, cache=True)
def _laplacian(volume, mask, out):  # type: ignore[no-untyped-def]
    """Add up each voxel's differences from its neighbours in the mask."""
    nx, ny, nz = volume.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                total = np.float32(0)
                if mask[x, y, z]:
                    here = volume[x, y, z]
                    if x > 0 and mask[x - 1, y, z]:
                        total += here - volume[x - 1, y, z]
                    if x + 1 < nx and mask[x + 1, y, z]:
                        total += here - volume[x + 1, y, z]
                    if y > 0 and mask[x, y - 1, z]:
                        total += here - volume[x, y - 1, z]
                    if y + 1 < ny and mask[x, y + 1, z]:
                        total += here - volume[x, y + 1, z]
                    if z > 0 and mask[x, y, z - 1]:
                        total += here - volume[x, y, z - 1]
                    if z + 1 < nz and mask[x, y, z + 1]:
                        total += here - volume[x, y, z + 1]
                out[x, y, z] = total


def solve_poisson(
    steps: Float32, mask: Bool, *, tolerance: float = 1e-4, max_iterations: int = 200
) -> Float32:
    """Return the volume whose steps within the mask are nearest, by least squares, to ``steps``.

    No step leads out of the mask (Neumann's condition at its rim).  Conjugate gradients, with the
    solution of the whole box by cosine transforms (its mirror images around it) as preconditioner:
    the number of iterations does not grow with the grid.

    Parameters
    ----------
    steps : ndarray of float32, shape (3, x, y, z)
        Zero where one end is not in the mask.
    mask : ndarray of bool, shape (x, y, z)
    tolerance : float
        Of the residual, relative to the right side.
    max_iterations : int

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        A constant is free in each connected part; zero outside the mask.  Memory: seven volumes.

    References
    ----------
    Ghiglia and Romero 1994, 10.1364/JOSAA.11.000107.
    """
    residual = np.zeros(mask.shape, np.float32)
    _divergence(steps, residual)
    solution = np.zeros(mask.shape, np.float32)
    applied = np.empty(mask.shape, np.float32)
    eigenvalues = _box_eigenvalues(mask.shape)
    goal = tolerance**2 * inner(residual, residual)
    direction, before = solution.copy(), 1.0
    for _ in range(max_iterations):
        if inner(residual, residual) <= goal:
            break
        preconditioned = _solve_box(residual, eigenvalues) * mask
        product = inner(residual, preconditioned)
        direction *= np.float32(product / before)
        direction += preconditioned
        before = product
        _laplacian(direction, mask, applied)
        length = np.float32(product / inner(direction, applied))
        solution += length * direction
        residual -= length * applied
    return solution


def _box_eigenvalues(shape: tuple[int, ...]) -> Float32:
    """Return those of the Laplacian on the whole box, in the order of the cosine transform."""
    total = np.zeros(shape, np.float32)
    for axis, n in enumerate(shape):
        own = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
        total += own.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    total[0, 0, 0] = np.inf  # the mean is free
    return total


def _solve_box(right_side: Float32, eigenvalues: Float32) -> Float32:
    spectrum = fft.dctn(right_side, norm="ortho")
    spectrum /= eigenvalues
    return np.asarray(fft.idctn(spectrum, norm="ortho", overwrite_x=True), np.float32)

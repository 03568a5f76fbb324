"""Values of a mask's voxels, gathered in bins of a few voxels, and brought back to the voxels.

What is smooth needs no more than one value every few millimetres: to unwrap and to blur it there
takes a small part of the time.

The values of a mask stand in one array, in the mask's order.  :func:`plane_starts` says where the
voxels of each plane ``x`` begin, so that the planes can be worked on at the same time; every sum
belongs to one plane or one bin, so that no result depends on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32

Bins = tuple[int, int, int]
"""Voxels in a bin along x, y, z."""

_TURN = np.float32(2 * math.pi)


def bins_of(size_mm: float, voxel_mm: tuple[float, float, float]) -> Bins:
    """Return the bins of whole voxels whose lengths are nearest to ``size_mm``."""
    x, y, z = (max(1, math.floor(size_mm / voxel + 0.5)) for voxel in voxel_mm)
    return x, y, z


def plane_starts(mask: Bool) -> NDArray[np.int64]:
    """Return where each plane's voxels begin among those of the mask, and their number."""
    return np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=(1, 2)))])


@njit(parallel=True, cache=True)
def echo_values(echoes: Float32, echo: int, mask: Bool, starts: NDArray[np.int64]) -> Float32:
    """Return an echo's values in the mask; ``echoes``: shape (x, y, z, echo)."""
    nx, ny, nz = mask.shape
    values = np.empty(starts[-1], np.float32)
    for x in prange(nx):
        i = starts[x]
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z]:
                    values[i] = echoes[x, y, z, echo]
                    i += 1
    return values


@njit(parallel=True, cache=True)
def bin_phasors(
    phase_rad: Float32, weights: Float32, mask: Bool, starts: NDArray[np.int64], bins: Bins
) -> Float32:
    """Return the sum of ``weights * exp(i phase)`` in each bin.

    Returns
    -------
    ndarray of float32, shape (2, x, y, z)
        Real and imaginary part; bins at the end may stand out over the mask's grid.
    """
    nx, ny, nz = mask.shape
    bx, by, bz = bins
    sums = np.zeros((2, -(-nx // bx), -(-ny // by), -(-nz // bz)), np.float32)
    for slab in prange(sums.shape[1]):
        i = starts[slab * bx]
        for x in range(slab * bx, min((slab + 1) * bx, nx)):
            for y in range(ny):
                for z in range(nz):
                    if mask[x, y, z]:
                        sums[0, slab, y // by, z // bz] += weights[i] * np.cos(phase_rad[i])
                        sums[1, slab, y // by, z // bz] += weights[i] * np.sin(phase_rad[i])
                        i += 1
    return sums


@njit(parallel=True, cache=True)
def add_turns(
    phase_rad: Float32, near: Float32, mask: Bool, starts: NDArray[np.int64], bins: Bins
) -> None:
    """Add to the phase, in place, the whole turns that bring it nearest to its bin's value.

    ``near`` has the shape of the bins.
    """
    nx, ny, nz = mask.shape
    bx, by, bz = bins
    for x in prange(nx):
        i = starts[x]
        for y in range(ny):
            row = near[x // bx, y // by]
            for z in range(nz):
                if mask[x, y, z]:
                    turns = np.rint((row[z // bz] - phase_rad[i]) / _TURN)
                    phase_rad[i] += _TURN * turns
                    i += 1


@njit(parallel=True, cache=True)
def at_voxels(maps: Float32, mask: Bool, starts: NDArray[np.int64], bins: Bins) -> Float32:
    """Return, by linear interpolation between the bins' centres, maps of bins in the voxels.

    Parameters
    ----------
    maps : ndarray of float32, shape (map, x, y, z)
    mask, starts, bins
        Those of the voxels.

    Returns
    -------
    ndarray of float32, shape (n, map)
    """
    nx, ny, nz = mask.shape
    n_maps, cx, cy, cz = maps.shape
    values = np.empty((starts[-1], n_maps), np.float32)
    for x in prange(nx):
        i = starts[x]
        x0, x1, fx = _between(x, bins[0], cx)
        row = np.empty((cz, n_maps), np.float32)
        for y in range(ny):
            if not mask[x, y].any():
                continue
            y0, y1, fy = _between(y, bins[1], cy)
            for m in range(n_maps):
                for z in range(cz):
                    low = maps[m, x0, y0, z] + fy * (maps[m, x0, y1, z] - maps[m, x0, y0, z])
                    high = maps[m, x1, y0, z] + fy * (maps[m, x1, y1, z] - maps[m, x1, y0, z])
                    row[z, m] = low + fx * (high - low)
            for z in range(nz):
                if mask[x, y, z]:
                    z0, z1, fz = _between(z, bins[2], cz)
                    for m in range(n_maps):
                        values[i, m] = row[z0, m] + fz * (row[z1, m] - row[z0, m])
                    i += 1
    return values


@njit(cache=True)
def _between(voxel, voxels_in_bin, n_bins):  # type: ignore[no-untyped-def]
    """Return the two bins whose centres lie about a voxel's, and the share of the second."""
    place = (voxel + 0.5) / voxels_in_bin - 0.5
    place = min(max(place, 0.0), n_bins - 1.0)
    low = int(place)
    return low, min(low + 1, n_bins - 1), np.float32(place - low)

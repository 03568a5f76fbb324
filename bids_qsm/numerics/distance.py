"""Distance of the voxels of a mask to what lies outside it."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool

Float64 = NDArray[np.float64]


def distance_mm(mask: Bool, voxel_mm: tuple[float, ...] | list[float]) -> Float64:
    """Return the distance of each voxel of a mask to the nearest voxel outside.

    The square is a sum over the axes, so that each axis is done by itself: the lower envelope of
    the parabolas that the voxels of a line open.  What lies beyond the array does not count.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm : sequence of float

    Returns
    -------
    ndarray of float64, shape (x, y, z)
        Zero outside the mask; inf if the mask is all there is.  Memory: this one volume.

    References
    ----------
    Felzenszwalb and Huttenlocher 2012, 10.4086/toc.2012.v008a019.
    """
    squared = np.empty(mask.shape)
    _within_planes(np.ascontiguousarray(mask), np.asarray(voxel_mm, np.float64), squared)
    _across_planes(squared, float(voxel_mm[0]))
    return np.sqrt(squared, out=squared)


def deeper_than(mask: Bool, voxel_mm: tuple[float, float, float], depth_mm: float) -> Bool:
    """Return the voxels of a mask whose distance to the nearest voxel outside is above a depth.

    They are those of :func:`distance_mm`; only what is as near as that is looked at.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float
    depth_mm : float

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        Memory: one volume of float64 besides.
    """
    squared = np.empty(mask.shape)
    size_mm = np.asarray(voxel_mm, np.float64)
    _near_in_planes(np.ascontiguousarray(mask), size_mm, depth_mm, squared)
    found: Bool = _far_across_planes(squared, size_mm[0], depth_mm)
    return found


@njit(cache=True)
def _least_along(values, voxel_mm, depth_mm, least):  # type: ignore[no-untyped-def]
    """Set ``least[i]`` to the least of ``values[j] + ((i - j) * voxel_mm) ** 2``, j within depth.

    Both have lines as rows, shape (n, z), which are taken side by side.
    """
    n, nz = values.shape
    reach = int(depth_mm / voxel_mm) + 1
    for i in range(n):
        row = least[i]
        row[:] = values[i]
        for j in range(max(0, i - reach), min(n, i + reach + 1)):
            more, other = ((i - j) * voxel_mm) ** 2, values[j]
            for z in range(nz):
                square = other[z] + more
                row[z] = square if square < row[z] else row[z]


@njit(parallel=True, cache=True)
def _near_in_planes(mask, voxel_mm, depth_mm, squared):  # type: ignore[no-untyped-def]
    """Set the squared distance to what is outside in the same plane, where it is near."""
    nx, ny, nz = mask.shape
    for x in prange(nx):
        lines = np.empty((ny, nz))
        for y in range(ny):
            for z in range(nz):
                lines[y, z] = mask[x, y, z]
            _along_line(lines[y], voxel_mm[2])
        _least_along(lines, voxel_mm[1], depth_mm, squared[x])


@njit(parallel=True, cache=True)
def _far_across_planes(squared, voxel_mm, depth_mm):  # type: ignore[no-untyped-def]
    """Return what is further than the depth from all outside, also of other planes."""
    nx, ny, nz = squared.shape
    found = np.empty(squared.shape, np.bool_)
    for y in prange(ny):
        lines, least = np.empty((nx, nz)), np.empty((nx, nz))
        for x in range(nx):
            lines[x] = squared[x, y]
        _least_along(lines, voxel_mm, depth_mm, least)
        for x in range(nx):
            for z in range(nz):
                found[x, y, z] = np.sqrt(least[x, z]) > depth_mm
    return found


@njit(cache=True)
def _along_line(squared, voxel_mm):  # type: ignore[no-untyped-def]
    """Set the distances from voxels to nothing, in units of the voxel, to their squares in mm2."""
    nearest = np.inf
    for i in range(squared.size):
        nearest = 0.0 if squared[i] == 0.0 else nearest + 1.0
        squared[i] = nearest
    nearest = np.inf
    for i in range(squared.size - 1, -1, -1):
        nearest = min(squared[i], nearest + 1.0)
        squared[i] = (nearest * voxel_mm) ** 2


@njit(cache=True)
def _lower_envelope(squared, voxel_mm, values, centres, starts):  # type: ignore[no-untyped-def]
    """Set a line to the least of ``squared[j] + ((i - j) * voxel_mm) ** 2`` over all j."""
    n = squared.size
    scale = voxel_mm**2
    last = -1
    for j in range(n):
        values[j] = squared[j]
        if values[j] == np.inf:
            continue
        start = -np.inf
        while last >= 0:
            k = centres[last]
            # where the new parabola goes below the one before it
            start = ((values[j] - values[k]) / scale + (j * j - k * k)) / (2.0 * (j - k))
            if start > starts[last]:
                break
            last -= 1
            start = -np.inf
        last += 1
        centres[last], starts[last] = j, start
    if last < 0:
        return
    k = 0
    for i in range(n):
        while k < last and starts[k + 1] < i:
            k += 1
        squared[i] = values[centres[k]] + ((i - centres[k]) * voxel_mm) ** 2


@njit(parallel=True, cache=True)
def _within_planes(mask, voxel_mm, squared):  # type: ignore[no-untyped-def]
    """Set the squared distance to what is outside in the same plane across the first axis."""
    nx, ny, nz = mask.shape
    for x in prange(nx):
        values, centres, starts = np.empty(ny), np.empty(ny, np.int64), np.empty(ny)
        for y in range(ny):
            for z in range(nz):
                squared[x, y, z] = mask[x, y, z]
            _along_line(squared[x, y], voxel_mm[2])
        for z in range(nz):
            if mask[x, :, z].any():
                _lower_envelope(squared[x, :, z], voxel_mm[1], values, centres, starts)


@njit(parallel=True, cache=True)
def _across_planes(squared, voxel_mm):  # type: ignore[no-untyped-def]
    """Take the planes before and behind into account."""
    nx, ny, nz = squared.shape
    for y in prange(ny):
        values, centres, starts = np.empty(nx), np.empty(nx, np.int64), np.empty(nx)
        for z in range(nz):
            if squared[:, y, z].any():
                _lower_envelope(squared[:, y, z], voxel_mm, values, centres, starts)

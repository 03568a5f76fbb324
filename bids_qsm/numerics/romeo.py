"""ROMEO's kernels: the cost of each edge between neighbouring voxels, and region growing on them.

An edge is named by its axis and its lower voxel; ``costs[x, y, z]`` packs those of the edges from
voxel (x, y, z) to the next one along each axis, that of axis ``a`` in bits ``8 a`` to ``8 a + 7``.

References
----------
Dymerska et al. 2021, 10.1002/mrm.28563.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32

NO_EDGE = 0
WORST = 255
"""Costs run from 1 (a certain edge) to 255: counting sorts the edges."""

_TURN = 2 * math.pi
_DARK = 1e-30
_SLAB_PLANES = 8
_NO_TURN = 1 << 31


@njit(cache=True)
def _set_costs(here, there, shift, scales, costs):  # type: ignore[no-untyped-def]
    """Set the costs of the edges between two rows, of which one may be shifted.

    A row has phase, other phase and magnitude.  Cost falls with a weight of 0 to 1: the product
    of three coherences of an edge's two voxels.
    """
    turn, per_turn, per_pi = np.float32(_TURN), np.float32(1 / _TURN), np.float32(1 / math.pi)
    nothing, one, tiny = np.float32(0), np.float32(1), np.float32(_DARK)
    for z in range(costs.size):
        step = there[0, z + shift] - here[0, z]
        step -= turn * np.rint(step * per_turn)
        other_step = there[1, z + shift] - here[1, z]
        other_step -= turn * np.rint(other_step * per_turn)
        spatial = one - abs(step) * per_pi
        temporal = max(nothing, one - abs(step * scales[0] - other_step * scales[1]))
        low = min(here[2, z], there[2, z + shift])
        similar = low / max(here[2, z], there[2, z + shift], tiny)
        weight = max(nothing, spatial * temporal * similar * similar)
        costs[z] = WORST - np.int32((WORST - one) * weight + np.float32(0.5))


@njit(cache=True)
def _load(plane, phase, other, magnitude, x):  # type: ignore[no-untyped-def]
    """Copy a plane of each volume, whose voxels may lie apart, side by side."""
    for y in range(phase.shape[1]):
        for z in range(phase.shape[2]):
            plane[y, 0, z] = phase[x, y, z]
            plane[y, 1, z] = other[x, y, z]
            plane[y, 2, z] = magnitude[x, y, z]


@njit(cache=True)
def _pack(row, next_plane, next_row, own, costs):  # type: ignore[no-untyped-def]
    """Put the three costs of a row's edges together where both ends are in the mask."""
    for z in range(costs.size):
        packed = row[0, z] * next_plane[z] | (row[1, z] * next_row[z] << 8)
        costs[z] = (packed | row[2, z] << 16) * own[z]


@njit(cache=True)
def _slab_costs(  # type: ignore[no-untyped-def]
    phase, other, scales, magnitude, mask, first, stop, costs
):
    """Set the costs of the edges that begin in some planes."""
    nx, ny, nz = mask.shape
    # taken from one array, both would count as strided, and nothing would be done side by side
    here, following = np.empty((ny, 3, nz), np.float32), np.empty((ny, 3, nz), np.float32)
    row = np.zeros((3, nz), np.int32)
    outside = np.zeros(nz, np.bool_)
    _load(following, phase, other, magnitude, first)
    for x in range(first, stop):
        here, following = following, here
        if x + 1 < nx:
            _load(following, phase, other, magnitude, x + 1)
        for y in range(ny):
            own = mask[x, y]
            if not own.any():
                costs[x, y] = NO_EDGE
                continue
            next_plane, next_row = outside, outside
            if x + 1 < nx:
                next_plane = mask[x + 1, y]
                _set_costs(here[y], following[y], 0, scales, row[0])
            if y + 1 < ny:
                next_row = mask[x, y + 1]
                _set_costs(here[y], here[y + 1], 0, scales, row[1])
            _set_costs(here[y], here[y], 1, scales, row[2, : nz - 1])
            row[2, : nz - 1] *= own[1:]
            _pack(row, next_plane, next_row, own, costs[x, y])


@njit(parallel=True, cache=True)
def edge_costs(
    phase: Float32, other: Float32, scales: tuple[float, float], magnitude: Float32, mask: Bool
) -> NDArray[np.uint32]:
    """Return the cost of every edge within the mask, 1 (best) to 255.

    The weights are those of ROMEO's standard set: spatial and temporal phase coherence and
    magnitude coherence.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z)
        The echo to unwrap.
    other : ndarray of float32, shape (x, y, z)
        Another echo; where there is none ``phase`` itself, to which it always coheres.
    scales : tuple of float
        What brings the steps of ``phase`` and ``other`` to the same echo time.
    magnitude : ndarray of float32, shape (x, y, z)
        In any unit.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray of uint32, shape (x, y, z)
        Three costs in one; :data:`NO_EDGE` where one of the two voxels is not in the mask.
    """
    nx, ny, nz = phase.shape
    costs = np.empty((nx, ny, nz), np.uint32)
    scale = (np.float32(scales[0]), np.float32(scales[1]))
    for slab in prange((nx + _SLAB_PLANES - 1) // _SLAB_PLANES):
        first = slab * _SLAB_PLANES
        stop = min(first + _SLAB_PLANES, nx)
        _slab_costs(phase, other, scale, magnitude, mask, first, stop, costs)
    return costs


@njit(parallel=True, cache=True)
def mean_weights(costs: NDArray[np.uint32]) -> Float32:
    """Return the mean weight, 0 to 1, of the edges of each voxel; zero where it has none.

    Parameters
    ----------
    costs : ndarray of uint32, shape (x, y, z)
        From :func:`edge_costs`.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
    """
    nx, ny, nz = costs.shape
    means = np.empty((nx, ny, nz), np.float32)
    for x in prange(nx):
        total, count = np.empty(nz, np.int32), np.empty(nz, np.int32)
        for y in range(ny):
            total[:] = 0
            count[:] = 0
            for axis in range(3):
                _add_weights(costs[x, y], axis, total, count)
            if x > 0:
                _add_weights(costs[x - 1, y], 0, total, count)
            if y > 0:
                _add_weights(costs[x, y - 1], 1, total, count)
            _add_weights(costs[x, y, :-1], 2, total[1:], count[1:])
            for z in range(nz):
                means[x, y, z] = np.float32(total[z]) / np.float32((WORST - 1) * max(count[z], 1))
    return means


@njit(cache=True)
def _add_weights(costs, axis, total, count):  # type: ignore[no-untyped-def]
    """Add the weights (0 to 254) of a row's edges along one axis, and their number."""
    for z in range(costs.size):
        cost = np.int32((costs[z] >> np.uint32(8 * axis)) & np.uint32(WORST))
        exists = np.int32(cost != NO_EDGE)
        total[z] += (WORST - cost) * exists
        count[z] += exists


@njit(cache=True)
def grow_regions(
    phase: Float32, costs: NDArray[np.uint32], mask: Bool
) -> tuple[Float32, NDArray[np.int32], NDArray[np.int32]]:
    """Unwrap by joining the two regions at the ends of the cheapest edge, over and over.

    Every voxel is a region at first.  The edges that join make up a minimum spanning tree, as
    those do that are added to a single growing region: the results are the same but for ties.
    Here the edges are known beforehand in their order, which spares a queue.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z)
    costs : ndarray of uint32, shape (x, y, z)
        From :func:`edge_costs`.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    unwrapped : ndarray of float32, shape (x * y * z,)
        Zero outside the mask.
    order : ndarray of int32, shape (n,)
        Flat indices of the n voxels of the mask, part by part; memory: 12 bytes for each voxel
        and 4 for each edge besides.
    starts : ndarray of int32, shape (parts + 1,)
        ``order[starts[i] : starts[i + 1]]`` are the voxels of one connected part.

    References
    ----------
    Kruskal 1956, 10.1090/S0002-9939-1956-0078686-7.
    """
    wrapped, inside = phase.ravel(), mask.ravel()
    strides = (phase.shape[1] * phase.shape[2], phase.shape[2], 1)
    links = np.empty(wrapped.size, np.int64)
    sizes = np.ones(wrapped.size, np.int32)
    for voxel in range(wrapped.size):
        links[voxel] = _link(voxel, 0)
    for edge in _sorted_edges(costs.ravel()):
        low = np.int64(edge >> np.uint32(2))
        high = low + strides[edge & np.uint32(3)]
        low_root, low_turns = _root(links, low)
        high_root, high_turns = _root(links, high)
        if low_root == high_root:
            continue
        turns = np.int64(np.rint((wrapped[low] - wrapped[high]) * (1 / _TURN)))
        turns += low_turns - high_turns
        if sizes[low_root] < sizes[high_root]:
            low_root, high_root, turns = high_root, low_root, -turns
        sizes[low_root] += sizes[high_root]
        links[high_root] = _link(low_root, turns)
    return _collected(wrapped, inside, links, sizes)


@njit(cache=True)
def _sorted_edges(costs):  # type: ignore[no-untyped-def]
    """Return the edges, each ``4 * voxel + axis``, by rising cost, those of equal cost in order."""
    ends = np.zeros(WORST + 2, np.int64)
    for packed in costs:
        if packed != 0:
            for axis in range(3):
                ends[((packed >> np.uint32(8 * axis)) & np.uint32(WORST)) + 1] += 1
    ends[NO_EDGE + 1] = 0
    ends = np.cumsum(ends)
    edges = np.empty(ends[-1], np.uint32)
    for voxel in range(costs.size):
        packed = costs[voxel]
        if packed != 0:
            for axis in range(3):
                cost = (packed >> np.uint32(8 * axis)) & np.uint32(WORST)
                if cost != NO_EDGE:
                    edges[ends[cost]] = 4 * voxel + axis
                    ends[cost] += 1
    return edges


@njit(cache=True, inline="always")
def _link(parent, turns):  # type: ignore[no-untyped-def]
    """Pack another voxel of the same region, and the turns to add to those that it gets."""
    return (np.int64(parent) << np.int64(32)) + np.int64(turns) + np.int64(_NO_TURN)


@njit(cache=True, inline="always")
def _root(links, voxel):  # type: ignore[no-untyped-def]
    """Return the voxel that stands for a region, and the turns from it; shorten the way there."""
    turns = np.int64(0)
    while True:
        link = links[voxel]
        parent = link >> np.int64(32)
        if parent == voxel:
            return voxel, turns
        up = links[parent]
        grandparent = up >> np.int64(32)
        turns += link - _link(parent, 0)
        if grandparent == parent:
            return parent, turns
        links[voxel] = link + up - _link(parent, 0)
        turns += up - _link(grandparent, 0)
        voxel = grandparent


@njit(cache=True)
def _collected(wrapped, inside, links, sizes):  # type: ignore[no-untyped-def]
    """Return the phase with its turns, and the voxels part by part, as they lie in memory."""
    unwrapped = np.zeros(wrapped.size, np.float32)
    part_of = np.full(wrapped.size, -1, np.int32)
    starts = [0]
    next_of = [0]
    order = np.empty(inside.sum(), np.int32)
    for voxel in range(wrapped.size):
        if not inside[voxel]:
            continue
        root, turns = _root(links, voxel)
        unwrapped[voxel] = wrapped[voxel] + np.float32(_TURN * turns)
        if part_of[root] < 0:
            part_of[root] = len(starts) - 1
            next_of[part_of[root]] = starts[-1]
            starts.append(starts[-1] + sizes[root])
            next_of.append(starts[-1])
        part = part_of[root]
        order[next_of[part]] = voxel
        next_of[part] += 1
    return unwrapped, order, np.array(starts, np.int32)

"""ROMEO's kernels: the cost of each edge between neighbouring voxels, and region growing on them.

An edge is named by its axis and its lower voxel; ``costs[axis, x, y, z]`` is the cost of the edge
from voxel (x, y, z) to the next one along ``axis``.

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
"""Costs run from 1 (a certain edge) to 255: one bucket of the queue for each."""

_TURN = 2 * math.pi
_NOTHING = -1
_DARK = 1e-30


@njit(cache=True)
def _wrapped(angle):  # type: ignore[no-untyped-def]
    return angle - _TURN * np.rint(angle / _TURN)


@njit(cache=True)
def _weight(phase, other, scales, magnitude, here, there):  # type: ignore[no-untyped-def]
    """Return the weight 0..1 of an edge: the product of three coherences of its two voxels."""
    step = _wrapped(phase[there] - phase[here])
    other_step = _wrapped(other[there] - other[here])
    spatial = 1 - abs(step) / math.pi
    temporal = max(0.0, 1 - abs(step * scales[0] - other_step * scales[1]))
    low = min(magnitude[here], magnitude[there])
    high = max(magnitude[here], magnitude[there])
    similar = (low / high) ** 2 if high > 0 else 0.0
    return spatial * temporal * similar


@njit(parallel=True, cache=True)
def edge_costs(
    phase: Float32, other: Float32, scales: tuple[float, float], magnitude: Float32, mask: Bool
) -> NDArray[np.uint8]:
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
    ndarray of uint8, shape (3, x, y, z)
        :data:`NO_EDGE` where one of the two voxels is not in the mask.
    """
    nx, ny, nz = phase.shape
    costs = np.zeros((3, nx, ny, nz), np.uint8)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                for axis in range(3):
                    here = (x, y, z)
                    there = (x + (axis == 0), y + (axis == 1), z + (axis == 2))
                    if there[0] == nx or there[1] == ny or there[2] == nz:
                        continue
                    if mask[here] and mask[there]:
                        weight = _weight(phase, other, scales, magnitude, here, there)
                        costs[axis, x, y, z] = WORST - int((WORST - 1) * weight + 0.5)
    return costs


@njit(cache=True)
def grow_regions(
    phase: Float32, costs: NDArray[np.uint8], mask: Bool
) -> tuple[Float32, NDArray[np.int32], NDArray[np.int32]]:
    """Unwrap by adding the voxel at the end of the cheapest edge, over and over.

    What is grown is a minimum spanning tree, which does not depend on the seed but for ties:
    each part of the mask starts at its first voxel.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z)
    costs : ndarray of uint8, shape (3, x, y, z)
        From :func:`edge_costs`.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    unwrapped : ndarray of float32, shape (x * y * z,)
        Zero outside the mask.
    order : ndarray of int32, shape (n,)
        Flat indices of the n voxels of the mask as they were visited.
    starts : ndarray of int32, shape (parts + 1,)
        ``order[starts[i] : starts[i + 1]]`` are the voxels of one connected part.
    """
    n_voxels = phase.size
    strides = (phase.shape[1] * phase.shape[2], phase.shape[2], 1)
    wrapped, inside, cost = phase.ravel(), mask.ravel(), costs.ravel()
    unwrapped = np.zeros(n_voxels, np.float32)
    visited = np.zeros(n_voxels, np.bool_)
    order = np.empty(inside.sum(), np.int32)
    starts = [0]
    # a first-in-first-out queue for each cost, as linked lists: an edge waits at most once
    following = np.empty(3 * n_voxels, np.int32)
    first = np.full(WORST + 1, _NOTHING, np.int32)
    last = np.full(WORST + 1, _NOTHING, np.int32)
    n_visited = 0
    for seed in range(n_voxels):
        if visited[seed] or not inside[seed]:
            continue
        voxel, unwrapped[seed] = seed, wrapped[seed]
        cheapest = WORST
        while voxel != _NOTHING:
            visited[voxel] = True
            order[n_visited] = voxel
            n_visited += 1
            added = _add_edges(voxel, cost, visited, strides, following, first, last)
            cheapest = min(cheapest, added)
            known, voxel, cheapest = _take_edge(cheapest, visited, strides, following, first)
            if voxel != _NOTHING:
                turns = np.rint((unwrapped[known] - wrapped[voxel]) / _TURN)
                unwrapped[voxel] = wrapped[voxel] + np.float32(_TURN * turns)
        starts.append(n_visited)
    return unwrapped, order, np.array(starts, np.int32)


@njit(cache=True)
def _add_edges(  # type: ignore[no-untyped-def]
    voxel, cost, visited, strides, following, first, last
):
    """Queue a voxel's edges to unvisited voxels; return the lowest cost among them."""
    n_voxels = visited.size
    cheapest = WORST
    for axis in range(3):
        for back in (0, strides[axis]):  # the edge upward, then the edge downward
            if voxel < back:
                continue
            edge = axis * n_voxels + voxel - back
            queue = cost[edge]
            if queue == NO_EDGE or visited[voxel - back if back else voxel + strides[axis]]:
                continue
            following[edge] = _NOTHING
            if first[queue] == _NOTHING:
                first[queue] = edge
            else:
                following[last[queue]] = edge
            last[queue] = edge
            cheapest = min(cheapest, int(queue))
    return cheapest


@njit(cache=True)
def _take_edge(cheapest, visited, strides, following, first):  # type: ignore[no-untyped-def]
    """Return the visited and the new voxel of the cheapest edge that leads on, and its cost."""
    n_voxels = visited.size
    while cheapest <= WORST:
        edge = first[cheapest]
        if edge == _NOTHING:
            cheapest += 1
            continue
        first[cheapest] = following[edge]
        low = edge % n_voxels
        high = low + strides[edge // n_voxels]
        if not visited[low]:
            return high, low, cheapest
        if not visited[high]:
            return low, high, cheapest
    return _NOTHING, _NOTHING, cheapest


@njit(parallel=True, cache=True)
def predict_phase(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: NDArray[np.float64],
    known: NDArray[np.int64],
    echo: int,
    mask: Bool,
) -> Float32:
    """Return what the echoes that are unwrapped say of another one.

    In each voxel a line through zero at an echo time of zero is fitted to the known echoes, each
    weighted by its squared magnitude.

    Parameters
    ----------
    unwrapped, magnitude : ndarray of float32, shape (x, y, z, echo)
    te_s : ndarray of float64, shape (echo,)
    known : ndarray of int64
        Echoes that are unwrapped.
    echo : int
        The echo to predict.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Zero outside the mask.
    """
    nx, ny, nz = mask.shape
    predicted = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                brightest = max(magnitude[x, y, z].max(), _DARK)
                phase_sum, te_sum = 0.0, 0.0
                for k in known:
                    # never nothing, so that the line stays defined
                    weight = te_s[k] * max((magnitude[x, y, z, k] / brightest) ** 2, 1e-6)
                    phase_sum += weight * unwrapped[x, y, z, k]
                    te_sum += weight * te_s[k]
                predicted[x, y, z] = te_s[echo] * phase_sum / te_sum
    return predicted

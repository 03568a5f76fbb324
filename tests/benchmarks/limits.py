"""What bare loops take for the work that a voxel-wise algorithm cannot avoid.

Loops of arithmetic run in parallel over numbers that stay in the cache, so that nothing but the
arithmetic is timed; the queue's loop is serial, as region growing is by its nature.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.elementary import exponential, logarithm, sine_and_versine

_IN_CACHE = 4096
_CHUNKS = 2048
_TURN = np.float32(2 * np.pi)


def best_s(function: Callable[[], Any], repeats: int) -> float:
    """Return the shortest of some times, after a first call that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


@numba.njit(parallel=True, cache=True)
def _exponentials(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        results = np.empty(x.size)
        for i in range(x.size):
            results[i] = exponential(x[i])
        sums[chunk] = results[chunk]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _logarithms(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        results = np.empty(x.size)
        for i in range(x.size):
            results[i] = logarithm(x[i])
        sums[chunk] = results[chunk]


@numba.njit(parallel=True, cache=True)
def _sines(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        results = np.empty(x.size)
        for i in range(x.size):
            sine, versine = sine_and_versine(x[i])
            results[i] = sine + versine
        sums[chunk] = results[chunk]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _roots(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        results = np.empty(x.size)
        for i in range(x.size):
            results[i] = x[i] / np.sqrt(1.0 + x[i] * x[i])
        sums[chunk] = results[chunk]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _coherences(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        total = np.float32(0)
        for i in range(1, x.size):
            step = x[i] - x[i - 1]
            other = x[i] + x[i - 1]
            step -= _TURN * np.rint(step / _TURN)
            other -= _TURN * np.rint(other / _TURN)
            total += abs(step) * abs(step - other) * (x[i] / x[i - 1]) ** 2
        sums[chunk] = total


LOOPS = {
    "exp": _exponentials,
    "log": _logarithms,
    "sin and cos": _sines,
    "root": _roots,
    "coherence": _coherences,
}
"""By vector instructions; a root goes with a quotient.

A coherence, in single precision, is what an edge needs: two wrapped steps and a ratio.
"""


def seconds_each(operation: str, repeats: int) -> float:
    """Return what one of :data:`LOOPS` takes for each number, all threads at work."""
    x = np.random.default_rng(0).uniform(0.1, 1.0, _IN_CACHE)
    if operation == "coherence":
        x = x.astype(np.float32)
    sums = np.empty(_CHUNKS, np.float32)
    return best_s(lambda: LOOPS[operation](x, sums), repeats) / (x.size * sums.size)


@numba.njit(cache=True)
def _queue(voxels, axes, costs, ends, strides, queue, table):  # type: ignore[no-untyped-def]
    for edge in range(costs.size):
        queue[ends[costs[edge]]] = 4 * voxels[edge] + axes[edge]
        ends[costs[edge]] += 1
    total = 0
    for edge in queue:
        low = np.int64(edge >> 2)
        total += table[low] + table[low + strides[edge & 3]]
    return total


def edges_of(packed: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], ...]:
    """Return lower voxel, axis and cost of each edge, in the order of the voxels."""
    by_axis = [(packed.reshape(-1) >> np.uint32(8 * axis)) & np.uint32(255) for axis in range(3)]
    costs = np.stack(by_axis, axis=1)
    voxels, axes = (found.astype(np.uint32) for found in np.nonzero(costs))
    return voxels, axes, costs[costs > 0]


def queue_s(packed: NDArray[np.uint32], repeats: int) -> float:
    """Return what it takes to queue the edges by their costs, and to look up both ends of each.

    The order of the look-ups, that of the costs, jumps about in the memory.
    """
    voxels, axes, costs = edges_of(packed)
    ends = np.concatenate([[0], np.cumsum(np.bincount(costs, minlength=256))[:-1]])
    strides = (packed.shape[1] * packed.shape[2], packed.shape[2], 1)
    queue, table = np.empty(costs.size, np.uint32), np.zeros(packed.size, np.int64)
    return best_s(lambda: _queue(voxels, axes, costs, ends.copy(), strides, queue, table), repeats)

"""What bare loops take for the work that a voxel-wise algorithm cannot avoid.

Loops of arithmetic run in parallel over numbers that stay in the cache, so that nothing but the
arithmetic is timed; the queue's loop is serial, as region growing is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

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
        total = np.float32(0)
        for value in x:
            total += np.exp(value)
        sums[chunk] = total


@numba.njit(parallel=True, cache=True)
def _logarithms(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        total = np.float32(0)
        for value in x:
            total += np.log(value)
        sums[chunk] = total


@numba.njit(parallel=True, cache=True)
def _sines(x, sums):  # type: ignore[no-untyped-def]
    for chunk in numba.prange(sums.size):
        total = np.float32(0)
        for value in x:
            total += np.sin(value) + np.cos(value)
        sums[chunk] = total


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


LOOPS = {"exp": _exponentials, "log": _logarithms, "sin and cos": _sines, "coherence": _coherences}
"""Single precision.  A coherence is what an edge needs: two wrapped steps and a ratio."""


def seconds_each(operation: str, repeats: int) -> float:
    """Return what one of :data:`LOOPS` takes for each number, all threads at work."""
    x = np.random.default_rng(0).uniform(0.1, 1.0, _IN_CACHE).astype(np.float32)
    sums = np.empty(_CHUNKS, np.float32)
    return best_s(lambda: LOOPS[operation](x, sums), repeats) / (x.size * sums.size)


@numba.njit(cache=True)
def _queue(order, costs, following, last):  # type: ignore[no-untyped-def]
    n_voxels = costs.size // 3
    last[:] = 0
    total = 0
    for voxel in order:
        for axis in range(3):
            edge = axis * n_voxels + voxel
            queue = costs[edge]
            if queue > 0:
                following[edge] = last[queue]
                total += following[last[queue]]
                last[queue] = edge
    return total


def queue_s(order: NDArray[np.int32], costs: NDArray[np.uint8], repeats: int) -> float:
    """Return what it takes to put each edge into the list of its cost, and to read it there.

    The voxels come in the order of the region's growth: this is how growth goes through the
    memory, if nothing else is looked up.
    """
    flat = costs.reshape(-1)
    following, last = np.zeros(flat.size, np.int32), np.empty(256, np.int32)
    return best_s(lambda: _queue(order, flat, following, last), repeats)

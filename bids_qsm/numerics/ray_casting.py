"""Where parallel rays first meet the surface of a volume."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Float32

Float64 = NDArray[np.float64]


def first_hits(
    field: Float32,
    level: float,
    origin: Float64,
    moves: Float64,
    shape: tuple[int, int, int],
    leap: int = 1,
) -> Float64:
    """Return how many steps each ray of a picture takes until the volume exceeds a level.

    The ray of row r and column c is at ``origin + moves @ (r, c, s)`` after s steps, in voxels;
    values between voxels are interpolated linearly, and are zero outside the volume.  Between the
    step that is above the level and the one before it, the place is interpolated too.

    Parameters
    ----------
    field : ndarray of float32, shape (x, y, z)
        Its outermost voxels are zero.
    level : float
        Above zero.
    origin : ndarray, shape (3,)
    moves : ndarray, shape (3, 3)
    shape : tuple of int
        Rows, columns and the most steps.
    leap : int
        Steps that are taken at once where the volume is zero: no more than lie between what is
        zero and what is above the level.

    Returns
    -------
    ndarray of float64, shape (rows, columns)
        NaN where the ray meets nothing.  Memory: this alone.
    """
    hits = np.full(shape[:2], np.nan)
    volume = np.ascontiguousarray(field, dtype=np.float32)
    _cast(volume, level, origin.astype(np.float64), moves.astype(np.float64), shape[2], leap, hits)
    return hits


@njit(cache=True)
def _value(field, x, y, z):  # type: ignore[no-untyped-def]
    """Return the value at a place within the volume."""
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    a = (1 - w) * field[i, j, k] + w * field[i, j, k + 1]
    b = (1 - w) * field[i, j + 1, k] + w * field[i, j + 1, k + 1]
    c = (1 - w) * field[i + 1, j, k] + w * field[i + 1, j, k + 1]
    d = (1 - w) * field[i + 1, j + 1, k] + w * field[i + 1, j + 1, k + 1]
    return (1 - u) * ((1 - v) * a + v * b) + u * ((1 - v) * c + v * d)


@njit(cache=True)
def _within(start, move, size, first, last):  # type: ignore[no-untyped-def]
    """Return the steps, of those from first to last, that lie within one axis of the volume."""
    if move == 0.0:
        return (first, last) if 0.0 <= start < size - 1 else (first, first - 1)
    one, other = -start / move, (size - 1.001 - start) / move
    return max(first, math.ceil(min(one, other))), min(last, math.floor(max(one, other)))


@njit(parallel=True, cache=True)
def _cast(field, level, origin, moves, steps, leap, hits):  # type: ignore[no-untyped-def]
    for row in prange(hits.shape[0]):
        for column in range(hits.shape[1]):
            x = origin[0] + moves[0, 0] * row + moves[0, 1] * column
            y = origin[1] + moves[1, 0] * row + moves[1, 1] * column
            z = origin[2] + moves[2, 0] * row + moves[2, 1] * column
            step, last = 0, steps - 1
            step, last = _within(x, moves[0, 2], field.shape[0], step, last)
            step, last = _within(y, moves[1, 2], field.shape[1], step, last)
            step, last = _within(z, moves[2, 2], field.shape[2], step, last)
            before = 0.0
            while step <= last:
                value = _value(
                    field, x + moves[0, 2] * step, y + moves[1, 2] * step, z + moves[2, 2] * step
                )
                if value > level:
                    hits[row, column] = step - (value - level) / max(value - before, 1e-6)
                    break
                before = value
                step += leap if value == 0.0 else 1

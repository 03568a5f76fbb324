"""Signal voids at the edge of a mask: notches that a strong source may have cut."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, bounding_box


def notches(
    mask: Bool, voxel_mm: tuple[float, float, float], widest_mm: float, least_depth_mm: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return where a mask has notches and holes: the points in them farthest from it.

    A notch is what a ball cannot enter from outside (a morphological closing).

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float
    widest_mm : float
        Diameter of the ball.
    least_depth_mm : float
        Least distance of a point from the mask.

    Returns
    -------
    voxels : ndarray of int, shape (n, 3)
        May lie outside the array by the ball's radius.
    depth_mm : ndarray of float64, shape (n,)
        Distance to the mask.  Memory: three volumes of float64 of the mask's box.
    """
    if not mask.any():
        return np.empty((0, 3), np.intp), np.empty(0)
    box, radius = bounding_box(mask), widest_mm / 2
    margin = [math.ceil(radius / v) + 2 for v in voxel_mm]
    padded = np.pad(mask[box], [(m, m) for m in margin])
    depth = distance_mm(~padded, voxel_mm)
    closed = distance_mm(depth <= radius, voxel_mm) > radius
    depth[~closed | padded] = 0.0
    around = ndimage.maximum_filter(depth, footprint=np.ones((3, 3, 3), np.bool_))
    found = np.argwhere((depth >= least_depth_mm) & (depth == around))
    start = np.array([b.start - m for b, m in zip(box, margin, strict=True)])
    return found + start, depth[tuple(found.T)]

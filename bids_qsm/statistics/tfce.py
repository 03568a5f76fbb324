"""Threshold-free cluster enhancement, exact: no steps of height.

The sets above a falling threshold form a tree of components.  Between two voxels' heights a
component does not change, so that the integral over the height is a sum over the branches of the
tree; one walk from the highest voxel to the lowest finds them all (union-find), and one back adds
them up.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bids_qsm.statistics.neighbours import Bool, neighbour_table

Float32 = NDArray[np.float32]

_ON_A_STEP = 1 + 1e-6
"""float32 heights this close below a step have reached it."""


def tfce(
    statistic: NDArray[np.floating],
    mask: Bool,
    *,
    extent_power: float = 0.5,
    height_power: float = 2.0,
    connectivity: int = 6,
    step: float | None = None,
) -> Float32:
    r"""Enhance each voxel by the extent of the clusters that it belongs to at all heights.

    The value is :math:`\int_0^{h} e(\eta)^E \eta^H d\eta`, with the height *h* of the voxel and
    the extent *e* (in voxels) of the cluster that it lies in above :math:`\eta`.  Negative values
    are enhanced likewise, apart from the positive ones, and stay negative.

    Parameters
    ----------
    statistic : ndarray, shape (n_voxels,)
        t, z, or the root of F, in the voxels of the mask; what is not finite counts as 0.
    mask : ndarray of bool, shape (x, y, z)
    extent_power, height_power : float
        *E* and *H*; the defaults are those of the paper for volumes.
    connectivity : {6, 18, 26}
        Neighbours of a voxel: by faces, edges, or corners.  6 is that of ``randomise``.
    step : float, optional
        Sum over heights of this distance, times the step, in place of the integral.  Programs that
        do so take a hundredth of the highest value, and ``fslmaths`` and nilearn leave out the
        factor: divide by the step to compare.  100 steps of a t map of nuclei lay within 3 % of
        the integral in each voxel of high values, without bias; 1000 within 0.3 %.

    Returns
    -------
    ndarray of float32, shape (n_voxels,)
        Memory: the table of neighbours (4 bytes times connectivity) and some 30 bytes a voxel.

    Raises
    ------
    ValueError
        If the statistic does not fit the mask, or an option makes no sense.

    References
    ----------
    Smith 2009, 10.1016/j.neuroimage.2008.03.061; the tree of components: Salembier 1998,
    10.1109/83.663500.
    """
    heights = np.ascontiguousarray(statistic, np.float32)
    if heights.shape != (np.count_nonzero(mask),):
        raise ValueError(
            f"the statistic has the shape {heights.shape} and the mask "
            f"{np.count_nonzero(mask)} voxels: give one value for each voxel of the mask."
        )
    if not (extent_power >= 0 and height_power > 0 and (step is None or step > 0)):
        raise ValueError(
            "enhancement needs an extent power of 0 or more, and a height power and a step above 0."
        )
    neighbours = neighbour_table(mask, connectivity)
    heights = np.where(np.isfinite(heights), heights, np.float32(0))
    enhanced = np.zeros_like(heights)
    for sign in (np.float32(1), np.float32(-1)):
        above = np.maximum(sign * heights, np.float32(0))
        weights = _weights(above, height_power, step)
        enhanced += sign * enhance(above, weights, neighbours, extent_power)
    return enhanced


def _weights(heights: Float32, power: float, step: float | None) -> NDArray[np.float64]:
    """Return the integral, or the sum over steps, of a height's power from 0 to each height."""
    exact = heights.astype(np.float64)
    if step is None:
        return exact ** (power + 1) / (power + 1)
    reached = np.floor(exact / step * _ON_A_STEP).astype(np.int64)
    sums = np.cumsum(step * (step * np.arange(reached.max(initial=0) + 1)) ** power)
    return sums[reached]


@njit(cache=True)
def enhance(heights, weights, neighbours, extent_power):  # type: ignore[no-untyped-def]
    """Return the enhanced heights, shape (n_voxels,), float32; heights of 0 or less stay 0.

    Parameters
    ----------
    heights : ndarray of float32, shape (n_voxels,)
    weights : ndarray of float64, shape (n_voxels,)
        Integral of the height's power up to each height.
    neighbours : ndarray of int32, shape (n_voxels, connectivity)
        As :func:`bids_qsm.statistics.neighbours.neighbour_table` gives them.
    extent_power : float
    """
    order = _highest_first(heights)
    n_voxels = heights.size
    parent = np.full(n_voxels, -1, np.int32)  # in the tree: the lower voxel that joined it
    root = np.empty(n_voxels, np.int32)  # short cuts to the lowest voxel so far
    extent = np.ones(n_voxels, np.int32)
    for voxel in order:
        parent[voxel] = voxel
        root[voxel] = voxel
        for other in neighbours[voxel]:
            if other < 0:
                break
            if parent[other] < 0:
                continue
            top = other
            while root[top] != top:
                root[top] = root[root[top]]
                top = root[top]
            if top != voxel:
                parent[top] = voxel
                root[top] = voxel
                extent[voxel] += extent[top]
    enhanced = np.zeros(n_voxels, np.float64)
    for voxel in order[::-1]:
        size = extent[voxel]
        power = np.sqrt(size) if extent_power == 0.5 else float(size) ** extent_power
        below = parent[voxel]
        if below == voxel:
            enhanced[voxel] = power * weights[voxel]
        else:
            enhanced[voxel] = enhanced[below] + power * (weights[voxel] - weights[below])
    return enhanced.astype(np.float32)


@njit(cache=True)
def _highest_first(heights):  # type: ignore[no-untyped-def]
    """Return the places of the values above 0, the highest first (radix sort of their bits)."""
    count = 0
    for height in heights:
        count += height > 0
    order = np.empty(count, np.int32)
    keys = np.empty(count, np.uint32)
    bits = heights.view(np.uint32)
    count = 0
    for voxel in range(heights.size):
        if heights[voxel] > 0:
            order[count] = voxel
            keys[count] = np.uint32(0x7FFFFFFF) - bits[voxel]
            count += 1
    for shift in (0, 11, 22):
        starts = np.zeros(2049, np.int64)
        for key in keys:
            starts[((key >> shift) & 2047) + 1] += 1
        starts = np.cumsum(starts)
        next_order = np.empty_like(order)
        next_keys = np.empty_like(keys)
        for i in range(count):
            digit = (keys[i] >> shift) & 2047
            place = starts[digit]
            starts[digit] += 1
            next_order[place] = order[i]
            next_keys[place] = keys[i]
        order, keys = next_order, next_keys
    return order

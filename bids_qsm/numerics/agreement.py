"""Agreement of two segmentations: overlap, distance of the surfaces, volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, bounding_box

MEASURES = {
    "jaccard": "Voxels of both over voxels of either.",
    "dice": "Voxels of both over the mean number of voxels.",
    "hausdorff95_mm": "The larger of the 95th percentiles of the distances from each of the two "
    "surfaces to the other.",
    "surface_distance_mm": "Mean distance of the two surfaces, both ways together.",
    "volume_a_ml": "Volume in the first segmentation.",
    "volume_b_ml": "Volume in the second segmentation.",
    "volume_difference_ml": "Volume in the second less that in the first.",
    "volume_difference_percent": "The difference as part of the volume in the first.",
}
"""The columns of the table after ``index``, and what they hold."""


def agreement(
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    index: Sequence[int],
    voxel_mm: tuple[float, float, float],
) -> pd.DataFrame:
    """Return how well two segmentations of the same grid agree, label by label.

    The surface of a label is made of its voxels that have a face neighbour outside it; beyond the
    array all is outside.  Distances go from voxel centre to voxel centre and are exact.

    Parameters
    ----------
    a, b : ndarray of int, shape (x, y, z)
    index : sequence of int
        The labels wanted, in the order of the rows.
    voxel_mm : tuple of float
        Voxel size along x, y, z.

    Returns
    -------
    pandas.DataFrame
        ``index`` and the columns of :data:`MEASURES`.  A label that only one segmentation has
        overlaps by zero and has no distances; what is not defined is NaN.  Memory: a bool volume,
        and four volumes of float64 of the label's bounding box.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Maier-Hein et al. 2024, 10.1038/s41592-023-02151-z (definitions); Taha and Hanbury 2015,
    10.1186/s12880-015-0068-x.
    """
    if a.shape != b.shape:
        raise ValueError(f"The segmentations have the shapes {a.shape} and {b.shape}.")
    rows = [(label, *_measured(a == label, b == label, voxel_mm)) for label in index]
    return pd.DataFrame(rows, columns=["index", *MEASURES])


def _measured(a: Bool, b: Bool, voxel_mm: tuple[float, float, float]) -> tuple[float, ...]:
    """Return the values of :data:`MEASURES` of two masks, in that order."""
    size_a, size_b = np.count_nonzero(a), np.count_nonzero(b)
    if not size_a + size_b:
        return (*(np.nan,) * 4, 0.0, 0.0, 0.0, np.nan)
    both = np.count_nonzero(a & b)
    distances = surface_distances_mm(a, b, voxel_mm)
    millilitres = float(np.prod(voxel_mm)) / 1000
    difference = size_b - size_a
    return (
        both / (size_a + size_b - both),
        2 * both / (size_a + size_b),
        max(float(np.percentile(d, 95)) if d.size else np.nan for d in distances),
        float(np.concatenate(distances).mean()) if size_a and size_b else np.nan,
        size_a * millilitres,
        size_b * millilitres,
        difference * millilitres,
        100 * difference / size_a if size_a else np.nan,
    )


def surface_distances_mm(
    a: Bool, b: Bool, voxel_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances from each voxel of a mask's surface to the other mask's surface.

    Returns
    -------
    from_a, from_b : ndarray of float64, shape (n,)
        One value for each surface voxel of ``a`` and of ``b``; empty if one mask is.
    """
    if not (a.any() and b.any()):
        return np.empty(0), np.empty(0)
    box = bounding_box(a | b)
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    from_a = distance_mm(~surface_b, voxel_mm)[surface_a]
    from_b = distance_mm(~surface_a, voxel_mm)[surface_b]
    return from_a, from_b


def _surface(mask: Bool) -> Bool:
    return mask & ~ndimage.binary_erosion(mask)

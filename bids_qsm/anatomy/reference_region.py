"""Cerebrospinal fluid of the lateral ventricles: the region that χ is relative to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import Image, voxel_sizes_mm

VENTRICLE = "lateral ventricle"
MINIMUM_VOXELS = 50
# pure fluid decays slower than this; choroid plexus, vessels and partial volume decay faster
MAXIMUM_R2STAR_PER_S = 10.0


@dataclass(frozen=True)
class ReferenceRegion:
    """Voxels of pure fluid (bool, may be empty), and what had to be given up for them."""

    mask: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()


def csf_reference_region(
    labels: Image,
    table: pd.DataFrame,
    valid: NDArray[np.bool_],
    r2star_per_s: NDArray[np.floating] | None = None,
) -> ReferenceRegion:
    """Return the inner part of the lateral ventricles.

    The ventricles lose a rim of a voxel (1 mm at least), in which tissue is mixed in, and voxels
    that decay too fast for fluid.  Where fewer than 50 voxels remain, the rim is kept, then the
    fast ones too; where even that is too small, the region is empty.

    Parameters
    ----------
    labels : Image
        The atlas' labels on the map's grid.
    table : pandas.DataFrame
        The atlas' table; the ventricles are the rows named so.
    valid : ndarray of bool, shape (x, y, z)
        Where the susceptibility map can be trusted.
    r2star_per_s : ndarray, shape (x, y, z), optional

    References
    ----------
    Straub et al. 2017, 10.1002/mrm.26353.
    """
    named = table["name"].str.lower().str.replace(r"[-_]", " ", regex=True)
    index = table.loc[named.str.contains(VENTRICLE), "index"].to_numpy()
    if not index.size:
        warning = "The atlas has no lateral ventricles: there is no CSF reference region."
        return ReferenceRegion(np.zeros(labels.shape, bool), (warning,))
    ventricles = np.isin(labels.data, index) & valid
    voxel_mm = voxel_sizes_mm(labels.affine)
    depth_mm = ndimage.distance_transform_edt(ventricles, sampling=voxel_mm)
    inner = depth_mm > max(1.0, min(voxel_mm))
    fluid = np.ones(labels.shape, bool)
    if r2star_per_s is not None:
        fluid = np.isfinite(r2star_per_s) & (r2star_per_s < MAXIMUM_R2STAR_PER_S)
    tries = (
        (inner & fluid, ()),
        (ventricles & fluid, ("their rim was kept",)),
        (ventricles, ("their rim and voxels that decay fast for fluid were kept",)),
    )
    for mask, given_up in tries:
        if mask.sum() >= MINIMUM_VOXELS:
            return ReferenceRegion(
                mask,
                tuple(f"The lateral ventricles hold little pure CSF: {text}." for text in given_up),
            )
    warning = (
        f"The lateral ventricles have only {int(ventricles.sum())} voxels in the map "
        f"({MINIMUM_VOXELS} are needed): there is no CSF reference region."
    )
    return ReferenceRegion(np.zeros(labels.shape, bool), (warning,))

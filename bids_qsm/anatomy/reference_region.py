"""Cerebrospinal fluid of the lateral ventricles: the region that χ is relative to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.images import Image, voxel_sizes_mm

VENTRICLE = "lateral ventricle"
MINIMUM_VOXELS = 50
# pure fluid decays slower than this; choroid plexus, vessels and partial volume decay faster
MAXIMUM_R2STAR_PER_S = 10.0


ATRIA_MNI_MM = ((10.0, 40.0), (-50.0, -30.0), (-5.0, 27.0))
"""Distance from the midline, y and z between which the ventricles are their atria."""
ATRIA, VENTRICLES = "CSF of the ventricles' atria", "lateral-ventricle CSF"
OUTLIER_SD = 3.0


@dataclass(frozen=True)
class ReferenceRegion:
    """Voxels of pure fluid (bool, may be empty), their name, and what had to be given up."""

    mask: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()
    name: str = VENTRICLES


def atria_box(template: Image) -> Image:
    """Return where on the template the lateral ventricles, if any, are their atria (bool)."""
    axes = [np.arange(n, dtype=np.float64) for n in template.shape]
    voxel = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = np.ones(template.shape, bool)
    for i, (lower, upper) in enumerate(ATRIA_MNI_MM):
        row = template.affine[i]
        place = sum((row[j] * voxel[j] for j in range(3)), row[3])
        place = np.abs(place) if i == 0 else place
        inside &= (place >= lower) & (place <= upper)
    return template.like(inside)


def ventricle_labels(table: pd.DataFrame) -> NDArray[np.integer]:
    """Return the labels of the lateral ventricles."""
    named = table["name"].str.lower().str.replace(r"[-_]", " ", regex=True)
    index: NDArray[np.integer] = table.loc[named.str.contains(VENTRICLE), "index"].to_numpy()
    return index


def csf_reference_region(
    labels: Image,
    table: pd.DataFrame,
    valid: NDArray[np.bool_],
    r2star_per_s: NDArray[np.floating] | None = None,
    *,
    atria: NDArray[np.bool_] | None = None,
    veins: NDArray[np.bool_] | None = None,
    contrasts: Sequence[NDArray[np.floating]] = (),
) -> ReferenceRegion:
    """Return the inner part of the ventricles' atria, or else of the whole lateral ventricles.

    The ventricles lose a rim of a voxel (1 mm at least), in which tissue is mixed in, voxels
    that decay too fast for fluid, veins with their neighbours, and voxels that stand out in a map
    in which fluid is even: choroid plexus, and what else is not fluid.  Where fewer than 50 voxels
    of the atria remain, the whole ventricles are taken; where those have too few, the rim is kept,
    then all the others too; where even that is too small, the region is empty.

    Parameters
    ----------
    labels : Image
        The atlas' labels on the map's grid.
    table : pandas.DataFrame
        The atlas' table; the ventricles are the rows named so.
    valid : ndarray of bool, shape (x, y, z)
        Where the susceptibility map can be trusted.
    r2star_per_s : ndarray, shape (x, y, z), optional
    atria : ndarray of bool, shape (x, y, z), optional
        Where ventricles are atria: :func:`atria_box`, brought to the grid as the labels are.
    veins : ndarray of bool, shape (x, y, z), optional
    contrasts : sequence of ndarray, shape (x, y, z)
        Maps in which fluid is even, such as susceptibility and T1w before and after contrast
        agent: more than three standard deviations (robust ones) from the median stands out.

    References
    ----------
    Straub et al. 2017, 10.1002/mrm.26353 (CSF as reference); AJNR Am J Neuroradiol 2018; 39:467
    (a region in the atrium of each lateral ventricle).
    """
    index = ventricle_labels(table)
    if not index.size:
        warning = "The atlas has no lateral ventricles: there is no CSF reference region."
        return ReferenceRegion(np.zeros(labels.shape, bool), (warning,))
    ventricles = np.isin(labels.data, index) & valid
    voxel_mm = voxel_sizes_mm(labels.affine)
    depth_mm = ndimage.distance_transform_edt(ventricles, sampling=voxel_mm)
    inner = depth_mm > max(1.0, min(voxel_mm))
    fluid = _fluid(inner, r2star_per_s, veins, contrasts)
    warnings = []
    if atria is not None:
        region = inner & fluid & atria
        if region.sum() >= MINIMUM_VOXELS:
            return ReferenceRegion(region, name=ATRIA)
        warnings.append(
            f"The ventricles' atria hold only {int(region.sum())} voxels of pure CSF "
            f"({MINIMUM_VOXELS} are needed): χ is relative to the whole lateral ventricles."
        )
    tries = (
        (inner & fluid, ()),
        (ventricles & fluid, ("their rim was kept",)),
        (ventricles, ("their rim and voxels that decay fast for fluid were kept",)),
    )
    for mask, given_up in tries:
        if mask.sum() >= MINIMUM_VOXELS:
            said = [f"The lateral ventricles hold little pure CSF: {text}." for text in given_up]
            return ReferenceRegion(mask, (*warnings, *said))
    warning = (
        f"The lateral ventricles have only {int(ventricles.sum())} voxels in the map "
        f"({MINIMUM_VOXELS} are needed): there is no CSF reference region."
    )
    return ReferenceRegion(np.zeros(labels.shape, bool), (warning,))


def _fluid(
    inner: NDArray[np.bool_],
    r2star_per_s: NDArray[np.floating] | None,
    veins: NDArray[np.bool_] | None,
    contrasts: Sequence[NDArray[np.floating]],
) -> NDArray[np.bool_]:
    """Return the voxels that can be pure fluid, as the inner ventricles show what fluid is."""
    fluid = np.ones(inner.shape, bool)
    if r2star_per_s is not None:
        fluid = np.isfinite(r2star_per_s) & (r2star_per_s < MAXIMUM_R2STAR_PER_S)
    if veins is not None:
        fluid &= ~ndimage.binary_dilation(veins)
    typical = inner & fluid
    for values in contrasts:
        known = np.isfinite(values)
        if not (typical & known).any():
            continue
        sample = values[typical & known].astype(np.float64)
        median = np.median(sample)
        sd = 1.4826 * np.median(np.abs(sample - median))
        fluid &= known & (np.abs(values - median) <= OUTLIER_SD * sd)
    return fluid

"""Scans of one head in several sessions: rigid, image to image of the same contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.grids import coarser, near, on_grid
from bids_qsm.anatomy.itk import register_linearly
from bids_qsm.images import Image, voxel_sizes_mm

WORKING_VOXEL_MM = 2.0
RIM_MM = 5.0


@dataclass(frozen=True)
class SessionTransform:
    """Where points of a scan lie in the first scan's world.

    Attributes
    ----------
    to_first : ndarray of float64, shape (4, 4)
        Point mapping between the scanner positions (RAS, mm).
    overlap : float
        Dice overlap of the two brain masks, registered.
    """

    to_first: NDArray[np.float64]
    overlap: float


def register_session(
    first: Image, first_brain: Image, later: Image, later_brain: Image
) -> SessionTransform:
    """Register a scan rigidly to an earlier one of the same head.

    Parameters
    ----------
    first, later : Image
        Of one contrast, zero outside the brain.
    first_brain, later_brain : Image
        Brain masks (bool) on their grids.

    References
    ----------
    Mattes et al. 2003, 10.1109/TMI.2003.809072.
    """
    fixed, moving = (coarser(_scaled(*pair), WORKING_VOXEL_MM) for pair in
                     ((first, first_brain), (later, later_brain)))  # fmt: skip
    brain = coarser(first_brain.like(first_brain.data.astype(np.float32)), WORKING_VOXEL_MM)
    # the brain's edge shows in a rim around the mask
    mask = brain.like(near(brain.data > 0.5, RIM_MM, voxel_sizes_mm(brain.affine)))
    start = np.eye(4)
    start[:3, 3] = _centre_mm(later_brain) - _centre_mm(first_brain)
    mapping = register_linearly(fixed, moving, ("Rigid",), start=start, shrink="4x2x1", mask=mask)
    moved = on_grid(
        Image(later_brain.data, np.linalg.inv(mapping) @ later_brain.affine), first_brain, order=0
    )
    shared = 2 * np.count_nonzero(moved.data & first_brain.data)
    both = np.count_nonzero(moved.data) + np.count_nonzero(first_brain.data)
    return SessionTransform(np.linalg.inv(mapping), shared / max(both, 1))


def _scaled(image: Image, brain: Image) -> Image:
    """Return the image over its brightest tissue, and zero outside the brain."""
    inside = np.where(brain.data, np.nan_to_num(image.data), 0)
    low, top = np.percentile(inside[brain.data], (1, 99)) if brain.data.any() else (0.0, 1.0)
    span = max(float(top - low), 1e-30)
    return image.like(np.where(brain.data, (np.clip(inside, low, top) - low) / span + 0.2, 0)
                      .astype(np.float32))  # fmt: skip


def _centre_mm(mask: Image) -> NDArray[np.float64]:
    if not mask.data.any():
        return mask.affine[:3, 3]
    centre = np.argwhere(mask.data).mean(axis=0)
    return np.asarray(mask.affine[:3, :3] @ centre + mask.affine[:3, 3], np.float64)

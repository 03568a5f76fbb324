"""The deep grey matter of a head: an upright grid around it, and the images that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms, resample_map
from bids_qsm.images import Image

VOXEL_MM = 1.0
# deep grey matter and ventricles in the template's world (RAS, mm), with room to deform in
DEEP_GREY_BOX_MM = ((-52.0, 52.0), (-62.0, 48.0), (-42.0, 44.0))
BRIGHT_PERCENTILE = 99.0


@dataclass(frozen=True)
class Contrasts:
    """What one head looks like on one grid.

    Attributes
    ----------
    t1w : Image
        Brain alone (zero outside), float32, white matter near 1.
    chi : Image or None
        Susceptibility in ppm (zero outside the brain), float32, on the same grid.
    """

    t1w: Image
    chi: Image | None = None


@dataclass(frozen=True)
class SeriesChi:
    """A susceptibility map on the grid of its series, and where the T1w's points lie in it.

    Attributes
    ----------
    chi : Image
        In ppm.
    mask : Image
        Where it holds (bool).
    t1w_to_gre : ndarray, shape (4, 4)
        Point mapping from the T1w's world to the series' (RAS, mm).
    """

    chi: Image
    mask: Image
    t1w_to_gre: NDArray[np.float64]


def brain_alone(t1w: PreparedT1w) -> Image:
    """Return the T1w image without what is not brain, scaled so that white matter is near 1."""
    return scaled_brain(t1w.image.like(np.where(t1w.brain.data, t1w.image.data, 0)))


def scaled_brain(brain: Image) -> Image:
    """Return a brain that is zero outside, with its brightest per cent cut and set to 1."""
    top = float(np.percentile(brain.data[brain.data > 0], BRIGHT_PERCENTILE))
    return brain.like(np.clip(brain.data / top, 0, 1).astype(np.float32))


def cropped(image: Image, box_mm: Sequence[tuple[float, float]]) -> Image:
    """Return the part of an image within a box of its world; the axes may be flipped."""
    corners = np.array(np.meshgrid(*box_mm)).reshape(3, -1)
    to_voxel = np.linalg.inv(image.affine)
    voxels = to_voxel[:3, :3] @ corners + to_voxel[:3, 3:]
    first = np.maximum(np.floor(voxels.min(axis=1)).astype(int), 0)
    last = np.minimum(np.ceil(voxels.max(axis=1)).astype(int) + 1, image.shape)
    shift = np.eye(4)
    shift[:3, 3] = first
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return Image(np.ascontiguousarray(image.data[part]), image.affine @ shift)


def deep_grey_grid(t1w: PreparedT1w, voxel_mm: float = VOXEL_MM) -> Image:
    """Return the grid (zeros) of a box around the deep grey matter in the T1w's world.

    It is upright as the template is, isotropic, and as large as the template's box becomes in
    this head; the T1w itself may be oblique or have thick slices.
    """
    matrix = t1w.template_to_t1w
    left, _, right = np.linalg.svd(matrix[:3, :3])
    axes = left @ right  # the rotation that is nearest to the affine
    corners = np.array(np.meshgrid(*DEEP_GREY_BOX_MM)).reshape(3, -1)
    along_axes = axes.T @ (matrix[:3, :3] @ corners + matrix[:3, 3:])
    first, last = along_axes.min(axis=1), along_axes.max(axis=1)
    affine = np.eye(4)
    affine[:3, :3] = voxel_mm * axes
    affine[:3, 3] = axes @ first
    x, y, z = np.ceil((last - first) / voxel_mm).astype(int) + 1
    return Image(np.zeros((x, y, z), np.float32), affine)


def contrasts_through(
    grid: Image,
    mappings: Sequence[PointMapping],
    t1w: PreparedT1w,
    series: SeriesChi | None = None,
) -> Contrasts:
    """Return the T1w's brain, and χ where there is a series, on a grid.

    ``mappings`` lead in turn from the grid's world to the T1w's; none where they are the same.
    """
    image = apply_transforms(brain_alone(t1w), grid, mappings)
    if series is None:
        return Contrasts(image)
    to_series = (*mappings, series.t1w_to_gre)
    return Contrasts(image, resample_map(series.chi, series.mask, grid, to_series))


def centre_mm(brain: Image) -> NDArray[np.float64]:
    """Return where the middle of what is not zero lies (RAS, mm)."""
    middle = np.argwhere(brain.data > 0).mean(axis=0)
    return brain.affine[:3, :3] @ middle + brain.affine[:3, 3]

"""T1w to gradient echo: rigid, by mutual information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import coarser, near, on_grid
from bids_qsm.anatomy.itk import register_linearly
from bids_qsm.images import Image, voxel_sizes_mm

WORKING_VOXEL_MM = 2.0
POOR_OVERLAP = 0.75
WORSE = 0.95  # images that were aligned before may lose a little by resampling
MUCH_TURN_DEGREES = 30.0
RIM_MM = 5.0


@dataclass(frozen=True)
class RigidTransform:
    """Where points of the T1w lie in the gradient echo's world.

    Attributes
    ----------
    t1w_to_gre : ndarray of float64, shape (4, 4)
        Point mapping between the scanner positions of the two images (RAS, mm).
    mutual_information_before, mutual_information : float
        Of the two images (nats) with their headers alone, and registered.
    overlap : float
        Part of the gradient echo's brain mask that lies in the T1w's.
    warnings : tuple of str
    """

    t1w_to_gre: NDArray[np.float64]
    mutual_information_before: float
    mutual_information: float
    overlap: float
    warnings: tuple[str, ...] = ()

    @property
    def gre_to_t1w(self) -> NDArray[np.float64]:
        """The inverse mapping, which brings the T1w image onto the gradient echo's grid."""
        return np.linalg.inv(self.t1w_to_gre)


def register_t1w_to_gre(t1w: PreparedT1w, magnitude: Image, mask: Image) -> RigidTransform:
    """Register a T1w image rigidly to a gradient-echo magnitude.

    The search starts from the headers and, in case they lie, from the masks' centres; the better
    of the two by mutual information within the gradient echo's mask is kept.

    Parameters
    ----------
    t1w : PreparedT1w
    magnitude : Image, shape (x, y, z)
        One echo, or a combination of the echoes.
    mask : Image
        Brain or head mask (bool) on the same grid.

    References
    ----------
    Mattes et al. 2003, 10.1109/TMI.2003.809072.
    """
    fixed = coarser(magnitude.like(_clipped(magnitude.data, mask.data)), WORKING_VOXEL_MM)
    inside = coarser(mask.like(mask.data.astype(np.float32)), WORKING_VOXEL_MM)
    # the brain's edge shows in a rim around the mask
    inside = inside.like(near(inside.data > 0.5, RIM_MM, voxel_sizes_mm(inside.affine)))
    moving = coarser(t1w.image.like(_clipped(t1w.image.data, t1w.brain.data)), WORKING_VOXEL_MM)
    found = [
        register_linearly(fixed, moving, ("Rigid",), start=start, shrink="4x2x1", mask=inside)
        for start in _starts(t1w.brain, mask)
    ]
    scores = [mutual_information(fixed, moving, inside.data, matrix) for matrix in found]
    best = int(np.argmax(scores))
    gre_to_t1w = found[best]
    before = mutual_information(fixed, moving, inside.data, np.eye(4))
    overlap = _overlap(t1w.brain, mask, gre_to_t1w)
    return RigidTransform(
        t1w_to_gre=np.linalg.inv(gre_to_t1w),
        mutual_information_before=before,
        mutual_information=scores[best],
        overlap=overlap,
        warnings=_doubts(gre_to_t1w, before, scores[best], overlap),
    )


def _clipped(data: NDArray, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the image without what is much brighter than the brain, and at its scale."""
    top = float(np.percentile(data[mask], 99)) if mask.any() else float(data.max())
    return (np.clip(data, 0, 1.2 * top) / max(top, 1e-30)).astype(np.float32)


def _starts(brain: Image, mask: Image) -> list[NDArray[np.float64]]:
    """Return the headers' word and, where the centres lie far apart, their alignment."""
    shift = np.eye(4)
    shift[:3, 3] = _centre_mm(brain) - _centre_mm(mask)
    far = np.linalg.norm(shift[:3, 3]) > 20.0
    return [np.eye(4), shift] if far else [np.eye(4)]


def _centre_mm(mask: Image) -> NDArray[np.float64]:
    return mask.affine[:3, :3] @ np.argwhere(mask.data).mean(axis=0) + mask.affine[:3, 3]


def mutual_information(
    fixed: Image, moving: Image, inside: NDArray[np.bool_], gre_to_t1w: NDArray[np.float64]
) -> float:
    """Return the mutual information (nats) of 48 x 48 grey levels within a mask."""
    moved = on_grid(Image(moving.data, np.linalg.inv(gre_to_t1w) @ moving.affine), fixed)
    counts, _, _ = np.histogram2d(fixed.data[inside], moved.data[inside], bins=48)
    joint = counts / counts.sum()
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())


def _overlap(brain: Image, mask: Image, gre_to_t1w: NDArray[np.float64]) -> float:
    moved = on_grid(Image(brain.data, np.linalg.inv(gre_to_t1w) @ brain.affine), mask, order=0)
    return float((moved.data & mask.data).sum() / max(1, mask.data.sum()))


def _doubts(
    gre_to_t1w: NDArray[np.float64], before: float, after: float, overlap: float
) -> tuple[str, ...]:
    cosine = (np.trace(gre_to_t1w[:3, :3]) - 1) / 2
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    warnings = []
    if overlap < POOR_OVERLAP:
        warnings.append(
            f"Only {100 * overlap:.0f} % of the gradient echo's brain mask lies in the T1w's "
            "brain after registration: check their alignment in the report."
        )
    if after < WORSE * before:
        warnings.append(
            "Registration of the T1w to the gradient echo lowered the mutual information "
            f"({before:.3f} to {after:.3f}): check their alignment in the report."
        )
    if degrees > MUCH_TURN_DEGREES:
        warnings.append(
            f"Registration turned the T1w by {degrees:.0f} degrees against its header: "
            "check their alignment in the report."
        )
    return tuple(warnings)

"""CT to T1w: checks of the CT, rigid registration, and the CT on the T1w's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import coarser, deep_inside, largest_component, near, on_grid
from bids_qsm.anatomy.itk import register_linearly
from bids_qsm.anatomy.rigid import mutual_information
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image, voxel_sizes_mm

AIR_HU, LEAST_HU, LARGEST_HU = -500.0, -1024, 32000
SOFT_HU, BONE_HU = (-20.0, 100.0), 300.0
BRAIN_WINDOW_HU = (0.0, 100.0)
HEAD_WINDOW_HU = (-200.0, 800.0)
COARSE_MM, FINE_MM = 3.0, 1.5
ENOUGH_VOXELS = 150_000
CORE_MM, LEAST_BRAIN_ML = 9.0, 200.0
RIM_MM, SHELL_MM = 8.0, (4.0, 14.0)
POOR_OVERLAP, POOR_SKULL, POOR_INFORMATION = 0.85, 0.15, 0.15
"""Least share of the T1w's brain that is soft in the CT, of the shell around it that is bone, and
mutual information (nats) of what is registered."""


@dataclass(frozen=True)
class CtRegistration:
    """Where points of the T1w lie in the CT's world.

    Attributes
    ----------
    t1w_to_ct : ndarray of float64, shape (4, 4)
        Point mapping between the scanner positions of the two images (RAS, mm).
    mutual_information : float
        In nats, of the T1w and the CT's brain window, in the brain and around it.
    overlap : float
        Share of the T1w's brain, within the CT, that is soft tissue there.
    skull : float
        Share of a shell around the upper part of that brain that is bone in the CT.
    covered : float
        Share of the T1w's brain that the CT's field of view holds.
    """

    t1w_to_ct: NDArray[np.float64]
    mutual_information: float
    overlap: float
    skull: float
    covered: float

    @property
    def failed(self) -> bool:
        """Whether the two images do not lie over each other."""
        return (
            self.overlap < POOR_OVERLAP
            or self.skull < POOR_SKULL
            or self.mutual_information < POOR_INFORMATION
        )


def load_ct(path: Path) -> Image:
    """Read a CT in HU (int16), values cut at -1024.

    Raises
    ------
    UnreadableInputError
        If it is not one volume, holds NaN, or is not in HU.
    """
    image = load_image(path)
    if image.data.ndim != 3 or min(image.shape) < 8:
        raise UnreadableInputError(
            f"{path}: a CT is one volume of at least 8 slices, got the shape "
            f"{' x '.join(str(n) for n in image.data.shape)}; convert one series of the head."
        )
    low, high = float(image.data.min()), float(image.data.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableInputError(f"{path}: the CT holds NaN or infinity; convert it again.")
    air = float(np.mean(image.data < AIR_HU))
    if air < 0.01 or high < BONE_HU:
        raise UnreadableInputError(
            f"{path}: the CT is not in HU: its values go from {low:.0f} to {high:.0f}, and "
            f"{100 * air:.0f} % of them are below {AIR_HU:.0f}, where air is -1000 and bone above "
            f"{BONE_HU:.0f}; convert it with the slope and intercept of its DICOM files."
        )
    np.clip(image.data, LEAST_HU, LARGEST_HU, out=image.data)
    return image.like(np.rint(image.data).astype(np.int16))


def register_ct(t1w: PreparedT1w, ct: Image) -> CtRegistration:
    """Register a CT rigidly to a T1w image by mutual information.

    First the heads at 3 mm, from the headers (unless these lie far apart) and from the brains'
    centres; from the better of the two, the brain window (0 to 100 HU) at some 1.5 mm in the brain
    and a rim, in which the skull's inside shows.  The window takes metal's brightness away.

    Parameters
    ----------
    t1w : PreparedT1w
    ct : Image, shape (x, y, z)
        HU, from :func:`load_ct`.

    Returns
    -------
    CtRegistration
        Memory: copies of the CT at 1.5 mm, some 50 MB.

    Raises
    ------
    ValueError
        If the CT shows no brain.

    References
    ----------
    Mattes et al. 2003, 10.1109/TMI.2003.809072.
    """
    top = 1.2 * float(np.percentile(t1w.image.data[t1w.brain.data], 99))
    head = t1w.image.like(np.minimum(t1w.image.data, top))
    brain = t1w.brain.like(t1w.brain.data.astype(np.float32))
    small_ct = coarser(ct, COARSE_MM)
    centre = _centre_of_brain(small_ct)
    fixed = coarser(head, COARSE_MM)
    moving = _window(small_ct, HEAD_WINDOW_HU)
    inside = _around(coarser(brain, COARSE_MM), 4 * RIM_MM)
    shift = np.eye(4)
    shift[:3, 3] = centre - _centre_mm(t1w.brain)
    far_mm = float(np.linalg.norm(shift[:3, 3]))
    starts = [start for start, tried in ((np.eye(4), far_mm < 60), (shift, far_mm > 10)) if tried]
    found = [
        register_linearly(fixed, moving, ("Rigid",), start=start, shrink="4x2", mask=inside)
        for start in starts
    ]
    scores = [mutual_information(fixed, moving, inside.data, matrix) for matrix in found]
    start = found[int(np.argmax(scores))]
    box = _box(t1w.brain, RIM_MM + 4)
    fixed, inside = coarser(_part(head, box), FINE_MM), coarser(_part(brain, box), FINE_MM)
    inside = _around(inside, RIM_MM)
    moving = _window(coarser(ct, FINE_MM), BRAIN_WINDOW_HU)
    matrix = register_linearly(
        fixed,
        moving,
        ("Rigid",),
        start=start,
        shrink="2x1",
        mask=inside,
        share=min(0.5, ENOUGH_VOXELS / max(1, np.count_nonzero(inside.data))),
    )
    information = mutual_information(fixed, moving, inside.data, matrix)
    return CtRegistration(matrix, information, *_fit(coarser(brain, 2.0), ct, matrix))


def ct_on_t1w(ct: Image, t1w: Image, registration: CtRegistration) -> Image:
    """Return the CT on the T1w's grid (HU, int16; -1024 beyond its field of view)."""
    to_voxel = np.linalg.inv(ct.affine) @ registration.t1w_to_ct @ t1w.affine
    moved = ndimage.affine_transform(
        ct.data,
        to_voxel[:3, :3],
        to_voxel[:3, 3],
        t1w.shape,
        np.float32,
        order=1,
        cval=LEAST_HU,
    )
    return t1w.like(np.rint(moved).astype(np.int16))


def brain_on_ct(
    brain: Image, ct: Image, registration: CtRegistration, depth_mm: float
) -> NDArray[np.bool_]:
    """Return the T1w's brain, so far within its border, on the CT's grid."""
    deep = deep_inside(brain.data, depth_mm, voxel_sizes_mm(brain.affine))
    to_voxel = np.linalg.inv(brain.affine) @ np.linalg.inv(registration.t1w_to_ct) @ ct.affine
    moved = ndimage.affine_transform(
        deep.view(np.uint8), to_voxel[:3, :3], to_voxel[:3, 3], ct.shape, order=0
    )
    return np.asarray(moved > 0)


def _centre_of_brain(ct: Image) -> NDArray[np.float64]:
    """Return the middle of the largest part of soft tissue that bone encloses."""
    voxel_mm = voxel_sizes_mm(ct.affine)
    soft = (ct.data > SOFT_HU[0]) & (ct.data < SOFT_HU[1])
    # slice by slice: below, the skull is open
    up = int(np.argmax(np.abs(ct.affine[2, :3])))
    flat = np.expand_dims(ndimage.generate_binary_structure(2, 1), up)
    within = ndimage.binary_fill_holes(near(ct.data > BONE_HU, 4.0, voxel_mm), flat)
    core = largest_component(deep_inside(soft & within, CORE_MM, voxel_mm))
    volume_ml = float(near(core, CORE_MM, voxel_mm).sum() if core.any() else 0)
    volume_ml *= ct.geometry.voxel_mm3 / 1000
    if volume_ml < LEAST_BRAIN_ML:
        raise ValueError(
            f"the CT shows no brain: only {volume_ml:.0f} mL of soft tissue lie within bone; "
            "it must cover the head"
        )
    return _centre_mm(ct.like(core))


def _window(ct: Image, limits_hu: tuple[float, float]) -> Image:
    return ct.like(np.clip(ct.data, *limits_hu).astype(np.float32))


def _around(inside: Image, radius_mm: float) -> Image:
    return inside.like(near(inside.data > 0.5, radius_mm, voxel_sizes_mm(inside.affine)))


def _centre_mm(mask: Image) -> NDArray[np.float64]:
    return mask.affine[:3, :3] @ np.argwhere(mask.data).mean(axis=0) + mask.affine[:3, 3]


def _box(mask: Image, margin_mm: float) -> tuple[slice, ...]:
    voxels = np.argwhere(mask.data)
    margin = np.ceil(margin_mm / np.array(voxel_sizes_mm(mask.affine))).astype(int)
    low = np.maximum(voxels.min(axis=0) - margin, 0)
    high = np.minimum(voxels.max(axis=0) + margin + 1, mask.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _part(image: Image, box: tuple[slice, ...]) -> Image:
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Image(image.data[box], affine)


def _fit(brain: Image, ct: Image, t1w_to_ct: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return how much of the brain is soft, of a shell above its middle bone, and is covered."""
    small = coarser(ct, 2.0)
    moved = Image(small.data + 2000.0, np.linalg.inv(t1w_to_ct) @ small.affine)  # 0 is beyond
    hu = on_grid(moved, brain).data - 2000.0
    covered = hu > LEAST_HU - 500
    inside = brain.data > 0.5
    voxel_mm = voxel_sizes_mm(brain.affine)
    deep = deep_inside(inside, 3.0, voxel_mm) & covered
    soft = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    shell = near(inside, SHELL_MM[1], voxel_mm) & ~near(inside, SHELL_MM[0], voxel_mm)
    up = np.argmax(np.abs(brain.affine[2, :3]))
    heights = np.indices(brain.shape, sparse=True)[up] * brain.affine[2, up]
    upper = (
        heights
        > heights.ravel()[np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {int(up)})))].mean()
    )
    shell = shell & upper & covered
    return (
        float(soft[deep].mean()) if deep.any() else 0.0,
        float((hu[shell] > BONE_HU).mean()) if shell.any() else 0.0,
        float(covered[inside].mean()),
    )

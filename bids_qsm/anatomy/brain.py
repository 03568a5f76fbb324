"""The T1w image made ready: receive field removed, brain found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.grids import coarser, deep_inside, largest_component, near, on_grid
from bids_qsm.anatomy.itk import from_itk, load_ants, register_linearly, to_itk
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, voxel_sizes_mm

WORKING_VOXEL_MM = 2.0
BIAS_VOXEL_MM = 6.0  # the field is smooth: 4 mm takes thrice the time and is no flatter
HEAD_HEIGHT_MM = 110.0  # from the crown to below the cerebrum
CROWN_TO_CENTRE_MM = 65.0
USUAL_BRAIN_ML = (900.0, 2200.0)
MOST_TISSUE_ML = 2000.0  # more than any brain has without its fluid
DARKEST_TISSUE = (0.5, 0.55, 0.6, 0.65, 0.7)  # of white matter; fluid is darker than half of it


@dataclass(frozen=True)
class PreparedT1w:
    """A T1w image ready to be registered.

    Attributes
    ----------
    image : Image
        Corrected for the receive field (N4), float32, whole head as it came.
    brain : Image
        Brain mask (bool) with the ventricles and the fluid in the sulci.
    template_to_t1w : ndarray, shape (4, 4)
        Affine mapping of points of the template's world to the T1w's (RAS, mm).
    warnings : tuple of str
    """

    image: Image
    brain: Image
    template_to_t1w: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def prepare_t1w(t1w: Image, template: Image | None = None) -> PreparedT1w:
    """Correct the receive field of a T1w image and find the brain.

    Tissue of about the brain's brightness that hangs together after an erosion is registered
    (affine) to the template's brain.  The template then bounds a second search, whose sulci and
    ventricles are filled.  The head may be whole, defaced, or a brain alone.

    Parameters
    ----------
    t1w : Image
    template : Image, optional
        A brain that is zero outside; MNI152NLin2009cAsym by default.

    Raises
    ------
    UnreadableInputError
        If the image has no contrast to find a brain by.

    References
    ----------
    N4: Tustison et al. 2010, 10.1109/TMI.2010.2046908.
    """
    if not np.isfinite(t1w.data).all() or not t1w.data.any():
        raise UnreadableInputError(
            "The T1w image is empty or holds NaN: look at it, and convert it again or leave it out."
        )
    template = coarser(template or load_template(), WORKING_VOXEL_MM)
    image = remove_receive_field(t1w, Image(t1w.data > 0.5 * _otsu(t1w.data), t1w.affine))
    small = coarser(image, WORKING_VOXEL_MM)
    tissue, first = _first_brain(small)
    template_to_t1w = register_linearly(
        template,
        small.like(np.where(first, np.minimum(small.data, _bright(small.data[first])), 0)),
        ("Rigid", "Affine"),
        start=_centres_aligned(template, small.like(first)),
        shrink="4x2",
    )
    expected = on_grid(
        Image((template.data > 0).astype(np.float32), template_to_t1w @ template.affine), small
    )
    brain = small.like(_bounded_brain(tissue, expected.data > 0.5, small))
    full = image.like(on_grid(brain, image).data > 0.5)
    image = remove_receive_field(image, full)
    return PreparedT1w(image, full, template_to_t1w, _doubts(full, expected.data > 0.5, brain))


def remove_receive_field(image: Image, mask: Image) -> Image:
    """Divide an image by its smooth receive field, which N4 finds within ``mask``."""
    coarse = coarser(image, BIAS_VOXEL_MM)
    inside = coarser(mask.like(mask.data.astype(np.float32)), BIAS_VOXEL_MM)
    field = load_ants().n4_bias_field_correction(
        to_itk(coarse),
        mask=to_itk(inside.like(inside.data > 0.5)),
        shrink_factor=1,
        convergence={"iters": [30, 30, 20], "tol": 1e-4},
        return_bias_field=True,
    )
    log_field = coarse.like(np.log(np.maximum(from_itk(field).data, 1e-3)))
    smooth = _on_grid_extended(log_field, image)
    return image.like((image.data / np.exp(smooth)).astype(np.float32))


def _on_grid_extended(image: Image, reference: Image) -> NDArray[np.float32]:
    """Return values on a finer grid; beyond the last voxel its value goes on."""
    to_voxel = np.linalg.inv(image.affine) @ reference.affine
    return ndimage.affine_transform(
        image.data, to_voxel[:3, :3], to_voxel[:3, 3], reference.shape, order=1, mode="nearest"
    )


def _first_brain(head: Image) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return tissue of the brain's brightness, and the large part of it near the centre."""
    centre_distance = _distance_from_centre_mm(head)
    deep = head.data[(centre_distance < 40) & (head.data > 0)]
    white = float(np.percentile(deep, 75)) if deep.size else 0.0
    voxel_mm = voxel_sizes_mm(head.affine)
    voxel_ml = float(np.prod(voxel_mm)) / 1000
    for share in DARKEST_TISSUE:
        # fat and vessels are brighter than 1.3 times white matter
        tissue = (head.data > share * white) & (head.data < 1.3 * white)
        core = deep_inside(tissue, 4.5, voxel_mm)
        core = largest_component(core, core & (centre_distance < 60))
        first = largest_component(tissue & near(core, 7.0, voxel_mm))
        # the neck's muscles hang on where the threshold lies below their brightness
        if first.sum() * voxel_ml < MOST_TISSUE_ML:
            break
    if not core.any():
        raise UnreadableInputError(
            "No brain was found in the T1w image: check that it is a T1-weighted head."
        )
    return tissue, first


def _distance_from_centre_mm(head: Image) -> NDArray[np.float64]:
    """Return each voxel's distance from a point some way below the crown."""
    voxels = np.indices(head.shape).reshape(3, -1)
    world = (head.affine[:3, :3] @ voxels).T + head.affine[:3, 3]
    shown = ndimage.binary_opening(head.data > 0.6 * _otsu(head.data), iterations=2).ravel()
    if not shown.any():
        shown = head.data.ravel() > 0
    crown = np.percentile(world[shown, 2], 99.9)
    upper = shown & (world[:, 2] > crown - HEAD_HEIGHT_MM)
    centre = np.append(np.median(world[upper, :2], axis=0), crown - CROWN_TO_CENTRE_MM)
    return np.linalg.norm(world - centre, axis=1).reshape(head.shape)


def _bounded_brain(
    tissue: NDArray[np.bool_], expected: NDArray[np.bool_], head: Image
) -> NDArray[np.bool_]:
    """Return the brain again, near the template's, with sulci and ventricles filled."""
    voxel_mm = voxel_sizes_mm(head.affine)
    allowed = near(expected, 8.0, voxel_mm)
    core = largest_component(deep_inside(tissue & allowed, 3.5, voxel_mm), expected)
    parenchyma = largest_component(tissue & allowed & near(core, 6.0, voxel_mm))
    closed = deep_inside(near(parenchyma, 8.0, voxel_mm), 7.0, voxel_mm)
    return ndimage.binary_fill_holes(closed & allowed)


def _doubts(full: Image, expected: NDArray[np.bool_], brain: Image) -> tuple[str, ...]:
    volume_ml = float(full.data.sum()) * full.geometry.voxel_mm3 / 1000
    overlap = 2 * (expected & brain.data).sum() / max(1, expected.sum() + brain.data.sum())
    warnings = []
    if not USUAL_BRAIN_ML[0] < volume_ml < USUAL_BRAIN_ML[1]:
        warnings.append(f"The brain mask of the T1w has an unusual volume ({volume_ml:.0f} mL).")
    if overlap < 0.85:
        warnings.append(
            f"The brain mask of the T1w fits the template's brain poorly (Dice {overlap:.2f})."
        )
    return tuple(warnings)


def _centres_aligned(template: Image, brain: Image) -> NDArray[np.float64]:
    """Return the translation that takes the template's centre of mass to the brain's."""
    start = np.eye(4)
    start[:3, 3] = _centre_mm(brain) - _centre_mm(template.like(template.data > 0))
    return start


def _centre_mm(mask: Image) -> NDArray[np.float64]:
    centre = np.argwhere(mask.data).mean(axis=0)
    return mask.affine[:3, :3] @ centre + mask.affine[:3, 3]


def _bright(values: NDArray) -> float:
    return float(np.percentile(values, 98))


def _otsu(data: NDArray) -> float:
    """Return the threshold that separates dark and bright best (Otsu 1979)."""
    counts, edges = np.histogram(data[data > 0], 256)
    values = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * values)
    between = (sums[-1] * below / total - sums) ** 2 / np.maximum(below * (total - below), 1)
    return float(values[np.argmax(between)])

"""Checks that need labels alone: sizes, pieces, sides, and how structures lie to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.segmentation_quality.check import Check, checked
from bids_qsm.numerics.segmentation_quality.structures import Structure, pairs

VOLUMES_ML = {
    "thalamus": (3.5, 12.0),
    "caudate": (1.8, 6.5),
    "putamen": (2.3, 9.0),
    "pallidum": (0.8, 3.2),
    "accumbens": (0.2, 1.2),
    "hippocampus": (1.8, 6.5),
    "amygdala": (0.6, 3.0),
    "lateral ventricle": (1.5, 70.0),
}
"""On one side.  About half to 1.7 times the adult means of FreeSurfer (Potvin et al. 2016,
10.1016/j.neuroimage.2016.05.016), so that atrophy and another tool's borders pass."""

LARGEST_ASYMMETRY = 0.4
"""Of volumes, (L - R) / mean; four standard deviations or more (Guadalupe et al. 2017,
10.1007/s11682-016-9629-z).  Ventricles differ more by nature."""
LARGEST_VENTRICLE_ASYMMETRY = 1.2
LEAST_IN_ONE_PIECE = 0.85
LEAST_VENTRICLE_IN_ONE_PIECE = 0.5

# (first, second, axis, least mm): on axis 0 the first lies further from the midplane, on axis 1
# further to the front, on axis 2 higher
ORDER = (
    ("putamen", "pallidum", 0, 1.5),
    ("pallidum", "thalamus", 0, 2.0),
    ("caudate", "thalamus", 1, 5.0),
    ("pallidum", "thalamus", 1, 5.0),
    ("caudate", "pallidum", 2, 3.0),
)
AXES = ("to the side", "to the front", "up")


def outline_checks(
    structures: Sequence[Structure],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    head_scale: float,
) -> list[Check]:
    """Check the outlines of structures.

    Parameters
    ----------
    structures : sequence of Structure
        One without voxels is checked for its volume alone.
    shape : tuple of int
        Of the volume of labels.
    affine : ndarray, shape (4, 4)
        Voxel index to mm, axes to the right, front and top.
    head_scale : float
        Size of the head over the usual one: the expected volumes are multiplied by it.
    """
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    present = [s for s in structures if s.voxels.size]
    checks = [_volume(s, voxel_ml, head_scale) for s in structures]
    checks += [_pieces(s, shape) for s in present]
    checks += [_inside(s, shape) for s in present]
    checks += _asymmetries(present)
    checks += _places(present, shape, affine)
    return checks


def _volume(structure: Structure, voxel_ml: float, head_scale: float) -> Check:
    sides = 2 if structure.side == "B" else 1
    low, high = (sides * head_scale * bound for bound in VOLUMES_ML[structure.name])
    volume = structure.voxels.size * voxel_ml
    advice = "its outline is wrong, or the brain unusual"
    return checked("volume", structure.identity, volume, low, high, "mL", advice)


def _pieces(structure: Structure, shape: tuple[int, ...]) -> Check:
    """Check how much of a structure hangs together; one of both sides has a piece on each."""
    sites = np.array(np.unravel_index(structure.voxels, shape))
    low = sites.min(axis=1)
    volume = np.zeros(sites.max(axis=1) - low + 1, bool)
    volume[tuple(sites - low[:, None])] = True
    pieces, _ = ndimage.label(volume, np.ones((3, 3, 3), int))
    sizes = np.sort(np.bincount(pieces[volume]))[::-1]
    main = sizes[: 2 if structure.side == "B" else 1].sum() / sizes.sum()
    least = LEAST_IN_ONE_PIECE
    if structure.name == "lateral ventricle":
        least = LEAST_VENTRICLE_IN_ONE_PIECE  # its horns are thin
    advice = f"it lies in {np.count_nonzero(sizes)} pieces"
    return checked("share in one piece", structure.identity, main, least, 1.0, "", advice)


def _inside(structure: Structure, shape: tuple[int, ...]) -> Check:
    sites = np.unravel_index(structure.voxels, shape)
    edge = np.zeros(structure.voxels.size, bool)
    for site, size in zip(sites, shape, strict=True):
        edge |= (site == 0) | (site == size - 1)
    advice = "the field of view cuts it"
    return checked("voxels at the edge", structure.identity, edge.sum(), 0, 0, "", advice)


def _asymmetries(structures: Sequence[Structure]) -> list[Check]:
    checks = []
    for left, right in pairs(structures):
        sizes = left.voxels.size, right.voxels.size
        value = 2 * (sizes[0] - sizes[1]) / sum(sizes)
        most = LARGEST_ASYMMETRY
        if left.name == "lateral ventricle":
            most = LARGEST_VENTRICLE_ASYMMETRY
        title = left.name.capitalize()
        advice = "one side's outline is wrong, or one side is shrunken"
        checks.append(
            checked("volume asymmetry", (left.name, "B", title), value, -most, most, "", advice)
        )
    return checks


def _places(
    structures: Sequence[Structure], shape: tuple[int, ...], affine: NDArray[np.float64]
) -> list[Check]:
    """Check sides, and how structures lie to each other: found where labels were exchanged."""
    centre = {(s.name, s.side): _centre_mm(s, shape, affine) for s in structures}
    checks = []
    for left, _ in pairs(structures):
        apart = centre[left.name, "R"][0] - centre[left.name, "L"][0]
        title = left.name.capitalize()
        advice = "left and right are exchanged, or the image is mirrored"
        place = (left.name, "B", title)
        checks.append(checked("right beyond left", place, apart, 2.0, np.inf, "mm", advice))
    for first, second, axis, least in ORDER:
        for side, outward in (("L", -1.0), ("R", 1.0)):
            if (first, side) in centre and (second, side) in centre:
                step = (centre[first, side] - centre[second, side])[axis]
                value = step * outward if axis == 0 else step
                word = {"L": "Left", "R": "Right"}[side]
                place = (f"{first} - {second}", side, f"{word} {first} against {second}")
                advice = "labels are exchanged or lie in the wrong place"
                check = f"distance {AXES[axis]}"
                checks.append(checked(check, place, value, least, np.inf, "mm", advice))
    return checks


def _centre_mm(
    structure: Structure, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    voxel = np.array(np.unravel_index(structure.voxels, shape)).mean(axis=1)
    return affine[:3, :3] @ voxel + affine[:3, 3]

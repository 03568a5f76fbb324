"""Lesions that grow from points which a reader has set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32

_SNAP_MM = 2.0
_SHELL_MM = (4.0, 12.0)
_FRACTION_STEP = 0.05
_HIGHEST_FRACTION = 0.9
_MOST_POINTS = int(np.iinfo(np.int16).max)

Box = tuple[slice, ...]


@dataclass(frozen=True)
class GrownLesions:
    """Regions around given points.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Number of the point (from 1) whose region a voxel belongs to; 0 is none.
    fractions : tuple of float
        For each point, where between surroundings and core its threshold lay; NaN where nothing
        grew.
    warnings : tuple of str
    """

    labels: NDArray[np.int16]
    fractions: tuple[float, ...]
    warnings: tuple[str, ...] = ()


def grow_from_points(
    flair: Float32,
    points: NDArray[np.floating],
    allowed: Bool,
    voxel_mm: tuple[float, float, float],
    *,
    white: Bool | None = None,
    fraction: float = 0.5,
    reach_mm: float = 20.0,
    least_contrast: float = 0.1,
) -> GrownLesions:
    """Grow each point to the voxels around it that are brighter than a local threshold.

    The core is the mean of the brightest voxels within 2 mm of the point, the surroundings are
    the median of normal-appearing tissue in a shell 4 to 12 mm away.  A region holds the voxels
    above half of the way between the two (the place of an edge, whatever blurs it) that hang
    together with the point.  A region that reaches further than ``reach_mm`` has leaked, into
    the cortex for example: its threshold is raised until it does not.

    Parameters
    ----------
    flair : ndarray of float32, shape (x, y, z)
        Any image in which lesions are bright.
    points : ndarray, shape (n, 3)
        Voxel coordinates of the points.
    allowed : ndarray of bool, shape (x, y, z)
        Where lesions may be: the brain.
    voxel_mm : tuple of float
    white : ndarray of bool, shape (x, y, z), optional
        White matter, from which the surroundings are taken; ``allowed`` by default.
    fraction : float
        Of the way from the surroundings to the core.
    reach_mm : float
        Largest distance of a lesion's voxel from its point.
    least_contrast : float
        A point whose core is not brighter than its surroundings by this fraction has no lesion.

    Returns
    -------
    GrownLesions
        A voxel that two points reach belongs to the first.  Memory: the labels.

    Raises
    ------
    ValueError
        If there are no points or too many, or one lies outside the image.
    """
    points = np.asarray(points, np.float64).reshape(-1, 3)
    _check(points, flair.shape)
    labels = np.zeros(flair.shape, np.int16)
    tissue = allowed if white is None else allowed & white
    fractions, warnings = [], []
    for number, point in enumerate(points, start=1):
        box, distance_mm = _around(point, flair.shape, voxel_mm, max(reach_mm, _SHELL_MM[1]))
        levels = _levels(flair[box], allowed[box], tissue[box], distance_mm)
        if levels is None or levels[0] <= (1 + least_contrast) * levels[1]:
            warnings.append(f"Point {number} is not on a hyperintensity: no lesion grew there.")
            fractions.append(float("nan"))
            continue
        region, used = _region(flair[box], allowed[box], distance_mm, levels, fraction, reach_mm)
        if used > fraction:
            warnings.append(
                f"The lesion of point {number} ran into its neighbourhood: its threshold was "
                f"raised from {fraction:.2f} to {used:.2f} of its contrast; check its outline."
            )
        free = region & (labels[box] == 0)
        labels[box][free] = number
        fractions.append(used)
    return GrownLesions(labels, tuple(fractions), tuple(warnings))


def _check(points: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if not 0 < len(points) <= _MOST_POINTS:
        raise ValueError(f"there must be 1 to {_MOST_POINTS} points, got {len(points)}")
    inside = (points > -0.5) & (points < np.array(shape) - 0.5)
    outside = np.flatnonzero(~inside.all(axis=1))
    if outside.size:
        raise ValueError(f"point {outside[0] + 1} lies outside the image")


def _around(
    point: NDArray[np.float64],
    shape: tuple[int, ...],
    voxel_mm: tuple[float, float, float],
    reach_mm: float,
) -> tuple[Box, NDArray[np.float64]]:
    """Return a box about a point, a voxel more than its reach, and distances from the point."""
    box = tuple(
        slice(max(0, int(p - reach_mm / v) - 1), int(p + reach_mm / v) + 3)
        for p, v in zip(point, voxel_mm, strict=True)
    )
    axes = np.ogrid[tuple(slice(b.start, min(b.stop, n)) for b, n in zip(box, shape, strict=True))]
    squared = sum(((a - p) * v) ** 2 for a, p, v in zip(axes, point, voxel_mm, strict=True))
    return box, np.sqrt(squared)


def _levels(
    flair: Float32, allowed: Bool, tissue: Bool, distance_mm: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return the intensities of the core at the point and of the tissue around it."""
    near = allowed & (distance_mm <= max(_SNAP_MM, float(distance_mm.min())))
    shell = tissue & (distance_mm >= _SHELL_MM[0]) & (distance_mm <= _SHELL_MM[1])
    if not near.any() or not shell.any():
        return None
    bright = np.sort(flair[near])[-max(1, near.sum() // 4) :]
    return float(bright.mean(dtype=np.float64)), float(np.median(flair[shell]))


def _region(
    flair: Float32,
    allowed: Bool,
    distance_mm: NDArray[np.float64],
    levels: tuple[float, float],
    fraction: float,
    reach_mm: float,
) -> tuple[Bool, float]:
    """Return the connected region about the point, and the fraction that kept it in its reach."""
    core, around = levels
    snap = distance_mm <= max(_SNAP_MM, float(distance_mm.min()))
    seed = np.unravel_index(int(np.argmax(np.where(snap & allowed, flair, -np.inf))), flair.shape)
    while True:
        above, _ = ndimage.label(allowed & (flair > around + fraction * (core - around)))
        region = above == above[seed]
        leaks = bool((region & (distance_mm > reach_mm)).any())
        if not leaks or fraction + _FRACTION_STEP > _HIGHEST_FRACTION:
            return region & (distance_mm <= reach_mm), fraction
        fraction += _FRACTION_STEP

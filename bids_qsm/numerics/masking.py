"""Where the brain is, and where its phase can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.distance import deeper_than, distance_mm
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box, place
from bids_qsm.numerics.pieces import filled, largest_piece
from bids_qsm.numerics.quantiles import median, percentiles
from bids_qsm.numerics.surface import Drive, grow, inside_of

_WORKING_MM = 3.0
_OPENING_MM = 11.0
_REACH = 4.0
"""Of a Gaussian, in standard deviations."""
_DARK = 0.45
"""Below this fraction of the brain's median a voxel at the rim is bone or air."""

CONTRASTS = ("gre", "t1w")


def magnitude_mask(magnitude: Float32) -> Bool:
    """Return the head: where the magnitude is above the air's, in one piece without holes.

    The threshold between head and air is Otsu's for the square root of the magnitude, which
    keeps bright fat and coil hot spots from ruling it.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z)

    References
    ----------
    Otsu 1979, 10.1109/TSMC.1979.4310076.
    """
    root = np.sqrt(np.maximum(np.nan_to_num(magnitude, posinf=0.0), 0.0))
    return largest_piece(_filled_in_planes(root > _otsu(root)))


def _otsu(values: Float32) -> float:
    """Return the threshold with the greatest variance between the classes it makes."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts, dtype=np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    difference = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1:][np.argmax(below * above * difference**2)])


def brain_mask(
    magnitude: Float32, voxel_mm: tuple[float, float, float], *, contrast: str = "gre"
) -> Bool:
    """Find the brain without a template: a surface grows from its middle to its edge.

    The start is the middle of the largest sphere that fits into the head, so that neither the
    neck nor the orientation matters.  Dark voxels at the rim (bone, air) and thin bridges to
    tissue outside the skull are then taken off.  The mask tends to the inside of the brain's
    edge.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z)
        Of gradient echoes (root of the sum of squares over them) or T1-weighted.
    voxel_mm : tuple of float
    contrast : str
        ``gre``: tissue and fluid about equally bright; ``t1w``: dark fluid.

    Raises
    ------
    ValueError
        If the contrast is unknown or nothing like a brain is found.

    References
    ----------
    Smith 2002, 10.1002/hbm.10062.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"contrast must be one of {', '.join(CONTRASTS)}, got {contrast!r}.")
    volume = np.asarray(magnitude, np.float32)
    if not np.isfinite(volume).all():
        volume = np.nan_to_num(volume, posinf=0.0, neginf=0.0)
    if contrast == "t1w":  # dark sulci are not an edge
        volume = ndimage.gaussian_filter(volume, [0.7 / v for v in voxel_mm])
    least, most = percentiles(volume, (2, 98))
    threshold = least + 0.1 * (most - least)
    head = volume > threshold
    if not head.any():
        raise ValueError("No brain was found in the magnitude: it has no signal; give a mask.")
    centre_mm, radius_mm = _middle_of_head(head, voxel_mm)
    box, ball = _ball(volume.shape, voxel_mm, centre_mm, radius_mm)
    typical = median(volume[box][ball & head[box]])
    fraction, reach_mm = (0.5, 20) if contrast == "gre" else (0.42, 12)
    drive = Drive(least, threshold, typical, fraction, reach_mm)
    surface = grow(volume, voxel_mm, centre_mm, 0.8 * radius_mm, drive)
    inside = inside_of(surface, volume.shape, voxel_mm)
    if inside.sum() < 0.02 * head.sum():
        raise ValueError("No brain was found in the magnitude: it has no closed edge; give a mask.")
    return _trimmed(inside, volume, voxel_mm, _DARK if contrast == "gre" else 0.0)


def _middle_of_head(
    head: Bool, voxel_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], float]:
    """Return the middle (mm) and radius of the largest sphere that fits into the head."""
    strides = [max(1, int(_WORKING_MM / v)) for v in voxel_mm]
    first = [(n - 1) % s // 2 for n, s in zip(head.shape, strides, strict=True)]
    coarse = head[tuple(slice(f, None, s) for f, s in zip(first, strides, strict=True))]
    coarse_mm = [s * v for s, v in zip(strides, voxel_mm, strict=True)]
    depth = distance_mm(np.pad(filled(coarse), 1), coarse_mm)[1:-1, 1:-1, 1:-1]
    middle = np.argwhere(largest_piece(depth > 0.9 * depth.max())).mean(axis=0)
    return (middle * strides + first) * np.array(voxel_mm), float(depth.max())


def _ball(
    shape: tuple[int, ...],
    voxel_mm: tuple[float, float, float],
    centre_mm: NDArray[np.float64],
    radius_mm: float,
) -> tuple[tuple[slice, ...], Bool]:
    """Return the middle of a sphere, with the box in which it lies."""
    reach_mm = 0.6 * radius_mm
    box = tuple(
        slice(max(0, int((c - reach_mm) / v)), min(n, int((c + reach_mm) / v) + 2))
        for n, v, c in zip(shape, voxel_mm, centre_mm, strict=True)
    )
    axes = np.ogrid[box]
    squared = sum((axis * v - c) ** 2 for axis, v, c in zip(axes, voxel_mm, centre_mm, strict=True))
    return box, np.asarray(squared <= reach_mm**2)


def _trimmed(
    inside: Bool, volume: Float32, voxel_mm: tuple[float, float, float], dark: float
) -> Bool:
    """Take dark voxels at the rim, and what only a thin bridge holds, off the mask."""
    box = bounding_box(inside)
    inner = inside[box]
    tissue = inner & (volume[box] > dark * np.float32(median(volume[box][inner])))
    tissue = filled(largest_piece(tissue))
    core = largest_piece(_deep(tissue, voxel_mm, _OPENING_MM))
    if not core.any():
        core = tissue
    near = ~deeper_than(~core, voxel_mm, _OPENING_MM)
    return place(filled(tissue & near), box, inside.shape)


def brain(brain: Bool, quality: Float32, magnitude: Float32, geometry: Geometry) -> Bool:
    """Return the brain mask itself: its largest piece, holes filled.

    Parameters are those of :func:`brain_and_quality`.
    """
    return filled(largest_piece(brain))


def quality(
    brain: Bool,
    quality: Float32,
    magnitude: Float32,
    geometry: Geometry,
    *,
    threshold: float = 0.3,
    smoothing_mm: float = 1.5,
) -> Bool:
    """Return where the phase is reliable, whatever the tissue; ``brain`` is not used.

    Parameters are those of :func:`brain_and_quality`.
    """
    reliable = _smoothed(quality > threshold, geometry, smoothing_mm)
    return filled(largest_piece(reliable & magnitude_mask(magnitude)))


def brain_and_quality(
    brain: Bool,
    quality: Float32,
    magnitude: Float32,
    geometry: Geometry,
    *,
    threshold: float = 0.3,
    edge_mm: float = 15.0,
    smoothing_mm: float = 1.5,
) -> Bool:
    """Return the brain without the unreliable phase at its edge.

    What is unreliable deep inside (veins, haemorrhage) stays: it is tissue, and its field
    matters to the voxels around it.

    Parameters
    ----------
    brain : ndarray of bool, shape (x, y, z)
    quality : ndarray of float32, shape (x, y, z)
        Phase quality, 0 to 1.
    magnitude : ndarray of float32, shape (x, y, z)
    geometry : Geometry
    threshold : float
        Quality from which a voxel is reliable; noise has about 0.05, tissue 0.7 to 0.9.
    edge_mm : float
        How deep from the brain's edge unreliable voxels are removed.
    smoothing_mm : float
        Standard deviation of the Gaussian that smooths the outline.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        In one piece, without holes.

    References
    ----------
    Stewart et al. 2022, 10.1002/mrm.29048.
    """
    if not brain.any():
        return brain.copy()
    # as far around the brain as the smoothing reaches
    margins = [int(_REACH * smoothing_mm / v + 0.5) for v in geometry.voxel_mm]
    x, y, z = (
        slice(max(0, part.start - margin), part.stop + margin)
        for part, margin in zip(bounding_box(brain), margins, strict=True)
    )
    box = (x, y, z)
    inside = brain[box]
    reliable = _smoothed((quality[box] > threshold) & inside, geometry, smoothing_mm)
    deep = _deep(inside, geometry.voxel_mm, edge_mm)
    kept = inside & (reliable | deep)
    return place(filled(largest_piece(kept)), box, brain.shape)


METHODS = {"brain-and-quality": brain_and_quality, "brain": brain, "quality": quality}


def _smoothed(mask: Bool, geometry: Geometry, sigma_mm: float) -> Bool:
    """Return where the mask, smoothed, has more than half its height."""
    sigma = [sigma_mm / v for v in geometry.voxel_mm]
    values = mask.astype(np.float32)
    return ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=_REACH) > 0.5


def _deep(mask: Bool, voxel_mm: tuple[float, float, float], depth_mm: float) -> Bool:
    """Return the voxels further from the outside than a depth; the volume's end is outside."""
    return deeper_than(np.pad(mask, 1), voxel_mm, depth_mm)[1:-1, 1:-1, 1:-1]


def _filled_in_planes(mask: Bool) -> Bool:
    """Fill what is enclosed in a plane across any axis: a head cut open at the neck is filled."""
    filled = mask
    for axis in range(3):
        in_plane = ndimage.generate_binary_structure(3, 1)
        in_plane[tuple([0, 2] if i == axis else slice(None) for i in range(3))] = False
        filled = filled | ndimage.binary_fill_holes(mask, in_plane)
    return filled

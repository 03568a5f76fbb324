"""Strongly paramagnetic lesions, such as cavernous malformations, in a susceptibility map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box, place
from bids_qsm.numerics.lesion_tables import label_lesions

_NEIGHBOURS = ndimage.generate_binary_structure(3, 3)


def hysteresis(
    chi_ppm: Float32,
    r2star_per_s: Float32 | None,
    mask: Bool,
    geometry: Geometry,
    nuclei: Bool | None = None,
    *,
    core_ppm: float = 0.3,
    rim_ppm: float = 0.2,
    nucleus_ppm: float = 0.6,
    rim_mm: float = 3.0,
    least_mm3: float = 60.0,
    edge_mm: float = 3.0,
    branch: float = 0.5,
    compactness: float = 0.4,
    r2star_ratio: float = 1.5,
) -> NDArray[np.int16]:
    """Find compact regions of high susceptibility, which no vein, sinus or nucleus has.

    Voxels above one threshold grow to those near by that are above a lower one.  Veins that enter a
    piece are cut off it.  A piece is kept
    if it is large, does not lie along the mask's edge (sinuses, cortical veins), is compact
    (veins are not) and loses its signal quickly.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
        Relative to fluid, or to the whole brain.
    r2star_per_s : ndarray of float32, shape (x, y, z), optional
    mask : ndarray of bool, shape (x, y, z)
        Where susceptibility is known.
    geometry : Geometry
    nuclei : ndarray of bool, shape (x, y, z), optional
        Nuclei that are rich in iron.
    core_ppm, rim_ppm : float
        Susceptibility that a lesion starts with, and that it grows to.
    nucleus_ppm : float
        Susceptibility that it starts with in ``nuclei``.
    rim_mm : float
        How far it grows from where it started.
    least_mm3 : float
        Smaller pieces are dropped.
    edge_mm : float
        Pieces of which most is nearer to the edge of the mask are dropped.
    branch : float
        What is thinner than this share of the largest ball inside a piece is cut off it.
    compactness : float
        Least radius of the largest ball inside a piece, over that of a ball of its volume.
    r2star_ratio : float
        Least mean R2* of a piece, over the median in the mask.

    Returns
    -------
    ndarray of int16, shape (x, y, z)
        Number of the lesion, the largest first; 0 is none.  Memory: some six float32 volumes of
        the mask's box.
    """
    found = np.zeros(mask.shape, np.int16)
    known = mask & np.isfinite(chi_ppm)
    if not known.any():
        return found
    box = bounding_box(known)
    known, chi, voxel_mm = known[box], chi_ppm[box], geometry.voxel_mm
    core = known & (chi >= core_ppm)
    if nuclei is not None:
        core &= ~nuclei[box] | (chi >= nucleus_ppm)
    if not core.any():
        return found
    near = distance_mm(~core, voxel_mm) <= rim_mm
    grown = ndimage.binary_propagation(
        core, _NEIGHBOURS, mask=core | (known & near & (chi >= rim_ppm))
    )
    trimmed = _without_branches(grown, geometry, branch)
    pieces = label_lesions(trimmed, geometry.voxel_mm3, least_mm3)
    depth = distance_mm(np.pad(known, 1), voxel_mm)[1:-1, 1:-1, 1:-1]
    median = 0.0
    if r2star_per_s is not None:
        r2star_per_s = r2star_per_s[box]
        median = float(np.median(r2star_per_s[known]))
    kept = np.zeros(pieces.shape, np.bool_)
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[span] == number
        is_deep = np.median(depth[span][piece]) > edge_mm
        decays = r2star_per_s is None or (
            r2star_per_s[span][piece].mean(dtype=np.float64) >= r2star_ratio * median
        )
        if is_deep and decays and _compactness(piece, geometry) >= compactness:
            kept[span] |= piece
    return place(label_lesions(kept, geometry.voxel_mm3), box, mask.shape)


def off(
    chi_ppm: Float32,
    r2star_per_s: Float32 | None,
    mask: Bool,
    geometry: Geometry,
    nuclei: Bool | None = None,
) -> NDArray[np.int16]:
    """Find nothing: lesions are those that the user gives."""
    return np.zeros(mask.shape, np.int16)


METHODS = {"hysteresis": hysteresis, "off": off}


def _without_branches(found: Bool, geometry: Geometry, share: float) -> Bool:
    """Open each piece by a ball of a share of the largest one inside it, and a step around that."""
    step_mm = float(np.sqrt(np.square(geometry.voxel_mm).sum()))  # a ball of voxels has corners
    left = np.zeros(found.shape, np.bool_)
    pieces, _ = ndimage.label(found, _NEIGHBOURS)
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[span] == number
        inside_mm = _inside_mm(piece, geometry)
        radius_mm = share * float(inside_mm.max())
        reach_mm = distance_mm(inside_mm < radius_mm, geometry.voxel_mm)
        left[span] |= piece & (reach_mm <= radius_mm + step_mm)
    return left


def _inside_mm(piece: Bool, geometry: Geometry) -> NDArray[np.float64]:
    """Return how far each voxel lies inside a piece."""
    # from the middle of a voxel to that of one outside: half a voxel too far
    half_mm = 0.5 * min(geometry.voxel_mm)
    return distance_mm(np.pad(piece, 1), geometry.voxel_mm)[1:-1, 1:-1, 1:-1] - half_mm


def _compactness(piece: Bool, geometry: Geometry) -> float:
    """Return the radius of the largest ball inside a piece over that of a ball of its volume."""
    inside_mm = float(_inside_mm(piece, geometry).max())
    volume_mm3 = np.count_nonzero(piece) * geometry.voxel_mm3
    return inside_mm / float(np.cbrt(volume_mm3 * 3 / (4 * np.pi)))

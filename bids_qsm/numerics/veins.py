"""Veins: thin tubes of high susceptibility that decay fast."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box, place

COARSEST_MM = 2.0
"""Edge of the cube of a voxel's volume above which veins cannot be told from nuclei."""
_FINEST_SCALE_MM = 0.5
_SCALE_STEP = 1.35
_WIDER_SCALES = 3
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)


def off(chi_ppm: Float32, r2star_per_s: Float32 | None, mask: Bool, geometry: Geometry) -> Bool:
    """Mark no vein."""
    return np.zeros(mask.shape, np.bool_)


def vein_mask(
    chi_ppm: Float32,
    r2star_per_s: Float32 | None,
    mask: Bool,
    geometry: Geometry,
    *,
    contrast_ppm: float = 0.05,
    largest_radius_mm: float = 2.1,
    least_length_mm: float = 8.0,
    r2star_ratio: float = 1.2,
    certain: float = 0.3,
    possible: float = 0.1,
) -> Bool:
    r"""Return the voxels of veins, with those around them that they share.

    At several scales the Hessian of the smoothed susceptibility says how much a voxel lies in a
    bright tube, rather than in a sheet or a blob (Frangi 1998).  The scale at which it curves
    most tells the tube's width, :math:`\sqrt 2\,\sigma`; scales wider than a vein are tried too,
    and where one of them wins, the voxel belongs to a nucleus.  A vein is a connected set of
    possible voxels that is long enough and holds certain ones, in which R2* is raised too.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility with any constant.
    r2star_per_s : ndarray of float32, shape (x, y, z), or None
        Without it, susceptibility alone decides.
    mask : ndarray of bool, shape (x, y, z)
        Where the maps can be trusted.
    geometry : Geometry
        Voxels may be anisotropic.  Where they are larger than cubes of 2 mm, a vein and a small
        nucleus look alike, and none is marked.
    contrast_ppm : float
        The norm of the (scaled) Hessian that counts as structure.  In the middle of a tube it is
        half the tube's contrast.
    largest_radius_mm : float
        Of a vein.
    least_length_mm : float
        Diagonal of the box around a vein.
    r2star_ratio : float
        Where the mean R2* is this many times the median in the mask, it is raised.
    certain, possible : float
        Limits of the tube measure, which goes from 0 to 0.86.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        Memory: some eight volumes of float32 of the mask's box.

    Notes
    -----
    A round nucleus of 3 mm radius or less with twice the usual iron can look like a short vein.

    References
    ----------
    Frangi et al. 1998, 10.1007/BFb0056195; Smith 1961, 10.1145/355578.366316 (eigenvalues).
    """
    known = mask & np.isfinite(chi_ppm)
    if not known.any() or geometry.voxel_mm3 > COARSEST_MM**3:
        return np.zeros(mask.shape, np.bool_)
    box = bounding_box(known)
    known = known[box]
    narrow = _scales_mm(geometry, largest_radius_mm)
    wide = [narrow[-1] * _SCALE_STEP ** (i + 1) for i in range(_WIDER_SCALES)]
    measure, scale = tube_measure(
        chi_ppm[box], known, geometry.voxel_mm, [*narrow, *wide], contrast_ppm
    )
    possible_here = measure > possible
    core = possible_here & (scale < len(narrow))
    parts, count = ndimage.label(core, _NEIGHBOURS)
    kept = _are_long(parts, geometry.voxel_mm, least_length_mm)
    in_part = np.where(measure > certain, parts, 0)
    kept &= np.bincount(in_part.ravel(), minlength=count + 1) > 0
    if r2star_per_s is not None:
        kept &= _are_raised(in_part, r2star_per_s[box], known, r2star_ratio, count)
    veins = kept[parts]
    # where a vein widens or branches, the next scale fits its outer voxels better
    rim = possible_here & (scale <= len(narrow)) & ndimage.binary_dilation(veins, _NEIGHBOURS)
    return place(veins | rim, box, mask.shape)


METHODS = {"vesselness": vein_mask, "off": off}


def tube_measure(
    values: Float32,
    mask: Bool,
    voxel_mm: tuple[float, float, float],
    scales_mm: list[float],
    contrast: float,
) -> tuple[Float32, NDArray[np.int8]]:
    """Return how much each voxel lies in a bright tube, and the scale at which it curves most.

    Parameters
    ----------
    values : ndarray of float32, shape (x, y, z)
        Those outside the mask do not count: a smooth continuation takes their place.
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float
    scales_mm : list of float
        Standard deviations of the Gaussians.
    contrast : float
        In the unit of the values: see :func:`vein_mask`.

    Returns
    -------
    measure : ndarray of float32, shape (x, y, z)
        Frangi's vesselness with a contrast that does not depend on the image; 0 outside the mask.
    scale : ndarray of int8, shape (x, y, z)
        Index of the scale; 0 where the measure is.
    """
    padded = continued(values, mask, voxel_mm)
    measure = np.zeros(mask.shape, np.float32)
    strongest = np.zeros(mask.shape, np.float32)
    scale = np.zeros(mask.shape, np.int8)
    for i, sigma_mm in enumerate(scales_mm):
        smooth = ndimage.gaussian_filter(padded, [sigma_mm / v for v in voxel_mm], mode="nearest")
        _keep_best(
            smooth, mask, np.array(voxel_mm), sigma_mm, contrast, i, strongest, measure, scale
        )
    return measure, scale


def _scales_mm(geometry: Geometry, largest_radius_mm: float) -> list[float]:
    """Return the scales of veins, from what the voxels can show to the largest radius."""
    last = largest_radius_mm / math.sqrt(2)
    first = min(last, max(_FINEST_SCALE_MM, 0.5 * geometry.voxel_mm3 ** (1 / 3)))
    steps = math.ceil(math.log(last / first) / math.log(_SCALE_STEP))
    return [float(s) for s in np.geomspace(first, last, steps + 1)]


def continued(values: Float32, mask: Bool, voxel_mm: tuple[float, float, float]) -> Float32:
    """Return the values with a rim of a voxel, continued smoothly outside the mask."""
    mask = np.pad(mask, 1)
    inside = np.where(mask, np.pad(values, 1), np.float32(0))
    sigmas = [2 * max(voxel_mm) / v for v in voxel_mm]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigmas, mode="constant")
    total = ndimage.gaussian_filter(inside, sigmas, mode="constant")
    # far outside, where nothing is near, the mean
    total += np.float32(1e-3 * inside[mask].mean(dtype=np.float64))
    return np.where(mask, inside, total / (weight + np.float32(1e-3)))


def _are_long(
    parts: NDArray[np.integer], voxel_mm: tuple[float, float, float], length_mm: float
) -> Bool:
    """Return which parts (0, the rest, is none of them) have a box of this diagonal or more."""
    diagonals = [0.0]
    for span in ndimage.find_objects(parts):
        sides = [(s.stop - s.start) * v for s, v in zip(span, voxel_mm, strict=True)]
        diagonals.append(math.hypot(*sides))
    long: Bool = np.array(diagonals) >= length_mm
    long[0] = False
    return long


def _are_raised(
    parts: NDArray[np.integer], r2star_per_s: Float32, known: Bool, ratio: float, count: int
) -> Bool:
    """Return which parts have a mean R2* above ``ratio`` times the median of all known voxels."""
    known = known & np.isfinite(r2star_per_s)
    if not known.any():
        return np.zeros(count + 1, np.bool_)
    part, value = parts[known], r2star_per_s[known]
    total = np.bincount(part, value, count + 1)
    size = np.bincount(part, minlength=count + 1)
    return np.asarray(total > ratio * float(np.median(value)) * np.maximum(size, 1))


@njit(cache=True)
def eigenvalues(xx, yy, zz, xy, xz, yz):  # type: ignore[no-untyped-def]
    """Return the eigenvalues of a symmetric 3 x 3 matrix, the least first."""
    mean = (xx + yy + zz) / 3.0
    xx, yy, zz = xx - mean, yy - mean, zz - mean
    spread = (xx * xx + yy * yy + zz * zz + 2.0 * (xy * xy + xz * xz + yz * yz)) / 6.0
    if spread <= 0.0:
        return mean, mean, mean
    spread = math.sqrt(spread)
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    cosine = min(1.0, max(-1.0, determinant / (2.0 * spread**3)))
    angle = math.acos(cosine) / 3.0
    largest = mean + 2.0 * spread * math.cos(angle)
    least = mean + 2.0 * spread * math.cos(angle + 2.0 * math.pi / 3.0)
    return least, 3.0 * mean - largest - least, largest


@njit(parallel=True, cache=True)
def _keep_best(smooth, mask, voxel_mm, sigma_mm, contrast, index, strongest, measure, scale):  # type: ignore[no-untyped-def]
    """Where this scale's second curvature is the largest so far, keep its measure and index.

    It is the curvature, which has no upper limit as the measure has, that tells the width.

    The smoothed volume has a rim of a voxel.  The Hessian is made of central differences, times
    the square of the scale, its sign turned: a bright tube has one small and two large values.
    """
    nx, ny, nz = mask.shape
    vx, vy, vz = voxel_mm
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                s = smooth[x : x + 3, y : y + 3, z : z + 3]
                k = -sigma_mm * sigma_mm
                twice = 2.0 * s[1, 1, 1]
                xx = k * (s[2, 1, 1] - twice + s[0, 1, 1]) / (vx * vx)
                yy = k * (s[1, 2, 1] - twice + s[1, 0, 1]) / (vy * vy)
                zz = k * (s[1, 1, 2] - twice + s[1, 1, 0]) / (vz * vz)
                k *= 0.25
                xy = k * (s[2, 2, 1] - s[2, 0, 1] - s[0, 2, 1] + s[0, 0, 1]) / (vx * vy)
                xz = k * (s[2, 1, 2] - s[2, 1, 0] - s[0, 1, 2] + s[0, 1, 0]) / (vx * vz)
                yz = k * (s[1, 2, 2] - s[1, 2, 0] - s[1, 0, 2] + s[1, 0, 0]) / (vy * vz)
                along, second, first = eigenvalues(xx, yy, zz, xy, xz, yz)
                if second <= 0.0:
                    continue
                sheet = second / first
                blob = along * along / (first * second)
                norm = along * along + second * second + first * first
                shape = (1.0 - math.exp(-2.0 * sheet * sheet)) * math.exp(-2.0 * blob)
                if second > strongest[x, y, z]:
                    strongest[x, y, z] = second
                    measure[x, y, z] = shape * (1.0 - math.exp(-0.5 * norm / contrast**2))
                    scale[x, y, z] = index

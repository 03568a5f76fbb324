"""Blobs: places where a volume curves the same way in all directions, at several scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32, bounding_box
from bids_qsm.numerics.veins import continued, eigenvalues

RADIUS_PER_SCALE = math.sqrt(3.0)
"""Radius of the ball that a scale (standard deviation) answers to most."""


@dataclass(frozen=True)
class Blob:
    """A blob: the voxel of its middle, its size, and how much it curves.

    Attributes
    ----------
    voxel : tuple of int
    radius_mm : float
    strength : float
        The least of the three (scaled) curvatures, in the volume's unit; negative for a dark
        blob.  A tube and a sheet have none.
    """

    voxel: tuple[int, int, int]
    radius_mm: float
    strength: float


def find_blobs(
    values: Float32,
    mask: Bool,
    voxel_mm: tuple[float, float, float],
    radii_mm: Sequence[float],
    least: float,
) -> list[Blob]:
    """Return bright and dark blobs, the strongest first.

    Parameters
    ----------
    values : ndarray of float32, shape (x, y, z)
        Those outside the mask do not count: a smooth continuation takes their place.
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float
        Voxels may be anisotropic.
    radii_mm : sequence of float
        Of the balls that are looked for.
    least : float
        Least strength.  A ball with a Gaussian profile has a fifth of its contrast.

    Returns
    -------
    list of Blob
        Of blobs of one sign that lie within each other's radius, the strongest.  Memory: some
        five volumes of float32 of the mask's box.

    References
    ----------
    Lindeberg 1998, 10.1023/A:1008045108935 (scales); Frangi et al. 1998, 10.1007/BFb0056195.
    """
    if not mask.any():
        return []
    box = bounding_box(mask)
    inside = mask[box]
    padded = continued(values[box], inside, voxel_mm)
    strength = np.zeros(inside.shape, np.float32)
    scale = np.zeros(inside.shape, np.int8)
    for i, radius_mm in enumerate(radii_mm):
        sigma_mm = radius_mm / RADIUS_PER_SCALE
        smooth = ndimage.gaussian_filter(padded, [sigma_mm / v for v in voxel_mm], mode="nearest")
        _keep_strongest(smooth, inside, np.array(voxel_mm), sigma_mm, i, strength, scale)
    points = _peaks(strength, np.float32(least))
    blobs = [
        Blob(
            tuple(int(c) + b.start for c, b in zip(point, box, strict=True)),
            float(radii_mm[scale[tuple(point)]]),
            float(strength[tuple(point)]),
        )
        for point in np.argwhere(points)
    ]
    blobs.sort(key=lambda blob: (-abs(blob.strength), blob.voxel))
    return _apart(blobs, voxel_mm)


def _apart(blobs: Sequence[Blob], voxel_mm: tuple[float, float, float]) -> list[Blob]:
    """Return the blobs without those within the radius of a stronger one of the same sign."""
    kept: list[Blob] = []
    places = np.empty((len(blobs), 3))
    reach = np.empty(len(blobs))
    for blob in blobs:
        n = len(kept)
        place = np.array(blob.voxel) * np.array(voxel_mm)
        near = ((places[:n] - place) ** 2).sum(axis=1) < np.maximum(reach[:n], blob.radius_mm) ** 2
        same = np.array([other.strength * blob.strength > 0 for other in kept], np.bool_)
        if not (near & same).any():
            places[n], reach[n] = place, blob.radius_mm
            kept.append(blob)
    return kept


@njit(parallel=True, cache=True)
def _keep_strongest(smooth, mask, voxel_mm, sigma_mm, index, strength, scale):  # type: ignore[no-untyped-def]
    """Where the least curvature of this scale is the largest so far, keep it and the index.

    The smoothed volume has a rim of a voxel.  A bright blob has a positive strength, a dark one a
    negative.
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
                # the least eigenvalue is no larger than the least of the diagonal, which is quick
                best = abs(strength[x, y, z])
                if min(xx, yy, zz) <= best and max(xx, yy, zz) >= -best:
                    continue
                k *= 0.25
                xy = k * (s[2, 2, 1] - s[2, 0, 1] - s[0, 2, 1] + s[0, 0, 1]) / (vx * vy)
                xz = k * (s[2, 1, 2] - s[2, 1, 0] - s[0, 1, 2] + s[0, 1, 0]) / (vx * vz)
                yz = k * (s[1, 2, 2] - s[1, 2, 0] - s[1, 0, 2] + s[1, 0, 0]) / (vy * vz)
                low, _, high = eigenvalues(xx, yy, zz, xy, xz, yz)
                found = low if low > 0.0 else min(high, 0.0)
                if abs(found) > best:
                    strength[x, y, z] = found
                    scale[x, y, z] = index


@njit(parallel=True, cache=True)
def _peaks(strength, least):  # type: ignore[no-untyped-def]
    """Return where the strength is the largest of its sign among its 26 neighbours."""
    nx, ny, nz = strength.shape
    peaks = np.zeros(strength.shape, np.bool_)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                here = strength[x, y, z]
                if abs(here) < least:
                    continue
                highest = True
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    for j in range(max(y - 1, 0), min(y + 2, ny)):
                        for k in range(max(z - 1, 0), min(z + 2, nz)):
                            if strength[i, j, k] * np.sign(here) > abs(here):
                                highest = False
                peaks[x, y, z] = highest
    return peaks

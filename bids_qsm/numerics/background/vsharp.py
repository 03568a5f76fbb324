"""Spherical mean values of varying radius: what a harmonic field shares with its own mean."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.spheres import (
    Padded,
    deconvolve,
    spherical_mean,
    where_it_fits,
)
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, forward_fft, sphere_kernel


def vsharp(
    total: FieldMap, *, largest_radius_mm: float = 12.0, threshold: float = 0.05
) -> FieldMap:
    """Subtract spherical means, near the edge over ever smaller spheres, and deconvolve.

    Parameters
    ----------
    total : FieldMap
        Total field.
    largest_radius_mm : float
        Radius of the sphere in the depth of the brain; it falls by one voxel from ring to ring.
    threshold : float
        Frequencies at which the largest sphere's high-pass filter is weaker are left out.

    Returns
    -------
    FieldMap
        Local field.  Its mask lacks the voxels to which the smallest sphere does not fit: one
        layer.  Memory: some six volumes, padded by the largest radius.

    References
    ----------
    Schweser 2011, 10.1016/j.neuroimage.2010.10.070; Wu 2012, 10.1002/mrm.23000.
    """
    padded = Padded.of(total, largest_radius_mm)
    radii = _radii(padded.geometry, largest_radius_mm)
    filtered, fits = _subtract_spherical_means(padded.field, padded.mask, padded.geometry, radii)
    local = deconvolve(filtered, sphere_kernel(padded.geometry, radii[0]), threshold)
    return padded.local_map(total, local, fits)


def _radii(geometry: Geometry, largest_mm: float) -> list[float]:
    """Return falling radii from the largest to one that holds a voxel's nearest neighbours."""
    smallest, step = max(geometry.voxel_mm), min(geometry.voxel_mm)
    count = max(int((largest_mm - smallest) / step + 1e-6), 0)
    return [smallest + i * step for i in range(count, -1, -1)]


def _subtract_spherical_means(
    field: Float32, mask: Bool, geometry: Geometry, radii: list[float]
) -> tuple[Float32, Bool]:
    """Return the field less its spherical means, and the voxels to which a sphere fits."""
    filtered = np.zeros_like(field)
    fits = np.zeros_like(mask)
    field_spectrum, mask_spectrum = forward_fft(field), forward_fft(mask.astype(np.float32))
    for radius in radii:
        sphere = sphere_kernel(geometry, radius)
        new = where_it_fits(mask, mask_spectrum, sphere) & ~fits
        mean = spherical_mean(field_spectrum, sphere, field.shape)
        filtered[new] = field[new] - mean[new]
        fits |= new
    return filtered, fits

"""Spherical mean values of varying radius: what a harmonic field shares with its own mean."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    convolve,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
    sphere_kernel,
)


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
    brain, box = total.boxed()
    geometry = padded_geometry(
        brain.geometry,
        margin_voxels(brain.geometry, largest_radius_mm + max(total.geometry.voxel_mm)),
    )
    field = pad(brain.field_ppm, geometry.shape)
    mask = pad(brain.mask, geometry.shape)
    radii = _radii(geometry, largest_radius_mm)
    filtered, fits = _subtract_spherical_means(field, mask, geometry, radii)
    local = _deconvolve(filtered, sphere_kernel(geometry, radii[0]), threshold)
    inside = tuple(slice(n) for n in brain.mask.shape)
    new_mask = fits[inside]
    local_field = np.where(new_mask, local[inside], np.float32(0))
    shape = total.mask.shape
    return FieldMap(
        place(local_field, box, shape),
        total.noise_ppm,
        total.magnitude,
        place(new_mask, box, shape),
        total.geometry,
    )


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
        # a sphere that lies wholly within the mask holds nothing but ones
        new = (inverse_fft(mask_spectrum * sphere, field.shape) > 1 - 1e-5) & mask & ~fits
        mean = inverse_fft(field_spectrum * sphere, field.shape)
        filtered[new] = field[new] - mean[new]
        fits |= new
    return filtered, fits


def _deconvolve(filtered: Float32, sphere: Float32, threshold: float) -> Float32:
    """Undo the high-pass filter 1 - sphere, save where it is weaker than the threshold."""
    high_pass = 1 - sphere
    strong = np.abs(high_pass) >= threshold
    inverse = np.zeros_like(high_pass)
    inverse[strong] = 1 / high_pass[strong]
    return convolve(filtered, inverse)

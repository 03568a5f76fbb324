"""Thresholded k-space division: fast, direct, noisy; a reference rather than a default."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Float32,
    crop,
    dipole_kernel,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)


def tkd(local: FieldMap, *, threshold: float = 0.15, margin_mm: float = 32.0) -> Float32:
    """Divide by the dipole kernel, where it is small by the threshold instead.

    The result is scaled up by the share of a point source's amplitude that the threshold removes.

    Parameters
    ----------
    local : FieldMap
        Local field.
    threshold : float
        Smallest magnitude of the kernel that is divided by; 0 to 2/3, exclusive.
    margin_mm : float
        Zeros added around the brain, against the wrap-around of the kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some five padded volumes.

    References
    ----------
    Shmueli 2009, 10.1002/mrm.22135; Schweser 2013, 10.1002/mrm.24405 (the correction).
    """
    if not 0 < threshold < 2 / 3:
        raise ValueError(f"The threshold of TKD must lie between 0 and 2/3, got {threshold}.")
    brain, box = local.boxed()
    geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
    kernel = dipole_kernel(geometry)
    inverse = np.sign(kernel) / np.maximum(np.abs(kernel), np.float32(threshold))
    spectrum = forward_fft(pad(brain.field_ppm, geometry.shape))
    spectrum *= inverse
    chi = crop(inverse_fft(spectrum, geometry.shape), brain.mask.shape)
    chi /= _point_source_amplitude(kernel * inverse, geometry.shape[2])
    chi[~brain.mask] = 0
    return place(chi, box, local.mask.shape)


def _point_source_amplitude(response: Float32, nz: int) -> np.float32:
    """Return the central value of a point spread function: the mean of its full spectrum."""
    twice = np.full(response.shape[2], 2.0)  # the half spectrum holds these planes once
    twice[0] = 1.0
    if nz % 2 == 0:
        twice[-1] = 1.0
    planes = response.sum(axis=(0, 1), dtype=np.float64)
    return np.float32(planes @ twice / (response.shape[0] * response.shape[1] * nz))

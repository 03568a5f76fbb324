"""Spherical mean values of one radius, and a truncated deconvolution."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.spheres import Padded, deconvolve, eroded
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, sphere_kernel


def sharp(total: FieldMap, *, radius_mm: float = 5.0, threshold: float = 0.03) -> FieldMap:
    """Subtract spherical means and deconvolve what is left.

    Parameters
    ----------
    total : FieldMap
        Total field.
    radius_mm : float
        Radius of the sphere.  A larger one keeps more of the local field's low frequencies, but
        costs more of the brain's edge.
    threshold : float
        Frequencies at which the high-pass filter, 1 less the sphere's spectrum, is weaker are
        left out.

    Returns
    -------
    FieldMap
        Local field.  Its mask is eroded by the sphere.  Memory: some five volumes of the mask's
        bounding box, padded by the radius.

    Raises
    ------
    ValueError
        If the mask is empty or the sphere fits nowhere into it.

    References
    ----------
    Schweser 2011, 10.1016/j.neuroimage.2010.10.070.
    """
    padded = Padded.of(total, radius_mm)
    sphere = sphere_kernel(padded.geometry, radius_mm)
    mask = eroded(padded.mask, sphere)
    filtered: Float32 = np.where(mask, padded.field - convolve(padded.field, sphere), np.float32(0))
    return padded.local_map(total, deconvolve(filtered, sphere, threshold), mask)

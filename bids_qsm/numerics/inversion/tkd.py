"""Thresholded k-space division: fast, direct, noisy; a reference rather than a default."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.inversion.solver import Domain, divide, point_source_amplitude


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
    domain = Domain.of(local, margin_mm)
    kernel = domain.kernel
    inverse = np.sign(kernel) / np.maximum(np.abs(kernel), np.float32(threshold))
    chi = divide(domain, inverse)
    chi /= point_source_amplitude(kernel * inverse, domain.geometry.shape[2])
    return domain.within_mask(chi)

"""Tikhonov's closed form: direct and smooth in k-space, a reference rather than a default."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.inversion.solver import Domain, divide, point_source_amplitude


def tikhonov(local: FieldMap, *, regularisation: float = 0.004, margin_mm: float = 32.0) -> Float32:
    r"""Minimise :math:`\|d * \chi - f\|^2 + \lambda \|\chi\|^2` in closed form.

    The kernel *D* is inverted as :math:`D / (D^2 + \lambda)`.  The result is scaled up by the
    share of a point source's amplitude that the regularisation removes.

    Parameters
    ----------
    local : FieldMap
        Local field; its noise does not enter.
    regularisation : float
        The factor :math:`\lambda`; above 0.
    margin_mm : float
        Zeros added around the brain, against the wrap-around of the kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some five padded volumes.

    Raises
    ------
    ValueError
        If the regularisation is not above 0.

    References
    ----------
    Bilgic 2014, 10.1002/mrm.25029; Schweser 2013, 10.1002/mrm.24405 (the correction).
    """
    if not regularisation > 0:
        raise ValueError(f"The regularisation of Tikhonov must be above 0, got {regularisation}.")
    domain = Domain.of(local, margin_mm)
    inverse = domain.kernel / (domain.kernel**2 + np.float32(regularisation))
    chi = divide(domain, inverse)
    chi /= point_source_amplitude(domain.kernel * inverse, domain.geometry.shape[2])
    return domain.within_mask(chi)

"""Smooth susceptibility in closed form: least squares with the squared gradient."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.inversion.solver import Domain, divide, laplacian_spectrum, step_sizes


def l2(local: FieldMap, *, regularisation: float = 0.003, margin_mm: float = 32.0) -> Float32:
    r"""Minimise :math:`\|d * \chi - f\|^2 + \lambda \|\nabla\chi\|^2` in closed form.

    Differences are per mean voxel, so that :math:`\lambda` keeps its meaning from one voxel size
    to the next.  Edges are blurred and small structures read low: see ``tv`` for sparse edges.

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
    Bilgic 2014, 10.1002/mrm.25029.
    """
    if not regularisation > 0:
        raise ValueError(f"The regularisation of L2 must be above 0, got {regularisation}.")
    domain = Domain.of(local, margin_mm)
    normal = laplacian_spectrum(domain.geometry, step_sizes(domain.geometry))
    normal *= np.float32(regularisation)
    normal += domain.kernel**2
    normal[0, 0, 0] = 1  # the mean is free: any value but 0
    return domain.within_mask(divide(domain, domain.kernel / normal))

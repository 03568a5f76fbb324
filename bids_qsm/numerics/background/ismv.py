"""Iterated spherical mean values: the background equals its own spherical means."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.polynomial import without_polynomial
from bids_qsm.numerics.background.spheres import Padded, eroded
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, sphere_kernel
from bids_qsm.numerics.inversion.solver import conjugate_gradient


def ismv(
    total: FieldMap,
    *,
    radius_mm: float = 5.0,
    polynomial_order: int = 2,
    tolerance: float = 0.001,
    max_iterations: int = 100,
) -> FieldMap:
    """Subtract the field that equals its spherical means, and the total field at the rim.

    Taking spherical means over and over, with the total field put back each time where the
    sphere does not fit into the mask, ends at this field.  Conjugate gradients find it in fewer
    steps.  What the local field at the rim and shims that do not solve Laplace's equation leave
    behind is smooth: a polynomial, fitted with weights from the noise, takes it.

    Parameters
    ----------
    total : FieldMap
        Total field.
    radius_mm : float
        Radius of the sphere.
    polynomial_order : int
        Highest total power of the polynomial; -1 for none.
    tolerance, max_iterations : float, int
        When the conjugate gradients stop: relative residual, number of steps.

    Returns
    -------
    FieldMap
        Local field.  Its mask is eroded by the sphere.  Memory: some eight volumes of the mask's
        bounding box, padded by the radius, and twenty values for each voxel of the mask.

    Raises
    ------
    ValueError
        If the mask is empty or the sphere fits nowhere into it.

    References
    ----------
    Wen 2014, 10.1002/mrm.24998.
    """
    padded = Padded.of(total, radius_mm)
    sphere = sphere_kernel(padded.geometry, radius_mm)
    mask = eroded(padded.mask, sphere)

    def deviation(background: Float32) -> Float32:
        return np.where(mask, background - convolve(background, sphere), np.float32(0))

    rim = np.where(mask, np.float32(0), padded.field)
    background = conjugate_gradient(
        deviation, -deviation(rim), tolerance=tolerance, max_iterations=max_iterations
    ).value
    local = without_polynomial(
        padded.field - background, padded.weights, mask, padded.geometry, polynomial_order
    )
    return padded.local_map(total, local, mask)

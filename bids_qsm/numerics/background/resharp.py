"""Spherical mean values of one radius, undone by regularised least squares."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.spheres import Padded, eroded
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, sphere_kernel
from bids_qsm.numerics.inversion.solver import conjugate_gradient


def resharp(
    total: FieldMap,
    *,
    radius_mm: float = 6.0,
    regularisation: float = 0.001,
    tolerance: float = 0.001,
    max_iterations: int = 50,
) -> FieldMap:
    r"""Find the smallest local field with the total field's deviations from its spherical means.

    Minimises :math:`\|w\,h * (f - b)\|^2 + \lambda \|f\|^2` over the local field *f*, where *b* is
    the total field, *h* the unit impulse less the sphere, and *w* the inverse noise, of mean
    one, where the sphere fits into the mask, else zero.

    Parameters
    ----------
    total : FieldMap
        Total field.
    radius_mm : float
        Radius of the sphere.
    regularisation : float
        The factor :math:`\lambda`.
    tolerance, max_iterations : float, int
        When the conjugate gradients stop: relative residual, number of steps.

    Returns
    -------
    FieldMap
        Local field.  Its mask is eroded by the sphere.  Memory: some ten volumes of the mask's
        bounding box, padded by the radius.

    Raises
    ------
    ValueError
        If the mask is empty or the sphere fits nowhere into it.

    References
    ----------
    Sun and Wilman 2014, 10.1002/mrm.24765.
    """
    padded = Padded.of(total, radius_mm)
    sphere = sphere_kernel(padded.geometry, radius_mm)
    mask = eroded(padded.mask, sphere)
    high_pass = 1 - sphere
    squared_weights = np.where(mask, padded.weights**2, np.float32(0))

    def back(filtered: Float32) -> Float32:
        return convolve(squared_weights * filtered, high_pass)

    def normal(local: Float32) -> Float32:
        image = back(convolve(local, high_pass))
        image += np.float32(regularisation) * local
        return image

    local = conjugate_gradient(
        normal,
        back(convolve(padded.field, high_pass)),
        tolerance=tolerance,
        max_iterations=max_iterations,
    ).value
    return padded.local_map(total, local, mask)

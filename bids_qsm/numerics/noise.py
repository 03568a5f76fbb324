"""Standard deviation of the noise in each of the real and imaginary channels, from the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bids_qsm.numerics.geometry import Bool, Float32

_MAD_OF_UNIT_NORMAL = 0.674490
_MISFIT_PROBABILITY = 1e-3
"""A residual that noise would exceed in fewer voxels than this is not taken for noise."""


def sigma_from_residuals(squares: NDArray[np.floating], degrees_of_freedom: int) -> float:
    """Return the noise level that a fit's residuals in many voxels show.

    The median over voxels is set against the median of the chi-squared distribution, so that
    voxels which do not follow the model (flow, sinuses) do not matter while they are few.

    Parameters
    ----------
    squares : ndarray, shape (n,)
        Sum over echoes of the squared residuals in each voxel.
    degrees_of_freedom : int
        Number of echoes less the number of fitted values.

    Returns
    -------
    float
        Zero where there is no voxel.
    """
    if squares.size == 0:
        return 0.0
    return float(np.sqrt(np.median(squares) / special.chdtri(degrees_of_freedom, 0.5)))


def misfit_factor(
    squares: NDArray[np.floating], degrees_of_freedom: int | NDArray[np.integer], sigma: float
) -> NDArray[np.float64]:
    """Return by how much a fit's standard deviations grow where noise does not explain its misfit.

    Parameters
    ----------
    squares : ndarray, shape (n,)
        Sum over echoes of the squared residuals in each voxel.
    degrees_of_freedom : int or ndarray of int, shape (n,)
        Number of echoes less the number of fitted values; none: there is no misfit.
    sigma : float
        Noise level.

    Returns
    -------
    ndarray of float64, shape (n,)
        One where the misfit is as noise has it.
    """
    freedom = np.broadcast_to(degrees_of_freedom, squares.shape)
    factor = np.ones(squares.shape)
    if sigma > 0:
        noise = sigma**2 * np.maximum(freedom, 1)
        largest = sigma**2 * special.chdtri(np.maximum(freedom, 1), _MISFIT_PROBABILITY)
        excess = (freedom > 0) & (squares > largest)
        factor[excess] = np.sqrt(squares[excess] / noise[excess])
    return factor


def sigma_from_details(magnitude: Float32, mask: Bool) -> float:
    """Return the noise level from a magnitude image's finest diagonal detail.

    The mixed difference over 2 x 2 x 2 voxels (diagonal Haar wavelet) hardly sees anatomy, and
    the median of its absolute values does not see what is left.  Interpolated (zero-filled)
    images read too low.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
        Voxels well above the noise.

    Returns
    -------
    float
        Zero where no 2 x 2 x 2 block lies in the mask.

    References
    ----------
    Donoho and Johnstone 1994, 10.1093/biomet/81.3.425.
    """
    detail, inside = np.asarray(magnitude, np.float64), mask
    for axis in range(3):
        if magnitude.shape[axis] > 1:
            detail = np.diff(detail, axis=axis) / np.sqrt(2)
            first, last = (
                np.take(inside, indices, axis)
                for indices in (range(inside.shape[axis] - 1), range(1, inside.shape[axis]))
            )
            inside = first & last
    if not inside.any():
        return 0.0
    return float(np.median(np.abs(detail[inside])) / _MAD_OF_UNIT_NORMAL)

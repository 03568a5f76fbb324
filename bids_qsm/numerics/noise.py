"""Standard deviation of the noise in each of the real and imaginary channels, from the data."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import special

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.quantiles import median

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
    return float(np.sqrt(median(squares) / special.chdtri(degrees_of_freedom, 0.5)))


def misfit_limits(most_degrees_of_freedom: int, sigma: float) -> NDArray[np.float64]:
    """Return the sums of squared residuals above which noise does not explain a voxel's misfit.

    Parameters
    ----------
    most_degrees_of_freedom : int
        Number of echoes less the number of fitted values, the most that any voxel has.
    sigma : float
        Noise level.

    Returns
    -------
    ndarray of float64, shape (most_degrees_of_freedom + 1,)
        By degrees of freedom; inf where there are none, and where there is no noise level.
    """
    limits = np.full(most_degrees_of_freedom + 1, np.inf)
    if sigma > 0:
        freedom = np.arange(1, limits.size)
        limits[1:] = sigma**2 * special.chdtri(freedom, _MISFIT_PROBABILITY)
    return limits


@njit(cache=True, error_model="numpy")
def misfit_factor(squares, degrees_of_freedom, sigma, limits):  # type: ignore[no-untyped-def]
    """Return by how much a standard deviation grows where noise does not explain the misfit.

    Parameters
    ----------
    squares : float
        Sum over echoes of the squared residuals.
    degrees_of_freedom : int
    sigma : float
        Noise level.
    limits : ndarray of float64
        From :func:`misfit_limits`.

    Returns
    -------
    float
        One where the misfit is as noise has it.
    """
    if squares > limits[degrees_of_freedom]:
        return np.sqrt(squares / degrees_of_freedom) / sigma
    return 1.0


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
    return float(median(np.abs(detail[inside])) / _MAD_OF_UNIT_NORMAL)

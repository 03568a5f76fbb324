"""Smooth map through the noisy values of a mask's voxels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box

_POLYNOMIAL_ORDER = 4

Float64 = NDArray[np.float64]


def smooth_phase(
    phase_rad: Float64, weights: Float64, mask: Bool, geometry: Geometry, sigma_mm: float
) -> Float64:
    """Return the weighted, smoothed phase of the voxels in ``mask``.

    A polynomial takes the large scales, without bias at the rim of the mask; a Gaussian takes
    what is left.  The Gaussian is applied to the complex remainder first, to which a turn does
    not matter, and once more to what it left over, which lowers its bias.

    Parameters
    ----------
    phase_rad, weights : ndarray of float64, shape (n,)
        Values of the n voxels of ``mask``, in its order.
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry
    sigma_mm : float
        Standard deviation of the Gaussian.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    if not weights.any():
        return phase_rad
    weights = weights / weights.mean()
    mask = mask[bounding_box(mask)]
    voxel_mm = geometry.voxel_mm
    trend = _polynomial(phase_rad, weights, mask, voxel_mm)
    without_turns = trend + np.angle(np.exp(1j * (phase_rad - trend)))
    trend = _polynomial(without_turns, weights, mask, voxel_mm)
    phasor = np.exp(1j * (without_turns - trend))

    def blur(values: Float64) -> Float64:
        return blurred(_in_volume(values, mask), voxel_mm, sigma_mm)[mask].astype(np.float64)

    with ThreadPoolExecutor(fft.get_workers()) as pool:
        imaginary, real, total = pool.map(
            blur, (weights * phasor.imag, weights * phasor.real, weights)
        )
    smooth = np.arctan2(imaginary, real)
    remainder = np.angle(phasor * np.exp(-1j * smooth))
    total = np.maximum(total, np.finfo(np.float32).tiny)
    return trend + smooth + blur(weights * remainder) / total


def _polynomial(
    values: Float64, weights: Float64, mask: Bool, voxel_mm: tuple[float, float, float]
) -> Float64:
    """Return the weighted least-squares polynomial in x, y, z through the voxels' values.

    Sums over voxels factor into sums along the axes, which keeps this cheap for many terms.
    """
    order = _POLYNOMIAL_ORDER
    # coordinates from -1 to 1 along the longest side
    ends_mm = [(n - 1) / 2 * v for n, v in zip(mask.shape, voxel_mm, strict=True)]
    scale_mm = max(ends_mm) or 1.0
    axes = [
        np.linspace(-end, end, n) / scale_mm for n, end in zip(mask.shape, ends_mm, strict=True)
    ]
    powers = [axis[:, None] ** np.arange(2 * order + 1) for axis in axes]
    low = [power[:, : order + 1] for power in powers]
    weight_moments = _moments(_in_volume(weights, mask), powers)
    value_moments = _moments(_in_volume(weights * values, mask), low)
    exponents = np.argwhere(np.indices((order + 1,) * 3).sum(axis=0) <= order)
    pairs = exponents[:, None] + exponents
    matrix = weight_moments[tuple(np.moveaxis(pairs, -1, 0))]
    solution, *_ = np.linalg.lstsq(matrix, value_moments[tuple(exponents.T)], rcond=None)
    coefficients = np.zeros((order + 1,) * 3)
    coefficients[tuple(exponents.T)] = solution
    polynomial: Float64 = np.einsum("abc,xa,yb,zc->xyz", coefficients, *low, optimize=True)
    return polynomial[mask]


def _moments(volume: Float32, powers: list[Float64]) -> Float64:
    """Return the sums of ``volume`` times the products of the axes' powers."""
    moments: Float64 = volume.astype(np.float64)
    for power in powers:
        moments = np.asarray(np.tensordot(moments, power, axes=(0, 0)), np.float64)
    return moments


def blurred(volume: Float32, voxel_mm: tuple[float, float, float], sigma_mm: float) -> Float32:
    """Return the volume after three box filters whose variances sum to that of a Gaussian.

    Beyond its edges the volume counts as zero.
    """
    for axis, size_mm in enumerate(voxel_mm):
        width = np.sqrt(4 * (sigma_mm / size_mm) ** 2 + 1)  # 3 (width^2 - 1) / 12 = sigma^2
        odd = 2 * round((width - 1) / 2) + 1
        for _ in range(3):
            volume = ndimage.uniform_filter1d(volume, odd, axis, mode="constant")
    return volume


def _in_volume(values: Float64, mask: Bool) -> Float32:
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = values
    return volume

"""Smooth map through the noisy values of a mask's voxels."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.bins import at_voxels, bin_phasors, bins_of, plane_starts
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box

_POLYNOMIAL_ORDER = 4
_BINS_IN_SIGMA = 2
_REACH = 3.0
"""Where the Gaussian ends, in standard deviations."""
_TURN = np.float32(2 * math.pi)

Float64 = NDArray[np.float64]
Floating = NDArray[np.floating]


def smooth_phase(
    phase_rad: Floating, weights: Floating, mask: Bool, geometry: Geometry, sigma_mm: float
) -> Floating:
    """Return the weighted, smoothed phase of the voxels in ``mask``.

    A polynomial takes the large scales, without bias at the rim of the mask; a Gaussian takes
    what is left.  The Gaussian is applied to the complex remainder first, to which a turn does
    not matter, and once more to what it left over, which lowers its bias.  Both are taken of sums
    over bins that are half its standard deviation long, and interpolated.

    Parameters
    ----------
    phase_rad, weights : ndarray of float32 or float64, shape (n,)
        Values of the n voxels of ``mask``, in its order.
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry
    sigma_mm : float
        Standard deviation of the Gaussian.

    Returns
    -------
    ndarray of the type of ``phase_rad``, shape (n,)
        Memory: some ten such arrays of float32.
    """
    if not weights.any():
        return phase_rad
    weights = (weights / weights.mean(dtype=np.float64)).astype(np.float32)
    phase = phase_rad.astype(np.float32)
    mask = np.ascontiguousarray(mask[bounding_box(mask)])
    starts = plane_starts(mask)
    axes = _scaled_axes(mask.shape, geometry.voxel_mm)
    powers = [axis[:, None] ** np.arange(2 * _POLYNOMIAL_ORDER + 1) for axis in axes]
    weight_moments = _moments(weights, mask, starts, powers)

    def trend_of(values: Float32) -> Float32:
        low = [np.ascontiguousarray(power[:, : _POLYNOMIAL_ORDER + 1]) for power in powers]
        value_moments = _moments(weights * values, mask, starts, low)
        return _evaluate(_polynomial(weight_moments, value_moments), mask, starts, *axes)

    trend = trend_of(phase)
    without_turns = phase - trend
    without_turns -= _TURN * np.rint(without_turns / _TURN)
    small_trend = trend_of(without_turns)
    trend += small_trend
    without_turns -= small_trend
    bins = bins_of(sigma_mm / _BINS_IN_SIGMA, geometry.voxel_mm)
    sums = bin_phasors(without_turns, weights, mask, starts, bins)
    blurred_sums = _blurred_phasors(sums, bins, geometry.voxel_mm, sigma_mm)
    real, imaginary, remainder, total = at_voxels(blurred_sums, mask, starts, bins).T
    trend += np.arctan2(imaginary, real)
    trend += remainder / np.maximum(total, np.finfo(np.float32).tiny)
    return trend.astype(phase_rad.dtype, copy=False)


def _blurred_phasors(
    sums: Float32, bins: tuple[int, int, int], voxel_mm: tuple[float, float, float], sigma_mm: float
) -> Float32:
    """Return what smooths the phase of the bins.

    Returns
    -------
    ndarray of float32, shape (4, x, y, z)
        The blurred sums, real and imaginary; the blurred product of each bin's strength and the
        phase that the first two leave over; and the blurred strength.
    """
    kernels = []
    for n_voxels, size_mm in zip(bins, voxel_mm, strict=True):
        # binning and interpolation, of variances 1/12 and 1/6, blur too
        variance = (sigma_mm / (n_voxels * size_mm)) ** 2 - (0.25 if n_voxels > 1 else 0.0)
        reach = math.ceil(_REACH * math.sqrt(variance))
        kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * variance))
        kernels.append((kernel / kernel.sum()).astype(np.float32))

    def blur(maps: Float32) -> Float32:
        shape = maps.shape
        for axis, kernel in enumerate(kernels, 1):
            if axis < 3:
                folded = maps.reshape(math.prod(shape[:axis]), shape[axis], -1)
                maps = _convolved(folded, kernel).reshape(shape)
            else:
                maps = _convolved_lines(maps.reshape(-1, shape[3]), kernel).reshape(shape)
        return maps

    strength = np.hypot(*sums)
    real, imaginary, total = blur(np.stack([*sums, strength]))
    between = np.arctan2(sums[1] * real - sums[0] * imaginary, sums[0] * real + sums[1] * imaginary)
    (remainder,) = blur((strength * between)[None])
    return np.stack([real, imaginary, remainder, total])


@njit(parallel=True, cache=True)
def _convolved(maps: Float32, kernel: Float32) -> Float32:
    """Return maps of shape (a, n, b) convolved along n; beyond its ends they count as zero."""
    n_outer, n, _ = maps.shape
    reach = kernel.size // 2
    result = np.zeros_like(maps)
    for i in prange(n_outer * n):
        outer, place = i // n, i % n
        into = result[outer, place]
        for j in range(max(0, place - reach), min(n, place + reach + 1)):
            factor, row = kernel[j - place + reach], maps[outer, j]
            for k in range(row.size):
                into[k] += factor * row[k]
    return result


@njit(parallel=True, cache=True)
def _convolved_lines(lines: Float32, kernel: Float32) -> Float32:
    """Return lines of shape (a, n) convolved along n; beyond their ends they count as zero."""
    n_lines, n = lines.shape
    reach = kernel.size // 2
    result = np.zeros_like(lines)
    for i in prange(n_lines):
        into, line = result[i], lines[i]
        for j in range(-reach, reach + 1):
            factor = kernel[j + reach]
            for k in range(max(0, -j), min(n, n - j)):
                into[k] += factor * line[k + j]
    return result


def _scaled_axes(
    shape: tuple[int, ...], voxel_mm: tuple[float, float, float]
) -> tuple[Float64, Float64, Float64]:
    """Return the voxels' coordinates, from -1 to 1 along the longest side."""
    ends_mm = [(n - 1) / 2 * v for n, v in zip(shape, voxel_mm, strict=True)]
    scale_mm = max(ends_mm) or 1.0
    x, y, z = (np.linspace(-end, end, n) / scale_mm for n, end in zip(shape, ends_mm, strict=True))
    return x, y, z


def _polynomial(weight_moments: Float64, value_moments: Float64) -> Float64:
    """Return the coefficients of the weighted least-squares polynomial through voxels' values.

    Parameters
    ----------
    weight_moments : ndarray of float64, shape (2 * order + 1, ...)
        Sums of the weights times the products of the axes' powers.
    value_moments : ndarray of float64, shape (order + 1, ...)
        The same of the weighted values.

    Returns
    -------
    ndarray of float64, shape (order + 1, order + 1, order + 1)
        Of the powers of x, y and z.
    """
    order = _POLYNOMIAL_ORDER
    exponents = np.argwhere(np.indices((order + 1,) * 3).sum(axis=0) <= order)
    pairs = exponents[:, None] + exponents
    matrix = weight_moments[tuple(np.moveaxis(pairs, -1, 0))]
    solution, *_ = np.linalg.lstsq(matrix, value_moments[tuple(exponents.T)], rcond=None)
    coefficients = np.zeros((order + 1,) * 3)
    coefficients[tuple(exponents.T)] = solution
    return coefficients


def _moments(
    values: Float32, mask: Bool, starts: NDArray[np.int64], powers: list[Float64]
) -> Float64:
    """Return the sums of the voxels' values times the products of the axes' powers.

    Sums over voxels factor into sums along the axes, which keeps this cheap for many terms.
    """
    of_planes = _plane_moments(values, mask, starts, powers[1], powers[2])
    return np.einsum("xbc,xa->abc", of_planes, powers[0])


@njit(parallel=True, cache=True)
def _plane_moments(values, mask, starts, y_powers, z_powers):  # type: ignore[no-untyped-def]
    nx, ny, nz = mask.shape
    n = y_powers.shape[1]
    moments = np.zeros((nx, n, n))
    for x in prange(nx):
        i = starts[x]
        of_row = np.empty(n)
        for y in range(ny):
            of_row[:] = 0.0
            for z in range(nz):
                if mask[x, y, z]:
                    for c in range(n):
                        of_row[c] += values[i] * z_powers[z, c]
                    i += 1
            for b in range(n):
                for c in range(n):
                    moments[x, b, c] += y_powers[y, b] * of_row[c]
    return moments


@njit(parallel=True, cache=True)
def _evaluate(coefficients, mask, starts, xs, ys, zs):  # type: ignore[no-untyped-def]
    """Return a polynomial's values in the voxels of the mask."""
    nx, ny, nz = mask.shape
    n = coefficients.shape[0]
    values = np.empty(starts[-1], np.float32)
    for x in prange(nx):
        i = starts[x]
        of_row = np.empty(n)
        for y in range(ny):
            for c in range(n):
                of_row[c] = 0.0
                for a in range(n - 1, -1, -1):
                    inner = 0.0
                    for b in range(n - 1, -1, -1):
                        inner = inner * ys[y] + coefficients[a, b, c]
                    of_row[c] = of_row[c] * xs[x] + inner
            for z in range(nz):
                if mask[x, y, z]:
                    value = 0.0
                    for c in range(n - 1, -1, -1):
                        value = value * zs[z] + of_row[c]
                    values[i] = value
                    i += 1
    return values


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

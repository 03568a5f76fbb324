"""The kernels of ``relaxometry.py``: fits of a decay in each voxel, and what noise does to them.

All take the signals of a volume, shape (voxel, echo), the indices of the voxels to fit, the echo
times, for each fitted voxel the field's change (Hz) over a voxel along x, y and z, and whether
there are slices (see ``coherence``).  They return R2* (1/s), S0, the variance of R2* at a noise
level of one, the sum of the squared distances of the echoes from the curve, and the number of
echoes.  The log-linear and the non-linear fit are in ``decay_blocks.py``.  Exponentials are in
single precision: their error is a hundredth of the noise at a signal-to-noise ratio of 10^5.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.noise import misfit_factor

_CHUNK = 4096
"""Voxels that share work arrays."""
_LEAST_COHERENCE = 0.25
"""Above the highest side lobe (0.22): no echo beyond the first zero of the sinc is used."""
_LARGEST_SHIFT = 0.4
"""Turns over a voxel: at a half, all of a smooth object's signal is at the edge of k-space."""


@njit(parallel=True, cache=True)
def usable_voxels(signals: Float32, mask: Bool) -> Bool:
    """Return the voxels of ``mask`` whose echoes are all finite, and the first two positive.

    Parameters
    ----------
    signals : ndarray of float32, shape (n, echo)
    mask : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    known = np.zeros(mask.size, np.bool_)
    for i in prange(mask.size):
        if mask[i]:
            usable = signals[i, 0] > 0 and signals[i, 1] > 0
            for j in range(signals.shape[1]):
                usable &= np.isfinite(signals[i, j])
            known[i] = usable
    return known


@njit(parallel=True, cache=True)
def field_changes(field_hz: Float32, mask: Bool, indices: NDArray[np.int64]) -> Float32:
    """Return by how much the field changes over a voxel along each axis.

    Central differences, or one-sided ones where one neighbour alone is in the mask.

    Parameters
    ----------
    field_hz : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    indices : ndarray of int64, shape (n,)
        Flat indices of voxels in the mask.

    Returns
    -------
    ndarray of float32, shape (n, 3)
    """
    shape = field_hz.shape
    changes = np.zeros((indices.size, 3), np.float32)
    strides = (shape[1] * shape[2], shape[2], 1)
    flat_field, flat_mask = field_hz.ravel(), mask.ravel()
    for i in prange(indices.size):
        here = indices[i]
        line = here // shape[2]
        places = (line // shape[1], line % shape[1], here % shape[2])
        for axis in range(3):
            stride, low, high = strides[axis], here, here
            if places[axis] > 0 and flat_mask[here - stride]:
                low -= stride
            if places[axis] + 1 < shape[axis] and flat_mask[here + stride]:
                high += stride
            if high != low:
                difference = flat_field[high] - flat_field[low]
                changes[i, axis] = difference if high - low == stride else difference / 2
    return changes


@njit(cache=True)
def coherence(change_x, change_y, change_z, te, sliced, left):  # type: ignore[no-untyped-def]
    """Put what dephasing within the voxel leaves of each echo into ``left``; count the echoes.

    ``sliced``: the third axis has slices with sharp edges; the others are encoded in k-space,
    whose centre the field's change over a voxel shifts to the edge when it makes half a turn.
    The two first echoes are never left out, and after one that is left out all are.
    """
    across = abs(change_z)
    steepest = max(abs(change_x), abs(change_y), 0.0 if sliced else across)
    used = te.size
    while used > 2 and steepest * te[used - 1] > _LARGEST_SHIFT:
        used -= 1
    for j in range(used):
        left[j] = 1.0
    if sliced and across > 0.0:
        for j in range(used):
            turns = np.pi * across * te[j]
            left[j] = np.sin(turns) / turns
            if left[j] < _LEAST_COHERENCE:
                if j > 1:
                    return j
                left[j] = _LEAST_COHERENCE
    return used


@njit(cache=True)
def _exp(x):  # type: ignore[no-untyped-def]
    return np.float64(np.exp(np.float32(x)))


@njit(cache=True, error_model="numpy")
def _squared_distance(signal, te, left, used, rate, s0):  # type: ignore[no-untyped-def]
    square = 0.0
    for j in range(used):
        square += (signal[j] - s0 * left[j] * _exp(-rate * te[j])) ** 2
    return square


@njit(parallel=True, cache=True, error_model="numpy")
def arlo_voxels(  # type: ignore[no-untyped-def]
    signals, indices, te, changes, sliced, weights, sigma, start_rate, start_s0, start_variance
):
    """Solve integral = T2* fall over the triples of echoes.

    Each equation is multiplied by integral + w fall, w being the last echo's weight; for even
    spacing this is the paper's solution.  Noise enters through fall - R2* integral alone, which
    is zero without it: that makes the variance a sum over echoes.  Where there is no triple the
    start stays.
    """
    n = indices.size
    rates, s0s, variances = start_rate.copy(), start_s0.copy(), start_variance.copy()
    squares, counts = np.zeros(n), np.zeros(n, np.int64)
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        left, signal, slopes = np.empty(te.size), np.empty(te.size), np.empty(te.size)
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)):
            measured = signals[indices[i]]
            used = coherence(changes[i, 0], changes[i, 1], changes[i, 2], te, sliced, left)
            if used > 2:
                for j in range(used):
                    square = np.float64(measured[j]) ** 2 - sigma**2
                    signal[j] = np.sqrt(max(square, 0.0)) / left[j]
                rates[i], variances[i] = _from_triples(signal, weights, left, used, slopes)
                over = under = 0.0
                for j in range(used):
                    curve = _exp(-rates[i] * te[j])
                    over += signal[j] * curve
                    under += curve**2
                s0s[i] = over / under
            counts[i] = used
            squares[i] = _squared_distance(measured, te, left, used, rates[i], s0s[i])
    return rates, s0s, variances, squares, counts


@njit(cache=True, error_model="numpy")
def _from_triples(signal, weights, left, used, slopes):  # type: ignore[no-untyped-def]
    """Return R2* and its variance; ``slopes`` is a work array."""
    falls = integrals = 0.0
    for j in range(used - 2):
        integral, fall = _integral(signal, weights, j), signal[j] - signal[j + 2]
        factor = integral + weights[j, 2] * fall
        falls += factor * fall
        integrals += factor * integral
    if not integrals > 0.0:
        return 0.0, np.inf
    rate = falls / integrals
    slopes[:used] = 0.0
    for j in range(used - 2):
        factor = _integral(signal, weights, j) + weights[j, 2] * (signal[j] - signal[j + 2])
        slopes[j] += factor
        slopes[j + 2] -= factor
        for k in range(3):
            slopes[j + k] -= factor * rate * weights[j, k]
    square = 0.0
    for j in range(used):
        square += (slopes[j] / left[j]) ** 2
    return rate, square / integrals**2


@njit(cache=True)
def _integral(signal, weights, j):  # type: ignore[no-untyped-def]
    return weights[j, 0] * signal[j] + weights[j, 1] * signal[j + 1] + weights[j, 2] * signal[j + 2]


@njit(parallel=True, cache=True, error_model="numpy")
def write_maps(  # type: ignore[no-untyped-def]
    maps, signals, indices, te, rates, s0s, variances, squares, counts, sigma, limits, largest_rate
):
    """Write R2*, S0 and the standard deviation of R2* into ``maps``, shape (3, voxel).

    R2* is cut to 0..``largest_rate``; where that changes it, S0 is fitted anew to the cut value.
    ``limits``: of :func:`noise.misfit_limits`.
    """
    for i in prange(indices.size):
        voxel, rate, s0 = indices[i], 0.0, s0s[i]
        if rates[i] > 0.0:
            rate = min(rates[i], largest_rate)
        if rate != rates[i]:
            over = under = 0.0
            for j in range(te.size):
                curve = _exp(-rate * te[j])
                over += signals[voxel, j] * curve
                under += curve * curve
            s0 = over / under
        maps[0, voxel], maps[1, voxel] = rate, s0
        factor = misfit_factor(squares[i], max(counts[i] - 2, 0), sigma, limits)
        maps[2, voxel] = factor * sigma * np.sqrt(variances[i]) if variances[i] < np.inf else np.inf

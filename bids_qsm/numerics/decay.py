"""The kernels of ``relaxometry.py``: fits of a decay in each voxel, and what noise does to them.

All take the signals of a volume, shape (voxel, echo), the indices of the voxels to fit, the echo
times, for each fitted voxel the field's change (Hz) over a voxel along x, y and z (none of shape
(0, 3) where it is not known), and whether there are slices (see ``coherence``).  They set the rows
of an array of float32: R2* (1/s), S0, the variance of R2* at a noise level of one, the sum of the
squared distances of the echoes from the curve, and the number of echoes.  The log-linear and the
non-linear fit are in ``decay_blocks.py``.  Exponentials are in single precision: their error is a
hundredth of the noise at a signal-to-noise ratio of 10^5.
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
def usable_voxels(signals: Float32, mask: Bool) -> tuple[Bool, NDArray[np.int64]]:
    """Find the voxels of ``mask`` whose echoes are all finite, and the first two positive.

    Parameters
    ----------
    signals : ndarray of float32, shape (n, echo)
    mask : ndarray of bool, shape (n,)

    Returns
    -------
    known : ndarray of bool, shape (n,)
    indices : ndarray of int64
        Of the known voxels.
    """
    n = mask.size
    n_chunks = (n + _CHUNK - 1) // _CHUNK
    known, starts = np.zeros(n, np.bool_), np.zeros(n_chunks + 1, np.int64)
    for chunk in prange(n_chunks):
        count = 0
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)):
            if mask[i]:
                # what is finite, and nothing else, leaves nothing when it is taken off itself
                rest = np.float32(0)
                for j in range(signals.shape[1]):
                    rest += signals[i, j] - signals[i, j]
                is_known = rest == 0 and signals[i, 0] > 0 and signals[i, 1] > 0
                known[i] = is_known
                count += is_known
        starts[chunk + 1] = count
    starts = np.cumsum(starts)
    indices = np.empty(starts[-1], np.int64)
    for chunk in prange(n_chunks):
        place = starts[chunk]
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)):
            if known[i]:
                indices[place] = i
                place += 1
    return known, indices


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
    signals, indices, te, changes, sliced, weights, sigma, results
):
    """Solve integral = T2* fall over the triples of echoes.

    Each equation is multiplied by integral + w fall, w being the last echo's weight; for even
    spacing this is the paper's solution.  Noise enters through fall - R2* integral alone, which
    is zero without it: that makes the variance a sum over echoes.  Where there is no triple, rate,
    S0 and variance stay as ``results`` has them.
    """
    n = indices.size
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        left, signal, slopes = np.ones(te.size), np.empty(te.size), np.empty(te.size)
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)):
            measured, fit, used = signals[indices[i]], results[:, i], te.size
            if changes.size > 0:
                used = coherence(changes[i, 0], changes[i, 1], changes[i, 2], te, sliced, left)
            if used > 2:
                for j in range(used):
                    square = np.float64(measured[j]) ** 2 - sigma**2
                    signal[j] = np.sqrt(max(square, 0.0)) / left[j]
                fit[0], fit[2] = _from_triples(signal, weights, left, used, slopes)
                over = under = 0.0
                for j in range(used):
                    curve = _exp(-fit[0] * te[j])
                    over += signal[j] * curve
                    under += curve**2
                fit[1] = over / under
            fit[3] = _squared_distance(measured, te, left, used, fit[0], fit[1])
            fit[4] = used


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
def write_maps(maps, signals, indices, te, results, sigma, limits, largest_rate):  # type: ignore[no-untyped-def]
    """Set R2*, S0 and the standard deviation of R2* in ``maps``, shape (3, voxel).

    R2* is cut to 0..``largest_rate``; where that changes it, S0 is fitted anew to the cut value.
    What is not among ``indices``, which rise, is nil, its deviation inf.  ``limits``: of
    :func:`noise.misfit_limits`.
    """
    n = indices.size
    n_chunks = max((n + _CHUNK - 1) // _CHUNK, 1)
    for chunk in prange(n_chunks):
        first, last = chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)
        start = indices[first] if chunk > 0 else 0
        stop = indices[last] if chunk < n_chunks - 1 else maps.shape[1]
        maps[:2, start:stop], maps[2, start:stop] = 0, np.inf
        for i in range(first, last):
            voxel, rate, s0 = indices[i], np.float32(0), results[1, i]
            if results[0, i] > 0:
                rate = min(results[0, i], np.float32(largest_rate))
            if rate != results[0, i]:
                over = under = 0.0
                for j in range(te.size):
                    curve = _exp(-rate * te[j])
                    over += signals[voxel, j] * curve
                    under += curve * curve
                s0 = over / under
            maps[0, voxel], maps[1, voxel] = rate, s0
            variance, freedom = results[2, i], max(int(results[4, i]) - 2, 0)
            if variance < np.inf:
                factor = misfit_factor(results[3, i], freedom, sigma, limits)
                maps[2, voxel] = factor * sigma * np.sqrt(variance)

"""The kernels of ``relaxometry.py``: fits of a decay in each voxel, and what noise does to them.

All take the signals of a volume, shape (voxel, echo), the indices of the voxels to fit, the echo
times, for each fitted voxel the field's change (Hz) over a voxel along x, y and z, and whether
there are slices (see ``_coherence``).  They return R2* (1/s) and S0, and the variance of R2* at a
noise level of one where they say so.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32

_MAX_ITERATIONS = 15
_LEAST_COHERENCE = 0.25
"""Above the highest side lobe (0.22): no echo beyond the first zero of the sinc is used."""
_LARGEST_SHIFT = 0.4
"""Turns over a voxel: at a half, all of a smooth object's signal is at the edge of k-space."""

Float64 = NDArray[np.float64]


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
        for axis in range(3):
            place = here // strides[axis] % shape[axis]
            low = high = here
            if place > 0 and flat_mask[here - strides[axis]]:
                low = here - strides[axis]
            if place + 1 < shape[axis] and flat_mask[here + strides[axis]]:
                high = here + strides[axis]
            if high != low:
                span = (high - low) // strides[axis]
                changes[i, axis] = (flat_field[high] - flat_field[low]) / span
    return changes


@njit(cache=True)
def _coherence(changes, te, sliced):  # type: ignore[no-untyped-def]
    """Return what dephasing within the voxel leaves of each echo; 0: leave the echo out.

    ``sliced``: the third axis has slices with sharp edges; the others are encoded in k-space,
    whose centre the field's change over a voxel shifts to the edge when it makes half a turn.
    The two first echoes are never left out.
    """
    left = np.ones(te.size)
    for j in range(te.size):
        for axis in range(3):
            turns = abs(changes[axis]) * te[j]
            if sliced and axis == 2:
                if turns > 0.0:
                    sinc = np.sin(np.pi * turns) / (np.pi * turns)
                    if sinc < _LEAST_COHERENCE:
                        sinc = _LEAST_COHERENCE if j < 2 else 0.0
                    left[j] = sinc
            elif turns > _LARGEST_SHIFT and j > 1:
                left[j] = 0.0
                break
    return left


@njit(parallel=True, cache=True)
def squared_residuals(signals, indices, te, changes, sliced, rate, s0):  # type: ignore[no-untyped-def]
    """Sum the squared distances of the echoes from the curve; return their number too."""
    squares = np.zeros(indices.size)
    counts = np.zeros(indices.size, np.int64)
    for i in prange(indices.size):
        left = _coherence(changes[i], te, sliced)
        for j in range(te.size):
            if left[j] > 0.0:
                curve = s0[i] * left[j] * np.exp(-rate[i] * te[j])
                squares[i] += (signals[indices[i], j] - curve) ** 2
                counts[i] += 1
    return squares, counts


@njit(parallel=True, cache=True)
def loglinear_voxels(signals, indices, te, changes, sliced):  # type: ignore[no-untyped-def]
    """Fit log-linearly, the second time with weights from the first fit's curve; with variance."""
    rates = np.zeros(indices.size)
    s0 = np.zeros(indices.size)
    variances = np.full(indices.size, np.inf)
    for i in prange(indices.size):
        signal = signals[indices[i]]
        left = _coherence(changes[i], te, sliced)
        scale = np.float64(signal.max())
        rate, log_s0 = 0.0, 0.0
        for step in range(2):
            w0 = w1 = w2 = b0 = b1 = 0.0
            for j in range(te.size):
                value = np.float64(signal[j]) / scale
                if value <= 0.0 or left[j] == 0.0:
                    continue
                curve = left[j] * np.exp(log_s0 - rate * te[j]) if step else value
                weight = curve**2
                log_value = np.log(value / left[j])
                w0 += weight
                w1 += weight * te[j]
                w2 += weight * te[j] ** 2
                b0 += weight * log_value
                b1 += weight * te[j] * log_value
            determinant = w0 * w2 - w1 * w1
            if determinant <= 1e-12 * w0 * w2:
                break
            rate = (w1 * b0 - w0 * b1) / determinant
            log_s0 = (w2 * b0 - w1 * b1) / determinant
            variances[i] = w0 / determinant / scale**2
        rates[i], s0[i] = rate, scale * np.exp(log_s0)
    return rates, s0, variances


@njit(parallel=True, cache=True)
def arlo_voxels(  # type: ignore[no-untyped-def]
    signals, indices, te, changes, sliced, weights, sigma, start_rate, start_s0, start_variance
):
    """Solve integral = T2* fall over the triples of echoes; with variance.

    Each equation is multiplied by integral + w fall, w being the last echo's weight; for even
    spacing this is the paper's solution.  Noise enters through fall - R2* integral alone, which
    is zero without it: that makes the variance a sum over echoes.
    """
    rates, s0, variances = start_rate.copy(), start_s0.copy(), start_variance.copy()
    for i in prange(indices.size):
        left = _coherence(changes[i], te, sliced)
        signal = np.zeros(te.size)
        for j in range(te.size):
            if left[j] > 0.0:
                square = np.float64(signals[indices[i], j]) ** 2 - sigma**2
                signal[j] = np.sqrt(max(square, 0.0)) / left[j]
        falls = integrals = 0.0
        factors = np.zeros(weights.shape[0])
        for j in range(weights.shape[0]):
            if left[j + 2] == 0.0:
                break
            integral = 0.0
            for k in range(3):
                integral += weights[j, k] * signal[j + k]
            fall = signal[j] - signal[j + 2]
            factors[j] = integral + weights[j, 2] * fall
            falls += factors[j] * fall
            integrals += factors[j] * integral
        if left[2] == 0.0:
            continue  # no triple: the log-linear fit stays
        rate = falls / integrals if integrals > 0.0 else 0.0
        slopes = np.zeros(te.size)
        for j in range(weights.shape[0]):
            slopes[j] += factors[j]
            slopes[j + 2] -= factors[j]
            for k in range(3):
                slopes[j + k] -= factors[j] * rate * weights[j, k]
        square = over = under = 0.0
        for j in range(te.size):
            if left[j] > 0.0:
                square += (slopes[j] / left[j]) ** 2
                curve = np.exp(-rate * te[j])
                over += signal[j] * curve
                under += curve**2
        rates[i], s0[i] = rate, over / under
        variances[i] = square / integrals**2 if integrals > 0.0 else np.inf
    return rates, s0, variances


@njit(cache=True)
def _expected(nu, sigma):  # type: ignore[no-untyped-def]
    """Return the mean magnitude of a signal ``nu`` in noise ``sigma``, its slope and variance.

    The variance is over ``sigma`` squared.
    """
    if sigma == 0.0:
        return nu, 1.0, 1.0
    extra = (np.pi / 2 - 1) * np.exp(-0.3 * (nu / sigma) ** 2)
    mean = np.sqrt(nu**2 + sigma**2 * (1.0 + extra))
    # the mean square is nu^2 + 2 sigma^2
    return mean, nu * (1.0 - 0.3 * extra) / mean, 1.0 - extra


@njit(cache=True)
def _normal_equations(signal, te, left, rate, s0, sigma):  # type: ignore[no-untyped-def]
    """Return the squared misfit, and the normal matrix and right side for (s0, rate)."""
    cost = a00 = a01 = a11 = b0 = b1 = 0.0
    for j in range(te.size):
        if left[j] == 0.0:
            continue
        decay = left[j] * np.exp(-rate * te[j])
        mean, slope, _ = _expected(s0 * decay, sigma)
        d0 = slope * decay
        d1 = -slope * s0 * te[j] * decay
        e = signal[j] - mean
        cost += e * e
        a00 += d0 * d0
        a01 += d0 * d1
        a11 += d1 * d1
        b0 += d0 * e
        b1 += d1 * e
    return cost, a00, a01, a11, b0, b1


@njit(cache=True)
def _rate_variance(te, left, rate, s0, sigma, a00, a01, a11):  # type: ignore[no-untyped-def]
    """Return the variance of R2* by the normal matrix; the echoes' own variances differ."""
    determinant = a00 * a11 - a01 * a01
    if not determinant > 0.0:
        return np.inf
    variance = 0.0
    for j in range(te.size):
        if left[j] == 0.0:
            continue
        decay = left[j] * np.exp(-rate * te[j])
        _, slope, own = _expected(s0 * decay, sigma)
        d0, d1 = slope * decay, -slope * s0 * te[j] * decay
        variance += own * ((a00 * d1 - a01 * d0) / determinant) ** 2
    return variance


@njit(parallel=True, cache=True)
def nonlinear_voxels(  # type: ignore[no-untyped-def]
    signals, indices, te, changes, sliced, start_rate, start_s0, sigma
):
    """Fit the expected magnitude by least squares (Levenberg-Marquardt); with variance."""
    rates = start_rate.copy()
    s0s = start_s0.copy()
    variances = np.empty(indices.size)
    for i in prange(indices.size):
        signal = signals[indices[i]].astype(np.float64)
        left = _coherence(changes[i], te, sliced)
        rate, s0, damping = rates[i], s0s[i], 1e-3
        cost, a00, a01, a11, b0, b1 = _normal_equations(signal, te, left, rate, s0, sigma)
        for _ in range(_MAX_ITERATIONS):
            d00, d11 = a00 * (1 + damping), a11 * (1 + damping)
            determinant = d00 * d11 - a01 * a01
            if not determinant > 0.0:
                break
            ds0 = (d11 * b0 - a01 * b1) / determinant
            drate = (d00 * b1 - a01 * b0) / determinant
            trial = _normal_equations(signal, te, left, rate + drate, s0 + ds0, sigma)
            if trial[0] <= cost:
                rate, s0 = rate + drate, s0 + ds0
                cost, a00, a01, a11, b0, b1 = trial
                damping *= 0.1
                if abs(ds0) <= 1e-5 * s0 and abs(drate) * te[-1] <= 1e-5:
                    break
            else:
                damping *= 10.0
        rates[i], s0s[i] = rate, s0
        variances[i] = _rate_variance(te, left, rate, s0, sigma, a00, a01, a11)
    return rates, s0s, variances

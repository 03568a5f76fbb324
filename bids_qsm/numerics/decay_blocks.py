"""The log-linear and the non-linear fit of a decay, in blocks of voxels.

A block is an array whose columns are voxels and whose rows are what each of them needs: signals,
coherence, fitted values, sums over echoes.  Along a row the arithmetic is the same for all and the
numbers lie next to each other: the compiler does several voxels with each instruction.  Arguments
and results are those of ``decay.py``.  An echo that is left out has a coherence and a signal of
zero: it adds nothing to any sum but a constant to the noise floor's squared misfit.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bids_qsm.numerics.decay import coherence
from bids_qsm.numerics.elementary import exponential, logarithm

_BLOCK = 128
"""Voxels in a block: its rows stay in the nearest cache."""
_CHUNK = 4096
"""Voxels that share work arrays."""
_MAX_ITERATIONS = 15
_LAST_STEP = 0.03
"""In standard deviations of the fit; a step so short is the last one."""
_FLOOR_ENDS = 7.0
"""Signal-to-noise ratio above which the noise floor's exponential is below 1e-6."""
_SUMS = 10
"""Rows of the sums over echoes, see ``_look``."""
_STATE = 5
"""Rows of the non-linear fit's block, see ``nonlinear_voxels``."""


@njit(cache=True)
def _gather(echoes, left, signals, indices, te, changes, sliced, counts):  # type: ignore[no-untyped-def]
    """Put signals and coherence of the voxels ``indices`` into the rows of each echo."""
    used = te.size
    left[:] = 1.0
    for k in range(indices.size):
        voxel = indices[k]
        if changes.size > 0:
            used = coherence(changes[k, 0], changes[k, 1], changes[k, 2], te, sliced, left)
        counts[k] = used
        for j in range(used):
            echoes[2 * j, k] = signals[voxel, j]
            echoes[2 * j + 1, k] = left[j]
        for j in range(used, te.size):
            echoes[2 * j, k] = 0.0
            echoes[2 * j + 1, k] = 0.0


@njit(parallel=True, cache=True, error_model="numpy")
def loglinear_voxels(signals, indices, te, changes, sliced, results):  # type: ignore[no-untyped-def]
    """Fit log-linearly, the second time with weights from the first fit's curve."""
    n, n_echoes = indices.size, te.size
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        echoes, left = np.empty((2 * n_echoes, _BLOCK), np.float32), np.empty(n_echoes)
        logs, weights = np.empty((n_echoes, _BLOCK)), np.empty((n_echoes, _BLOCK))
        sums, fits = np.empty((5, _BLOCK)), np.empty((4, _BLOCK))
        for first in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n), _BLOCK):
            part, size = slice(first, min(first + _BLOCK, n)), min(_BLOCK, n - first)
            counts = results[4, part]
            _gather(echoes, left, signals, indices[part], te, changes[part], sliced, counts)
            fits[:2], fits[2] = 0.0, np.inf
            _take_logarithms(echoes, logs, weights, size)
            _fit_lines(logs, weights, te, sums, fits, size)
            _weigh_by_curve(echoes, weights, te, fits, size)
            _fit_lines(logs, weights, te, sums, fits, size)
            _finish_lines(echoes, te, fits, size)
            for row in range(4):
                for k in range(size):
                    results[row, first + k] = fits[row, k]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _take_logarithms(echoes, logs, weights, n):  # type: ignore[no-untyped-def]
    """Put in the logarithms of the signals, the first echo's being the unit, and their squares."""
    scale = echoes[0]
    for j in range(logs.shape[0]):
        signal, left, log, weight = echoes[2 * j], echoes[2 * j + 1], logs[j], weights[j]
        for k in range(n):
            value = np.float64(signal[k]) / scale[k]
            ratio = value / left[k] if value > 0.0 else 1.0
            log[k] = logarithm(ratio)
            weight[k] = value * value if value > 0.0 else 0.0


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _fit_lines(logs, weights, te, sums, fits, n):  # type: ignore[no-untyped-def]
    """Put rate, logarithm of S0 and the rate's variance into ``fits`` where there is a line."""
    w0, w1, w2, b0, b1 = sums[0], sums[1], sums[2], sums[3], sums[4]
    rate, log_s0, variance = fits[0], fits[1], fits[2]
    sums[:] = 0.0
    for j in range(te.size):
        log, weight = logs[j], weights[j]
        for k in range(n):
            first = weight[k] * te[j]
            w0[k] += weight[k]
            w1[k] += first
            w2[k] += first * te[j]
            b0[k] += weight[k] * log[k]
            b1[k] += first * log[k]
    for k in range(n):
        determinant = w0[k] * w2[k] - w1[k] * w1[k]
        there, scale = determinant > 1e-12 * w0[k] * w2[k], 1.0 / determinant
        rate[k] = (w1[k] * b0[k] - w0[k] * b1[k]) * scale if there else rate[k]
        log_s0[k] = (w2[k] * b0[k] - w1[k] * b1[k]) * scale if there else log_s0[k]
        variance[k] = w0[k] * scale if there else variance[k]


@njit(cache=True, fastmath={"contract"})
def _weigh_by_curve(echoes, weights, te, fits, n):  # type: ignore[no-untyped-def]
    """Replace the weights by the squares of the fitted curve; no curve, no weights."""
    rate, log_s0, variance = fits[0], fits[1], fits[2]
    for j in range(te.size):
        left, weight = echoes[2 * j + 1], weights[j]
        for k in range(n):
            curve = left[k] * exponential(log_s0[k] - rate[k] * te[j])
            weight[k] = curve * curve if weight[k] > 0.0 and variance[k] < np.inf else 0.0


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _finish_lines(echoes, te, fits, n):  # type: ignore[no-untyped-def]
    """Turn the logarithm of S0 into S0, put all into the signals' unit, sum the squared misfit."""
    rate, s0, variance, square = fits[0], fits[1], fits[2], fits[3]
    scale = echoes[0]
    for k in range(n):
        unit = np.float64(scale[k])
        s0[k] = unit * exponential(s0[k])
        variance[k] /= unit * unit
        square[k] = 0.0
    for j in range(te.size):
        signal, left = echoes[2 * j], echoes[2 * j + 1]
        for k in range(n):
            misfit = signal[k] - s0[k] * left[k] * exponential(-rate[k] * te[j])
            square[k] += misfit * misfit


@njit(parallel=True, cache=True, error_model="numpy")
def nonlinear_voxels(signals, indices, te, changes, sliced, sigma, floor, results):  # type: ignore[no-untyped-def]
    """Fit the expected magnitude by least squares (Levenberg-Marquardt), from ``results`` on.

    ``floor`` is the noise level in the expected magnitude, 0 for a plain exponential.  A step
    that is short beside what noise of ``sigma`` does is the last, without another look at the
    echoes.

    The rows of a block: R2*, S0, the damping, the steps of R2* and of S0.
    """
    n, n_echoes = indices.size, te.size
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        block, places = np.empty((_STATE, _BLOCK)), np.empty(_BLOCK, np.int64)
        echoes, left = np.empty((2 * n_echoes, _BLOCK), np.float32), np.empty(n_echoes)
        sums, looks = np.empty((_SUMS, _BLOCK)), np.empty((_SUMS, _BLOCK))
        work = np.empty((9, _BLOCK))
        work[7], work[8] = 1.0, 0.0
        for first in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n), _BLOCK):
            part, size = slice(first, min(first + _BLOCK, n)), min(_BLOCK, n - first)
            counts = results[4, part]
            _gather(echoes, left, signals, indices[part], te, changes[part], sliced, counts)
            sums[0], block[3:] = np.inf, 0.0
            block[2] = 1e-2  # the look at the start divides it by ten
            for k in range(size):
                block[0, k], block[1, k] = results[0, first + k], results[1, first + k]
                places[k] = first + k
            _fit_block(block, echoes, sums, looks, work, te, sigma, floor, places, size, results)


@njit(cache=True, error_model="numpy")
def _fit_block(  # type: ignore[no-untyped-def]
    block, echoes, sums, looks, work, te, sigma, floor, places, n, results
):
    """Fit a block to the end; voxels that need more steps close ranks at its front."""
    rate, s0, going = block[0], block[1], work[0]
    for iteration in range(_MAX_ITERATIONS + 1):
        _look(block, echoes, looks, work, te, floor, n)
        _accept(block, sums, looks, n)
        sums, looks = looks, sums
        if iteration < _MAX_ITERATIONS:
            _step(block, sums, going, sigma, n)
        else:
            going[:n] = 0.0
        kept = 0
        for k in range(n):
            place = places[k]
            if going[k] > 0.0:
                if kept < k:
                    block[:, kept], sums[:, kept] = block[:, k], sums[:, k]
                    echoes[:, kept], places[kept] = echoes[:, k], place
                kept += 1
            else:
                results[0, place], results[1, place] = rate[k], s0[k]
                results[2, place] = _rate_variance(sums, k)
                results[3, place] = sums[9, k]
        n = kept
        if n == 0:
            break


@njit(cache=True)
def _look(block, echoes, looks, work, te, floor, n):  # type: ignore[no-untyped-def]
    """Sum over the echoes what a step needs, at the fitted values plus the last step.

    The rows of ``looks`` are these sums: the squared misfit; the normal matrix for (S0, R2*); the
    same weighted by how much less than sigma^2 the variance is in the noise; its right side; and
    the squared distance from the curve without the noise floor.  Of the work arrays the last two
    are all one and all nil.
    """
    rate, s0, curve, mean = work[0], work[1], work[2], work[3]
    d0, d1, less, one, nil = work[4], work[5], work[6], work[7], work[8]
    looks[:] = 0.0
    for k in range(n):
        rate[k] = block[0, k] + block[3, k]
        s0[k] = block[1, k] + block[4, k]
    for j in range(te.size):
        signal, left = echoes[2 * j], echoes[2 * j + 1]
        in_floor = _decay(left, rate, s0, te[j], _FLOOR_ENDS * floor, d0, curve, n)
        if in_floor:
            _fall_short(curve, floor, less, n)
            _expect(curve, less, te[j], floor, mean, d0, d1, n)
            _add_matrix(less, d0, d1, looks[4], looks[5], looks[6], n)
        else:
            _expect(curve, nil, te[j], floor, mean, d0, d1, n)
        _add_matrix(one, d0, d1, looks[1], looks[2], looks[3], n)
        _add_misfit(signal, curve, mean, d0, d1, looks[0], looks[7], looks[8], looks[9], n)


@njit(cache=True, fastmath={"contract"})
def _decay(left, rate, s0, te, floor_ends, decay, curve, n):  # type: ignore[no-untyped-def]
    """Put in the decay and the signal without noise; return how many are near the noise floor."""
    in_floor = 0
    for k in range(n):
        decay[k] = left[k] * exponential(-rate[k] * te)
        curve[k] = s0[k] * decay[k]
        in_floor += 1 if abs(curve[k]) < floor_ends else 0
    return in_floor


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _fall_short(curve, floor, less, n):  # type: ignore[no-untyped-def]
    """Put in by how much less than sigma^2 the variance is in the noise: see ``_expect``."""
    for k in range(n):
        ratio = curve[k] * (1.0 / floor)
        less[k] = (np.pi / 2 - 1) * exponential(-0.3 * ratio * ratio)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _expect(curve, less, te, floor, mean, d0, d1, n):  # type: ignore[no-untyped-def]
    """Put in the expected magnitude and its derivatives, the first in place of the decay.

    The expected magnitude of a signal nu is given by :func:`relaxometry.nonlinear`.  Its mean
    square is nu^2 + 2 sigma^2: what ``less`` adds to the one is missing from its variance.
    """
    for k in range(n):
        nu = curve[k]
        root = np.sqrt(nu * nu + floor * floor * (1.0 + less[k]))
        slope = nu * (1.0 - 0.3 * less[k]) / root if floor > 0.0 else 1.0
        mean[k] = root if floor > 0.0 else nu
        d0[k] *= slope
        d1[k] = -slope * nu * te


@njit(cache=True, fastmath={"contract"})
def _add_misfit(measured, signal, mean, d0, d1, cost, b0, b1, square, n):  # type: ignore[no-untyped-def]
    """Add an echo's squared misfit, its products with the derivatives, and its distance."""
    for k in range(n):
        misfit, distance = measured[k] - mean[k], measured[k] - signal[k]
        cost[k] += misfit * misfit
        b0[k] += d0[k] * misfit
        b1[k] += d1[k] * misfit
        square[k] += distance * distance


@njit(cache=True, fastmath={"contract"})
def _add_matrix(weight, d0, d1, a00, a01, a11, n):  # type: ignore[no-untyped-def]
    """Add an echo's part of the normal matrix."""
    for k in range(n):
        first, second = weight[k] * d0[k], weight[k] * d1[k]
        a00[k] += first * d0[k]
        a01[k] += first * d1[k]
        a11[k] += second * d1[k]


@njit(cache=True, fastmath={"contract"})
def _accept(block, sums, looks, n):  # type: ignore[no-untyped-def]
    """Take the last step where it has not raised the squared misfit, else its sums back."""
    rate, s0, damping, drate, ds0 = block[0], block[1], block[2], block[3], block[4]
    before, now, n_worse = sums[0], looks[0], 0
    for k in range(n):
        is_better = now[k] <= before[k]
        rate[k] += drate[k] if is_better else 0.0
        s0[k] += ds0[k] if is_better else 0.0
        damping[k] *= 0.1 if is_better else 10.0
        n_worse += 0 if is_better else 1
    if n_worse > 0:
        for k in range(n):
            if not now[k] <= before[k]:
                looks[:, k] = sums[:, k]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _step(block, sums, going, sigma, n):  # type: ignore[no-untyped-def]
    """Solve for the next step; take it at once where it is short, and end there."""
    a00, a01, a11, b0, b1 = sums[1], sums[2], sums[3], sums[7], sums[8]
    rate, s0, damping, drate, ds0 = block[0], block[1], block[2], block[3], block[4]
    shortest = (_LAST_STEP * sigma) ** 2
    for k in range(n):
        more = 1.0 + damping[k]
        d00, d11 = a00[k] * more, a11[k] * more
        determinant = d00 * d11 - a01[k] * a01[k]
        there = determinant > 0.0
        scale = 1.0 / determinant if there else 0.0
        ds0[k] = (d11 * b0[k] - a01[k] * b1[k]) * scale
        drate[k] = (d00 * b1[k] - a01[k] * b0[k]) * scale
        # what an undamped step gains, about: the square of its length in deviations
        gain = (b0[k] * ds0[k] + b1[k] * drate[k]) * more
        going[k] = 0.0 if gain <= shortest + 1e-12 * s0[k] * s0[k] or not there else 1.0
    for k in range(n):
        rate[k] += drate[k] if going[k] == 0.0 else 0.0
        s0[k] += ds0[k] if going[k] == 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def _rate_variance(sums, k):  # type: ignore[no-untyped-def]
    """Return the variance of R2* by the normal matrix; the echoes' own variances differ."""
    a00, a01, a11 = sums[1, k], sums[2, k], sums[3, k]
    less00, less01, less11 = sums[4, k], sums[5, k], sums[6, k]
    determinant = a00 * a11 - a01 * a01
    if not determinant > 0.0:
        return np.inf
    less = a00 * a00 * less11 - 2 * a00 * a01 * less01 + a01 * a01 * less00
    return a00 / determinant - less / determinant**2

"""The kernel of ``field.py``: phase offset and field fitted to the echoes, in blocks of voxels."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bids_qsm.numerics.elementary import sine_and_versine

_LAST_STEP = 0.005
"""In standard deviations of the fit; a step so short is the last one."""
_BLOCK = 128
"""Voxels that are fitted side by side: their arrays stay in the nearest cache."""
_CHUNK = 4096
"""Voxels that share work arrays."""
_STATE = 5
"""Rows of a block's fits, see ``fit_voxels``."""


@njit(parallel=True, cache=True, error_model="numpy")
def fit_voxels(  # type: ignore[no-untyped-def]
    phase, magnitude, indices, radians_per_hz, fixed_phase0, free, looks, results
):
    """Fit the voxels ``indices``; ``free`` fits the phase offset too, from ``fixed_phase0``.

    Voxels are fitted side by side, in blocks: the columns of two arrays.  The rows of the one are
    field, offset, and the inverse of the normal matrix (field, mixed, offset); those of the other
    are the phase and the magnitude of each echo.  Along a row the arithmetic is the same for all
    and the numbers lie next to each other: the compiler does several voxels with each instruction.

    The rows of ``results`` are set: field, offset, the information on each of them, the
    squared residual and the energy.  All are nil where no echo has a signal or a value is not
    finite.  ``looks``: at the residuals, at most; of which each but the last gives a step, and
    without one there is no squared residual.
    """
    n_echoes, n = radians_per_hz.size, indices.size
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        block, echoes = np.empty((_STATE, _BLOCK)), np.empty((2 * n_echoes, _BLOCK), np.float32)
        sums, places = np.empty((5, _BLOCK)), np.empty(_BLOCK, np.int64)
        for first in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n), _BLOCK):
            size = min(_BLOCK, n - first)
            for k in range(size):
                voxel = indices[first + k]
                for j in range(n_echoes):
                    echoes[2 * j, k] = phase[voxel, j]
                    echoes[2 * j + 1, k] = magnitude[voxel, j]
                places[k] = first + k
                block[1, k] = fixed_phase0[first + k]
            _sum_lines(block, echoes, sums, radians_per_hz, size)
            _solve_lines(block, sums, free, first, size, results)
            _fit_complex(block, echoes, sums, radians_per_hz, free, looks, places, size, results)


@njit(cache=True, fastmath={"contract"})
def _sum_lines(block, echoes, sums, radians_per_hz, n):  # type: ignore[no-untyped-def]
    """Sum over echoes what a straight line through the phases needs."""
    s0, s1, s2, b0, b1 = sums[0], sums[1], sums[2], sums[3], sums[4]
    phase0, n_unusable = block[1], 0
    sums[:] = 0.0
    for j in range(radians_per_hz.size):
        turn, phase, magnitude = radians_per_hz[j], echoes[2 * j], echoes[2 * j + 1]
        for k in range(n):
            weight = np.float64(magnitude[k]) * np.float64(magnitude[k])
            first = weight * turn
            difference = phase[k] - phase0[k]
            s0[k] += weight
            s1[k] += first
            s2[k] += first * turn
            b0[k] += weight * difference
            b1[k] += first * difference
    for k in range(n):
        n_unusable += 0 if s0[k] > 0.0 and np.isfinite(s0[k] + b0[k]) else 1
    if n_unusable == 0:
        return
    for k in range(n):
        if not (s0[k] > 0.0 and np.isfinite(s0[k] + b0[k])):
            echoes[:, k], sums[:, k], phase0[k] = 0.0, 0.0, 0.0


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _solve_lines(block, sums, free, first, n, results):  # type: ignore[no-untyped-def]
    """Fit the straight lines of a block; write all of ``results`` but the squared residual."""
    field, phase0, ff, fc, cc = block[0], block[1], block[2], block[3], block[4]
    s0, s1, s2, b0, b1 = sums[0], sums[1], sums[2], sums[3], sums[4]
    for k in range(n):
        determinant = s0[k] * s2[k] - s1[k] * s1[k]
        # a line cannot be fitted where a single echo has a signal
        scale = 1.0 / determinant if free and determinant > 1e-9 * s0[k] * s2[k] else 0.0
        alone = 1.0 / s2[k] if s2[k] > 0.0 else 0.0
        ff[k] = s0[k] * scale if free else alone
        fc[k] = -s1[k] * scale
        cc[k] = s2[k] * scale
        field[k] = ff[k] * b1[k] + fc[k] * b0[k]
        phase0[k] += fc[k] * b1[k] + cc[k] * b0[k]
    field_found, phase0_found, energy = results[0], results[1], results[5]
    information, phase0_information = results[2], results[3]
    for k in range(n):
        field_found[first + k], phase0_found[first + k] = field[k], phase0[k]
        information[first + k] = 1.0 / ff[k] if ff[k] > 0.0 else 0.0
        phase0_information[first + k] = 1.0 / cc[k] if cc[k] > 0.0 else 0.0
        energy[first + k] = s0[k]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _fit_complex(  # type: ignore[no-untyped-def]
    block, echoes, sums, radians_per_hz, free, looks, places, n, results
):
    """Fit a block's voxels to the end; write field, offset and squared residual to ``places``.

    Each step solves the linear fit's normal equations for the sine of the phase residual.  As
    1 - cos(e + d) <= 1 - cos(e) + d sin(e) + d^2 / 2, no step can raise the squared residual:
    Gauss-Newton needs no damping here.  The last step lowers it by as much as the normal
    equations say: it is too short for another look at the echoes.  Voxels that need one close
    ranks at the front of the block.
    """
    field, phase0, ff, fc, cc = block[0], block[1], block[2], block[3], block[4]
    total, b0, b1, excess = sums[0], sums[1], sums[2], sums[3]
    freedom = max(radians_per_hz.size - (2 if free else 1), 1)
    tolerance = _LAST_STEP**2 / freedom
    for look in range(looks):
        _sum_residuals(block, echoes, sums, radians_per_hz, n)
        if look + 1 < looks:
            for k in range(n):
                df = ff[k] * b1[k] + fc[k] * b0[k]
                dc = fc[k] * b1[k] + cc[k] * b0[k]
                gain = b0[k] * dc + b1[k] * df
                excess[k] = gain - tolerance * total[k]
                field[k] += df
                phase0[k] += dc
                total[k] = max(total[k] - gain, 0.0)
        else:
            excess[:n] = 0.0
        left = 0
        for k in range(n):
            place = places[k]
            results[0, place], results[1, place] = field[k], phase0[k]
            results[4, place] = total[k] if ff[k] > 0.0 else 0.0
            if excess[k] > 0.0:
                if left < k:
                    block[:, left], echoes[:, left] = block[:, k], echoes[:, k]
                    places[left] = place
                left += 1
        n = left
        if n == 0:
            break


@njit(cache=True, fastmath={"contract"})
def _sum_residuals(block, echoes, sums, radians_per_hz, n):  # type: ignore[no-untyped-def]
    """Sum the squared residuals over echoes, and the right side of the normal equations."""
    field, phase0, total, b0, b1 = block[0], block[1], sums[0], sums[1], sums[2]
    total[:n], b0[:n], b1[:n] = 0.0, 0.0, 0.0
    for j in range(radians_per_hz.size):
        turn, phase, magnitude = radians_per_hz[j], echoes[2 * j], echoes[2 * j + 1]
        for k in range(n):
            weight = np.float64(magnitude[k]) * np.float64(magnitude[k])
            sine, versine = sine_and_versine(phase[k] - phase0[k] - field[k] * turn)
            weighted = weight * sine
            total[k] += 2.0 * weight * versine
            b0[k] += weighted
            b1[k] += weighted * turn

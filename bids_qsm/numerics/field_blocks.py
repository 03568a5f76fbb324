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
"""Rows of a block before those of the echoes, see ``fit_voxels``."""


@njit(parallel=True, cache=True, error_model="numpy")
def fit_voxels(  # type: ignore[no-untyped-def]
    phase, magnitude, indices, radians_per_hz, fixed_phase0, free, iterations
):
    """Fit the voxels ``indices``; ``free`` fits the phase offset too, from ``fixed_phase0``.

    Voxels are fitted side by side, in blocks: the columns of an array whose rows are field,
    offset, the inverse of the normal matrix (field, mixed, offset), and the phase and the weight
    of each echo.  Along a row the arithmetic is the same for all and the numbers lie next to each
    other: the compiler does several voxels with each instruction.
    """
    n_echoes, n = radians_per_hz.size, indices.size
    results = np.zeros((6, n))
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        block, sums = np.empty((_STATE + 2 * n_echoes, _BLOCK)), np.empty((6, _BLOCK))
        places = np.empty(_BLOCK, np.int64)
        for first in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n), _BLOCK):
            last = min(first + _BLOCK, n)
            for k in range(last - first):
                places[k] = first + k
                block[1, k] = fixed_phase0[first + k]
                voxel = indices[first + k]
                for j in range(n_echoes):
                    block[_STATE + 2 * j, k] = phase[voxel, j]
                    block[_STATE + 2 * j + 1, k] = np.float64(magnitude[voxel, j]) ** 2
            _fit_lines(block, sums, radians_per_hz, free, results[:, first:last])
            _fit_complex(
                block, sums, radians_per_hz, free, iterations, places, last - first, results
            )
    return results[0], results[1], results[2], results[3], results[4], results[5]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _fit_lines(block, sums, radians_per_hz, free, results):  # type: ignore[no-untyped-def]
    """Fit straight lines to the phases of a block; write the information and the energy."""
    n = results.shape[1]
    field, phase0, ff, fc, cc = block[0], block[1], block[2], block[3], block[4]
    s0, s1, s2, b0, b1 = sums[0], sums[1], sums[2], sums[3], sums[4]
    sums[:] = 0.0
    for j in range(radians_per_hz.size):
        turn, phase, weight = radians_per_hz[j], block[_STATE + 2 * j], block[_STATE + 2 * j + 1]
        for k in range(n):
            first = weight[k] * turn
            difference = phase[k] - phase0[k]
            s0[k] += weight[k]
            s1[k] += first
            s2[k] += first * turn
            b0[k] += weight[k] * difference
            b1[k] += first * difference
    for k in range(n):
        determinant = s0[k] * s2[k] - s1[k] * s1[k]
        # a line cannot be fitted where a single echo has a signal
        scale = 1.0 / determinant if free and determinant > 1e-9 * s0[k] * s2[k] else 0.0
        ff[k] = s0[k] * scale if free else 1.0 / s2[k]
        fc[k] = -s1[k] * scale
        cc[k] = s2[k] * scale
    for k in range(n):
        field[k] = ff[k] * b1[k] + fc[k] * b0[k]
        phase0[k] += fc[k] * b1[k] + cc[k] * b0[k]
    information, phase0_information, energy = results[2], results[3], results[5]
    for k in range(n):
        information[k] = 1.0 / ff[k] if ff[k] > 0.0 else 0.0
        phase0_information[k] = 1.0 / cc[k] if cc[k] > 0.0 else 0.0
        energy[k] = s0[k]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _fit_complex(  # type: ignore[no-untyped-def]
    block, sums, radians_per_hz, free, iterations, places, n, results
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
    for iteration in range(iterations + 1):
        _sum_residuals(block, sums, radians_per_hz, n)
        if iteration < iterations:
            for k in range(n):
                df = ff[k] * b1[k] + fc[k] * b0[k]
                dc = fc[k] * b1[k] + cc[k] * b0[k]
                gain = b0[k] * dc + b1[k] * df
                excess[k] = gain - tolerance * total[k]
                field[k] += df
                phase0[k] += dc
                total[k] = max(total[k] - gain, 0.0)
        left = 0
        for k in range(n):
            place = places[k]
            results[0, place], results[1, place] = field[k], phase0[k]
            results[4, place] = total[k] if results[2, place] > 0.0 else 0.0
            if excess[k] > 0.0:
                for row in range(block.shape[0]):
                    block[row, left] = block[row, k]
                places[left] = place
                left += 1
        n = left
        if n == 0:
            break


@njit(cache=True, fastmath={"contract"})
def _sum_residuals(block, sums, radians_per_hz, n):  # type: ignore[no-untyped-def]
    """Sum the squared residuals over echoes, and the right side of the normal equations."""
    field, phase0, total, b0, b1 = block[0], block[1], sums[0], sums[1], sums[2]
    sums[:, :n] = 0.0
    for j in range(radians_per_hz.size):
        turn, phase, weight = radians_per_hz[j], block[_STATE + 2 * j], block[_STATE + 2 * j + 1]
        for k in range(n):
            sine, versine = sine_and_versine(phase[k] - phase0[k] - field[k] * turn)
            weighted = weight[k] * sine
            total[k] += 2.0 * weight[k] * versine
            b0[k] += weighted
            b1[k] += weighted * turn

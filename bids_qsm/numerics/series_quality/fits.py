"""Metrics of the unwrapped phase and of the fit over echoes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from bids_qsm.numerics.field import FieldFit
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.quantiles import percentiles
from bids_qsm.numerics.series_quality.metrics import Value


@dataclass(frozen=True)
class FitQuality:
    """How well one field explains the phase of all echoes; NaN where the mask is empty.

    Attributes
    ----------
    residual, high_residual : float
        Median and 90th percentile of the relative residual of the fit.
    misfit : float
        Share of voxels in which the unwrapped phase of some echo is more than pi off the fit.
    jumps : float
        Share of voxels whose unwrapped phase in the first echo is more than pi off that of the
        next voxel along some axis.
    """

    residual: float
    high_residual: float
    misfit: float
    jumps: float

    def values(self) -> list[Value]:
        """Return them as values of the metrics."""
        return [
            ("fit_residual", "phase", self.residual),
            ("high_fit_residual", "phase", self.high_residual),
            ("unwrapping_misfit", "phase", self.misfit),
            ("unwrapping_jumps", "phase", self.jumps),
        ]


def measure_fit(
    unwrapped: Float32, fitted: FieldFit, te_s: Sequence[float], mask: Bool
) -> FitQuality:
    """Measure unwrapped phase and its fit in a mask.

    Parameters
    ----------
    unwrapped : ndarray of float32, shape (x, y, z, echo)
    fitted : FieldFit
    te_s : sequence of float
    mask : ndarray of bool, shape (x, y, z)

    Notes
    -----
    Memory: one list of the mask's voxels.
    """
    known = mask & np.isfinite(fitted.noise_hz)
    n = int(np.count_nonzero(known))
    if not n:
        return FitQuality(np.nan, np.nan, np.nan, np.nan)
    radians_per_hz = (2 * np.pi * np.asarray(te_s)).astype(np.float32)
    misfits, jumps = _counts(unwrapped, fitted.field_hz, fitted.phase0_rad, radians_per_hz, known)
    residual, high = percentiles(fitted.residual[known], (50, 90))
    return FitQuality(residual, high, float(misfits.sum() / n), float(jumps.sum() / n))


@njit(parallel=True, cache=True)
def _counts(phase, field_hz, phase0_rad, radians_per_hz, mask):  # type: ignore[no-untyped-def]
    """Return the number of voxels off the fit, and of those with a jump, in each plane."""
    nx, ny, nz, n_echoes = phase.shape
    misfits, jumps = np.zeros(nx, np.int64), np.zeros(nx, np.int64)
    half = np.float32(np.pi)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                off = False
                for echo in range(n_echoes):
                    model = phase0_rad[x, y, z] + field_hz[x, y, z] * radians_per_hz[echo]
                    off |= abs(phase[x, y, z, echo] - model) > half
                misfits[x] += off
                here, jump = phase[x, y, z, 0], False
                if x + 1 < nx and mask[x + 1, y, z]:
                    jump |= abs(phase[x + 1, y, z, 0] - here) > half
                if y + 1 < ny and mask[x, y + 1, z]:
                    jump |= abs(phase[x, y + 1, z, 0] - here) > half
                if z + 1 < nz and mask[x, y, z + 1]:
                    jump |= abs(phase[x, y, z + 1, 0] - here) > half
                jumps[x] += jump
    return misfits, jumps

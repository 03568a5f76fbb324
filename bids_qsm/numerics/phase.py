"""Stored phase: its scale, its wrapping, and what scanners may have done to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import fft

from bids_qsm.numerics.geometry import Bool, Float32

TURN = np.float32(2 * np.pi)

_LEVELS = (4096.0, 8192.0, 65536.0)
"""Levels in a turn: Siemens 12 bit, the same with slope 2 and intercept -4096, 16 bit."""
_SCALES = {
    "radians": 2 * math.pi,
    "milliradians": 2000 * math.pi,
    "degrees": 360.0,
    **{f"{levels:.0f} levels": levels for levels in _LEVELS},
}
_LEAST_COVERAGE = 0.9
"""Of a turn, by the range of all echoes; noise fills it, unless the background was cut out.

The two scales that are nearest to each other differ by a factor of 1.3.
"""
_ROUNDING = 2e-3
_FILTERED_SPREAD_RAD = 0.15
"""Heads, measured and simulated: 0.3 and more; the same after filtering: 0.07 and less."""
_LARGE_SCALES = 3
"""Highest number of periods over the field of view that counts as a large scale."""


def wrap(phase: Float32) -> Float32:
    """Return phase (rad) brought to (-pi, pi]."""
    return phase - TURN * np.ceil(phase / TURN - np.float32(0.5))


def find_units_per_turn(minimum: float, maximum: float, is_integer: bool) -> float:
    """Return how many stored units stand for 2 pi radians.

    Parameters
    ----------
    minimum, maximum : float
        Over all echoes of the series: they have one scale.
    is_integer : bool
        Whether all values are whole numbers; radians are not.

    Raises
    ------
    ValueError
        If the range fits no known scale, or is none; the message is a sentence for the user.
    """
    if not (math.isfinite(minimum) and math.isfinite(maximum)):
        raise ValueError("The phase has values that are no numbers; convert it again.")
    if minimum == maximum:
        raise ValueError(
            f"The phase is constant, with {minimum:g} in all echoes; convert it again."
        )
    for name, units in _SCALES.items():
        if _fits(minimum, maximum, units) and not (is_integer and name == "radians"):
            return units
    kind = "whole numbers " if is_integer else ""
    raise ValueError(
        f"The phase has {kind}from {minimum:g} to {maximum:g} over all echoes, which fits no "
        f"known scale ({', '.join(_SCALES)} for a turn); if it is unfiltered, wrapped phase, put "
        "`units_per_turn = X` under `[phase]` in the settings file, X units standing for 2 pi."
    )


def _fits(minimum: float, maximum: float, units: float) -> bool:
    """Return whether a range is nearly one turn, around zero or upward from zero."""
    if not _LEAST_COVERAGE * units <= maximum - minimum <= (1 + _ROUNDING) * units:
        return False
    lowest = 0.0 if minimum >= 0 else -units / 2
    slack = _ROUNDING * units
    return lowest - slack <= minimum and maximum <= lowest + units + slack


def to_radians(stored: NDArray, units_per_turn: float) -> Float32:
    """Return stored phase in radians, wrapped to (-pi, pi].

    Levels that never fall below zero are counted from -pi.

    Parameters
    ----------
    stored : ndarray, shape (x, y, z, echo)
        Overwritten where it is float32.
    units_per_turn : float
    """
    phase: Float32 = stored.astype(np.float32, copy=False)
    counts_from_zero = units_per_turn in _LEVELS and phase.min() >= 0
    lowest = np.float32(np.pi if counts_from_zero else 0)
    _scale(phase, np.float32(2 * math.pi / units_per_turn), lowest)
    return phase


@njit(parallel=True, cache=True)
def _scale(stored, radians_per_unit, lowest):  # type: ignore[no-untyped-def]
    """Scale stored phase and wrap it, in place."""
    nx, ny, nz, n_echoes = stored.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                for echo in range(n_echoes):
                    phase = stored[x, y, z, echo] * radians_per_unit - lowest
                    turns = np.ceil(phase / TURN - np.float32(0.5))
                    stored[x, y, z, echo] = phase - TURN * turns


def all_whole(values: Float32) -> bool:
    """Return whether all values are whole numbers; others are found in the first plane."""
    return all(bool((plane == np.rint(plane)).all()) for plane in np.moveaxis(values, -1, 0))


@njit(parallel=True, cache=True)
def to_polar(real: Float32, imaginary: Float32) -> None:
    """Replace real and imaginary parts, of shape (x, y, z, echo), by magnitude and phase."""
    nx, ny, nz, n_echoes = real.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                for echo in range(n_echoes):
                    a, b = real[x, y, z, echo], imaginary[x, y, z, echo]
                    real[x, y, z, echo] = np.hypot(a, b)
                    imaginary[x, y, z, echo] = np.arctan2(b, a)


def looks_high_pass_filtered(
    phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool | None = None
) -> bool:
    """Return whether large scales are missing from the phase, as after the filters of SWI.

    These filters divide the complex image by a smoothed copy of itself, or subtract smoothed
    phase.  What is smooth is then real and positive.  In unfiltered phase the shim, the air
    spaces and the coils leave large-scale phase in the first or in the last echo.

    Parameters
    ----------
    phase, magnitude : ndarray of float32, shape (x, y, z, echo)
        Phase wrapped, in radians; magnitude in any unit.
    te_s : sequence of float
    mask : ndarray of bool, shape (x, y, z), optional
        Where to look; by default everywhere, noise having little magnitude.

    References
    ----------
    Haacke et al. 2004, 10.1002/mrm.20198 (the filter).
    """
    spreads = _large_scale_spreads_rad(phase, magnitude, te_s, mask)
    return all(spread <= _FILTERED_SPREAD_RAD for spread in spreads)


def large_scale_spread_rad(
    phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool | None = None
) -> float:
    """Return the larger circular standard deviation of the large scales, of first and last echo.

    Parameters are those of :func:`looks_high_pass_filtered`, which has a bound for it.
    """
    return max(_large_scale_spreads_rad(phase, magnitude, te_s, mask))


def _large_scale_spreads_rad(
    phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool | None
) -> Iterator[float]:
    for echo in sorted({int(np.argmin(te_s)), int(np.argmax(te_s))}):
        strength = magnitude[..., echo] if mask is None else magnitude[..., echo] * mask
        yield _large_scale_spread_rad(phase[..., echo], strength)


def _large_scale_spread_rad(phase: Float32, magnitude: Float32) -> float:
    """Return the circular standard deviation of the phase of the smoothed complex image."""
    waves = []
    for n in phase.shape:
        highest = min(_LARGE_SCALES, (n - 1) // 2)
        periods = np.r_[0 : highest + 1, -highest:0]
        hann = np.cos(np.pi / 2 * periods / (highest + 1)) ** 2
        turns = periods[:, None] * np.arange(n) / n
        waves.append(hann[:, None] * np.exp(-2j * np.pi * turns))
    spectrum = np.einsum(
        "axy,by,cx->cba",
        _sums_along_z(phase, magnitude, waves[2].astype(np.complex64)),
        waves[1],
        waves[0],
        optimize=True,
    )
    smooth = fft.ifftn(spectrum)
    strength = np.abs(smooth)
    total = (strength**2).sum()
    if total == 0:
        return math.inf
    resultant = abs((strength * smooth).sum()) / total
    return math.sqrt(-2 * math.log(max(min(resultant, 1.0), 1e-12)))


@njit(parallel=True, cache=True)
def _sums_along_z(phase, magnitude, waves):  # type: ignore[no-untyped-def]
    """Return the sums along z of the complex image times each of the waves, (wave, x, y)."""
    nx, ny, nz = phase.shape
    sums = np.zeros((waves.shape[0], nx, ny), np.complex64)
    for x in prange(nx):
        signal = np.empty(nz, np.complex64)
        for y in range(ny):
            for z in range(nz):
                strength, angle = magnitude[x, y, z], phase[x, y, z]
                signal[z] = complex(strength * np.cos(angle), strength * np.sin(angle))
            for k in range(waves.shape[0]):
                total = np.complex64(0)
                for z in range(nz):
                    total += signal[z] * waves[k, z]
                sums[k, x, y] = total
    return sums


def undo_slice_alternation(real: Float32, imaginary: Float32) -> tuple[Float32, Float32, bool]:
    """Undo the change of sign from slice to slice with which GE stores complex images.

    Neighbouring slices then point in opposite directions; otherwise they are alike.

    Parameters
    ----------
    real, imaginary : ndarray of float32, shape (x, y, z, echo)
        Overwritten.

    Returns
    -------
    real, imaginary : ndarray of float32, shape (x, y, z, echo)
    undone : bool
        Whether there was an alternation.
    """
    likeness = sum(
        np.vdot(part[:, :, 1:, 0], part[:, :, :-1, 0]).astype(np.float64)
        for part in (real, imaginary)
    )
    alternates = bool(likeness < 0)
    if alternates:
        for part in (real, imaginary):
            np.negative(part[:, :, 1::2], out=part[:, :, 1::2])
    return real, imaginary, alternates

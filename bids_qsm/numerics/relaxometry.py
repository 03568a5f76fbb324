"""R2* and S0 from the magnitude of several echoes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.noise import sigma_from_details, sigma_from_residuals

_MAX_ITERATIONS = 15

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Relaxation:
    """Result of a fit of ``S0 exp(-R2* TE)``.

    Attributes
    ----------
    r2star_per_s : ndarray of float32, shape (x, y, z)
        Zero outside the mask and where it cannot be fitted.
    s0 : ndarray of float32, shape (x, y, z)
        Signal at TE = 0 in the unit of the magnitude; zero likewise.
    """

    r2star_per_s: Float32
    s0: Float32


def t2star_s(r2star_per_s: Float32) -> Float32:
    """Return T2* = 1/R2* in seconds, 0 where R2* is 0."""
    t2star = np.zeros(r2star_per_s.shape, np.float32)
    np.divide(1.0, r2star_per_s, out=t2star, where=r2star_per_s > 0)
    return t2star


def nonlinear(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    *,
    noise_floor: bool = True,
    max_r2star_per_s: float = 500.0,
) -> Relaxation:
    """Fit the magnitude's expected value to the echoes of each voxel by least squares.

    The expected value of a signal nu in Rician noise sigma is close to
    ``sqrt(nu^2 + sigma^2 (1 + (pi/2 - 1) exp(-0.3 nu^2 / sigma^2)))`` (within 0.015 sigma): late
    echoes that have decayed into the noise do not make R2* too low.  Levenberg-Marquardt from
    the log-linear fit.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z, echo)
        In any unit.
    te_s : sequence of float
        Echo times, evenly spaced or not.
    mask : ndarray of bool, shape (x, y, z)
    noise_floor : bool
        Model the noise floor.  The noise level is that of the residuals of a first fit (median
        over the mask; with two echoes, the finest detail of the last one).
    max_r2star_per_s : float
        R2* is cut to 0..this.

    Returns
    -------
    Relaxation

    Raises
    ------
    ValueError
        If there are fewer than two echoes, or shapes and echo times disagree.

    References
    ----------
    Rician mean: Gudbjartsson and Patz 1995, 10.1002/mrm.1910340618.
    """
    data, known = _usable(magnitude, te_s, mask)
    rate, s0 = _loglinear_voxels(*data)
    sigma = _noise_level(data, rate, s0, magnitude, known) if noise_floor else 0.0
    rate, s0 = _nonlinear_voxels(*data, rate, s0, sigma)
    return _as_maps(data, rate, s0, known, max_r2star_per_s)


def loglinear(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    *,
    max_r2star_per_s: float = 500.0,
) -> Relaxation:
    """Fit a straight line to the logarithm of the signal, weights magnitude squared.

    The fit is done twice, the second time with the weights of the first one's curve: noise in
    the weights would bias R2*.  The noise floor needs no correction above some three times the
    noise: it raises the mean of the magnitude by as much as the logarithm lowers it.

    Parameters are those of :func:`nonlinear`.
    """
    data, known = _usable(magnitude, te_s, mask)
    rate, s0 = _loglinear_voxels(*data)
    return _as_maps(data, rate, s0, known, max_r2star_per_s)


def arlo(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    *,
    noise_floor: bool = True,
    max_r2star_per_s: float = 500.0,
) -> Relaxation:
    """Solve for R2* without a search: an exponential's integral is its fall times T2*.

    The integral over three echoes is that of the parabola through them, for any spacing.  With
    two echoes this is the log-linear fit.

    Parameters are those of :func:`nonlinear`; ``noise_floor`` here takes the floor off the
    squared magnitude.

    References
    ----------
    Pei et al. 2015, 10.1002/mrm.25137.
    """
    data, known = _usable(magnitude, te_s, mask)
    rate, s0 = _loglinear_voxels(*data)
    sigma = _noise_level(data, rate, s0, magnitude, known) if noise_floor else 0.0
    if len(te_s) > 2:
        rate, s0 = _arlo_voxels(*data, _parabola_weights(te_s), sigma)
    return _as_maps(data, rate, s0, known, max_r2star_per_s)


METHODS = {"nonlinear": nonlinear, "loglinear": loglinear, "arlo": arlo}


def _usable(
    magnitude: Float32, te_s: Sequence[float], mask: Bool
) -> tuple[tuple[Float32, NDArray[np.int64], Float64], Bool]:
    """Return the kernels' arguments (signals, voxels to fit, echo times) and the voxels' mask."""
    if len(te_s) < 2:
        raise ValueError("R2* needs at least two echoes, got one.")
    if magnitude.shape != (*mask.shape, len(te_s)):
        raise ValueError(
            f"magnitude {magnitude.shape} must fit the mask {mask.shape} and the {len(te_s)} "
            "echo times."
        )
    if any(b <= a for a, b in pairwise((0.0, *te_s))):
        raise ValueError(f"echo times must be positive and rising, got {tuple(te_s)} s.")
    known = mask.copy()
    inside = magnitude[mask]
    known[mask] = np.isfinite(inside).all(axis=1) & (inside[:, :2] > 0).all(axis=1)
    signals = magnitude.reshape(-1, len(te_s))
    return (signals, np.flatnonzero(known), np.asarray(te_s, np.float64)), known


def _noise_level(
    data: tuple[Float32, NDArray[np.int64], Float64],
    rate: Float64,
    s0: Float64,
    magnitude: Float32,
    known: Bool,
) -> float:
    n_echoes = data[2].size
    if n_echoes > 2:
        return sigma_from_residuals(_squared_residuals(*data, rate, s0), n_echoes - 2)
    return sigma_from_details(magnitude[..., -1], known)


@njit(parallel=True, cache=True)
def _squared_residuals(signals, indices, te, rate, s0):  # type: ignore[no-untyped-def]
    """Sum the squared distances of the echoes from the curve."""
    squares = np.zeros(indices.size)
    for i in prange(indices.size):
        for j in range(te.size):
            squares[i] += (signals[indices[i], j] - s0[i] * np.exp(-rate[i] * te[j])) ** 2
    return squares


@njit(parallel=True, cache=True)
def _loglinear_voxels(signals, indices, te):  # type: ignore[no-untyped-def]
    """Fit log-linearly, the second time with weights from the first fit's curve."""
    rates = np.zeros(indices.size)
    s0 = np.zeros(indices.size)
    for i in prange(indices.size):
        signal = signals[indices[i]]
        scale = np.float64(signal.max())
        rate, log_s0 = 0.0, 0.0
        for step in range(2):
            w0 = w1 = w2 = b0 = b1 = 0.0
            for j in range(te.size):
                value = np.float64(signal[j]) / scale
                curve = np.exp(log_s0 - rate * te[j]) if step else value
                if value <= 0.0:
                    continue
                weight = curve**2
                w0 += weight
                w1 += weight * te[j]
                w2 += weight * te[j] ** 2
                b0 += weight * np.log(value)
                b1 += weight * te[j] * np.log(value)
            determinant = w0 * w2 - w1 * w1
            if determinant <= 1e-12 * w0 * w2:
                break
            rate = (w1 * b0 - w0 * b1) / determinant
            log_s0 = (w2 * b0 - w1 * b1) / determinant
        rates[i], s0[i] = rate, scale * np.exp(log_s0)
    return rates, s0


def _parabola_weights(te_s: Sequence[float]) -> Float64:
    """Return, for each three echoes in a row, the weights that integrate their parabola."""
    steps = np.diff(np.asarray(te_s, np.float64))
    a, b = steps[:-1], steps[1:]
    return np.stack([(2 * a - b) / a, (a + b) ** 2 / (a * b), (2 * b - a) / b], 1) * (
        (a + b) / 6
    ).reshape(-1, 1)


@njit(parallel=True, cache=True)
def _arlo_voxels(signals, indices, te, weights, sigma):  # type: ignore[no-untyped-def]
    """Solve integral = T2* fall over the triples of echoes.

    Each equation is multiplied by integral + w fall, w being the last echo's weight; for even
    spacing this is the paper's solution.
    """
    rates = np.zeros(indices.size)
    s0 = np.zeros(indices.size)
    for i in prange(indices.size):
        signal = np.sqrt(np.maximum(signals[indices[i]].astype(np.float64) ** 2 - sigma**2, 0.0))
        falls = integrals = 0.0
        for j in range(weights.shape[0]):
            integral = 0.0
            for k in range(3):
                integral += weights[j, k] * signal[j + k]
            fall = signal[j] - signal[j + 2]
            factor = integral + weights[j, 2] * fall
            falls += factor * fall
            integrals += factor * integral
        rate = falls / integrals if integrals > 0.0 else 0.0
        curve = np.exp(-rate * te)
        rates[i] = rate
        s0[i] = (signal * curve).sum() / (curve**2).sum()
    return rates, s0


@njit(cache=True)
def _expected(nu, sigma):  # type: ignore[no-untyped-def]
    """Return the mean magnitude of a signal ``nu`` in noise ``sigma``, and its slope."""
    if sigma == 0.0:
        return nu, 1.0
    extra = (np.pi / 2 - 1) * np.exp(-0.3 * (nu / sigma) ** 2)
    mean = np.sqrt(nu**2 + sigma**2 * (1.0 + extra))
    return mean, nu * (1.0 - 0.3 * extra) / mean


@njit(cache=True)
def _normal_equations(signal, te, rate, s0, sigma):  # type: ignore[no-untyped-def]
    """Return the squared misfit, and the normal matrix and right side for (s0, rate)."""
    cost = a00 = a01 = a11 = b0 = b1 = 0.0
    for j in range(te.size):
        decay = np.exp(-rate * te[j])
        mean, slope = _expected(s0 * decay, sigma)
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


@njit(parallel=True, cache=True)
def _nonlinear_voxels(  # type: ignore[no-untyped-def]
    signals, indices, te, start_rate, start_s0, sigma
):
    """Minimise the squared misfit of the expected magnitude (Levenberg-Marquardt)."""
    rates = start_rate.copy()
    s0s = start_s0.copy()
    for i in prange(indices.size):
        signal = signals[indices[i]].astype(np.float64)
        rate, s0, damping = rates[i], s0s[i], 1e-3
        cost, a00, a01, a11, b0, b1 = _normal_equations(signal, te, rate, s0, sigma)
        for _ in range(_MAX_ITERATIONS):
            d00, d11 = a00 * (1 + damping), a11 * (1 + damping)
            determinant = d00 * d11 - a01 * a01
            if not determinant > 0.0:
                break
            ds0 = (d11 * b0 - a01 * b1) / determinant
            drate = (d00 * b1 - a01 * b0) / determinant
            trial = _normal_equations(signal, te, rate + drate, s0 + ds0, sigma)
            if trial[0] <= cost:
                rate, s0 = rate + drate, s0 + ds0
                cost, a00, a01, a11, b0, b1 = trial
                damping *= 0.1
                if abs(ds0) <= 1e-5 * s0 and abs(drate) * te[-1] <= 1e-5:
                    break
            else:
                damping *= 10.0
        rates[i], s0s[i] = rate, s0
    return rates, s0s


def _as_maps(
    data: tuple[Float32, NDArray[np.int64], Float64],
    rate: Float64,
    s0: Float64,
    known: Bool,
    max_r2star_per_s: float,
) -> Relaxation:
    """Put the voxels' values into maps; where R2* is cut, S0 is fitted anew to the cut value."""
    signals, indices, te = data
    cut = np.clip(np.nan_to_num(rate, nan=0.0), 0.0, max_r2star_per_s)
    changed = cut != rate
    curve = np.exp(-cut[changed, None] * te)
    signal = signals[indices[changed]].astype(np.float64)
    s0 = s0.copy()
    s0[changed] = (signal * curve).sum(axis=1) / (curve**2).sum(axis=1)
    r2star_map, s0_map = np.zeros(known.shape, np.float32), np.zeros(known.shape, np.float32)
    r2star_map[known], s0_map[known] = cut, s0
    return Relaxation(r2star_map, s0_map)

"""Field map from the unwrapped phase of all echoes, with the noise of each voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32, Geometry
from bids_qsm.numerics.noise import misfit_factor, sigma_from_details, sigma_from_residuals
from bids_qsm.numerics.smoothing import smooth_phase

OFFSETS = ("smooth", "free", "zero")
_MAX_ITERATIONS = 12

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FieldFit:
    """A fitted field.

    Attributes
    ----------
    field_hz : ndarray of float32, shape (x, y, z)
        Zero outside the mask and where it cannot be fitted.
    noise_hz : ndarray of float32, shape (x, y, z)
        Standard deviation of ``field_hz``; inf where the field is unknown.
    phase0_rad : ndarray of float32, shape (x, y, z)
        Phase at an echo time of zero, as the fit has it.
    residual : ndarray of float32, shape (x, y, z)
        Root of the squared misfit over the squared signal, both summed over echoes; a perfect
        fit has 0.
    """

    field_hz: Float32
    noise_hz: Float32
    phase0_rad: Float32
    residual: Float32


@dataclass(frozen=True)
class _Voxels:
    """Values of the fitted voxels, in the order of the mask.

    Information is the inverse of the variance at a noise level of one.
    """

    field_hz: Float64
    phase0_rad: Float64
    information: Float64
    phase0_information: Float64
    squares: Float64


def nonlinear(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
    *,
    offset: str = "smooth",
    smoothing_mm: float = 4.0,
) -> FieldFit:
    """Fit ``|S_j| exp(i (phase0 + 2 pi f TE_j))`` to the complex signal of each voxel.

    The start is the weighted linear fit of the unwrapped phase.  The complex residual then
    bounds what noise, and a false 2 pi in one echo, can do.

    The noise level is that of the complex residuals (their median over the mask; with a single
    echo, the finest detail of the magnitude), carried through the fit.  Where the residual is
    larger than noise explains, ``noise_hz`` grows with it.

    Parameters
    ----------
    unwrapped, magnitude : ndarray of float32, shape (x, y, z, echo)
        Unwrapped phase (rad), consistent over echoes, and magnitude in any unit.
    te_s : sequence of float
        Echo times.
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry
    offset : str
        The phase at TE = 0.  ``free``: fitted in each voxel.  ``smooth``: fitted in each voxel,
        smoothed over space (it belongs to the coils, not to the tissue) and held fixed in a
        second fit.  ``zero``: nil.  With fewer than three echoes it is always nil.
    smoothing_mm : float
        Standard deviation of the smoothing.

    Returns
    -------
    FieldFit

    Raises
    ------
    ValueError
        If the shapes and echo times disagree, or ``offset`` is none of the three.

    References
    ----------
    Liu et al. 2013, 10.1002/mrm.24272.
    """
    return _fit(unwrapped, magnitude, te_s, mask, geometry, offset, smoothing_mm, _MAX_ITERATIONS)


def linear(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
    *,
    offset: str = "smooth",
    smoothing_mm: float = 4.0,
) -> FieldFit:
    """Fit a straight line to the unwrapped phase of each voxel, weights magnitude squared.

    Parameters, noise and errors are those of :func:`nonlinear`.
    """
    return _fit(unwrapped, magnitude, te_s, mask, geometry, offset, smoothing_mm, 0)


def weighted_average(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
) -> FieldFit:
    """Average ``phase / (2 pi TE)`` over echoes, weights magnitude times TE; no phase offset.

    Parameters, noise and errors are those of :func:`nonlinear`.

    References
    ----------
    Robinson et al. 2017, 10.1002/nbm.3601.
    """
    known = _usable(unwrapped, magnitude, te_s, mask, geometry)
    radians_per_hz = 2 * np.pi * np.asarray(te_s, np.float64)
    phase, signal = unwrapped[known].astype(np.float64), magnitude[known].astype(np.float64)
    total = signal @ radians_per_hz
    field_hz = (signal * phase).sum(axis=1) / total
    # each echo adds the variance sigma^2 to the numerator
    information = total**2 / len(te_s)
    misfit = phase - field_hz[:, None] * radians_per_hz
    squares = (2 * signal**2 * (1 - np.cos(misfit))).sum(axis=1)
    nil = np.zeros(field_hz.shape)
    voxels = _Voxels(field_hz, nil, information, nil, squares)
    return _as_maps(voxels, magnitude, known, len(te_s) - 1)


METHODS = {"nonlinear": nonlinear, "linear": linear, "weighted-average": weighted_average}


def _fit(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
    offset: str,
    smoothing_mm: float,
    iterations: int,
) -> FieldFit:
    if offset not in OFFSETS:
        raise ValueError(f"offset must be one of {', '.join(OFFSETS)}, got {offset!r}.")
    known = _usable(unwrapped, magnitude, te_s, mask, geometry)
    if len(te_s) < 3:
        offset = "zero"
    indices = np.flatnonzero(known)
    n_echoes = len(te_s)
    data = unwrapped.reshape(-1, n_echoes), magnitude.reshape(-1, n_echoes), indices
    radians_per_hz = 2 * np.pi * np.asarray(te_s, np.float64)
    phase0 = np.zeros(indices.size)
    voxels = _Voxels(*_fit_voxels(*data, radians_per_hz, phase0, offset != "zero", iterations))
    if offset == "smooth":
        phase0 = smooth_phase(
            voxels.phase0_rad, voxels.phase0_information, known, geometry, smoothing_mm
        )
        voxels = _Voxels(*_fit_voxels(*data, radians_per_hz, phase0, False, iterations))
    return _as_maps(voxels, magnitude, known, n_echoes - (2 if offset == "free" else 1))


def _usable(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
) -> Bool:
    """Return the voxels of the mask in which all values are finite and some echo has a signal."""
    expected = (*geometry.shape, len(te_s))
    if unwrapped.shape != expected or magnitude.shape != expected or mask.shape != geometry.shape:
        raise ValueError(
            f"phase {unwrapped.shape}, magnitude {magnitude.shape} and mask {mask.shape} must "
            f"fit the grid {geometry.shape} and the {len(te_s)} echo times."
        )
    if min(te_s) <= 0 or len(set(te_s)) < len(te_s):
        raise ValueError(f"echo times must be positive and differ, got {tuple(te_s)} s.")
    known = mask.copy()
    known[mask] = (
        np.isfinite(unwrapped[mask]).all(axis=1)
        & np.isfinite(magnitude[mask]).all(axis=1)
        & (magnitude[mask] > 0).any(axis=1)
    )
    return known


@njit(parallel=True, cache=True)
def _fit_voxels(  # type: ignore[no-untyped-def]
    phase, magnitude, indices, radians_per_hz, fixed_phase0, free, iterations
):
    """Fit the voxels ``indices``; ``free`` fits the phase offset too, from ``fixed_phase0``.

    Each step solves the linear fit's normal equations for the sine of the phase residual.  As
    1 - cos(e + d) <= 1 - cos(e) + d sin(e) + d^2 / 2, no step can raise the squared residual:
    Gauss-Newton needs no damping here.
    """
    n_echoes = radians_per_hz.size
    n = indices.size
    field = np.zeros(n)
    phase0 = fixed_phase0.copy()
    information = np.zeros(n)
    phase0_information = np.zeros(n)
    squares = np.zeros(n)
    for i in prange(n):
        p, m = phase[indices[i]], magnitude[indices[i]]
        s0 = s1 = s2 = 0.0
        for j in range(n_echoes):
            weight = np.float64(m[j]) ** 2
            s0 += weight
            s1 += weight * radians_per_hz[j]
            s2 += weight * radians_per_hz[j] ** 2
        determinant = s0 * s2 - s1 * s1
        if free and determinant <= 1e-9 * s0 * s2:
            continue  # a single echo has a signal: a line cannot be fitted
        f, c = 0.0, phase0[i]
        for iteration in range(iterations + 1):
            b0 = b1 = 0.0
            for j in range(n_echoes):
                e = p[j] - c - f * radians_per_hz[j]
                if iteration > 0:
                    e = np.sin(e)
                weighted = np.float64(m[j]) ** 2 * e
                b0 += weighted
                b1 += weighted * radians_per_hz[j]
            if free:
                df = (s0 * b1 - s1 * b0) / determinant
                dc = (s2 * b0 - s1 * b1) / determinant
            else:
                df, dc = b1 / s2, 0.0
            f += df
            c += dc
            if iteration > 0 and abs(df) * radians_per_hz[-1] + abs(dc) < 1e-6:
                break
        total = 0.0
        for j in range(n_echoes):
            e = p[j] - c - f * radians_per_hz[j]
            total += 2.0 * np.float64(m[j]) ** 2 * (1.0 - np.cos(e))
        field[i], phase0[i], squares[i] = f, c, total
        information[i] = determinant / s0 if free else s2
        phase0_information[i] = determinant / s2 if free else 0.0
    return field, phase0, information, phase0_information, squares


def _as_maps(voxels: _Voxels, magnitude: Float32, known: Bool, freedom: int) -> FieldFit:
    """Put the voxels' values into maps; ``freedom``: echoes less the fitted values of a voxel."""
    if freedom:
        sigma = sigma_from_residuals(voxels.squares, freedom)
    else:
        sigma = sigma_from_details(magnitude[..., 0], known)
    fitted = voxels.information > 0
    noise = np.full(voxels.information.shape, np.inf)
    noise[fitted] = sigma / np.sqrt(voxels.information[fitted])
    noise *= misfit_factor(voxels.squares, freedom, sigma)
    energy = (magnitude[known].astype(np.float64) ** 2).sum(axis=1)
    noise_hz = np.full(known.shape, np.inf, np.float32)
    noise_hz[known] = noise
    field_hz, phase0_rad, residual = (
        _in_volume(values, known)
        for values in (voxels.field_hz, voxels.phase0_rad, np.sqrt(voxels.squares / energy))
    )
    return FieldFit(field_hz, noise_hz, phase0_rad, residual)


def _in_volume(values: Float64, known: Bool) -> Float32:
    volume = np.zeros(known.shape, np.float32)
    volume[known] = values
    return volume

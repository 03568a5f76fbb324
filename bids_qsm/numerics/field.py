"""Field map from the unwrapped phase of all echoes, with the noise of each voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.elementary import sine_and_versine
from bids_qsm.numerics.field_blocks import fit_voxels
from bids_qsm.numerics.geometry import Bool, Float32, Geometry
from bids_qsm.numerics.noise import (
    misfit_factor,
    misfit_limits,
    sigma_from_details,
    sigma_from_residuals,
)
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

    Information is the inverse of the variance at a noise level of one, energy the sum of the
    squared magnitude over echoes.
    """

    field_hz: Float64
    phase0_rad: Float64
    information: Float64
    phase0_information: Float64
    squares: Float64
    energy: Float64


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
    data = _listed(unwrapped, magnitude, known)
    voxels = _Voxels(*_average_voxels(*data, radians_per_hz))
    return _as_maps(voxels, magnitude, known, data[-1], len(te_s) - 1)


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
    n_echoes = len(te_s)
    data = _listed(unwrapped, magnitude, known)
    radians_per_hz = 2 * np.pi * np.asarray(te_s, np.float64)
    phase0: NDArray[np.floating] = np.zeros(data[-1].size)
    voxels = _Voxels(*fit_voxels(*data, radians_per_hz, phase0, offset != "zero", iterations))
    if offset == "smooth":
        phase0 = smooth_phase(
            voxels.phase0_rad, voxels.phase0_information, known, geometry, smoothing_mm
        )
        voxels = _Voxels(*fit_voxels(*data, radians_per_hz, phase0, False, iterations))
    return _as_maps(voxels, magnitude, known, data[-1], n_echoes - (2 if offset == "free" else 1))


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
    phase, signal = (array.reshape(-1, len(te_s)) for array in (unwrapped, magnitude))
    known: Bool = _with_signal(phase, signal, np.ascontiguousarray(mask).reshape(-1))
    return known.reshape(mask.shape)


def _listed(
    unwrapped: Float32, magnitude: Float32, known: Bool
) -> tuple[Float32, Float32, NDArray[np.int64]]:
    """Return phase and magnitude of shape (voxel, echo), and the flat indices of the voxels."""
    n_echoes = magnitude.shape[-1]
    return (
        unwrapped.reshape(-1, n_echoes),
        magnitude.reshape(-1, n_echoes),
        np.flatnonzero(known),
    )


@njit(parallel=True, cache=True)
def _with_signal(phase, magnitude, mask):  # type: ignore[no-untyped-def]
    known = np.zeros(mask.size, np.bool_)
    for i in prange(mask.size):
        if mask[i]:
            finite, signal = True, False
            for j in range(phase.shape[1]):
                m = magnitude[i, j]
                finite &= np.isfinite(phase[i, j]) and np.isfinite(m)
                signal |= m > 0
            known[i] = finite and signal
    return known


@njit(parallel=True, cache=True, error_model="numpy")
def _average_voxels(phase, magnitude, indices, radians_per_hz):  # type: ignore[no-untyped-def]
    n_echoes, n = radians_per_hz.size, indices.size
    field, information = np.zeros(n), np.zeros(n)
    squares, energy = np.zeros(n), np.zeros(n)
    for i in prange(n):
        p, m = phase[indices[i]], magnitude[indices[i]]
        total = rising = 0.0
        for j in range(n_echoes):
            total += np.float64(m[j]) * radians_per_hz[j]
            rising += np.float64(m[j]) * p[j]
        field[i] = rising / total
        # each echo adds the variance sigma^2 to the numerator
        information[i] = total**2 / n_echoes
        for j in range(n_echoes):
            weight = np.float64(m[j]) ** 2
            _, versine = sine_and_versine(p[j] - field[i] * radians_per_hz[j])
            squares[i] += 2.0 * weight * versine
            energy[i] += weight
    nil = np.zeros(n)
    return field, nil, information, nil, squares, energy


def _as_maps(
    voxels: _Voxels,
    magnitude: Float32,
    known: Bool,
    indices: NDArray[np.int64],
    freedom: int,
) -> FieldFit:
    """Put the voxels' values into maps; ``freedom``: echoes less the fitted values of a voxel."""
    if freedom:
        sigma = sigma_from_residuals(voxels.squares, freedom)
    else:
        sigma = sigma_from_details(magnitude[..., 0], known)
    field_hz, phase0_rad, residual = (np.zeros(known.size, np.float32) for _ in range(3))
    noise_hz = np.full(known.size, np.inf, np.float32)
    maps = field_hz, noise_hz, phase0_rad, residual
    values = voxels.field_hz, voxels.information, voxels.phase0_rad, voxels.squares, voxels.energy
    limits = misfit_limits(freedom, sigma)
    _write_maps(*maps, indices, *values, freedom, sigma, limits)
    return FieldFit(*(one.reshape(known.shape) for one in maps))


@njit(parallel=True, cache=True, error_model="numpy")
def _write_maps(  # type: ignore[no-untyped-def]
    field_hz, noise_hz, phase0_rad, residual,
    indices, field, information, phase0, squares, energy, freedom, sigma, limits,
):  # fmt: skip
    for i in prange(indices.size):
        voxel = indices[i]
        field_hz[voxel], phase0_rad[voxel] = field[i], phase0[i]
        residual[voxel] = np.sqrt(squares[i] / energy[i])
        if information[i] > 0:
            factor = misfit_factor(squares[i], freedom, sigma, limits)
            noise_hz[voxel] = factor * sigma / np.sqrt(information[i])

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
Float64 = NDArray[np.float64]
_CHUNK = 4096
"""Voxels whose values are written together."""
_MAX_LOOKS = 13
"""At the echoes' residuals, one before each step and one after the last."""


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
    return _fit(unwrapped, magnitude, te_s, mask, geometry, offset, smoothing_mm, _MAX_LOOKS)


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
    return _fit(unwrapped, magnitude, te_s, mask, geometry, offset, smoothing_mm, 1)


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
    _check(unwrapped, magnitude, te_s, mask, geometry)
    radians_per_hz = 2 * np.pi * np.asarray(te_s, np.float64)
    data = _listed(unwrapped, magnitude, mask)
    results = np.zeros((6, data[-1].size))
    _average_voxels(*data, radians_per_hz, results)
    known, indices, voxels = _with_signal(mask, data[-1], results)
    return _as_maps(voxels, magnitude, known, indices, len(te_s) - 1)


METHODS = {"nonlinear": nonlinear, "linear": linear, "weighted-average": weighted_average}


def _fit(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
    offset: str,
    smoothing_mm: float,
    looks: int,
) -> FieldFit:
    if offset not in OFFSETS:
        raise ValueError(f"offset must be one of {', '.join(OFFSETS)}, got {offset!r}.")
    _check(unwrapped, magnitude, te_s, mask, geometry)
    if len(te_s) < 3:
        offset = "zero"
    phase, signal, indices = _listed(unwrapped, magnitude, mask)
    radians_per_hz = 2 * np.pi * np.asarray(te_s, np.float64)
    phase0: NDArray[np.floating] = np.zeros(indices.size)
    results = np.empty((6, indices.size))
    # a straight line's offset needs no look at what it leaves
    first_looks = 0 if offset == "smooth" and looks == 1 else looks
    free = offset != "zero"
    fit_voxels(phase, signal, indices, radians_per_hz, phase0, free, first_looks, results)
    known, indices, voxels = _with_signal(mask, indices, results)
    if offset == "smooth":
        phase0 = smooth_phase(
            voxels.phase0_rad, voxels.phase0_information, known, geometry, smoothing_mm
        )
        if indices.size < results.shape[1]:
            results = np.empty((6, indices.size))
        fit_voxels(phase, signal, indices, radians_per_hz, phase0, False, looks, results)
        voxels = _Voxels(*results)
    freedom = len(te_s) - (2 if offset == "free" else 1)
    return _as_maps(voxels, magnitude, known, indices, freedom)


def _check(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
) -> None:
    expected = (*geometry.shape, len(te_s))
    if unwrapped.shape != expected or magnitude.shape != expected or mask.shape != geometry.shape:
        raise ValueError(
            f"phase {unwrapped.shape}, magnitude {magnitude.shape} and mask {mask.shape} must "
            f"fit the grid {geometry.shape} and the {len(te_s)} echo times."
        )
    if min(te_s) <= 0 or len(set(te_s)) < len(te_s):
        raise ValueError(f"echo times must be positive and differ, got {tuple(te_s)} s.")


def _listed(
    unwrapped: Float32, magnitude: Float32, mask: Bool
) -> tuple[Float32, Float32, NDArray[np.int64]]:
    """Return phase and magnitude of shape (voxel, echo), and the flat indices of the voxels."""
    n_echoes = magnitude.shape[-1]
    return (
        unwrapped.reshape(-1, n_echoes),
        magnitude.reshape(-1, n_echoes),
        np.flatnonzero(mask),
    )


def _with_signal(
    mask: Bool, indices: NDArray[np.int64], results: Float64
) -> tuple[Bool, NDArray[np.int64], _Voxels]:
    """Leave out the voxels without energy: no echo has a signal there, or a value is not finite."""
    usable = results[5] > 0
    if usable.all():
        return mask, indices, _Voxels(*results)
    known = np.zeros(mask.shape, np.bool_)
    known.reshape(-1)[indices] = usable
    return known, indices[usable], _Voxels(*results[:, usable])


@njit(parallel=True, cache=True, error_model="numpy")
def _average_voxels(phase, magnitude, indices, radians_per_hz, results):  # type: ignore[no-untyped-def]
    """Set field, information, squared residual and energy: rows as in ``fit_voxels``."""
    n_echoes = radians_per_hz.size
    for i in prange(indices.size):
        p, m = phase[indices[i]], magnitude[indices[i]]
        total = rising = energy = square = 0.0
        for j in range(n_echoes):
            total += np.float64(m[j]) * radians_per_hz[j]
            rising += np.float64(m[j]) * p[j]
        field = rising / total
        if not np.isfinite(field):
            continue
        for j in range(n_echoes):
            weight = np.float64(m[j]) ** 2
            _, versine = sine_and_versine(p[j] - field * radians_per_hz[j])
            square += 2.0 * weight * versine
            energy += weight
        # each echo adds the variance sigma^2 to the numerator
        results[0, i], results[2, i] = field, total**2 / n_echoes
        results[4, i], results[5, i] = square, energy


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
    fit = FieldFit(*(np.empty(known.shape, np.float32) for _ in range(4)))
    maps = (
        fit.field_hz.reshape(-1),
        fit.noise_hz.reshape(-1),
        fit.phase0_rad.reshape(-1),
        fit.residual.reshape(-1),
    )
    values = voxels.field_hz, voxels.information, voxels.phase0_rad, voxels.squares, voxels.energy
    _write_maps(*maps, indices, *values, freedom, sigma, misfit_limits(freedom, sigma))
    return fit


@njit(parallel=True, cache=True, error_model="numpy")
def _write_maps(  # type: ignore[no-untyped-def]
    field_hz, noise_hz, phase0_rad, residual,
    indices, field, information, phase0, squares, energy, freedom, sigma, limits,
):  # fmt: skip
    """Set the maps: what is not among ``indices``, which rise, is unknown."""
    n = indices.size
    n_chunks = max((n + _CHUNK - 1) // _CHUNK, 1)
    for chunk in prange(n_chunks):
        first, last = chunk * _CHUNK, min((chunk + 1) * _CHUNK, n)
        start = indices[first] if chunk > 0 else 0
        stop = indices[last] if chunk < n_chunks - 1 else field_hz.size
        field_hz[start:stop], phase0_rad[start:stop], residual[start:stop] = 0, 0, 0
        noise_hz[start:stop] = np.inf
        for i in range(first, last):
            voxel = indices[i]
            field_hz[voxel], phase0_rad[voxel] = field[i], phase0[i]
            residual[voxel] = np.sqrt(squares[i] / energy[i])
            if information[i] > 0:
                factor = misfit_factor(squares[i], freedom, sigma, limits)
                noise_hz[voxel] = factor * sigma / np.sqrt(information[i])

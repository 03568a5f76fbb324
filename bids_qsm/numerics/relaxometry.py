"""R2* and S0 from the magnitude of several echoes, with the standard deviation of R2*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.decay import arlo_voxels, field_changes, usable_voxels, write_maps
from bids_qsm.numerics.decay_blocks import loglinear_voxels, nonlinear_voxels
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.noise import misfit_limits, sigma_from_details, sigma_from_residuals

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
    r2star_sd_per_s : ndarray of float32, shape (x, y, z)
        Standard deviation of ``r2star_per_s``; inf where it is unknown.
    """

    r2star_per_s: Float32
    s0: Float32
    r2star_sd_per_s: Float32


@dataclass(frozen=True)
class _Data:
    """The kernels' arguments, and the mask of the voxels to fit."""

    signals: Float32
    indices: NDArray[np.int64]
    te: Float64
    changes_hz: Float32
    sliced: bool
    known: Bool

    @property
    def arguments(self) -> tuple[Float32, NDArray[np.int64], Float64, Float32, bool]:
        return self.signals, self.indices, self.te, self.changes_hz, self.sliced


def t2star_s(r2star_per_s: Float32) -> Float32:
    """Return T2* = 1/R2* in seconds, 0 where R2* is 0."""
    t2star = np.zeros(r2star_per_s.shape, np.float32)
    np.divide(1.0, r2star_per_s, out=t2star, where=r2star_per_s > 0)
    return t2star


def nonlinear(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    field_hz: Float32 | None = None,
    sliced: bool = False,
    *,
    noise_floor: bool = True,
    gradient_correction: bool = True,
    max_r2star_per_s: float = 500.0,
) -> Relaxation:
    """Fit the magnitude's expected value to the echoes of each voxel by least squares.

    The expected value of a signal nu in Rician noise sigma is close to
    ``sqrt(nu^2 + sigma^2 (1 + (pi/2 - 1) exp(-0.3 nu^2 / sigma^2)))`` (within 0.015 sigma): late
    echoes that have decayed into the noise do not make R2* too low.  Levenberg-Marquardt from
    the log-linear fit.

    The standard deviation is that of the noise level, carried through the fit.  The noise level
    is that of the residuals of a first fit (median over the mask; with two echoes, the finest
    detail of the last one).  Where a voxel's residual is larger than noise explains, its standard
    deviation grows with it.

    Where the field changes by g over a voxel, R2* would come out too high, as it does near the
    air spaces.  With ``field_hz`` that is taken into account.  Along axes that are encoded in
    k-space a gradient shifts the signal there, until it is lost beyond the edge: echoes with
    ``g TE`` above 0.4 are left out.  Across a slice the spins dephase, and the signal falls by
    ``sinc(g TE)``: this factor is part of the fit, and echoes of which it leaves less than a
    quarter are left out.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z, echo)
        In any unit.
    te_s : sequence of float
        Echo times, evenly spaced or not.
    mask : ndarray of bool, shape (x, y, z)
    field_hz : ndarray of float32, shape (x, y, z), optional
        Total field, known in the mask.
    sliced : bool
        Whether the third axis has slices (2D acquisition); otherwise it is encoded in k-space.
    noise_floor : bool
        Model the noise floor.
    gradient_correction : bool
        Take the field's gradients into account.
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
    Rician mean: Gudbjartsson and Patz 1995, 10.1002/mrm.1910340618.  Gradients: Fernandez-Seara
    and Wehrli 2000, 10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I; Hernando et al. 2012,
    10.1002/mrm.23074.
    """
    data = _usable(magnitude, te_s, mask, field_hz if gradient_correction else None, sliced)
    results = _fit_lines(data)
    sigma = _noise_level(data, results, magnitude)
    nonlinear_voxels(*data.arguments, sigma, sigma if noise_floor else 0.0, results)
    return _as_maps(data, results, sigma, max_r2star_per_s)


def loglinear(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    field_hz: Float32 | None = None,
    sliced: bool = False,
    *,
    gradient_correction: bool = True,
    max_r2star_per_s: float = 500.0,
) -> Relaxation:
    """Fit a straight line to the logarithm of the signal, weights magnitude squared.

    The fit is done twice, the second time with the weights of the first one's curve: noise in
    the weights would bias R2*.  The noise floor needs no correction above some three times the
    noise: it raises the mean of the magnitude by as much as the logarithm lowers it.

    Parameters are those of :func:`nonlinear`.
    """
    data = _usable(magnitude, te_s, mask, field_hz if gradient_correction else None, sliced)
    results = _fit_lines(data)
    return _as_maps(data, results, _noise_level(data, results, magnitude), max_r2star_per_s)


def arlo(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    field_hz: Float32 | None = None,
    sliced: bool = False,
    *,
    noise_floor: bool = True,
    gradient_correction: bool = True,
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
    data = _usable(magnitude, te_s, mask, field_hz if gradient_correction else None, sliced)
    results = _fit_lines(data)
    sigma = _noise_level(data, results, magnitude)
    if len(te_s) > 2:
        floor = sigma if noise_floor else 0.0
        arlo_voxels(*data.arguments, _parabola_weights(te_s), floor, results)
    return _as_maps(data, results, sigma, max_r2star_per_s)


METHODS = {"nonlinear": nonlinear, "loglinear": loglinear, "arlo": arlo}


def _usable(
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    field_hz: Float32 | None,
    sliced: bool,
) -> _Data:
    """Return the voxels that can be fitted, with what the fits need."""
    if len(te_s) < 2:
        raise ValueError("R2* needs at least two echoes, got one.")
    if magnitude.shape != (*mask.shape, len(te_s)):
        raise ValueError(
            f"magnitude {magnitude.shape} must fit the mask {mask.shape} and the {len(te_s)} "
            "echo times."
        )
    if any(b <= a for a, b in pairwise((0.0, *te_s))):
        raise ValueError(f"echo times must be positive and rising, got {tuple(te_s)} s.")
    if field_hz is not None and field_hz.shape != mask.shape:
        raise ValueError(f"the field {field_hz.shape} must fit the mask {mask.shape}.")
    signals, te = magnitude.reshape(-1, len(te_s)), np.asarray(te_s, np.float64)
    flat, indices = usable_voxels(signals, np.ascontiguousarray(mask).reshape(-1))
    known = flat.reshape(mask.shape)
    changes_hz = np.empty((0, 3), np.float32)
    if field_hz is not None:
        changes_hz = field_changes(field_hz, known & np.isfinite(field_hz), indices)
    return _Data(signals, indices, te, changes_hz, sliced, known)


def _fit_lines(data: _Data) -> Float32:
    """Return the log-linear fit, rows as in ``decay.py``."""
    results = np.empty((5, data.indices.size), np.float32)
    loglinear_voxels(*data.arguments, results)
    return results


def _noise_level(data: _Data, results: Float32, magnitude: Float32) -> float:
    if data.te.size == 2:
        return sigma_from_details(magnitude[..., -1], data.known)
    squares, complete = results[3], results[4] == data.te.size
    if not complete.all():
        squares = squares[complete]
    return sigma_from_residuals(squares, data.te.size - 2)


def _parabola_weights(te_s: Sequence[float]) -> Float64:
    """Return, for each three echoes in a row, the weights that integrate their parabola."""
    steps = np.diff(np.asarray(te_s, np.float64))
    a, b = steps[:-1], steps[1:]
    return np.stack([(2 * a - b) / a, (a + b) ** 2 / (a * b), (2 * b - a) / b], 1) * (
        (a + b) / 6
    ).reshape(-1, 1)


def _as_maps(data: _Data, results: Float32, sigma: float, max_r2star_per_s: float) -> Relaxation:
    maps = np.empty((3, data.known.size), np.float32)
    limits = misfit_limits(data.te.size - 2, sigma)
    fitted = data.signals, data.indices, data.te, results
    write_maps(maps, *fitted, sigma, limits, max_r2star_per_s)
    return Relaxation(*maps.reshape(3, *data.known.shape))

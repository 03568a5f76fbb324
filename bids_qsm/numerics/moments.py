"""The total susceptibility (moment) of a small source from the field around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, Geometry, crop, dipole_kernel, pad, padded_geometry

Float64 = NDArray[np.float64]

_MARGIN_VOXELS = 8
_ROUNDS = 6
_FIRST_SHELL_MM, _SHELL_PER_RADIUS = 3.5, 1.0
_WIDE_SHELL_MM = 5.0
_LEAST_VOXELS = 40
_HARMONICS = {1: 4, 2: 9}
_STEP_MM = 1e-3


@dataclass(frozen=True)
class Moment:
    """A dipole fitted to the field around a source.

    Attributes
    ----------
    ppm_mm3 : float
        Susceptibility above the surroundings times volume.
    sd_ppm_mm3 : float
        Standard error of the fit; neighbouring voxels' errors are taken to be independent.
    centre_mm : tuple of float
        From the centre of the first voxel, along the axes of the array.
    explained : float
        Share of the field's variation in the shell that the dipole explains, 0 to 1.
    """

    ppm_mm3: float
    sd_ppm_mm3: float
    centre_mm: tuple[float, float, float]
    explained: float


def unexplained_field(local: FieldMap, chi_ppm: Float32) -> Float32:
    """Return the local field less the field of a susceptibility map, in ppm.

    Memory: some five volumes of float32.
    """
    known = local.mask & np.isfinite(chi_ppm) & np.isfinite(local.field_ppm)
    mean = np.float32(chi_ppm[known].mean(dtype=np.float64)) if known.any() else np.float32(0)
    inside = np.where(known, chi_ppm - mean, np.float32(0))
    padded = padded_geometry(local.geometry, (_MARGIN_VOXELS,) * 3)
    field = convolve(pad(inside, padded.shape), dipole_kernel(padded))
    field = crop(field, local.geometry.shape)
    return np.where(known, local.field_ppm - field, np.float32(0))


def fit_moment(
    unexplained_ppm: Float32,
    chi_ppm: Float32,
    local: FieldMap,
    centre_mm: tuple[float, float, float],
    radius_mm: float,
) -> Moment | None:
    """Fit a dipole to the field in a shell around a source, and its place with it.

    The signal, and with it the phase, is lost within a strong source and near it; outside, the
    field of a ball is that of a dipole whatever its size.  The field there does not depend on the
    echo time, nor on what an inversion made of the voxels within.  The field of all other voxels'
    susceptibility is taken off before (so other sources nearby do not count), and a constant and
    a gradient are free.

    Parameters
    ----------
    unexplained_ppm : ndarray of float32, shape (x, y, z)
        Of :func:`unexplained_field`.
    chi_ppm : ndarray of float32, shape (x, y, z)
        The same susceptibility.
    local : FieldMap
    centre_mm : tuple of float
        Where the source is thought to be, from the centre of the first voxel.
    radius_mm : float
        Within it nothing is fitted, and the susceptibility belongs to the source.

    Returns
    -------
    Moment or None
        None where too few voxels of the shell are known.

    References
    ----------
    McAuley et al. 2011, 10.1002/mrm.22745; Liu et al. 2012, 10.1148/radiol.11110251.
    """
    outer_mm = radius_mm + max(_FIRST_SHELL_MM, _SHELL_PER_RADIUS * radius_mm)
    surroundings = _surroundings(local, unexplained_ppm, centre_mm, radius_mm, outer_mm)
    if surroundings is None:
        return None
    geometry = local.geometry
    part = _box(geometry, centre_mm, outer_mm)
    position = _positions(geometry, part)
    distance = np.sqrt(((position - np.array(centre_mm)) ** 2).sum(axis=1))
    known = local.mask[part].ravel()
    values = chi_ppm[part].ravel().astype(np.float64)
    usual = np.median(values[known & (distance > radius_mm) & (distance <= outer_mm)])
    own = (values - usual) * geometry.voxel_mm3
    direction, voxel_mm = np.array(geometry.b0_direction), np.array(geometry.voxel_mm)
    for source in np.flatnonzero(known & (distance <= radius_mm)):
        offset = surroundings.position - position[source]
        surroundings.field[:] += own[source] * _dipole(offset, direction, voxel_mm)
    return _fitted(surroundings, np.array(centre_mm), 0.5 * radius_mm, geometry, 1)


def fit_moment_to_total(
    total_ppm: Float32,
    local: FieldMap,
    centre_mm: tuple[float, float, float],
    radius_mm: float,
) -> Moment | None:
    """Fit a dipole to the total field around a source that lies outside the mask.

    Background removal takes such a source's field away.  Near by, the rest of the background is
    harmonic: polynomials of second order are free.

    Parameters
    ----------
    total_ppm : ndarray of float32, shape (x, y, z)
    local : FieldMap
        Mask and noise are used.
    centre_mm, radius_mm
        As in :func:`fit_moment`.
    """
    outer_mm = radius_mm + _WIDE_SHELL_MM
    surroundings = _surroundings(local, total_ppm, centre_mm, 0.0, outer_mm)
    if surroundings is None:
        return None
    farthest_mm = max(radius_mm, _SHELL_PER_RADIUS * _FIRST_SHELL_MM)
    return _fitted(surroundings, np.array(centre_mm), farthest_mm, local.geometry, 2)


@dataclass(frozen=True)
class _Surroundings:
    """Positions (mm) of voxels, shape (n, 3), the field (ppm) there, and its weight."""

    position: Float64
    field: Float64
    weight: Float64


def _surroundings(
    local: FieldMap,
    field_ppm: Float32,
    centre_mm: tuple[float, float, float],
    inner_mm: float,
    outer_mm: float,
) -> _Surroundings | None:
    """Return the known voxels of a shell; None where they are too few."""
    part = _box(local.geometry, centre_mm, outer_mm)
    position = _positions(local.geometry, part)
    distance = np.sqrt(((position - np.array(centre_mm)) ** 2).sum(axis=1))
    noise = local.noise_ppm[part].ravel().astype(np.float64)
    shell = local.mask[part].ravel() & np.isfinite(noise)
    shell &= (distance > inner_mm) & (distance <= outer_mm)
    if np.count_nonzero(shell) < _LEAST_VOXELS:
        return None
    field = field_ppm[part].ravel()[shell].astype(np.float64)
    return _Surroundings(position[shell], field, _weights(noise[shell]))


def _fitted(
    around: _Surroundings, start_mm: Float64, farthest_mm: float, geometry: Geometry, order: int
) -> Moment:
    """Fit moment and place by Gauss-Newton steps, with harmonic polynomials up to an order."""
    direction, voxel_mm = np.array(geometry.b0_direction), np.array(geometry.voxel_mm)
    smooth = _harmonics(around.position - start_mm)[:, : _HARMONICS[order]]
    target, weight = around.field, around.weight
    centre, moment = start_mm.copy(), 0.0
    for _ in range(_ROUNDS):
        dipole = _dipole(around.position - centre, direction, voxel_mm)
        columns = [dipole[:, None], smooth]
        if moment:  # the first round has none yet, and so no slope
            for axis in range(3):
                moved = centre.copy()
                moved[axis] += _STEP_MM
                slope = _dipole(around.position - moved, direction, voxel_mm) - dipole
                columns.append(moment / _STEP_MM * slope[:, None])
        found, _ = _least_squares(np.concatenate(columns, axis=1), target, weight)
        if moment:
            away = centre + found[-3:] - start_mm
            centre = start_mm + np.clip(away, -farthest_mm, farthest_mm)
        moment = float(found[0])
    dipole = _dipole(around.position - centre, direction, voxel_mm)
    columns_at_end = np.concatenate([dipole[:, None], smooth], axis=1)
    found, variance = _least_squares(columns_at_end, target, weight)
    misfit = _misfit(columns_at_end, found, target, weight)
    plain, _ = _least_squares(smooth, target, weight)
    without = _misfit(smooth, plain, target, weight)
    freedom = max(target.size - columns_at_end.shape[1], 1)
    sd = math.sqrt(max(variance, 0.0) * misfit / freedom)
    x, y, z = (float(c) for c in centre)
    return Moment(float(found[0]), sd, (x, y, z), 1.0 - misfit / without if without > 0 else 0.0)


def _harmonics(offset: Float64) -> Float64:
    """Return the solid harmonics of order 0 to 2: nine of them."""
    x, y, z = offset.T
    squares = (x * x - y * y, 2 * z * z - x * x - y * y)
    return np.stack([np.ones(x.size), x, y, z, x * y, x * z, y * z, *squares], axis=1)


def _least_squares(columns: Float64, target: Float64, weight: Float64) -> tuple[Float64, float]:
    """Return the solution, and the variance of its first value for residuals of size one."""
    normal = np.einsum("na,n,nb->ab", columns, weight, columns)
    right = np.einsum("na,n,n->a", columns, weight, target)
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    inverse = np.linalg.pinv(normal / scale / scale[:, None], rcond=1e-9)
    found = np.einsum("ab,b->a", inverse, right / scale) / scale
    return found, float(inverse[0, 0] / scale[0] ** 2)


def _misfit(columns: Float64, found: Float64, target: Float64, weight: Float64) -> float:
    residual = target - np.einsum("na,a->n", columns, found)
    return float(np.einsum("n,n,n->", weight, residual, residual))


def _weights(noise_ppm: Float64) -> Float64:
    """Return the inverse variances over their median's, none above one: models err, too."""
    positive = noise_ppm > 0
    if not positive.any():
        return np.ones(noise_ppm.shape)
    usual = float(np.median(noise_ppm[positive]))
    return np.asarray((usual / np.maximum(noise_ppm, usual)) ** 2)


def _box(
    geometry: Geometry, centre_mm: tuple[float, float, float], reach_mm: float
) -> tuple[slice, slice, slice]:
    x, y, z = (
        slice(max(math.floor((c - reach_mm) / v), 0), min(math.ceil((c + reach_mm) / v) + 1, n))
        for c, v, n in zip(centre_mm, geometry.voxel_mm, geometry.shape, strict=True)
    )
    return x, y, z


def _positions(geometry: Geometry, part: tuple[slice, slice, slice]) -> Float64:
    """Return the positions (mm) of the voxels of a part of the grid, shape (n, 3)."""
    lines = [np.arange(p.start, p.stop) * v for p, v in zip(part, geometry.voxel_mm, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)


@njit(cache=True)
def _dipole(offset, direction, voxel_mm):  # type: ignore[no-untyped-def]
    """Return the mean field (ppm) in voxels at an offset (mm) from a moment of 1 ppm mm3.

    The mean is taken by Gauss' rule with two points along each axis.
    """
    n = offset.shape[0]
    field = np.zeros(n)
    part = voxel_mm / (2.0 * math.sqrt(3.0))
    for i in range(n):
        total = 0.0
        for corner in range(8):
            x = offset[i, 0] + part[0] * (1.0 if corner & 1 else -1.0)
            y = offset[i, 1] + part[1] * (1.0 if corner & 2 else -1.0)
            z = offset[i, 2] + part[2] * (1.0 if corner & 4 else -1.0)
            squared = x * x + y * y + z * z
            along = x * direction[0] + y * direction[1] + z * direction[2]
            total += (3.0 * along * along / squared - 1.0) / (squared * math.sqrt(squared))
        field[i] = total / (8.0 * 4.0 * math.pi)
    return field

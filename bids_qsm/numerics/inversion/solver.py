"""Pieces that the inversions share: gradient and its adjoint, shrinkage, conjugate gradients.

All sums run in a fixed order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    crop,
    dipole_kernel,
    forward_fft,
    frequencies,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)
from bids_qsm.numerics.rows import row_kernel

_PART = 2**14
"""Products that one thread sums in turn; a fixed number, for the same order on any threads."""
_SUMS = 128
"""Kept beside one another, so that none waits for the one before."""
_BAND_EDGE = np.float32(0.84)
"""Share of the highest frequency from which oblique data are held back."""
_BAND_EDGE_PENALTY = 30.0
"""Against the kernel's square, of 0.4 at most."""


def inner(a: Float32, b: Float32) -> float:
    """Return the inner product of two equally shaped arrays, summed in float64.

    BLAS would sum in an order that depends on its threads.  Memory: one number for each part.
    """
    return float(_partial_inner(a.reshape(-1), b.reshape(-1)).sum())


@row_kernel()
def _add_products(a, b, sums):  # type: ignore[no-untyped-def]
    for i in range(len(a)):
        sums[i] += np.float64(a[i]) * np.float64(b[i])


@numba.njit(parallel=True, cache=True)
def _partial_inner(a, b):  # type: ignore[no-untyped-def]
    partial = np.zeros(-(-a.size // _PART), np.float64)
    for part in numba.prange(partial.size):
        sums = np.zeros(_SUMS, np.float64)
        end = min(a.size, (part + 1) * _PART)
        for i in range(part * _PART, end, _SUMS):
            _add_products(a[i : min(end, i + _SUMS)], b[i : min(end, i + _SUMS)], sums)
        partial[part] = sums.sum()
    return partial


def has_settled(before: Float32, now: Float32, tolerance: float) -> bool:
    """Return whether a map has changed by less than ``tolerance`` of its size."""
    changes, sizes = _partial_changes(before.reshape(-1), now.reshape(-1)).sum(axis=1)
    return bool(changes <= tolerance**2 * sizes)


@row_kernel()
def _add_changes(before, now, changes, sizes):  # type: ignore[no-untyped-def]
    for i in range(len(now)):
        changes[i] += np.float64(now[i] - before[i]) ** 2
        sizes[i] += np.float64(now[i]) ** 2


@numba.njit(parallel=True, cache=True)
def _partial_changes(before, now):  # type: ignore[no-untyped-def]
    partial = np.zeros((2, -(-now.size // _PART)), np.float64)
    for part in numba.prange(partial.shape[1]):
        sums = np.zeros((2, _SUMS), np.float64)
        end = min(now.size, (part + 1) * _PART)
        for i in range(part * _PART, end, _SUMS):
            here = slice(i, min(end, i + _SUMS))
            _add_changes(before[here], now[here], sums[0], sums[1])
        partial[0, part], partial[1, part] = sums[0].sum(), sums[1].sum()
    return partial


def step_sizes(geometry: Geometry) -> Float32:
    """Return the voxel size along each axis over its geometric mean.

    Differences divided by it are per mean voxel: a regularisation weight keeps its meaning from
    one voxel size to the next, and anisotropic voxels are weighed by their true distance.
    """
    voxel = np.asarray(geometry.voxel_mm)
    return (voxel / np.prod(voxel) ** (1 / 3)).astype(np.float32)


def gradient(volume: Float32, steps: Float32) -> Float32:
    """Return periodic forward differences.

    Parameters
    ----------
    volume : ndarray of float32, shape (x, y, z)
    steps : ndarray of float32, shape (3,)
        Distance between neighbours along each axis.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Memory: three volumes.
    """
    out = np.empty((3, *volume.shape), np.float32)
    _gradient(volume, steps, out)
    return out


def gradient_adjoint(field: Float32, steps: Float32) -> Float32:
    """Return the adjoint of :func:`gradient` (minus the divergence); memory: one volume."""
    out = np.empty(field.shape[1:], np.float32)
    _gradient_adjoint(field, steps, out)
    return out


@numba.njit(parallel=True, cache=True)
def _gradient(volume, steps, out):  # type: ignore[no-untyped-def]
    nx, ny, nz = volume.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                here = volume[x, y, z]
                out[0, x, y, z] = (volume[x1, y, z] - here) / steps[0]
                out[1, x, y, z] = (volume[x, y1, z] - here) / steps[1]
                out[2, x, y, z] = (volume[x, y, z1] - here) / steps[2]


@numba.njit(parallel=True, cache=True)
def _gradient_adjoint(field, steps, out):  # type: ignore[no-untyped-def]
    _, nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                # index -1 is the last voxel: periodic
                out[x, y, z] = (
                    (field[0, x - 1, y, z] - field[0, x, y, z]) / steps[0]
                    + (field[1, x, y - 1, z] - field[1, x, y, z]) / steps[1]
                    + (field[2, x, y, z - 1] - field[2, x, y, z]) / steps[2]
                )


def laplacian_spectrum(geometry: Geometry, steps: Float32) -> Float32:
    """Return the half spectrum of the adjoint of the gradient times the gradient (>= 0)."""
    total = np.float32(0)
    for k, voxel, step in zip(frequencies(geometry), geometry.voxel_mm, steps, strict=True):
        total = total + (2 * np.sin(np.pi * k * np.float32(voxel)) / step) ** 2
    return np.asarray(total, np.float32)


def band_edge_penalty(geometry: Geometry) -> Float32:
    """Return what holds back frequencies at the band's edge where B0 is oblique (half spectrum).

    Odd functions of a frequency, as the dipole kernel's mixed terms, have no value where it is
    both the highest and the lowest: near there an oblique kernel jumps, and the field of sharp
    sources rings.  The penalty grows with the jump; along the voxel axes it is nil.
    """
    b = geometry.b0_direction
    total: Float32 = np.zeros(1, np.float32)
    for i, (k, voxel) in enumerate(zip(frequencies(geometry), geometry.voxel_mm, strict=True)):
        jump = sum((2 * b[i] * b[j]) ** 2 for j in range(3) if j != i)
        share = (np.abs(k) * np.float32(2 * voxel) - _BAND_EDGE) / (1 - _BAND_EDGE)
        rise = np.sin(np.clip(share, 0, 1) * np.float32(np.pi / 2)) ** 2
        total = np.asarray(total + _BAND_EDGE_PENALTY * jump * rise, np.float32)
    return total


def edge_strength(brain: FieldMap, regularisation: float) -> tuple[float, float]:
    r"""Return the weight of an L1 norm of edges against noise-weighted data, and its scale.

    The weight is :math:`r \sigma^2 / s`, with the median noise :math:`\sigma` and the spread *s* of
    the field: the most probable map if the noise is Gaussian and edges, of a size in proportion to
    the field, are exponentially distributed.  Noise below a hundredth of the spread counts as that
    much: without any regularisation nothing tames the dipole kernel's cone.

    Parameters
    ----------
    brain : FieldMap
        Local field.
    regularisation : float
        The factor *r*.

    Returns
    -------
    strength_ppm, spread_ppm : float
        The weight, and *s*: the field's standard deviation, from the quartiles, so that strong
        sources do not count.  Both are 0 for a field without contrast.
    """
    lower, upper = np.percentile(brain.field_ppm[brain.mask], (25, 75))
    spread = float(upper - lower) / 1.349
    if spread <= 0:
        return 0.0, 0.0
    noise = brain.noise_ppm[brain.mask]
    noise = noise[np.isfinite(noise)]
    sigma = max(float(np.median(noise)) if noise.size else 0.0, 0.01 * spread)
    return regularisation * sigma**2 / spread, spread


def magnitude_edges(magnitude: Float32, mask: Bool, fraction: float, geometry: Geometry) -> Bool:
    """Return where the magnitude differs most from one voxel of the mask to the next.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    fraction : float
        Share of the differences within the mask that are edges; of equal ones none.
    geometry : Geometry

    Returns
    -------
    ndarray of bool, shape (3, x, y, z)
        Edges along each axis.
    """
    difference = np.abs(gradient(magnitude, step_sizes(geometry)))
    within = np.stack([mask & np.roll(mask, -1, axis) for axis in range(3)])
    for axis in range(3):  # the last voxel's neighbour is not the first
        np.moveaxis(within[axis], axis, 0)[-1] = False
    if not within.any():
        return within
    return within & (difference > np.quantile(difference[within], 1 - fraction))


@dataclass(frozen=True)
class Solution:
    """What :func:`conjugate_gradient` found, and after how many iterations."""

    value: Float32
    iterations: int
    relative_residual: float


def conjugate_gradient(
    normal: Callable[[Float32], Float32],
    right_side: Float32,
    *,
    tolerance: float,
    max_iterations: int,
    precondition: Callable[[Float32], Float32] | None = None,
) -> Solution:
    """Solve ``normal(x) = right_side`` for a positive semi-definite operator, from zero.

    Stops when the residual's norm falls below ``tolerance`` times that of the right side; with
    ``precondition``, an approximate inverse of the operator, symmetric and positive definite, the
    norm is the one that this defines.
    Memory: three arrays of the size of ``right_side``, and what ``normal`` takes; one more with
    ``precondition``.

    References
    ----------
    Hestenes and Stiefel 1952, 10.6028/jres.049.044.
    """
    x = np.zeros_like(right_side)
    residual = right_side.copy()
    downhill = residual if precondition is None else precondition(residual)
    direction = downhill.copy()
    start = squared = inner(residual, downhill)
    iteration = 0
    while iteration < max_iterations and squared > tolerance**2 * start:
        image = normal(direction)
        curvature = inner(direction, image)
        if curvature <= 0:  # the rest of the right side lies in the null space
            break
        step = np.float32(squared / curvature)
        _add_scaled(x, direction, step)
        _add_scaled(residual, image, -step)
        downhill = residual if precondition is None else precondition(residual)
        previous, squared = squared, inner(residual, downhill)
        direction *= np.float32(squared / previous)
        direction += downhill
        iteration += 1
    return Solution(x, iteration, float(np.sqrt(squared / start)) if start else 0.0)


def _add_scaled(target: Float32, other: Float32, scale: np.float32) -> None:
    """Add ``scale * other`` to ``target`` without a temporary array."""
    rows = target.shape[0]
    _add_scaled_rows(target.reshape(rows, -1), other.reshape(rows, -1), scale)


@numba.njit(parallel=True, cache=True)
def _add_scaled_rows(target, other, scale):  # type: ignore[no-untyped-def]
    for i in numba.prange(target.shape[0]):
        for j in range(target.shape[1]):
            target[i, j] += scale * other[i, j]


@dataclass(frozen=True)
class Domain:
    """Where an inversion works: the mask's bounding box, with room for the dipole kernel.

    Attributes
    ----------
    brain : FieldMap
        The local field in the bounding box.
    geometry : Geometry
        That of the padded grid, which holds the box in its first corner.
    kernel : ndarray of float32
        The dipole's half spectrum on the padded grid.
    box : tuple of slice
        Where the box lies in the whole volume.
    shape : tuple of int
        Size of the whole volume.
    """

    brain: FieldMap
    geometry: Geometry
    kernel: Float32
    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]

    @staticmethod
    def of(local: FieldMap, margin_mm: float) -> Domain:
        """Box a local field and make room of ``margin_mm``; memory: two padded volumes."""
        brain, box = local.boxed()
        geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
        return Domain(brain, geometry, dipole_kernel(geometry), box, local.geometry.shape)

    def padded(self, volume: NDArray) -> NDArray:
        """Return a volume of the box on the padded grid."""
        return pad(volume, self.geometry.shape)

    def within_mask(self, padded: Float32) -> Float32:
        """Return a padded volume in the whole volume, zero outside the mask."""
        inside = crop(padded, self.brain.mask.shape)
        inside[~self.brain.mask] = 0
        return place(inside, self.box, self.shape)


def divide(domain: Domain, inverse: Float32) -> Float32:
    """Multiply the field's spectrum with a regularised inverse of the kernel.

    Parameters
    ----------
    domain : Domain
    inverse : ndarray of float32
        Half spectrum on the padded grid.

    Returns
    -------
    ndarray of float32
        On the padded grid.  Memory: three padded volumes.
    """
    spectrum = forward_fft(domain.padded(domain.brain.field_ppm))
    spectrum *= inverse
    return inverse_fft(spectrum, domain.geometry.shape)


def point_source_amplitude(response: Float32, nz: int) -> np.float32:
    """Return the central value of a point spread function: the mean of its full spectrum.

    Parameters
    ----------
    response : ndarray of float32, shape (x, y, nz // 2 + 1)
        Half spectrum of the point spread function.
    nz : int
        Size of the volume along the axis that is halved.
    """
    twice = np.full(response.shape[2], 2.0)  # the half spectrum holds these planes once
    twice[0] = 1.0
    if nz % 2 == 0:
        twice[-1] = 1.0
    planes = response.sum(axis=(0, 1), dtype=np.float64)
    return np.float32(planes @ twice / (response.shape[0] * response.shape[1] * nz))


def weighted_least_squares(
    domain: Domain, kernel: Float32, *, tolerance: float, max_iterations: int
) -> Solution:
    r"""Minimise :math:`\|w (k * \chi - f)\|^2` by conjugate gradients from zero.

    In exact arithmetic the iterates are those of LSQR (Paige and Saunders 1982,
    10.1145/355984.355989): components that the kernel hardly passes come last, so that stopping
    early regularises.

    Parameters
    ----------
    domain : Domain
        The weights are those of :meth:`FieldMap.weights`.
    kernel : ndarray of float32
        Half spectrum of *k* on the padded grid.
    tolerance, max_iterations : float, int
        As of :func:`conjugate_gradient`, for the normal equations.

    Returns
    -------
    Solution
        On the padded grid.  Memory: some eight padded volumes.
    """
    weights = domain.padded(domain.brain.weights()) ** 2

    def normal(chi: Float32) -> Float32:
        return convolve(weights * convolve(chi, kernel), kernel)

    right_side = convolve(weights * domain.padded(domain.brain.field_ppm), kernel)
    return conjugate_gradient(
        normal, right_side, tolerance=tolerance, max_iterations=max_iterations
    )

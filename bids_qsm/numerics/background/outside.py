"""Sources outside the mask, on grids of any coarseness, and polynomials that they cannot make."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy import fft

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, dipole_kernel, margin_voxels, pad
from bids_qsm.numerics.inversion.solver import conjugate_gradient
from bids_qsm.numerics.polynomial_terms import TERMS, set_terms

Factors = tuple[int, int, int]


@dataclass(frozen=True)
class Data:
    """What is fitted: the voxels of the mask, as vectors, within a padded grid.

    ``terms`` are the weighted polynomials, orthonormal: shape (5, voxels).
    """

    geometry: Geometry
    mask: Bool
    values: Float32
    weights: Float32
    terms: Float32

    @staticmethod
    def of(brain: FieldMap, geometry: Geometry) -> Data:
        """Return the data of a boxed field map on a padded grid."""
        weights = brain.weights()[brain.mask]
        return Data(
            geometry,
            pad(brain.mask, geometry.shape),
            brain.field_ppm[brain.mask],
            weights,
            _orthonormal_terms(brain.mask, brain.geometry, weights),
        )

    def with_values(self, values: Float32) -> Data:
        """Return the same voxels with other values."""
        return Data(self.geometry, self.mask, values, self.weights, self.terms)

    def scatter(self, values: Float32) -> Float32:
        """Return the volume with ``values`` in the mask and zero elsewhere."""
        volume = np.zeros(self.mask.shape, np.float32)
        volume[self.mask] = values
        return volume

    def without_terms(self, weighted: Float32) -> Float32:
        """Return weighted values less their best fit by the polynomials."""
        # einsum sums in one fixed order; BLAS would in one that depends on its threads
        amounts = np.einsum("tv,v->t", self.terms, weighted, dtype=np.float64)
        out = weighted.copy()
        for amount, term in zip(amounts.astype(np.float32), self.terms, strict=True):
            out -= amount * term
        return out

    def terms_of(self, values: Float32) -> Float32:
        """Return the best weighted fit of ``values`` by the polynomials."""
        weighted = self.weights * values
        fit = weighted - self.without_terms(weighted)
        return np.divide(fit, self.weights, out=np.zeros_like(fit), where=self.weights > 0)


def _orthonormal_terms(mask: Bool, geometry: Geometry, weights: Float32) -> Float32:
    """Return 1, x, y, z and x^2 + y^2 + z^2 in the mask, weighted and made orthonormal.

    The squared distance is the one quadratic that no outer source can make: shims that only
    nearly solve Laplace's equation and left-over coil phase do.
    """
    x, y, z = (
        (np.arange(n) - (n - 1) / 2) * voxel / 100  # about one at the edge of a head
        for n, voxel in zip(mask.shape, geometry.voxel_mm, strict=True)
    )
    starts = np.concatenate([[0], np.cumsum(mask.sum(axis=(1, 2)))])
    products = _products_of_terms(mask, starts, weights, x, y, z).sum(axis=0)
    amounts = np.zeros((TERMS, TERMS))
    for i in range(TERMS):
        rest = np.eye(TERMS)[i]
        for other in amounts[:i]:
            rest -= (other @ products @ rest) * other
        norm = np.sqrt(max(0.0, rest @ products @ rest))
        # a mask that is flat along an axis has no linear term there
        if norm > 1e-6 * np.sqrt(starts[-1]):
            amounts[i] = rest / norm
    return _weighted_terms(mask, starts, weights, x, y, z, amounts)


@numba.njit(parallel=True, cache=True)
def _products_of_terms(mask, starts, weights, xs, ys, zs):  # type: ignore[no-untyped-def]
    """Return the weighted inner products of the terms, a part for each x."""
    nx, ny, nz = mask.shape
    parts = np.zeros((nx, TERMS, TERMS))
    for x in numba.prange(nx):
        terms, at = np.empty(TERMS), starts[x]
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z]:
                    set_terms(terms, xs[x], ys[y], zs[z])
                    squared = np.float64(weights[at]) ** 2
                    for i in range(TERMS):
                        for j in range(TERMS):
                            parts[x, i, j] += squared * terms[i] * terms[j]
                    at += 1
    return parts


@numba.njit(parallel=True, cache=True)
def _weighted_terms(mask, starts, weights, xs, ys, zs, amounts):  # type: ignore[no-untyped-def]
    """Return the sums of terms with the given amounts, weighted."""
    nx, ny, nz = mask.shape
    out = np.empty((TERMS, len(weights)), np.float32)
    for x in numba.prange(nx):
        terms, at = np.empty(TERMS), starts[x]
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z]:
                    set_terms(terms, xs[x], ys[y], zs[z])
                    for i in range(TERMS):
                        total = 0.0
                        for j in range(TERMS):
                            total += amounts[i, j] * terms[j]
                        out[i, at] = weights[at] * total
                    at += 1
    return out


def outer_sources(
    data: Data, regularisation: float, tolerance: float, max_iterations: int
) -> Float32:
    """Return the sources outside the mask, on the padded grid, whose field fits the data."""
    kernel = dipole_kernel(data.geometry)
    outside = ~data.mask

    def back(weighted: Float32) -> Float32:
        volume = data.scatter(data.weights * data.without_terms(weighted))
        return convolve(volume, kernel) * outside

    def normal(sources: Float32) -> Float32:
        image = back(data.weights * convolve(sources, kernel)[data.mask])
        image += np.float32(regularisation) * sources
        return image

    right_side = back(data.weights * data.values)
    return conjugate_gradient(
        normal, right_side, tolerance=tolerance, max_iterations=max_iterations
    ).value


def outer_field(sources: Float32, data: Data) -> Float32:
    """Return the field in the mask of those sources that lie outside of it."""
    return convolve(sources * ~data.mask, dipole_kernel(data.geometry))[data.mask]


def factors_for(geometry: Geometry, coarse_voxel_mm: float) -> Factors:
    """Return how many voxels along each axis make one of the coarse grid."""
    x, y, z = (max(1, round(coarse_voxel_mm / voxel)) for voxel in geometry.voxel_mm)
    return x, y, z


def padded_to_multiples(geometry: Geometry, margin_mm: float, factors: Factors) -> Geometry:
    """Return the padded geometry, of a size that the coarse grid divides without a rest."""
    x, y, z = (
        factor * fft.next_fast_len(-(-(n + margin) // factor), real=True)
        for n, margin, factor in zip(
            geometry.shape, margin_voxels(geometry, margin_mm), factors, strict=True
        )
    )
    return geometry.with_shape((x, y, z))


def coarsened(data: Data, factors: Factors) -> Data:
    """Return weighted means over blocks, where at least half of a block lies in the mask."""
    if factors == (1, 1, 1):
        return data
    counts = _block_sums(data.mask.astype(np.float32), factors)
    weight_sums = _block_sums(data.scatter(data.weights**2), factors)
    sums = _block_sums(data.scatter(data.weights**2 * data.values), factors)
    mask = (2 * counts >= np.prod(factors)) & (weight_sums > 0)
    x, y, z = (v * f for v, f in zip(data.geometry.voxel_mm, factors, strict=True))
    geometry = Geometry(mask.shape, (x, y, z), data.geometry.b0_direction)
    weights = np.sqrt(weight_sums[mask] / np.prod(factors), dtype=np.float32)
    values = sums[mask] / weight_sums[mask]
    return Data(geometry, mask, values, weights, _orthonormal_terms(mask, geometry, weights))


def refined(volume: Float32, factors: Factors) -> Float32:
    """Return a coarse volume on the full grid: each voxel repeated."""
    for axis, factor in enumerate(factors):
        volume = np.repeat(volume, factor, axis)
    return volume


def _block_sums(volume: Float32, factors: Factors) -> Float32:
    (nx, ny, nz), (fx, fy, fz) = volume.shape, factors
    return volume.reshape(nx // fx, fx, ny // fy, fy, nz // fz, fz).sum(axis=(1, 3, 5))

"""Polynomials in x, y and z: what wrong boundary values and imperfect shims leave behind."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.geometry import Bool, Float32, Geometry


def without_polynomial(
    local: Float32, weights: Float32, mask: Bool, geometry: Geometry, order: int
) -> Float32:
    """Return the field less its weighted best fit by a polynomial, within the mask.

    Parameters
    ----------
    local, weights : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry
        Its voxel size is used.
    order : int
        Highest total power; -1 for none.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Zero outside the mask.  Memory: for order 2 ten values for each voxel of the mask.
    """
    out = np.where(mask, local, np.float32(0))
    if order < 0 or not mask.any():
        return out
    known = weights[mask]
    terms = _terms(mask, geometry, order)
    weighted = terms * known
    # einsum sums in one fixed order; BLAS would in one that depends on its threads
    matrix = np.array(
        [[np.einsum("v,v->", a, b, dtype=np.float64) for a in weighted] for b in weighted]
    )
    right = np.einsum("tv,v->t", weighted, known * out[mask], dtype=np.float64)
    # a mask that is flat along an axis makes the matrix singular
    amounts = np.linalg.lstsq(matrix, right, rcond=1e-9)[0]
    for amount, term in zip(amounts.astype(np.float32), terms, strict=True):
        out[mask] -= amount * term
    return out


def _terms(mask: Bool, geometry: Geometry, order: int) -> Float32:
    """Return the powers in the mask's voxels: shape (terms, voxels), about -1 to 1."""
    ends_mm = [(n - 1) / 2 * v for n, v in zip(mask.shape, geometry.voxel_mm, strict=True)]
    scale_mm = max(ends_mm) or 1.0
    x, y, z = (
        ((index * v - end) / scale_mm).astype(np.float32)
        for index, v, end in zip(np.nonzero(mask), geometry.voxel_mm, ends_mm, strict=True)
    )
    return np.stack(
        [
            x**i * y**j * z**k
            for i in range(order + 1)
            for j in range(order + 1 - i)
            for k in range(order + 1 - i - j)
        ]
    )

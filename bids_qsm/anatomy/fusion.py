"""Joint label fusion: labels of several registered heads made one, by how alike patches look."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32

FLAT = 1e-6
"""Standard deviation of a patch below which it has no structure to compare."""


def fuse_labels(
    target: Float32,
    members: Float32,
    labels: NDArray[np.uint8],
    region: Bool,
    n_labels: int,
    *,
    patch_radius: int = 2,
    search_radius: int = 2,
    alpha: float = 0.1,
    beta: float = 2.0,
) -> Float32:
    """Return the probability of each label by joint label fusion with several contrasts.

    Around each voxel each member is searched for the patch that is most like the target's, all
    contrasts together, every patch at mean zero and deviation one.  The members' votes are then
    weighted so that the expected error is least, given that members which err at the same places
    err together.  Voxels around which all members have the same label are given it.

    Parameters
    ----------
    target : ndarray of float32, shape (contrasts, x, y, z)
    members : ndarray of float32, shape (members, contrasts, x, y, z)
        Registered to the target, on its grid.
    labels : ndarray of uint8, shape (members, x, y, z)
        Below ``n_labels``; 0 is background.
    region : ndarray of bool, shape (x, y, z)
        Where labels are fused; elsewhere the result is background.
    n_labels : int
        With the background.
    patch_radius, search_radius : int
        In voxels; patches and searches are cubes.
    alpha : float
        Added to the diagonal of the members' joint errors: larger evens the weights.
    beta : float
        Power of the joint errors: larger trusts the best member more.

    Returns
    -------
    ndarray of float32, shape (n_labels, x, y, z)
        Sums to one in each voxel.

    Notes
    -----
    The memory is that of the arrays, four times that of ``members`` at most.

    References
    ----------
    Wang et al. 2013, 10.1109/TPAMI.2012.143.
    """
    margin = patch_radius + search_radius
    kept = np.zeros_like(region)
    inner = tuple(slice(margin, n - margin) for n in region.shape)
    kept[inner] = region[inner]
    voxels = np.argwhere(kept)
    side = np.arange(-search_radius, search_radius + 1)
    offsets = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    # the nearest first: of patches that are equally alike, the nearest is taken
    offsets = offsets[np.argsort((offsets**2).sum(axis=1), kind="stable")]
    fused = np.zeros((n_labels, *region.shape), np.float32)
    fused[0] = 1.0
    fused[(slice(None), *voxels.T)] = _fused(
        np.ascontiguousarray(target, np.float32),
        np.ascontiguousarray(members, np.float32),
        np.ascontiguousarray(labels, np.uint8),
        voxels,
        offsets,
        patch_radius,
        n_labels,
        alpha,
        beta,
    ).T
    return fused


@numba.njit(parallel=True, cache=True)
def _fused(target, members, labels, voxels, offsets, radius, n_labels, alpha, beta):  # type: ignore[no-untyped-def]
    """Return the labels' probabilities in each voxel (voxels, n_labels)."""
    n_members, n_contrasts = members.shape[:2]
    size = (2 * radius + 1) ** 3
    out = np.zeros((len(voxels), n_labels), np.float32)
    for v in numba.prange(len(voxels)):
        x, y, z = voxels[v, 0], voxels[v, 1], voxels[v, 2]
        if _agreed(labels, x, y, z, offsets):
            out[v, labels[0, x, y, z]] = 1.0
            continue
        own = np.empty((n_contrasts, size), np.float32)
        for c in range(n_contrasts):
            _patch(target[c], x, y, z, radius, own[c])
        errors = np.empty((n_members, n_contrasts, size), np.float32)
        votes = np.empty(n_members, np.int64)
        for m in range(n_members):
            best = _most_alike(own, members[m], x, y, z, offsets, radius)
            i, j, k = x + offsets[best, 0], y + offsets[best, 1], z + offsets[best, 2]
            votes[m] = labels[m, i, j, k]
            for c in range(n_contrasts):
                _patch(members[m, c], i, j, k, radius, errors[m, c])
                for p in range(size):
                    errors[m, c, p] = abs(errors[m, c, p] - own[c, p])
        weights = _weights(errors, alpha, beta)
        total = 0.0
        for m in range(n_members):
            out[v, votes[m]] += weights[m]
        for label in range(n_labels):
            out[v, label] = max(out[v, label], 0.0)
            total += out[v, label]
        for label in range(n_labels):
            out[v, label] /= total
    return out


@numba.njit(cache=True)
def _agreed(labels, x, y, z, offsets):  # type: ignore[no-untyped-def]
    """Return whether all members have one label in all places that are searched."""
    first = labels[0, x, y, z]
    for o in range(len(offsets)):
        for m in range(len(labels)):
            if labels[m, x + offsets[o, 0], y + offsets[o, 1], z + offsets[o, 2]] != first:
                return False
    return True


@numba.njit(cache=True)
def _patch(image, x, y, z, radius, out):  # type: ignore[no-untyped-def]
    """Write the patch around a voxel, at mean zero and deviation one; a flat one is zero."""
    n, total, squares = 0, 0.0, 0.0
    for i in range(x - radius, x + radius + 1):
        for j in range(y - radius, y + radius + 1):
            for k in range(z - radius, z + radius + 1):
                value = image[i, j, k]
                out[n] = value
                total += value
                n += 1
    mean = total / n
    for p in range(n):
        out[p] -= np.float32(mean)
        squares += out[p] * out[p]
    deviation = np.sqrt(squares / n)
    scale = np.float32(1.0 / deviation if deviation > FLAT else 0.0)
    for p in range(n):
        out[p] *= scale


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _likeness(own, image, x, y, z, radius):  # type: ignore[no-untyped-def]
    """Return the correlation of a normalised patch with the one around a voxel, times its size."""
    n = 0
    cross, total, squares = np.float32(0), np.float32(0), np.float32(0)
    for i in range(x - radius, x + radius + 1):
        for j in range(y - radius, y + radius + 1):
            row = image[i, j]
            for k in range(z - radius, z + radius + 1):
                value = row[k]
                cross += own[n] * value
                total += value
                squares += value * value
                n += 1
    variance = squares / n - (total / n) * (total / n)
    return cross / np.sqrt(variance) if variance > FLAT * FLAT else np.float32(0)


@numba.njit(cache=True)
def _most_alike(own, member, x, y, z, offsets, radius):  # type: ignore[no-untyped-def]
    """Return the number of the offset at which a member looks most like the target."""
    best, most = 0, -np.inf
    for o in range(len(offsets)):
        i, j, k = x + offsets[o, 0], y + offsets[o, 1], z + offsets[o, 2]
        alike = 0.0
        for c in range(len(own)):
            alike += _likeness(own[c], member[c], i, j, k, radius)
        if alike > most:
            best, most = o, alike
    return best


@numba.njit(cache=True)
def _weights(errors, alpha, beta):  # type: ignore[no-untyped-def]
    """Return the members' weights, which add up to one: M^-1 1 over its sum.

    M holds the joint errors; it is positive definite, so elimination needs no exchange of rows.
    """
    n, n_contrasts, size = errors.shape
    matrix = np.empty((n, n))
    for a in range(n):
        for b in range(a + 1):
            joint = 0.0
            for c in range(n_contrasts):
                for p in range(size):
                    joint += errors[a, c, p] * errors[b, c, p]
            matrix[a, b] = matrix[b, a] = (joint / (n_contrasts * size)) ** beta
        matrix[a, a] += alpha
    weights = np.ones(n)
    for a in range(n):
        for b in range(a + 1, n):
            factor = matrix[b, a] / matrix[a, a]
            weights[b] -= factor * weights[a]
            for c in range(a, n):
                matrix[b, c] -= factor * matrix[a, c]
    total = 0.0
    for a in range(n - 1, -1, -1):
        for b in range(a + 1, n):
            weights[a] -= matrix[a, b] * weights[b]
        weights[a] /= matrix[a, a]
        total += weights[a]
    return weights / total

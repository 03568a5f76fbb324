"""Kernels of permutation tests: residuals in tiles, fits of many permutations at once, maxima."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bids_qsm.statistics.neighbours import components
from bids_qsm.statistics.tfce import enhance

WIDTH = 64
"""Voxels of a tile: taken together, one row of images after the other."""
SAME = 1 - 1e-5
"""Share of a value from which on a permuted one counts as equal: sums in another order differ."""


@njit(parallel=True, cache=True)
def fill_tiles(block, rest, tiles):  # type: ignore[no-untyped-def]
    """Write the residuals of a block of values, at unit length, into tiles.

    Parameters
    ----------
    block : ndarray of float64, shape (n_images, n_tiles * WIDTH)
    rest : ndarray of float64, shape (n_images, n_rest)
        Orthonormal.
    tiles : ndarray of float32, shape (n_tiles, n_images, WIDTH)
    """
    n_images, n_rest = rest.shape
    for tile in prange(tiles.shape[0]):
        low = tile * WIDTH
        work = block[:, low : low + WIDTH].copy()
        for j in range(n_rest):
            weight = np.zeros(WIDTH)
            for i in range(n_images):
                weight += rest[i, j] * work[i]
            for i in range(n_images):
                work[i] -= rest[i, j] * weight
        square = np.zeros(WIDTH)
        for i in range(n_images):
            square += work[i] * work[i]
        for v in range(WIDTH):
            scale = 1 / np.sqrt(square[v]) if square[v] > 0 else 0.0
            for i in range(n_images):
                tiles[tile, i, v] = work[i, v] * scale


@njit(parallel=True, cache=True)
def fitted(tiles, regressors, n_each, n_tested, df, is_t, n_voxels):  # type: ignore[no-untyped-def]
    """Return t, or the root of F, of all permutations, shape (n_permutations, n_voxels).

    Parameters
    ----------
    tiles : ndarray of float32, shape (n_tiles, n_images, WIDTH)
        Residuals, of unit length for each voxel.
    regressors : ndarray of float64, shape (n_images, n_permutations * n_each)
        Orthonormal for each permutation; the first ``n_tested`` of each are those tested.
    n_each, n_tested : int
    df : float
        Degrees of freedom of the error.
    is_t : bool
        Whether the sign of the first regressor's coefficient counts.
    n_voxels : int
    """
    n_tiles, n_images, _ = tiles.shape
    n_permutations = regressors.shape[1] // n_each
    heights = np.zeros((n_permutations, n_voxels), np.float32)
    for tile in prange(n_tiles):
        sums = np.zeros((n_permutations * n_each, WIDTH))
        row = np.empty(WIDTH)
        for i in range(n_images):
            row[:] = tiles[tile, i]
            for k in range(n_permutations * n_each):
                weight = regressors[i, k]
                for v in range(WIDTH):
                    sums[k, v] += weight * row[v]
        for permutation in range(n_permutations):
            first = permutation * n_each
            for v in range(min(WIDTH, n_voxels - tile * WIDTH)):
                explained = 0.0
                for k in range(first, first + n_tested):
                    explained += sums[k, v] ** 2
                left = 1.0 - explained
                for k in range(first + n_tested, first + n_each):
                    left -= sums[k, v] ** 2
                height = np.sqrt(explained / n_tested * df / max(left, 1e-12))
                if is_t and sums[first, v] < 0:
                    height = -height
                heights[permutation, tile * WIDTH + v] = height
    return heights


@njit(parallel=True, cache=True)
def count_reached(heights, observed, sides, reached):  # type: ignore[no-untyped-def]
    """Add to ``reached`` the permutations in which a voxel's height reaches the one observed."""
    for v in prange(observed.size):
        for permutation in range(len(heights)):
            height, own = heights[permutation, v], observed[v]
            if sides == 2:
                height, own = abs(height), abs(own)
            reached[v] += height >= own - abs(own) * (1 - SAME)


@njit(parallel=True, cache=True)
def find_maxima(  # type: ignore[no-untyped-def]
    heights, sides, threshold, tfce_neighbours, neighbours, extent_power, height_power
):
    """Return the highest statistic, TFCE, size and mass of each permutation."""
    maxima = np.zeros((len(heights), 4))
    for permutation in prange(len(heights)):
        best = maxima[permutation]
        for side in range(sides):
            height = heights[permutation] if side == 0 else -heights[permutation]
            best[0] = max(best[0], height.max())
            weights = np.maximum(height, np.float32(0)).astype(np.float64) ** (height_power + 1)
            weights /= height_power + 1
            best[1] = max(best[1], enhance(height, weights, tfce_neighbours, extent_power).max())
            labels, count = components(height > threshold, neighbours)
            size, mass = cluster_sizes(labels, count, height, threshold)
            if count:
                best[2] = max(best[2], size.max())
                best[3] = max(best[3], mass.max())
    return maxima


@njit(cache=True)
def cluster_sizes(labels, count, heights, threshold):  # type: ignore[no-untyped-def]
    """Return size and mass of each of the clusters."""
    size = np.zeros(count, np.int64)
    mass = np.zeros(count)
    for v in range(labels.size):
        if labels[v]:
            size[labels[v] - 1] += 1
            mass[labels[v] - 1] += heights[v] - threshold
    return size, mass

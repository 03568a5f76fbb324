"""Permutation tests of a linear model in every voxel: familywise error without assumptions.

The images' residuals of the nuisance model are computed once, at unit length.  To permute them is
to permute the regressors against them, so that a permutation costs one product of the regressors
with the residuals; many are taken at once, while the residuals are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from bids_qsm.statistics.exchange import Scheme, exchanges
from bids_qsm.statistics.glm import (
    Bool,
    ContrastMap,
    Distribution,
    Float32,
    Float64,
    fit_voxels,
    test_contrast,
    upper_quantile,
)
from bids_qsm.statistics.neighbours import Int32, components, neighbour_table
from bids_qsm.statistics.permuted import (
    SAME,
    WIDTH,
    cluster_sizes,
    count_reached,
    fill_tiles,
    find_maxima,
    fitted,
)
from bids_qsm.statistics.tfce import enhance

_TOGETHER = 16
"""Permutations that are taken together."""
Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """What permutations say of a contrast.  Voxels that are not valid hold 0, and p of 1.

    Attributes
    ----------
    statistic : ndarray of float32, shape (n_voxels,)
        t or F.
    distribution : Distribution
        Degrees of freedom.
    tfce : ndarray of float32, shape (n_voxels,)
        Enhanced t, or root of F.
    clusters : ndarray of int32, shape (n_voxels,)
        Number of the cluster, the heaviest first; 0 outside.
    cluster_size : ndarray of int64, shape (n_clusters,)
        In voxels.
    cluster_mass : ndarray of float64, shape (n_clusters,)
        Sum of what t (or the root of F) exceeds the threshold by.
    threshold : float
        Of the clusters, for t or the root of F.
    p_uncorrected, p_voxel, p_tfce : ndarray of float64, shape (n_voxels,)
        Of each voxel by itself; corrected by the highest statistic and by the highest TFCE.
    p_size, p_mass : ndarray of float64, shape (n_clusters,)
        Corrected by the largest and by the heaviest cluster.
    maxima : ndarray of float64, shape (n_permutations, 4)
        Highest statistic (t or root of F), TFCE, cluster size, cluster mass of each permutation.
    scheme : {"permute", "flip"}
        Whether images changed places or signs.
    n_permutations : int
        Besides the images as they are, which count as one more.
    valid : ndarray of bool, shape (n_voxels,)
    """

    statistic: Float32
    distribution: Distribution
    tfce: Float32
    clusters: Int32
    cluster_size: NDArray[np.int64]
    cluster_mass: Float64
    threshold: float
    p_uncorrected: Float64
    p_voxel: Float64
    p_tfce: Float64
    p_size: Float64
    p_mass: Float64
    maxima: Float64
    scheme: Literal["permute", "flip"]
    n_permutations: int
    valid: Bool


def permutation_test(
    values: NDArray[np.floating],
    design: ArrayLike,
    contrast: ArrayLike,
    mask: Bool,
    *,
    n_permutations: int = 1000,
    alternative: Alternative = "two-sided",
    primary_p: float = 0.001,
    extent_power: float = 0.5,
    height_power: float = 2.0,
    tfce_connectivity: int = 6,
    cluster_connectivity: int = 18,
    scheme: Scheme = "auto",
    blocks: ArrayLike | None = None,
    blocks_as_wholes: bool = False,
    seed: int = 1,
    orders: NDArray[np.integer] | None = None,
) -> PermutationTest:
    r"""Test a contrast by permuting what the other regressors leave (Freedman and Lane).

    The design is parted into what the contrast tests and the rest; the images' residuals of the
    rest are permuted and fitted by the whole design anew.  Each p is the share of permutations,
    the images as they are among them, whose highest value reaches the one observed:
    :math:`(1 + \#)/(1 + n)`.

    Parameters
    ----------
    values : ndarray or memmap, shape (n_images, n_voxels)
    design : array_like, shape (n_images, p)
    contrast : array_like, shape (p,) or (q, p)
        One row gives t, more rows (or one in two brackets) give F.
    mask : ndarray of bool, shape (x, y, z)
        Where the voxels lie: ``values[:, i]`` belongs to ``np.argwhere(mask)[i]``.
    n_permutations : int
        The smallest p is ``1 / (n_permutations + 1)``.
    alternative : {"two-sided", "greater", "less"}
        Of t; positive and negative clusters are always apart.
    primary_p : float
        p, of the same sides, of one voxel above which clusters are formed.
    extent_power, height_power : float
        Of TFCE, see :func:`bids_qsm.statistics.tfce.tfce`; F is enhanced by its root.
    tfce_connectivity, cluster_connectivity : {6, 18, 26}
        6 is that of ``randomise``, 18 that of SPM.
    scheme : {"auto", "permute", "flip"}
        To change the places of images, or their signs, which needs errors that are symmetric.
        ``auto`` flips where a mean is tested: where the rest has no intercept.
    blocks : array_like, shape (n_images,), optional
        Images that depend on each other, such as sessions of a subject.  They are permuted within
        their blocks, or blocks of one size against each other (signs: of all at once).
    blocks_as_wholes : bool
    seed : int
    orders : ndarray of int, shape (n_permutations, n_images), optional
        Permutations of one's own: which image each row of the design is given.  ``seed``,
        ``scheme`` and ``n_permutations`` are then not used.

    Returns
    -------
    PermutationTest
        The same for any number of threads.  Memory: the values in float32, 16 maps of the
        statistic, and a thread's maps.

    Raises
    ------
    ValueError
        As :func:`bids_qsm.statistics.glm.fit_voxels`; or if the mask, the blocks or an option do
        not fit, in a sentence.

    References
    ----------
    Freedman 1983, 10.2307/1391660; Winkler 2014, 10.1016/j.neuroimage.2014.01.060 (this use,
    blocks, signs); Nichols 2002, 10.1002/hbm.1058 (maxima); Phipson 2010,
    10.2202/1544-6115.1585 (the observed one counts); Bullmore 1999, 10.1109/42.750253 (mass).
    """
    design = np.asarray(design, np.float64)
    _check_options(values, mask, n_permutations, primary_p, alternative)
    observed = test_contrast(fit_voxels(values, design), contrast)
    is_t = observed.distribution.kind == "t"
    sides = 2 if is_t and alternative == "two-sided" else 1
    sign = -1.0 if is_t and alternative == "less" else 1.0
    tested, rest = _parted(design, np.atleast_2d(np.asarray(contrast, np.float64)))
    keeps_mean = _explains_constant(rest)
    if orders is None:
        how: _How = scheme if scheme != "auto" else "permute" if keeps_mean else "flip"
        places, signs = exchanges(
            len(design), n_permutations, how, seed, blocks, as_wholes=blocks_as_wholes
        )
    else:
        how, places = "permute", _checked_orders(orders, len(design))
        signs = np.ones(places.shape, np.int8)
    primary = upper_quantile(primary_p / sides, observed.distribution)
    settings = _Settings(
        n_tested=tested.shape[1],
        df=observed.distribution.df_denominator,
        is_t=is_t,
        sides=sides,
        threshold=primary if is_t else float(np.sqrt(primary)),
        powers=(extent_power, height_power),
        tfce_neighbours=neighbour_table(mask, tfce_connectivity),
        neighbours=neighbour_table(mask, cluster_connectivity),
    )
    tiles = _residual_tiles(values, rest, observed.valid)
    if keeps_mean and how == "permute":  # residuals have no mean, in any order
        rest = _orthonormal(rest - rest.mean(axis=0))
    regressors = np.concatenate([sign * tested, rest], axis=1)
    height = _heights(tiles, regressors[:, np.newaxis], settings)[0]
    maxima, reached = _permuted(tiles, regressors, places, signs, height, settings)
    return _result(observed, height, maxima, reached, sign, how, settings)


_How = Literal["permute", "flip"]


@dataclass(frozen=True, eq=False)
class _Settings:
    """What does not change from one permutation to the next."""

    n_tested: int
    df: float
    is_t: bool
    sides: int
    threshold: float
    powers: tuple[float, float]
    tfce_neighbours: Int32
    neighbours: Int32


def _check_options(
    values: NDArray, mask: Bool, n_permutations: int, primary_p: float, alternative: str
) -> None:
    if values.ndim != 2 or values.shape[1] != np.count_nonzero(mask):
        raise ValueError(
            f"the values have the shape {values.shape} and the mask {np.count_nonzero(mask)} "
            "voxels: give one column for each voxel of the mask."
        )
    if n_permutations < 1 or not 0 < primary_p < 0.5:
        raise ValueError(
            "at least one permutation is needed, and a primary p between 0 and 0.5; got "
            f"{n_permutations} and {primary_p}."
        )
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(
            f"the alternative must be two-sided, greater or less, and is {alternative!r}."
        )


def _checked_orders(orders: NDArray[np.integer], n_images: int) -> Int32:
    places = np.asarray(orders, np.int32)
    if places.ndim != 2 or not (np.sort(places, axis=1) == np.arange(n_images)).all():
        raise ValueError(f"each row of the orders must name each of the {n_images} images once.")
    return places


def _parted(design: Float64, rows: Float64) -> tuple[Float64, Float64]:
    """Return what a contrast tests, apart from the rest, and the rest; both orthonormal."""
    rest = _orthonormal(_product(design, linalg.null_space(rows)))
    tested = _product(design, np.linalg.pinv(rows))
    tested = tested - _product(rest, _product(rest.T, tested))
    if tested.shape[1] == 1:  # keeps its sign
        return tested / np.linalg.norm(tested), rest
    return _orthonormal(tested), rest


def _product(a: NDArray[np.floating], b: NDArray[np.floating]) -> Float64:
    """Return the matrix product, in an order that does not depend on the number of threads."""
    return np.asarray(np.einsum("ij,jk->ik", a, b))


def _orthonormal(columns: Float64) -> Float64:
    """Return an orthonormal basis of the columns, which may depend on each other."""
    if not columns.shape[1]:
        return columns
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-9 * max(1.0, sizes[0])]


def _explains_constant(rest: Float64) -> bool:
    one = np.ones((len(rest), 1))
    return bool(
        np.linalg.norm(one - _product(rest, _product(rest.T, one))) < 1e-6 * len(rest) ** 0.5
    )


def _residual_tiles(values: NDArray[np.floating], rest: Float64, valid: Bool) -> Float32:
    """Return the residuals of the rest at unit length, shape (n_tiles, n_images, WIDTH).

    Voxels that are not valid, and those that fill the last tile, are zero.
    """
    n_images, n_voxels = values.shape
    n_tiles = -(-n_voxels // WIDTH)
    tiles = np.zeros((n_tiles, n_images, WIDTH), np.float32)
    together = max(1, (1 << 24) // (n_images * WIDTH))
    for first in range(0, n_tiles, together):
        start, stop = first * WIDTH, min((first + together) * WIDTH, n_voxels)
        block = np.zeros((n_images, min(together, n_tiles - first) * WIDTH))
        block[:, : stop - start] = values[:, start:stop]
        block[:, : stop - start][:, ~valid[start:stop]] = 0
        fill_tiles(block, rest, tiles[first : first + together])
    return tiles


def _permuted(
    tiles: Float32,
    regressors: Float64,
    places: Int32,
    signs: NDArray[np.int8],
    observed: Float32,
    settings: _Settings,
) -> tuple[Float64, NDArray[np.int64]]:
    """Return the maxima of each permutation, and how often each voxel reached its own value."""
    maxima = np.empty((len(places), 4))
    reached = np.zeros(observed.size, np.int64)
    for first in range(0, len(places), _TOGETHER):
        chosen = slice(first, first + _TOGETHER)
        # shape (n_images, permutations, regressors)
        moved = regressors[places[chosen].T] * signs[chosen].T[:, :, np.newaxis]
        heights = _heights(tiles, moved, settings)
        count_reached(heights, observed, settings.sides, reached)
        maxima[chosen] = find_maxima(
            heights,
            settings.sides,
            settings.threshold,
            settings.tfce_neighbours,
            settings.neighbours,
            *settings.powers,
        )
    return maxima, reached


def _heights(tiles: Float32, regressors: Float64, settings: _Settings) -> Float32:
    """Return t, or the root of F, shape (n_permutations, n_voxels)."""
    flat = np.ascontiguousarray(regressors).reshape(len(regressors), -1)
    n_voxels = len(settings.neighbours)
    n_each, n_tested = regressors.shape[2], settings.n_tested
    heights: Float32 = fitted(tiles, flat, n_each, n_tested, settings.df, settings.is_t, n_voxels)
    return heights


def _result(
    observed: ContrastMap,
    height: Float32,
    maxima: Float64,
    reached: NDArray[np.int64],
    sign: float,
    how: _How,
    settings: _Settings,
) -> PermutationTest:
    extent_power, height_power = settings.powers
    tfce = np.zeros_like(height)
    clusters = np.zeros(height.size, np.int32)
    sizes, masses = [np.zeros(0, np.int64)], [np.zeros(0)]
    for side in (1, -1)[: settings.sides]:
        above = np.maximum(np.float32(side) * height, np.float32(0))
        weights = above.astype(np.float64) ** (height_power + 1) / (height_power + 1)
        tfce += side * enhance(above, weights, settings.tfce_neighbours, extent_power)
        labels, count = components(above > settings.threshold, settings.neighbours)
        size, mass = cluster_sizes(labels, count, above, settings.threshold)
        clusters += np.where(labels > 0, labels + sum(map(len, sizes)), 0).astype(np.int32)
        sizes.append(size)
        masses.append(mass)
    size, mass = np.concatenate(sizes), np.concatenate(masses)
    heaviest = np.argsort(-mass, kind="stable")
    rank = np.zeros(len(mass) + 1, np.int32)
    rank[heaviest + 1] = np.arange(1, len(mass) + 1)
    n = len(maxima)
    score = np.abs(height) if settings.sides == 2 else height
    return PermutationTest(
        statistic=observed.statistic,
        distribution=observed.distribution,
        tfce=np.float32(sign) * tfce,
        clusters=rank[clusters],
        cluster_size=size[heaviest],
        cluster_mass=mass[heaviest],
        threshold=settings.threshold,
        p_uncorrected=np.where(observed.valid, (1 + reached) / (1 + n), 1.0),
        p_voxel=_corrected(score, maxima[:, 0]),
        p_tfce=_corrected(np.abs(tfce), maxima[:, 1]),
        p_size=_corrected(size[heaviest], maxima[:, 2]),
        p_mass=_corrected(mass[heaviest], maxima[:, 3]),
        maxima=maxima,
        scheme=how,
        n_permutations=n,
        valid=observed.valid,
    )


def _corrected(observed: NDArray, maxima: Float64) -> Float64:
    """Return the share of permutations whose maximum reaches each value, itself among them."""
    ordered = np.sort(maxima)
    below = np.searchsorted(ordered, observed - np.abs(observed) * (1 - SAME), side="left")
    return np.asarray((1 + len(maxima) - below) / (1 + len(maxima)))

"""Robust distances of scans from the bulk of all: minimum covariance determinant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.robust import MAD_TO_SD, tail_cutoff

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]

ROWS_PER_DIMENSION = 5
"""Rousseeuw and van Zomeren 1990, 10.1080/01621459.1990.10474920: with fewer rows for each
dimension the bulk cannot be told from what lies outside it."""
SHARE = 0.75
"""Of the rows that the bulk has at least."""
_RIDGE = 1e-6
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Distances:
    """How far each row lies from the bulk.

    Attributes
    ----------
    score : ndarray, shape (n,)
        Mahalanobis distance from the bulk among the components.
    score_cutoff : float
    orthogonal : ndarray, shape (n,)
        Distance from the components: zero where they are all that the columns span.
    orthogonal_cutoff : float
        Infinite where there is no such distance.
    n_components : int
    """

    score: Float64
    score_cutoff: float
    orthogonal: Float64
    orthogonal_cutoff: float
    n_components: int


def robust_distances(z: Float64, *, alpha: float = 0.001) -> Distances | None:
    """Return the distances of the rows from their bulk; None for too few rows to tell.

    There are at least five rows for each dimension: with fewer, the columns are replaced by their
    first robust components (spherical ones: Locantore et al. 1999, 10.1007/BF02595862), and the
    distance from these is given too (Hubert et al. 2005, 10.1198/004017004000000563).

    Parameters
    ----------
    z : ndarray, shape (n, p)
        Robustly centred and scaled columns (see :func:`bids_qsm.statistics.robust.robust_z`),
        without NaN.
    alpha : float
        Share of the rows of a normal distribution beyond each of the two cutoffs.

    Returns
    -------
    Distances or None
        None for fewer than ten rows, or fewer than two columns.

    Notes
    -----
    The cutoff of the score is that of Cerioli 2010, 10.1198/jasa.2009.tm09147, for rows that the
    reweighted estimate leaves out, or what the spread of the distances themselves gives, if that is
    more.  Memory: some times ``z``.
    """
    n, p = z.shape
    q = min(p, n // ROWS_PER_DIMENSION)
    if q < 2:
        return None
    axes = _spherical_axes(z)[:, :q] if q < p else np.eye(p)
    scores = np.einsum("np,pq->nq", z, axes)
    rest = z - np.einsum("nq,pq->np", scores, axes)
    orthogonal = np.sqrt(np.einsum("np,np->n", rest, rest))
    orthogonal_cutoff = _cube_root_cutoff(orthogonal, alpha) if q < p else np.inf
    centre, covariance = deterministic_mcd(scores)
    squared = _squared(scores, centre, covariance)
    squared *= stats.chi2.median(q) / np.median(squared)
    limit = stats.chi2.ppf(0.975, q)
    inside = squared <= limit
    w = int(inside.sum())
    centre, covariance = _moments(scores[inside])
    if w < n:  # what lies outside was cut off of the normal distribution too
        covariance *= 0.975 / stats.chi2.cdf(limit, q + 2)
    score = np.sqrt(_squared(scores, centre, covariance))
    ratio = (w + 1) * (w - 1) * q / (w * (w - q))
    normal = float(np.sqrt(ratio * stats.f.isf(alpha, q, w - q)))
    # metrics are not quite normal: among many scans that would flag too many
    cutoff = max(normal, _cube_root_cutoff(score, alpha))
    return Distances(score, cutoff, orthogonal, orthogonal_cutoff, q)


def deterministic_mcd(x: Float64, share: float = SHARE) -> tuple[Float64, Float64]:
    """Return centre and covariance of the rows whose covariance has the least determinant.

    The deterministic algorithm of Hubert, Rousseeuw and Verdonck 2012,
    10.1080/10618600.2012.672100: six robust starts, each improved until it stays.  No random
    number is drawn; the scale is the MAD in place of Qn.

    Parameters
    ----------
    x : ndarray, shape (n, p)
        n at least 2 p; columns of comparable scale.
    share : float
        Of the rows, from 0.5 (most robust) to 1.

    Returns
    -------
    centre : ndarray, shape (p,)
    covariance : ndarray, shape (p, p)
        Of the chosen rows alone, not made consistent.
    """
    n, p = x.shape
    half = (n + p + 1) // 2
    h = min(n, int(2 * half - n + 2 * (n - half) * share))
    z = (x - np.median(x, axis=0)) / np.maximum(_mads(x), _RIDGE)
    best: tuple[float, Rows] | None = None
    for start in _starts(z):
        rows = _concentrated(z, _first_rows(z, start), h)
        size = float(np.linalg.slogdet(_moments(z[rows])[1])[1])
        if best is None or size < best[0] - 1e-12:
            best = size, rows
    assert best is not None
    return _moments(x[best[1]])


def _starts(z: Float64) -> Iterator[Float64]:
    """Yield the six scatter matrices of the algorithm."""
    n = len(z)
    ranks = stats.rankdata(z, axis=0)
    yield _correlation(np.tanh(z))
    yield _correlation(ranks)
    yield _correlation(stats.norm.ppf((ranks - 1 / 3) / (n + 1 / 3)))
    length = np.sqrt(np.einsum("np,np->n", z, z))
    signs = z / np.maximum(length, _RIDGE)[:, None]
    yield np.einsum("np,nq->pq", signs, signs) / n
    yield _moments(z[np.argsort(length, kind="stable")[: -(-n // 2)]])[1]
    yield _pairwise(z)


def _pairwise(z: Float64) -> Float64:
    """Return covariances of pairs of columns by robust scales (Gnanadesikan and Kettenring)."""
    p = z.shape[1]
    scatter = np.eye(p)
    for i in range(p):
        for j in range(i):
            both = _mads(np.stack([z[:, i] + z[:, j], z[:, i] - z[:, j]], axis=1)) ** 2
            scatter[i, j] = scatter[j, i] = (both[0] - both[1]) / 4
    return scatter


def _first_rows(z: Float64, scatter: Float64) -> Rows:
    """Return the half of the rows next to the centre, by the axes of a scatter matrix."""
    _, axes = np.linalg.eigh(scatter)
    along = np.einsum("np,pq->nq", z, axes)
    scales = np.maximum(_mads(along), _RIDGE)
    sphered = np.einsum("nq,pq->np", along / scales, axes)
    distance = ((along / scales - np.einsum("p,pq->q", np.median(sphered, axis=0), axes)) ** 2).sum(
        axis=1
    )
    return np.argsort(distance, kind="stable")[: -(-len(z) // 2)]


def _concentrated(z: Float64, rows: Rows, h: int) -> Rows:
    """Return h rows that are the nearest ones to their own centre."""
    for _ in range(_STEPS):
        nearest = np.argsort(_squared(z, *_moments(z[rows])), kind="stable")[:h]
        nearest.sort()
        if np.array_equal(nearest, rows):
            break
        rows = nearest
    return rows


def _spherical_axes(z: Float64) -> Float64:
    """Return the principal axes of the rows' directions, that of the most spread first."""
    length = np.sqrt(np.einsum("np,np->n", z, z))
    signs = z / np.maximum(length, _RIDGE)[:, None]
    _, axes = np.linalg.eigh(np.einsum("np,nq->pq", signs, signs))
    return axes[:, ::-1]


def _cube_root_cutoff(distances: Float64, alpha: float) -> float:
    """Return the cutoff of distances whose squares' cube roots are about normal."""
    roots = distances ** (2 / 3)
    middle, scale = np.median(roots), _mads(roots[:, None])[0]
    return float((middle + scale * tail_cutoff(len(roots), alpha)) ** 1.5)


def _moments(x: Float64) -> tuple[Float64, Float64]:
    """Return mean and covariance, the latter with a ridge so that it can be inverted."""
    centre = x.mean(axis=0)
    off = x - centre
    covariance = np.einsum("np,nq->pq", off, off) / max(1, len(x) - 1)
    return centre, covariance + _RIDGE * np.eye(x.shape[1])


def _squared(x: Float64, centre: Float64, covariance: Float64) -> Float64:
    off = x - centre
    inverse = np.linalg.inv(covariance)
    return np.asarray(np.einsum("np,np->n", np.einsum("np,pq->nq", off, inverse), off))


def _correlation(x: Float64) -> Float64:
    _, covariance = _moments(x)
    scale = np.sqrt(np.diag(covariance))
    return covariance / scale / scale[:, None]


def _mads(x: Float64) -> Float64:
    return MAD_TO_SD * np.median(np.abs(x - np.median(x, axis=0)), axis=0)

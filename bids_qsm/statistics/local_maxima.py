"""Local maxima of a t field on the grid of its voxels: a bound for peaks of rough noise.

The highest voxel of a mask is a local maximum: the chance that it exceeds a height is no more than
the mean number of local maxima above it.  Random field theory takes the field between the voxels
too, and so asks for more than needed where the noise is not smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit, prange
from scipy import interpolate, special, stats

from bids_qsm.statistics.glm import Distribution, Float64
from bids_qsm.statistics.smoothness import Smoothness

_HEIGHTS = np.concatenate([np.arange(0, 8, 0.4), np.geomspace(8, 80, 14)])
_LOG_VARIANCES = np.linspace(math.log(1e-5), math.log(1.99), 120)


def maxima_above(
    distribution: Distribution, smoothness: Smoothness
) -> Callable[[Float64], Float64]:
    """Return a function that gives the mean number of local maxima of a t field above heights.

    A local maximum is a voxel above its neighbours along the axes.  The noise is taken to have,
    close by, an autocorrelation that is Gaussian and a product of those along the axes.

    Parameters
    ----------
    distribution : Distribution
        Of t.
    smoothness : Smoothness

    Returns
    -------
    callable
        Of heights above 0.

    References
    ----------
    Worsley 2005, 10.1016/j.neuroimage.2005.07.056; the height that a neighbour must not reach is
    that of a t field, not of a Gaussian one.
    """
    df = distribution.df_denominator
    counts = _count_maxima(df, smoothness)
    rate = interpolate.PchipInterpolator(_HEIGHTS, np.log(np.maximum(counts, 1e-300)))
    law = stats.norm if math.isinf(df) else stats.t(df)
    nodes, weights = np.polynomial.legendre.leggauss(48)
    # The integral over heights above one is a mean over shares of the tail's probability; the
    # power puts nodes where that is small.
    share = ((nodes + 1) / 2) ** 3
    weights = weights * 1.5 * ((nodes + 1) / 2) ** 2

    def above(height: Float64) -> Float64:
        tail = law.sf(np.atleast_1d(height))
        at = np.clip(law.isf(tail[:, None] * share), 0, _HEIGHTS[-1])
        total = tail * np.einsum("hn,n->h", np.exp(rate(at)), weights)
        return np.reshape(total, np.shape(height))

    return above


def _count_maxima(df: float, smoothness: Smoothness) -> Float64:
    """Return how many voxels would be local maxima if all had each of the heights."""
    r = 1 - np.exp(_LOG_VARIANCES) / 2
    variance = np.maximum(smoothness.step_variance, 1e-30).astype(np.float64)
    place = (np.log(variance) - _LOG_VARIANCES[0]) / (_LOG_VARIANCES[1] - _LOG_VARIANCES[0])
    place = np.clip(place, 0, r.size - 1.001)
    counts = np.zeros(_HEIGHTS.size)
    for length, weight in _chi(df + 1):
        tables = np.stack([_chances_of_lower(t, r, df, length) for t in _HEIGHTS])
        counts += weight * _sum_of_products(
            tables, place, smoothness.neighbours, smoothness.resels_per_voxel
        )
    return counts


def _chi(df: float) -> list[tuple[float, float]]:
    """Return three lengths of a vector of ``df`` normal variables and their weights.

    They have the mean and the variance of all such lengths; infinite ones stand for themselves.
    """
    if math.isinf(df):
        return [(math.inf, 1.0)]
    mean = math.sqrt(2) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
    step = math.sqrt(3 * (df - mean**2))
    return [(mean - step, 1 / 6), (mean, 2 / 3), (mean + step, 1 / 6)]


def _chances_of_lower(t: float, r: Float64, df: float, length: float) -> Float64:
    """Return the chances that 0, 1 and 2 neighbours along an axis are lower than ``t``.

    A t field is the tangent of the angle of a vector of ``df + 1`` normal variables, whose
    ``length`` is independent of it.  What the neighbour's vector has across makes its angle, and
    so its t, lower.
    """
    noise = np.sqrt(1 - r**2)
    chances = np.zeros((3, r.size))
    for across, weight in _chi(df - 1):
        if math.isinf(df):
            limit = t * noise / (1 + r)
        else:
            drop = noise**2 * (across**2 / df)
            along = r * length / math.sqrt(df)
            root = np.sqrt(np.maximum(along**2 + (1 - t**2 / df) * drop, 0))
            limit = t * drop / noise / (along + root)
        one = special.ndtr(limit)
        # What two neighbours have apart from the voxel is correlated by -r**2.
        both = one - 2 * special.owens_t(limit, np.sqrt((1 + r**2) / (1 - r**2)))
        chances += weight * np.stack([np.ones(r.size), one, np.maximum(both, 0)])
    return chances


@njit(parallel=True, cache=True)
def _sum_of_products(tables, place, neighbours, searched):  # type: ignore[no-untyped-def]
    n_heights = tables.shape[0]
    n_voxels = searched.size
    width = 4096
    chunks = (n_voxels + width - 1) // width
    sums = np.zeros((chunks, n_heights))
    for chunk in prange(chunks):
        for v in range(chunk * width, min((chunk + 1) * width, n_voxels)):
            if searched[v] <= 0:
                continue
            for h in range(n_heights):
                product = 1.0
                for axis in range(3):
                    low = int(place[axis, v])
                    share = place[axis, v] - low
                    row = tables[h, neighbours[axis, v]]
                    product *= row[low] + share * (row[low + 1] - row[low])
                sums[chunk, h] += product
    return sums.sum(axis=0)

"""Family-wise corrected p of peaks and clusters by random field theory.

The chance that a statistic exceeds a height anywhere in a mask is close to the mean Euler
characteristic of what is above it: the number of its parts at such heights.  It is a sum over
dimensions of resels of the mask times densities that depend on the statistic alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from bids_qsm.statistics.glm import Distribution, Float64, upper_quantile, upper_tail
from bids_qsm.statistics.smoothness import Smoothness

_FOUR_LOG_2 = 4 * math.log(2)
_HIGHEST_PRIMARY_P = 0.025
_HIGHEST_RISE = 25.0
"""Height above which Owen's function leaves the range of numbers."""


def ec_densities(statistic: ArrayLike, distribution: Distribution) -> Float64:
    """Return the density of the Euler characteristic for each resel in 0 to 3 dimensions.

    Parameters
    ----------
    statistic : array_like
    distribution : Distribution

    Returns
    -------
    ndarray of float64, shape (4, ...)
        One-sided: of the parts where the field is higher.

    References
    ----------
    Worsley 1996, 10.1002/(SICI)1097-0193(1996)4:1<58, table II.
    """
    values = np.asarray(statistic, np.float64)
    if distribution.kind == "t":
        densities = _t_densities(values, distribution.df_denominator)
    else:
        f = np.maximum(values, 1e-12)
        densities = _f_densities(f, distribution.df_numerator, distribution.df_denominator)
    scale = _FOUR_LOG_2 ** (np.arange(1, 4) / 2)
    return np.stack(
        [upper_tail(values, distribution)] + [s * d for s, d in zip(scale, densities, strict=True)]
    )


def _t_densities(t: Float64, df: float) -> list[Float64]:
    """Return the densities for unit roughness in 1, 2 and 3 dimensions."""
    if math.isinf(df):
        fall, lead, curve = np.exp(-(t**2) / 2), 1.0, t**2 - 1
    else:
        fall = np.exp(-(df - 1) / 2 * np.log1p(t**2 / df))
        lead = math.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / math.sqrt(df / 2)
        curve = (df - 1) / df * t**2 - 1
    turn = 2 * math.pi
    return [fall / turn, lead * t * fall / turn**1.5, curve * fall / turn**2]


def _f_densities(f: Float64, k: float, df: float) -> list[Float64]:
    """Return the densities for unit roughness in 1, 2 and 3 dimensions.

    A chi-squared field is the limit of many degrees of freedom.
    """
    if math.isinf(df):
        df = 1e7
    x = k * f / df
    below = special.gammaln(df / 2) + special.gammaln(k / 2)
    fall = -(df + k - 2) / 2 * np.log1p(x)
    turn = 2 * math.pi

    def common(d: int) -> Float64:
        lead = special.gammaln((df + k - d) / 2) - below - math.log(2) * (d - 2) / 2
        return np.asarray(np.exp(lead + (k - d) / 2 * np.log(x) + fall) / turn ** (d / 2))

    second = (df - 1) * x - (k - 1)
    third = (df - 1) * (df - 2) * x**2 - (2 * df * k - df - k - 1) * x + (k - 1) * (k - 2)
    return [common(1), common(2) * second, common(3) * third]


def expected_ec(statistic: ArrayLike, distribution: Distribution, resels: ArrayLike) -> Float64:
    """Return the mean Euler characteristic of the parts of a mask above each height, one-sided.

    Parameters
    ----------
    statistic : array_like
    distribution : Distribution
    resels : array_like, shape (4,)
        Of the mask in 0 to 3 dimensions.
    """
    densities = ec_densities(statistic, distribution)
    return np.einsum("d,d...->...", np.asarray(resels, np.float64), densities)


def peak_p(
    statistic: ArrayLike,
    distribution: Distribution,
    smoothness: Smoothness,
    *,
    two_sided: bool = True,
    stationary: bool = False,
) -> Float64:
    """Return the family-wise corrected p of peaks.

    It is the lesser of two bounds: by random field theory, for a field that is known at the
    voxels only (:func:`grid_correction`), and by the number of voxels.

    Parameters
    ----------
    statistic : array_like
        Heights of peaks; where ``two_sided``, their sizes count.
    distribution : Distribution
    smoothness : Smoothness
    two_sided : bool
        Whether peaks of either sign were searched.  F has one side.
    stationary : bool
        Whether the noise is taken to be equally smooth everywhere.

    References
    ----------
    Worsley 1996, 10.1002/(SICI)1097-0193(1996)4:1<58.
    """
    height, sides = _sided(statistic, distribution, two_sided)
    bound = _peak_bound(distribution, smoothness, stationary)
    return np.clip(sides * bound(height), 0, 1)


def peak_threshold(
    alpha: float,
    distribution: Distribution,
    smoothness: Smoothness,
    *,
    two_sided: bool = True,
    stationary: bool = False,
) -> float:
    """Return the height that a peak must have for a family-wise corrected p of ``alpha``.

    The parameters are those of :func:`peak_p`.
    """
    _checked_probability(alpha)
    sides = 2 if two_sided and distribution.kind == "t" else 1
    highest = upper_quantile(alpha / sides / smoothness.n_voxels, distribution)
    lowest = upper_quantile(alpha / sides, distribution)

    bound = _peak_bound(distribution, smoothness, stationary)

    def excess(height: float) -> float:
        return sides * float(bound(np.asarray(height))) - alpha

    if excess(lowest) <= 0:
        return lowest
    return float(optimize.brentq(excess, lowest, highest * (1 + 1e-9), xtol=1e-6))


def _peak_bound(
    distribution: Distribution, smoothness: Smoothness, stationary: bool
) -> Callable[[Float64], Float64]:
    """Return a function that bounds the chance of a higher peak of one sign."""
    resels = smoothness.resels if stationary else smoothness.local_resels

    def by_fields(height: Float64) -> Float64:
        densities = ec_densities(height, distribution)
        missed = grid_correction(height, distribution, smoothness.fwhm_voxels)
        return np.einsum("d,d...->...", resels, densities * missed)

    low = np.linspace(0, 4 if distribution.kind == "t" else 16, 401)
    turning = low[np.argmax(by_fields(low))]

    def bound(height: Float64) -> Float64:
        by_voxels = smoothness.n_voxels * upper_tail(height, distribution)
        # Below its highest point a mean Euler characteristic counts holes too.
        return np.where(height < turning, by_voxels, np.minimum(by_fields(height), by_voxels))

    return bound


def grid_correction(
    height: ArrayLike, distribution: Distribution, fwhm_voxels: ArrayLike
) -> Float64:
    """Return by how much parts of a field above a height are fewer on the grid of its voxels.

    Along a line, a Gaussian field rises through a height *u* from one voxel to the next with the
    probability ``2 T(u, h)``, with Owen's function *T* and ``h**2 = (1 - r) / (1 + r)`` by the
    neighbours' correlation *r*; the field between the voxels does so more often.  The ratio
    stands for each dimension.  It is one for smooth noise, and makes of the mean Euler
    characteristic the number of voxels times their own p for rough noise: without it,
    corrected p are too large by a fifth at an FWHM of 6 voxels, and by half at 4.

    Parameters
    ----------
    height : array_like
        Of t, or of F, which is high as the root of its numerator's sum is.
    distribution : Distribution
    fwhm_voxels : array_like, shape (3,)

    Returns
    -------
    ndarray of float64, shape (4, ...)
        For 0 to 3 dimensions.
    """
    values = np.asarray(height, np.float64)
    if distribution.kind == "F":
        values = np.sqrt(distribution.df_numerator * np.maximum(values, 0))
    roughness = _FOUR_LOG_2 / np.asarray(fwhm_voxels, np.float64) ** 2
    h = np.sqrt(np.tanh(roughness / 4))  # r is exp(-roughness / 2)
    u = np.minimum(values, _HIGHEST_RISE)[..., None]
    rises = 4 * math.pi * special.owens_t(u, h) * np.exp(u**2 / 2) / np.sqrt(roughness)
    ratio = np.exp(np.log(rises).mean(axis=-1))
    return np.stack([ratio**d for d in range(4)])


def cluster_resels(
    labels: NDArray[np.integer], smoothness: Smoothness, *, stationary: bool = False
) -> Float64:
    """Return the size in resels of the clusters 1, 2, ... that voxels belong to.

    Parameters
    ----------
    labels : ndarray of int, shape (n_voxels,)
        Cluster of each voxel of the mask; 0 for none.
    smoothness : Smoothness
    stationary : bool
        Count voxels, each of the mean size, not each with its own resels.
    """
    if stationary:
        weights = np.full(labels.shape, smoothness.mean_resels_per_voxel)
    else:
        weights = smoothness.resels_per_voxel.astype(np.float64)
    return np.asarray(np.bincount(labels, weights=weights), np.float64)[1:]


def primary_threshold(p: float, distribution: Distribution, *, two_sided: bool = True) -> float:
    """Return the height that forms clusters, by a voxel's own p."""
    _checked_probability(p)
    return upper_quantile(p / (2 if two_sided and distribution.kind == "t" else 1), distribution)


def cluster_p(
    resels: ArrayLike,
    threshold: float,
    distribution: Distribution,
    smoothness: Smoothness,
    *,
    two_sided: bool = True,
    stationary: bool = False,
) -> Float64:
    """Return the family-wise corrected p of clusters by their size.

    Parameters
    ----------
    resels : array_like
        Sizes, as :func:`cluster_resels` counts them with the same ``stationary``.
    threshold : float
        Height that formed the clusters; 3 and more for t.
    distribution : Distribution
    smoothness : Smoothness
    two_sided : bool
        Whether clusters of either sign were searched, each sign above the threshold.
    stationary : bool
        Whether the noise is taken to be equally smooth everywhere.

    Raises
    ------
    ValueError
        If the threshold is that of a voxel's p above .025 on one side.

    Notes
    -----
    Clusters about peaks inside the mask have the mean size that a field without borders would
    give them; those that a border cuts off share what is left of the expected volume above the
    threshold.

    References
    ----------
    Friston 1994, 10.1002/hbm.460010306; Cao 1999, 10.1239/aap/1029955192 (t and F fields);
    Hayasaka 2004, 10.1016/j.neuroimage.2004.01.041 (smoothness that varies).
    """
    height, sides = _sided(threshold, distribution, two_sided)
    if upper_tail(height, distribution) > _HIGHEST_PRIMARY_P:
        raise ValueError(
            f"the threshold {threshold:g} is too low to form clusters that random field theory "
            "knows: take one of p = .001 (primary_threshold)."
        )
    sizes = np.asarray(resels, np.float64)
    if stationary:
        mask, df_smoothness = smoothness.resels, None
        volume = smoothness.mean_resels_per_voxel * smoothness.n_voxels
        share = float(upper_tail(height, distribution))
    else:
        mask, df_smoothness = smoothness.local_resels, smoothness.df
        volume = float(smoothness.resels_per_voxel.sum(dtype=np.float64))
        share = _share_of_measured_resels(float(height), distribution, smoothness.fwhm_voxels)
    inside = float(expected_ec(height, distribution, mask * [0, 0, 0, 1]))
    border = max(float(expected_ec(height, distribution, mask)) - inside, 0.0)
    larger = np.zeros(sizes.shape)
    for number, occupied in ((inside, mask[3]), (border, volume - mask[3])):
        if number > 0 and occupied > 0:
            mean = share * occupied / number
            larger += number * cluster_survival(
                sizes / mean, distribution, df_smoothness=df_smoothness
            )
    return -np.expm1(-sides * larger)


def _share_of_measured_resels(
    height: float, distribution: Distribution, fwhm_voxels: Float64
) -> float:
    """Return the mean share of a mask's resels, as measured by voxel, that lies above a height.

    It is more than the share of the voxels.  The resels of a voxel, counted from residuals that
    were divided by their root sum of squares, go with that sum's power of -3/2; and the statistic
    is high where the sum is low.  Within the integral over the statistic that power takes three
    degrees of freedom away.  As a voxel's resels are those of the cubes about it, the excess is
    by as much less as its neighbours' sums differ from its own.
    """
    df = distribution.df_denominator
    share = float(upper_tail(height, distribution))
    if math.isinf(df):
        return share
    lower = Distribution(distribution.kind, distribution.df_numerator, df - 3)
    scale = (df - 3) / df
    scaled = height * (math.sqrt(scale) if distribution.kind == "t" else scale)
    excess = float(upper_tail(scaled, lower)) / share
    alike = np.prod((1 + np.exp(-_FOUR_LOG_2 / fwhm_voxels**2)) / 2)
    return share * excess ** float(alike)


def cluster_survival(
    size: ArrayLike, distribution: Distribution, *, df_smoothness: float | None = None
) -> Float64:
    r"""Return the probability that one cluster in three dimensions is larger than a size.

    High above a threshold a cluster is an ellipsoid.  With *B* a beta variable for the height
    of its peak, and chi-squared variables for the peak's curvature, its size is in proportion
    to :math:`B^{3/2} U_0^{3/2} / \sqrt{U_1 U_2 U_3}` (Cao 1999); so the size's logarithm is
    a sum, whose characteristic function is a product of gamma functions.

    Parameters
    ----------
    size : array_like
        Over the mean size.
    distribution : Distribution
    df_smoothness : float, optional
        Degrees of freedom of the residuals from which the cluster's resels were counted, voxel
        by voxel: what is uncertain in them makes large clusters more frequent (Worsley 2002,
        10.1006/nimg.2001.0933).
    """
    sizes = np.atleast_1d(np.asarray(size, np.float64))
    k, df = distribution.df_numerator, distribution.df_denominator
    factors = _curvature_factors(k, df)
    if df_smoothness is not None:
        factors += [(df_smoothness - 1 - d, 0.5) for d in range(3)] + [(df_smoothness, -1.5)]

    def log_moment(s: NDArray[np.complexfloating] | float) -> NDArray[np.complexfloating]:
        total = special.loggamma(1 + 1.5 * s)
        if not math.isinf(df):
            b = (df - 3) / 2
            total = total - special.loggamma(1 + b + 1.5 * s) + special.loggamma(1 + b)
        for degrees, power in factors:
            half = degrees / 2
            total = total + special.loggamma(half + power * s) - special.loggamma(half)
        return np.asarray(total)

    # Gil-Pelaez' inversion, by midpoints: the error falls exponentially with their number.
    w = (np.arange(2000) + 0.5) * 0.03
    wave = np.exp(log_moment(1j * w) - 1j * w * log_moment(1.0).real)
    with np.errstate(divide="ignore"):
        y = np.clip(np.log(sizes), -100, 100)
    terms = np.imag(np.exp(-1j * np.outer(y, w)) * wave) / w
    survival = 0.5 + terms.sum(axis=1) * 0.03 / math.pi
    return np.reshape(np.clip(survival, 0, 1), np.shape(size))


def _curvature_factors(k: float, df: float) -> list[tuple[float, float]]:
    """Return degrees of freedom and powers of the chi-squared variables in a cluster's size."""
    if math.isinf(df):
        return []
    return [(k + df - 3, 1.5), (df + 1, -0.5), (df, -0.5), (df - 1, -0.5)]


def _sided(
    statistic: ArrayLike, distribution: Distribution, two_sided: bool
) -> tuple[Float64, int]:
    """Return heights of one sign, and the number of signs searched."""
    values = np.asarray(statistic, np.float64)
    if two_sided and distribution.kind == "t":
        return np.abs(values), 2
    return values, 1


def _checked_probability(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"a probability must lie between 0 and 1, not {p}.")

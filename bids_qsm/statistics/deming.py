"""Straight lines through two measurements that are both in error: Deming, Passing and Bablok."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from bids_qsm.statistics.intervals import Float64, checked_confidence, student


@dataclass(frozen=True)
class Line:
    """The line second = intercept + slope * first, with confidence intervals.

    The methods agree if the interval of the slope holds 1 and that of the intercept 0.
    ``p_linearity`` is small if the points do not follow a line (Passing-Bablok only, else NaN).
    """

    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    intercept_low: float
    intercept_high: float
    p_linearity: float = np.nan


def deming(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    variance_ratio: float = 1.0,
    confidence: float = 0.95,
) -> Line:
    """Fit a line by orthogonal distances, with jackknife intervals.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Finite values.
    variance_ratio : float
        Variance of the errors of ``second`` over that of ``first``.
    confidence : float
        Coverage of the intervals (Student's *t*, n - 2 degrees of freedom).

    Returns
    -------
    Line

    Raises
    ------
    ValueError
        If there are fewer than four subjects, or the two do not vary together.

    References
    ----------
    Linnet 1990, 10.1002/sim.4780091210 (jackknife); Deming 1943.
    """
    x, y = _checked(first, second, 4)
    if not variance_ratio > 0:
        raise ValueError(f"the ratio of error variances must be above 0, not {variance_ratio:g}.")
    n = x.size
    dx, dy = x - x.mean(), y - y.mean()
    moments = np.array([(dx * dx).sum(), (dy * dy).sum(), (dx * dy).sum()])
    slope = float(_deming_slope(moments[:, None], variance_ratio)[0])
    # moments without each subject in turn, about the mean of those that are left
    rest = moments[:, None] - n / (n - 1) * np.array([dx * dx, dy * dy, dx * dy])
    slopes = _deming_slope(rest, variance_ratio)
    intercept = float(y.mean() - slope * x.mean())
    intercepts = (y.mean() - dy / (n - 1)) - slopes * (x.mean() - dx / (n - 1))
    limits = [
        _jackknife(value, others, confidence)
        for value, others in ((slope, slopes), (intercept, intercepts))
    ]
    (low, high), (intercept_low, intercept_high) = limits
    return Line(slope, low, high, intercept, intercept_low, intercept_high)


def passing_bablok(
    first: NDArray[np.floating], second: NDArray[np.floating], *, confidence: float = 0.95
) -> Line:
    """Fit a line by the median of all pairs' slopes, shifted so that both measurements count alike.

    No distribution is assumed and outliers hardly matter.  Ties in both measurements carry no
    slope and are left out; a slope of exactly -1 is, too.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Finite values that grow together.
    confidence : float
        Coverage of the rank-based intervals.

    Returns
    -------
    Line
        With ``p_linearity`` of the cusum test.

    Raises
    ------
    ValueError
        If there are fewer than four subjects, or the two do not grow together.

    Notes
    -----
    Memory: some six times n (n - 1) / 2 float64.

    References
    ----------
    Passing & Bablok 1983, 10.1515/cclm.1983.21.11.709.
    """
    x, y = _checked(first, second, 4)
    n = x.size
    slopes, offset = _pair_slopes(x, y)
    total = slopes.size
    half_width = stats.norm.ppf(0.5 + checked_confidence(confidence) / 2)
    half_width *= np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = round((total - half_width) / 2)
    ranks = np.array([low - 1, total - low]) + offset
    middle = np.array([(total - 1) // 2, total // 2]) + offset
    slope = float(slopes[middle].mean()) if 0 < total > middle[1] else np.nan
    if not (0 < slope < np.inf):
        raise ValueError("the two measurements do not grow together: no Passing-Bablok line.")
    below = float(slopes[ranks[0]]) if ranks[0] >= 0 else -np.inf
    above = float(slopes[ranks[1]]) if ranks[1] < total else np.inf
    intercept = float(np.median(y - slope * x))
    ends = [float(np.median(y - b * x)) if np.isfinite(b) else np.nan for b in (above, below)]
    p = _cusum_p(x, y, slope, intercept)
    return Line(slope, below, above, intercept, ends[0], ends[1], p)


def _checked(
    first: NDArray[np.floating], second: NDArray[np.floating], least: int
) -> tuple[Float64, Float64]:
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.shape != y.shape or x.ndim != 1 or x.size < least:
        raise ValueError(f"a line needs {least} subjects with both measurements, not {x.size}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a line needs finite values of both measurements.")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("one of the measurements is constant: no line can be found.")
    return x, y


def _deming_slope(moments: Float64, ratio: float) -> Float64:
    """Return the slope for moments xx, yy, xy (rows); both forms are one, less rounding."""
    xx, yy, xy = moments
    gap = yy - ratio * xx
    root = np.sqrt(gap**2 + 4 * ratio * xy**2)
    if np.any(xy == 0):
        raise ValueError("the two measurements do not vary together: no Deming line.")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap > 0, (gap + root) / (2 * xy), 2 * ratio * xy / (root - gap))


def _jackknife(value: float, others: Float64, confidence: float) -> tuple[float, float]:
    n = others.size
    pseudo = n * value - (n - 1) * others
    error = pseudo.std(ddof=1) / np.sqrt(n)
    low, high, _ = student(value, error, n - 2, checked_confidence(confidence))
    return float(low), float(high)


def _pair_slopes(x: Float64, y: Float64) -> tuple[Float64, int]:
    """Return the sorted slopes between all pairs, and how many are below -1."""
    first, second = np.triu_indices(x.size, 1)
    dx, dy = x[second] - x[first], y[second] - y[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(dx == 0, np.sign(dy) * np.inf, dy / dx)
    slopes = slopes[~np.isnan(slopes) & (slopes != -1)]
    slopes.sort()
    return slopes, int((slopes < -1).sum())


def _cusum_p(x: Float64, y: Float64, slope: float, intercept: float) -> float:
    """Return p of a random order of the signs of residuals along the line."""
    residual = y - intercept - slope * x
    above, below = int((residual > 0).sum()), int((residual < 0).sum())
    if not above or not below:
        return np.nan
    score = np.where(residual > 0, np.sqrt(below / above), -np.sqrt(above / below))
    along = np.argsort(y + x / slope, kind="stable")
    cusum = np.cumsum(np.where(residual == 0, 0.0, score)[along])
    return float(special.kolmogorov(np.abs(cusum).max() / np.sqrt(below + 1)))

"""Differences of two measurements against their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.intervals import checked_confidence, student

LIMIT = 1.96
"""Limits of agreement hold 95 % of differences: the factor as published."""


@dataclass(frozen=True)
class BlandAltman:
    """Bias (second - first) and limits of agreement, each with its confidence interval.

    ``proportional_slope`` is by how much the difference grows with the mean of both; ``p_bias``
    and ``p_proportional`` test that bias and slope are zero.  Undefined values are NaN.
    """

    n: int
    bias: float
    bias_low: float
    bias_high: float
    p_bias: float
    sd_difference: float
    loa_lower: float
    loa_lower_low: float
    loa_lower_high: float
    loa_upper: float
    loa_upper_low: float
    loa_upper_high: float
    proportional_slope: float
    proportional_slope_low: float
    proportional_slope_high: float
    p_proportional: float


def bland_altman(
    first: NDArray[np.floating], second: NDArray[np.floating], confidence: float = 0.95
) -> BlandAltman:
    """Compare two measurements of the same subjects.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Finite values.
    confidence : float
        Coverage of all intervals.  Those of the limits of agreement are exact for normal
        differences (noncentral *t*).

    Raises
    ------
    ValueError
        If there are fewer than two subjects.

    References
    ----------
    Bland & Altman 1999, 10.1177/096228029900800204; Carkeet 2015,
    10.1097/OPX.0000000000000513 (exact intervals of the limits).
    """
    tail = (1 - checked_confidence(confidence)) / 2
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    n = x.size
    if n < 2:
        raise ValueError(f"two measurements are compared over two subjects or more, not {n}.")
    difference = y - x
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    low, high, p = student(bias, sd / np.sqrt(n), n - 1, confidence)
    noncentral = LIMIT * np.sqrt(n)
    near, far = stats.nct.ppf([tail, 1 - tail], n - 1, noncentral) * sd / np.sqrt(n)
    slope, slope_low, slope_high, p_slope = _slope((x + y) / 2, difference, confidence)
    return BlandAltman(
        n=n,
        bias=bias,
        bias_low=float(low),
        bias_high=float(high),
        p_bias=float(p),
        sd_difference=sd,
        loa_lower=bias - LIMIT * sd,
        loa_lower_low=float(bias - far),
        loa_lower_high=float(bias - near),
        loa_upper=bias + LIMIT * sd,
        loa_upper_low=float(bias + near),
        loa_upper_high=float(bias + far),
        proportional_slope=slope,
        proportional_slope_low=slope_low,
        proportional_slope_high=slope_high,
        p_proportional=p_slope,
    )


def _slope(
    mean: NDArray[np.float64], difference: NDArray[np.float64], confidence: float
) -> tuple[float, float, float, float]:
    n = mean.size
    from_mean = mean - mean.mean()
    spread = float((from_mean**2).sum())
    if n < 3 or spread == 0:
        return np.nan, np.nan, np.nan, np.nan
    slope = float((from_mean * difference).sum()) / spread
    residual = difference - difference.mean() - slope * from_mean
    error = float(np.sqrt((residual**2).sum() / (n - 2) / spread))
    low, high, p = student(slope, error, n - 2, confidence)
    return slope, float(low), float(high), float(p)

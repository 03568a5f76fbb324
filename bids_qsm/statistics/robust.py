"""Robust scores of single values: how far each lies from the median, in robust SD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Float64 = NDArray[np.float64]

MAD_TO_SD = 1.4826
MAD_EFFICIENCY = 0.37
"""Of the median absolute deviation for normal data: so much of the rows is the SD of as good as."""
FLOOR = 0.01
"""Of the way from the median to a bound: less than that is no deviation worth an SD."""
LARGEST = 999.0


@dataclass(frozen=True, eq=False)
class RobustScores:
    """Scores of the columns of a table.

    Attributes
    ----------
    z : ndarray, shape (n, m)
        NaN where a value is, or where more than half of a column has one value.
    median : ndarray, shape (m,)
        Of the values as they are.
    is_log : ndarray of bool, shape (m,)
        Whether the logarithms were scored.
    """

    z: Float64
    median: Float64
    is_log: NDArray[np.bool_]


def robust_z(values: Float64, low: Float64, high: Float64) -> RobustScores:
    """Return how many robust SD each value lies from its column's median.

    The robust SD is 1.4826 times the median absolute deviation from the median (Iglewicz and
    Hoaglin 1993, How to Detect and Handle Outliers).  Of columns that are above zero throughout
    the logarithms are scored: noise, ratios and volumes are skewed.  A deviation counts one SD at
    most for each hundredth of the way from the median to the bound on that side, so that a column
    whose values are nearly the same has no outlier that does not matter.

    Parameters
    ----------
    values : ndarray, shape (n, m)
        NaN where not known.
    low, high : ndarray, shape (m,)
        What is expected of a column; NaN where there is no bound.

    Returns
    -------
    RobustScores
    """
    is_known = np.isfinite(values)
    is_above = np.where(is_known, values, np.inf) > 0
    is_log = np.asarray(is_known.any(axis=0) & is_above.all(axis=0))
    median = _medians(values)
    scored = np.log(np.where(is_log & is_known, values, 1.0))
    scored = np.where(is_known, np.where(is_log, scored, values), np.nan)
    off = scored - _medians(scored)
    mad = MAD_TO_SD * _medians(np.abs(off))
    usable = mad > 1e-9 * np.maximum(1.0, np.abs(_medians(scored)))
    z = np.where(usable, off / np.where(usable, mad, 1.0), np.nan)
    deviation = values - median
    room = np.where(deviation < 0, median - low, high - median)
    floor = FLOOR * np.where(room > 0, room, np.nan)
    limit = np.abs(deviation) / floor
    z = np.sign(z) * np.fmin(np.abs(z), np.where(np.isfinite(limit), limit, np.inf))
    return RobustScores(np.clip(z, -LARGEST, LARGEST), median, is_log)


def tail_cutoff(n: int, alpha: float) -> float:
    """Return what a robust score of normal data exceeds with probability ``alpha``, on one side.

    Student's t: the median absolute deviation of n values is as sure as the SD of 0.37 n (Rousseeuw
    and Croux 1993, 10.1080/01621459.1993.10476408), so that few scans are judged with care.
    """
    return float(stats.t.isf(alpha, max(1.0, MAD_EFFICIENCY * (n - 1))))


def _medians(values: Float64) -> Float64:
    """Return the columns' medians of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    n = known.sum(axis=0)
    columns = np.arange(values.shape[1])
    lower, upper = (
        ordered[np.clip(place, 0, len(values) - 1), columns] for place in ((n - 1) // 2, n // 2)
    )
    return np.where(n > 0, (lower + upper) / 2, np.nan)

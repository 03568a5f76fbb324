"""Confidence intervals of shares, of rates and of standard deviations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Float64 = NDArray[np.float64]


def wilson(count: ArrayLike, total: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """Return the score interval of a share; NaN where nothing was counted.

    Parameters
    ----------
    count, total : array_like of int
        How many had it, of how many.
    confidence : float
        Coverage of the interval.

    References
    ----------
    Wilson 1927, 10.1080/01621459.1927.10502953.
    """
    n = np.where(np.asarray(total) > 0, total, np.nan)
    share = np.asarray(count) / n
    z2 = stats.norm.ppf(0.5 + confidence / 2) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def poisson_rate(count: ArrayLike, exposure: ArrayLike, confidence: float = 0.95) -> Any:
    """Return the exact interval of a rate: of ``count`` events in ``exposure`` units of time.

    References
    ----------
    Garwood 1936, 10.1093/biomet/28.3-4.437.
    """
    events, time = np.asarray(count, np.float64), np.asarray(exposure, np.float64)
    if np.any(events < 0) or np.any(time <= 0):
        raise ValueError("a rate needs a count of at least 0 and an exposure above 0.")
    tail = (1 - confidence) / 2
    low = np.where(events > 0, stats.chi2.ppf(tail, np.maximum(2 * events, 1)) / 2, 0)
    high = stats.chi2.isf(tail, 2 * events + 2) / 2
    return low / time, high / time


def deviation(sd: ArrayLike, freedom: ArrayLike, confidence: float = 0.95) -> Any:
    """Return the interval of a standard deviation that has so many degrees of freedom."""
    tail = (1 - confidence) / 2
    df = np.asarray(freedom, np.float64)
    value = np.asarray(sd)
    low = value * np.sqrt(df / stats.chi2.isf(tail, df))
    return low, value * np.sqrt(df / stats.chi2.ppf(tail, df))


def student(estimate: Any, error: Any, freedom: Any, confidence: float) -> Any:
    """Return the interval of an estimate with its standard error, and p of its being zero."""
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(np.divide(estimate, error)), freedom)
    return estimate - half, estimate + half, p


def checked_confidence(confidence: float) -> float:
    """Return a confidence that is a share, or refuse it."""
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is {confidence:g}: give a share such as 0.95.")
    return confidence

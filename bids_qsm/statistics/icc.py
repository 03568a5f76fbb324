"""Intraclass correlation of repeated measurements, of one table or of many voxels at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bids_qsm.statistics.intervals import Float64, checked_confidence

KINDS = ("1_1", "2_1", "3_1")
"""One-way random; two-way random, agreement; two-way mixed, consistency; single measurements."""


@dataclass(frozen=True)
class MeanSquares:
    """Analysis of variance of (n subjects, k occasions, ...): mean squares, one of each for a case.

    ``n`` counts the subjects measured on all *k* occasions; others are left out.
    """

    n: NDArray[np.int64]
    k: int
    between: Float64
    within: Float64
    occasions: Float64
    error: Float64


def mean_squares(values: NDArray[np.floating]) -> MeanSquares:
    """Return the mean squares of a two-way table of subjects and occasions.

    Parameters
    ----------
    values : ndarray, shape (n, k, ...)
        Trailing axes are cases of their own, such as voxels.  A subject without a finite value on
        each occasion is left out of that case.

    Returns
    -------
    MeanSquares
        Of shape (...); NaN where fewer than two subjects remain.  Memory: some three times the
        values in float64.
    """
    if values.ndim < 2 or values.shape[1] < 2:
        raise ValueError("an intraclass correlation needs two measurements of each subject.")
    k = values.shape[1]
    complete = np.isfinite(values).all(axis=1, keepdims=True)
    n = complete[:, 0].sum(axis=0)
    subjects = np.where(n > 1, n, np.nan)
    # counted from the least value, so that equal ones have no variance from rounding
    origin = np.where(complete, values, np.inf).min(axis=(0, 1), initial=np.inf)
    origin = np.where(np.isfinite(origin), origin, 0).astype(np.float64)
    filled = np.where(complete, values - origin, 0)
    grand = filled.sum(axis=(0, 1)) / (k * subjects)
    deviation = np.where(complete, filled - grand, 0)
    of_subject = deviation.mean(axis=1, keepdims=True)
    of_occasion = deviation.sum(axis=0) / subjects
    residual = deviation - of_subject
    within = (residual**2).sum(axis=(0, 1)) / (subjects * (k - 1))
    residual = np.where(complete, residual - of_occasion, 0)
    return MeanSquares(
        n,
        k,
        between=k * (of_subject[:, 0] ** 2).sum(axis=0) / (subjects - 1),
        within=within,
        occasions=subjects * (of_occasion**2).sum(axis=0) / (k - 1),
        error=(residual**2).sum(axis=(0, 1)) / ((subjects - 1) * (k - 1)),
    )


def intraclass(squares: MeanSquares, kind: str) -> Float64:
    """Return the intraclass correlation ``kind`` of :data:`KINDS`; NaN where all are equal."""
    n, k = squares.n, squares.k
    between, error = squares.between, _error(squares, kind)
    spread = between + (k - 1) * error
    if kind == "2_1":
        spread = spread + k * (squares.occasions - error) / np.maximum(n, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, (between - error) / spread, np.nan)


def interval(squares: MeanSquares, kind: str, confidence: float = 0.95) -> tuple[Float64, Float64]:
    """Return the limits of the confidence interval of :func:`intraclass`.

    References
    ----------
    McGraw & Wong 1996, 10.1037/1082-989X.1.1.30, table 7; Shrout & Fleiss 1979,
    10.1037/0033-2909.86.2.420.
    """
    tail = 0.5 + checked_confidence(confidence) / 2
    k, df_between = squares.k, squares.n - 1.0
    between, error = squares.between, _error(squares, kind)
    if kind == "2_1":
        return _agreement_interval(squares, tail)
    df_error = squares.n * (k - 1.0) if kind == "1_1" else df_between * (k - 1)
    lower = _quantile(df_between, df_error, tail) * error
    upper = _quantile(df_error, df_between, tail) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        low = (between - lower) / (between + (k - 1) * lower)
        high = (upper - error) / (upper + (k - 1) * error)
    return low, high


def icc(values: ArrayLike, confidence: float = 0.95) -> pd.DataFrame:
    """Return the intraclass correlations of single measurements.

    Parameters
    ----------
    values : array_like, shape (n, k)
        Measurement of each subject on each occasion (or by each rater).  Subjects with a value
        that is not finite are left out.
    confidence : float
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        One row for each of ICC(1,1), ICC(2,1) and ICC(3,1): ``kind, icc, icc_low, icc_high, f,
        df_1, df_2, p, n, k``; *F* and *p* test that subjects do not differ.

    Raises
    ------
    ValueError
        If fewer than two subjects have all measurements.

    References
    ----------
    Shrout & Fleiss 1979, 10.1037/0033-2909.86.2.420; McGraw & Wong 1996,
    10.1037/1082-989X.1.1.30.
    """
    squares = mean_squares(np.asarray(values, np.float64))
    if squares.n < 2:
        raise ValueError(
            f"an intraclass correlation needs two subjects with all measurements, not {squares.n}."
        )
    rows = []
    for kind in KINDS:
        low, high = interval(squares, kind, confidence)
        df_1, df_2 = freedom(squares, kind)
        error = _error(squares, kind)
        with np.errstate(divide="ignore", invalid="ignore"):
            f = squares.between / error
        row = (f"ICC({kind[0]},1)", float(intraclass(squares, kind)), float(low), float(high))
        rows.append((*row, float(f), df_1, df_2, float(special.fdtrc(df_1, df_2, f))))
    names = ["kind", "icc", "icc_low", "icc_high", "f", "df_1", "df_2", "p"]
    return pd.DataFrame(rows, columns=names).assign(n=int(squares.n), k=squares.k)


def freedom(squares: MeanSquares, kind: str) -> tuple[int, int]:
    """Return the degrees of freedom of subjects and of their error, for one table."""
    n, k = int(squares.n), squares.k
    return n - 1, n * (k - 1) if kind == "1_1" else (n - 1) * (k - 1)


def _error(squares: MeanSquares, kind: str) -> Float64:
    if kind not in KINDS:
        raise ValueError(f"there is no intraclass correlation {kind!r}; there are: {KINDS}.")
    return squares.within if kind == "1_1" else squares.error


def _agreement_interval(squares: MeanSquares, tail: float) -> tuple[Float64, Float64]:
    n, k = np.asarray(squares.n, np.float64), squares.k
    between, occasions, error = squares.between, squares.occasions, squares.error
    value = intraclass(squares, "2_1")
    a = k * value * occasions
    b = (n * (1 + (k - 1) * value) - k * value) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (a + b) ** 2 * (k - 1) / (a**2 + b**2 / (n - 1))
        rest = k * occasions + (k * n - k - n) * error
        lower = _quantile(n - 1, df, tail)
        upper = _quantile(df, n - 1, tail)
        low = n * (between - lower * error) / (lower * rest + n * between)
        high = n * (upper * between - error) / (rest + n * upper * between)
    exact = (a == 0) & (b == 0) & (value == 1)  # no error and no shift: nothing is uncertain
    return np.where(exact, 1.0, low), np.where(exact, 1.0, high)


def _quantile(df_1: NDArray[np.floating], df_2: NDArray[np.floating], p: float) -> Float64:
    return special.fdtri(np.maximum(df_1, 1e-9), np.maximum(df_2, 1e-9), p)

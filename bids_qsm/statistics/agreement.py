"""Agreement of two measurements of the same thing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bids_qsm.statistics.bland_altman import bland_altman
from bids_qsm.statistics.deming import Line, deming, passing_bablok
from bids_qsm.statistics.icc import KINDS, interval, intraclass, mean_squares
from bids_qsm.statistics.intervals import Float64, checked_confidence, wilson
from bids_qsm.statistics.pairs import numbers, require_columns

TOLERANCES = (0.1, 0.5, 1.0, 2.0)
"""In the user's units: those that were asked for, in mm, of a nucleus' span."""
NORMALISATIONS = ("none", "mean", "z")
LEAST = 4  # subjects that all of the statistics need


@dataclass(frozen=True)
class Agreement:
    """``table``: one row for each group; ``shares``: one for each tolerance; ``left_out``: who."""

    table: pd.DataFrame
    shares: pd.DataFrame
    left_out: pd.DataFrame


def agreement(
    table: pd.DataFrame,
    first: str,
    second: str,
    *,
    by: Sequence[str] = (),
    tolerances: Sequence[float] = TOLERANCES,
    variance_ratio: float = 1.0,
    normalise: str = "none",
    confidence: float = 0.95,
) -> Agreement:
    """Compare two columns of numbers, in each group of rows.

    For two arrays, give ``pd.DataFrame({"a": ..., "b": ...})``; for two sessions, references or
    series of the tidy table, what :func:`bids_qsm.statistics.pairs.side_by_side` returns.

    Parameters
    ----------
    table : DataFrame
    first, second : str
        Columns with the two measurements; differences are second - first.
    by : sequence of str
        Columns that tell groups (structures) from each other.
    tolerances : sequence of float
        In units of the measurements: how often do they agree within this?
    variance_ratio : float
        For Deming's line: variance of the errors of ``second`` over that of ``first``.
    normalise : {"none", "mean", "z"}
        Compare the values as they are, each measurement over its own mean (bias is gone), or
        each less its mean and over its SD (bias and scale are gone: agreement then says no more
        than a correlation does).  Tolerances are then in those units.
    confidence : float
        Coverage of all intervals.

    Returns
    -------
    Agreement
        ``table``: the columns of ``by``, ``n, n_left_out, mean_first, mean_second, sd_first,
        sd_second, pearson_r``, those of
        :class:`~bids_qsm.statistics.bland_altman.BlandAltman`, ``icc_1_1, icc_2_1, icc_3_1`` and
        Lin's ``concordance`` with intervals, ``deming_*`` and ``passing_bablok_*`` of
        :class:`~bids_qsm.statistics.deming.Line`, and ``note`` (why something is NaN).
        ``shares``: ``tolerance, n, n_within, share, share_low, share_high`` (Wilson).
        ``left_out``: the rows without both measurements, with ``reason``.

    Raises
    ------
    ValueError
        If a column is missing or has no numbers, or no group has four rows with both.

    References
    ----------
    Bland & Altman 1999, 10.1177/096228029900800204; Lin 1989, 10.2307/2532051, and 2000,
    10.1111/j.0006-341X.2000.00324.x; Linnet 1990, 10.1002/sim.4780091210; Passing & Bablok 1983,
    10.1515/cclm.1983.21.11.709.
    """
    _check(first, second, tolerances, normalise)
    checked_confidence(confidence)
    require_columns(table, [first, second, *by])
    values = pd.DataFrame({"first": numbers(table, first), "second": numbers(table, second)})
    known = pd.DataFrame(np.isfinite(values), index=values.index)
    both = known.all(axis=1)
    if len(table) < LEAST or both.sum() < LEAST:
        raise ValueError(
            f"agreement needs {LEAST} rows with both {first} and {second}; there are {both.sum()}."
        )
    rows, shares = [], []
    for key, where in _groups(table, by):
        x = values["first"].to_numpy()[where & both.to_numpy()]
        y = values["second"].to_numpy()[where & both.to_numpy()]
        counts = {"n": x.size, "n_left_out": int(where.sum()) - x.size}
        row, x, y = _compare(x, y, variance_ratio, normalise, confidence)
        rows.append({**key, **counts, **row})
        shares += [{**key, **share} for share in _shares(x, y, tolerances, confidence)]
    absent = table[~both].copy()
    lacking = [" nor ".join(np.array([first, second])[~row]) for row in known[~both].to_numpy()]
    absent["reason"] = [f"no {names}" for names in lacking]
    return Agreement(pd.DataFrame(rows), pd.DataFrame(shares), absent.reset_index(drop=True))


def concordance(first: Float64, second: Float64, confidence: float = 0.95) -> dict[str, float]:
    """Return Lin's concordance correlation with its interval, and the part that bias takes.

    ``concordance = pearson_r * concordance_accuracy``; the interval is of Fisher's *z*.
    """
    n = first.size
    sd_1, sd_2 = float(first.std()), float(second.std())
    if n < 3 or sd_1 == 0 or sd_2 == 0:
        return dict.fromkeys(_CONCORDANCE, np.nan)
    shift = float(second.mean() - first.mean())
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    r = np.clip(covariance / (sd_1 * sd_2), -1, 1)
    accuracy = 2 * sd_1 * sd_2 / (sd_1**2 + sd_2**2 + shift**2)
    value = r * accuracy
    u2 = shift**2 / (sd_1 * sd_2)
    variance = (1 - r**2) * accuracy**2 * (1 - value**2)
    variance += 2 * value**2 * accuracy * (1 - value) * u2 - value**2 * accuracy**2 * u2**2 / 2
    if value**2 == 1:
        return dict(zip(_CONCORDANCE, (value, value, value, accuracy), strict=True))
    z_error = np.sqrt(max(variance, 0) / (n - 2)) / (1 - value**2)
    half = stats.norm.ppf(0.5 + confidence / 2) * z_error
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    numbers_ = (float(value), float(low), float(high), float(accuracy))
    return dict(zip(_CONCORDANCE, numbers_, strict=True))


_CONCORDANCE = ("concordance", "concordance_low", "concordance_high", "concordance_accuracy")


def _check(first: str, second: str, tolerances: Sequence[float], normalise: str) -> None:
    if first == second:
        raise ValueError(f"{first!r} is compared with itself: give two different columns.")
    if normalise not in NORMALISATIONS:
        raise ValueError(f"normalise is one of {', '.join(NORMALISATIONS)}, not {normalise!r}.")
    if any(not tolerance > 0 for tolerance in tolerances):
        raise ValueError("tolerances must be above 0.")


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], Any]]:
    if not by:
        yield {}, np.ones(len(table), bool)
        return
    codes = table.groupby(list(by), dropna=False, sort=False, observed=True).ngroup().to_numpy()
    for code in range(int(codes.max()) + 1):
        where = codes == code
        key: dict[Hashable, Any] = table[list(by)].iloc[int(np.argmax(where))].to_dict()
        yield {str(name): value for name, value in key.items()}, where


def _compare(
    x: Float64, y: Float64, ratio: float, normalise: str, confidence: float
) -> tuple[dict[str, Any], Float64, Float64]:
    if x.size < LEAST:
        return {"note": f"fewer than {LEAST} rows with both"}, x, y
    x, y = _normalised(x, normalise), _normalised(y, normalise)
    row: dict[str, Any] = {"mean_first": x.mean(), "mean_second": y.mean()}
    row |= {"sd_first": x.std(ddof=1), "sd_second": y.std(ddof=1)}
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    row["pearson_r"] = np.nan if constant else float(np.corrcoef(x, y)[0, 1])
    row |= asdict(bland_altman(x, y, confidence))
    squares = mean_squares(np.stack([x, y], axis=1))
    for kind in KINDS:
        low, high = interval(squares, kind, confidence)
        row[f"icc_{kind}"] = float(intraclass(squares, kind))
        row |= {f"icc_{kind}_low": float(low), f"icc_{kind}_high": float(high)}
    row |= concordance(x, y, confidence)
    notes = []
    fits: dict[str, Callable[..., Line]] = {
        "deming": partial(deming, variance_ratio=ratio),
        "passing_bablok": passing_bablok,
    }
    for name, fit in fits.items():
        try:
            line = asdict(fit(x, y, confidence=confidence))
        except ValueError as error:
            notes.append(str(error))
            line = dict.fromkeys(Line.__dataclass_fields__, np.nan)
        row |= {f"{name}_{part}": number for part, number in line.items()}
    row.pop("deming_p_linearity")
    row["note"] = " ".join(dict.fromkeys(notes))
    return row, x, y


def _normalised(values: Float64, normalise: str) -> Float64:
    if normalise == "none":
        return values
    mean, sd = values.mean(), values.std(ddof=1)
    if normalise == "mean":
        if mean == 0:
            raise ValueError("a measurement with mean 0 cannot be divided by it.")
        return values / mean
    if sd == 0:
        raise ValueError("a constant measurement cannot be divided by its SD.")
    return (values - mean) / sd


def _shares(
    x: Float64, y: Float64, tolerances: Sequence[float], confidence: float
) -> list[dict[str, float]]:
    # decimals such as 0.3 - 0.2 must count as within 0.1
    slack = 8 * np.finfo(float).eps * max(np.abs(x).max(initial=0), np.abs(y).max(initial=0))
    within = [int((np.abs(y - x) <= tolerance + slack).sum()) for tolerance in tolerances]
    low, high = wilson(np.array(within), np.full(len(within), x.size), confidence)
    return [
        {
            "tolerance": float(tolerance),
            "n": x.size,
            "n_within": count,
            "share": count / x.size if x.size else np.nan,
            "share_low": float(share_low),
            "share_high": float(share_high),
        }
        for tolerance, count, share_low, share_high in zip(
            tolerances, within, low, high, strict=True
        )
    ]

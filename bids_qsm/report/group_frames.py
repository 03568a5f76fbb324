"""Tables of results, which are wide, in the long form that charts take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bids_qsm.report.group_style import values_of

BEFORE_AND_AFTER: Mapping[str, str] = {
    "before adjustment": "coefficient_before",
    "after adjustment": "coefficient_after",
}
METHODS: Mapping[str, str] = {"Deming": "deming", "Passing-Bablok": "passing_bablok"}
COURSE_POINTS = 21


def stacked_estimates(
    table: pd.DataFrame,
    estimates: Mapping[str, str] = BEFORE_AND_AFTER,
    *,
    p: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return several estimates of each row below each other, for a forest plot.

    Parameters
    ----------
    table : DataFrame
        For each estimate ``x`` the columns ``x``, ``x_low`` and ``x_high``.
    estimates : mapping of str to str
        The estimates' columns by the name of their series.
    p : mapping of str to str, optional
        The columns of p values by the name of the series.

    Returns
    -------
    DataFrame
        All columns of the table and ``series, estimate, ci_low, ci_high`` (and ``p``); the rows of
        the first series come first.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    parts = []
    for series, name in estimates.items():
        columns = {"estimate": name, "ci_low": f"{name}_low", "ci_high": f"{name}_high"}
        columns |= {} if p is None else {"p": p[series]}
        found = {title: values_of(table, column) for title, column in columns.items()}
        parts.append(table.assign(series=series, **found))
    return pd.concat(parts, ignore_index=True)


def fitted_lines(
    table: pd.DataFrame, methods: Mapping[str, str] = METHODS, *, keep: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the lines of several methods below each other, for an agreement plot.

    Parameters
    ----------
    table : DataFrame
        For each method ``x`` the columns ``x_slope`` and ``x_intercept``.
    methods : mapping of str to str
        The beginning of the columns' names by what the method is called.
    keep : sequence of str
        Columns of the table to keep, such as the structure.

    Returns
    -------
    DataFrame
        ``method, slope, intercept`` and what is kept; lines that could not be fitted are left out.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    parts = [
        table[list(keep)].assign(
            method=method,
            slope=values_of(table, f"{name}_slope"),
            intercept=values_of(table, f"{name}_intercept"),
        )
        for method, name in methods.items()
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset=["slope", "intercept"])


def mean_courses(
    table: pd.DataFrame,
    *,
    start: str,
    rate: str,
    until: float,
    keep: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the mean course of a constant rate, for a chart of courses.

    Parameters
    ----------
    table : DataFrame
        A row for each course: the value at the start, the rate, and the rate's interval in the
        columns ``<rate>_low`` and ``<rate>_high``.
    start, rate : str
        Columns.
    until : float
        The last time; the first one is zero.
    keep : sequence of str
        Columns of the table to keep, such as the structure and the group.

    Returns
    -------
    DataFrame
        ``years, mean, ci_low, ci_high`` (the interval of the change since the start) and what is
        kept.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    years = np.linspace(0.0, until, COURSE_POINTS)
    first = values_of(table, start).to_numpy(np.float64)
    columns = {"mean": rate, "ci_low": f"{rate}_low", "ci_high": f"{rate}_high"}
    rates = {name: values_of(table, c).to_numpy(np.float64) for name, c in columns.items()}
    repeated = table[list(keep)].loc[table.index.repeat(COURSE_POINTS)].reset_index(drop=True)
    courses = {
        name: (first[:, None] + each[:, None] * years).ravel() for name, each in rates.items()
    }
    return repeated.assign(years=np.tile(years, len(table)), **courses)

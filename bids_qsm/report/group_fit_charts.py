"""Charts of relations: scatter plots with their line, associations, and the ladder of powers.

Rows with a missing or infinite value in a drawn column are left out; how many are drawn is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.report.group_style import (
    DENSE,
    INK,
    MUTED,
    NARROW_IN,
    WIDTH_IN,
    Quantity,
    as_chart,
    colour_of,
    complete_rows,
    heading,
    legend_below,
    levels_of,
    marker_of,
    panel_grid,
    plain_ticks,
    refuse_empty,
    rows_of,
    values_of,
)
from bids_qsm.report.numbers import p_statement

BAND_POINTS = 100
LEGEND_MARKER_PT = 5.0


@as_chart
def scatter_with_fit(
    table: pd.DataFrame,
    x: str,
    y: str,
    x_quantity: Quantity,
    y_quantity: Quantity,
    *,
    panel: str | None = None,
    group: str | None = None,
    groups: Sequence[str] | None = None,
    notes: Mapping[str, str] | None = None,
    fit_level: float = 0.95,
) -> Figure:
    """Return points with a straight line and the confidence band of its mean, in panels.

    The line is that of ordinary least squares of the drawn points, one for each group.  For the
    relation after adjustment give the residuals (an added-variable plot) as ``x`` and ``y``.

    Parameters
    ----------
    table : DataFrame
    x, y : str
        Columns of numbers.
    x_quantity, y_quantity : Quantity
    panel : str, optional
        Column with what each panel is of, such as the structure.
    group : str, optional
        Column; each group has its colour, marker and line.
    groups : sequence of str, optional
        Their order.
    notes : mapping of str to str, optional
        A line (coefficient, p) below a panel's title; the key of the only panel is "".
    fit_level : float
        Of the band.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    columns = [c for c in (x, y, panel, group) if c is not None]
    for column in columns:
        values_of(table, column)
    table = complete_rows(table, columns)
    refuse_empty(table, "the scatter plot")
    names, found = levels_of(table, panel, None), levels_of(table, group, groups)
    if group is not None:
        table = table[table[group].astype(str).isin(found)]
    size = float(np.clip(1500 * len(names) / len(table), 4, 16))
    figure, axes = panel_grid(len(names), panel_height_in=2.5, max_columns=3)
    for ax, name in zip(axes, names, strict=True):
        of_panel = rows_of(table, panel, name)
        for order, level in enumerate(found):
            rows = rows_of(of_panel, group, level)
            abscissa = rows[x].to_numpy(float) * x_quantity.factor
            ordinate = rows[y].to_numpy(float) * y_quantity.factor
            style = {"color": colour_of(order), "marker": marker_of(order), "label": level}
            dots = ax.scatter(abscissa, ordinate, s=size, alpha=0.6, linewidth=0, **style)
            dots.set_rasterized(len(table) > DENSE)
            _line_with_band(ax, abscissa, ordinate, colour_of(order), fit_level)
        heading(ax, name, (notes or {}).get(name, ""), count=len(of_panel))
        ax.set(xlabel=x_quantity.label, ylabel=y_quantity.label)
    legend_below(figure, axes[0], marker_scale=LEGEND_MARKER_PT / size**0.5)
    return figure


def line_and_band(
    x: NDArray, y: NDArray, level: float = 0.95
) -> tuple[NDArray, NDArray, NDArray] | None:
    """Return where a least-squares line is drawn, its height, and the half width of its band.

    None where three points or differing abscissae are not there.
    """
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    at = np.linspace(x.min(), x.max(), BAND_POINTS)
    centred = x - x.mean()
    squares = float((centred**2).sum())
    slope = float((centred * y).sum()) / squares
    residuals = y - y.mean() - slope * centred
    variance = float((residuals**2).sum()) / (len(x) - 2)
    error = np.sqrt(variance * (1 / len(x) + (at - x.mean()) ** 2 / squares))
    half_width = stats.t.ppf(0.5 + level / 2, len(x) - 2) * error
    return at, y.mean() + slope * (at - x.mean()), half_width


def _line_with_band(ax: Axes, x: NDArray, y: NDArray, colour: str, level: float) -> None:
    fit = line_and_band(x, y, level)
    if fit is not None:
        at, height, half_width = fit
        ax.plot(at, height, color=colour)
        low, high = height - half_width, height + half_width
        ax.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


@as_chart
def heat_map(
    matrix: pd.DataFrame,
    label: str,
    *,
    p_values: pd.DataFrame | None = None,
    limit: float | None = None,
    alpha: float = 0.05,
) -> Figure:
    """Return a table of coefficients in colours, blue below zero and red above.

    Parameters
    ----------
    matrix : DataFrame
        Numbers, such as correlations of structures (rows) with scores (columns).
    label : str
        At the colour bar.
    p_values : DataFrame, optional
        Of the same rows and columns; cells below ``alpha`` are framed.
    limit : float, optional
        The end of the colours; the largest magnitude if not given.
    alpha : float

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If the matrix is empty, or the rows and columns of the two differ.
    """
    if not matrix.size:
        raise ValueError("the heat map has no cell to draw.")
    numbers = matrix.to_numpy(float)
    if p_values is not None and not (
        p_values.index.equals(matrix.index) and p_values.columns.equals(matrix.columns)
    ):
        raise ValueError("the p values of a heat map need the rows and columns of its numbers.")
    known = np.abs(numbers[np.isfinite(numbers)])
    limit = limit or (float(known.max()) if known.size and known.max() > 0 else 1.0)
    rows, columns = numbers.shape
    width = float(np.clip(2.4 + 0.55 * columns, NARROW_IN, WIDTH_IN))
    figure = Figure(figsize=(width, 1.5 + 0.27 * rows), layout="constrained")
    ax = figure.subplots()
    colours = matplotlib.colormaps["RdBu_r"]
    mesh = ax.pcolormesh(numbers, cmap=colours, vmin=-limit, vmax=limit, edgecolor="white")
    small = 8.0 if columns < 9 else 6.5
    for i, j in np.ndindex(rows, columns):
        text = f"{numbers[i, j]:.2f}".replace("-", "−") if np.isfinite(numbers[i, j]) else "–"
        ink = "white" if abs(numbers[i, j]) > 0.65 * limit else INK
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, fontsize=small)
        if p_values is not None and p_values.iloc[i, j] < alpha:
            corners = ([j + 0.04, j + 0.96, j + 0.96, j + 0.04, j + 0.04], _square(i))
            ax.plot(*corners, color=INK, linewidth=1.3)
    ax.set_xticks(np.arange(columns) + 0.5, [str(name) for name in matrix.columns])
    ax.set_yticks(np.arange(rows) + 0.5, [str(name) for name in matrix.index])
    ax.tick_params(length=0)
    if columns > 3:
        ax.tick_params(axis="x", rotation=35)
        for name in ax.get_xticklabels():
            name.set(ha="right", rotation_mode="anchor")
    ax.invert_yaxis()
    ax.grid(False)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02, aspect=18)
    bar.set_label(label)
    bar.outline.set_visible(False)
    plain_ticks(bar.ax, "y")
    if p_values is not None:
        ax.set_title(f"framed: p < {alpha:g}", fontweight="normal", fontsize=7.5)
    return figure


def _square(row: int) -> list[float]:
    return [row + 0.06, row + 0.06, row + 0.94, row + 0.94, row + 0.06]


@as_chart
def ladder_of_powers(
    table: pd.DataFrame,
    name: str,
    *,
    transform: str = "transform",
    normal: str = "expected",
    observed: str = "observed",
    p_values: Mapping[str, float] | None = None,
    suggested: str | None = None,
) -> Figure:
    """Return quantile-normal plots of a variable under the powers of the ladder.

    Points on the line are normal.

    Parameters
    ----------
    table : DataFrame
        A row for each transform and value: the normal quantile (of the mean and standard deviation
        of the transformed values) and the transformed value.
    name : str
        The variable.
    transform, normal, observed : str
        Columns; the panels are in the order of the transforms.
    p_values : mapping of str to float, optional
        Of a test of normality, by transform.
    suggested : str, optional
        The transform that is marked.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    for column in (transform, normal, observed):
        values_of(table, column)
    table = complete_rows(table, [transform, normal, observed])
    refuse_empty(table, "the ladder of powers")
    names = levels_of(table, transform, None)
    figure, axes = panel_grid(len(names), panel_height_in=1.95, max_columns=3)
    for ax, level in zip(axes, names, strict=True):
        rows = rows_of(table, transform, level)
        marked = level == suggested
        both = rows[[normal, observed]].to_numpy(float)
        ends = [both.min(), both.max()]
        ax.plot(ends, ends, color=MUTED, linewidth=1)
        dots = ax.scatter(both[:, 0], both[:, 1], s=7, color=colour_of(1 if marked else 0))
        dots.set(alpha=0.7, linewidth=0)
        note = p_statement(p_values[level]) if p_values and level in p_values else ""
        heading(ax, level + (" (suggested)" if marked else ""), note)
        ax.locator_params(axis="x", nbins=3)
        ax.locator_params(axis="y", nbins=4)
    figure.supxlabel("normal quantile", fontsize=8.5)
    figure.supylabel(f"{name}, transformed", fontsize=8.5)
    return figure

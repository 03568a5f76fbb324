"""Charts of two measurements of the same: data frames in, PNG and SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bids_qsm.report.group_style import (
    DENSE,
    INK,
    MUTED,
    NARROW_IN,
    WIDTH_IN,
    Quantity,
    as_chart,
    beside,
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
from bids_qsm.report.numbers import common_decimals
from bids_qsm.report.tables import decimals


@dataclass(frozen=True)
class LimitColumns:
    """The columns of a Bland-Altman table: mean difference, limits, and their intervals."""

    bias: str = "bias"
    bias_low: str = "bias_low"
    bias_high: str = "bias_high"
    lower: str = "loa_lower"
    lower_low: str = "loa_lower_low"
    lower_high: str = "loa_lower_high"
    upper: str = "loa_upper"
    upper_low: str = "loa_upper_low"
    upper_high: str = "loa_upper_high"


@dataclass(frozen=True)
class LineColumns:
    """The columns of a fitted line: ``y = intercept + slope x``."""

    slope: str = "slope"
    intercept: str = "intercept"


@as_chart
def bland_altman(
    points: pd.DataFrame,
    limits: pd.DataFrame,
    quantity: Quantity,
    *,
    average: str = "average",
    difference: str = "difference",
    panel: str | None = "structure",
    group: str | None = None,
    columns: LimitColumns = LimitColumns(),
    difference_quantity: Quantity | None = None,
) -> Figure:
    """Return differences over averages with the limits of agreement and their intervals.

    Parameters
    ----------
    points : DataFrame
        A row for each pair of measurements: their average and difference.
    limits : DataFrame
        One row for each panel; the columns of intervals may be missing.
    quantity : Quantity
        Of the average.
    average, difference : str
        Columns of ``points``.
    panel : str, optional
        Column of both tables with what a panel is of; None for one panel.
    group : str, optional
        Column of ``points``; each group has its colour and marker.
    columns : LimitColumns
        Of ``limits``.
    difference_quantity : Quantity, optional
        Where differences have other units, such as percent.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing, a panel has no limits, or nothing is left to draw.
    """
    needed = [c for c in (average, difference, panel, group) if c is not None]
    for column in needed:
        values_of(points, column)
    for column in (columns.bias, columns.lower, columns.upper):
        values_of(limits, column)
    points = complete_rows(points, needed)
    refuse_empty(points, "the Bland-Altman plot")
    across = difference_quantity or Quantity("difference", quantity.units)
    names, found = levels_of(points, panel, None), levels_of(points, group, None)
    figure, axes = panel_grid(len(names), max_columns=3, panel_height_in=2.5)
    for ax, name in zip(axes, names, strict=True):
        rows, of_panel = rows_of(points, panel, name), rows_of(limits, panel, name)
        if len(of_panel) != 1:
            raise ValueError(
                f"the Bland-Altman plot of {name or 'the measurements'} needs one row of limits, "
                f"got {len(of_panel)}."
            )
        for order, level in enumerate(found):
            of_group = rows_of(rows, group, level)
            ax.scatter(
                of_group[average] * quantity.factor,
                of_group[difference] * across.factor,
                s=float(np.clip(900 / len(rows), 4, 15)),
                color=colour_of(order),
                marker=marker_of(order),
                alpha=0.65,
                linewidth=0,
                label=level,
                rasterized=len(points) > DENSE,
            )
        _draw_limits(ax, of_panel.iloc[0], columns, across.factor)
        heading(ax, name, "", count=len(rows))
        ax.set(xlabel=f"average of {quantity.label}", ylabel=across.label)
    legend_below(figure, axes[0])
    return figure


def _draw_limits(ax: Axes, limits: pd.Series, columns: LimitColumns, factor: float) -> None:
    """Draw the mean difference and the limits of agreement, each with its interval and number."""
    ax.axhline(0, color=MUTED, linewidth=0.8, linestyle=":")
    lines = (
        (columns.bias, columns.bias_low, columns.bias_high, "-"),
        (columns.lower, columns.lower_low, columns.lower_high, "--"),
        (columns.upper, columns.upper_low, columns.upper_high, "--"),
    )
    heights = []
    for middle, low, high, style in lines:
        height = float(limits[middle]) * factor
        if not np.isfinite(height):
            continue
        heights.append(height)
        ax.axhline(height, color=INK, linewidth=1.1, linestyle=style)
        if low in limits and high in limits and np.isfinite([limits[low], limits[high]]).all():
            ends = (float(limits[low]) * factor, float(limits[high]) * factor)
            ax.axhspan(*ends, color=INK, alpha=0.09, linewidth=0)
    places = common_decimals(heights)
    for height in heights:
        beside(ax, height, 3.0, decimals(round(height, places) + 0.0, places))
    ax.margins(0.08)


@as_chart
def agreement(
    points: pd.DataFrame,
    lines: pd.DataFrame,
    first: str,
    second: str,
    first_quantity: Quantity,
    second_quantity: Quantity,
    *,
    panel: str | None = "structure",
    method: str | None = "method",
    columns: LineColumns = LineColumns(),
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Return two measurements against each other, with fitted lines and the line of identity.

    Parameters
    ----------
    points : DataFrame
        A row for each pair.
    lines : DataFrame
        A row for each panel and method (Deming, Passing-Bablok).
    first, second : str
        Columns of ``points``: abscissa and ordinate.
    first_quantity, second_quantity : Quantity
        Of the same units.
    panel : str, optional
        Column of both tables with what a panel is of; None for one panel.
    method : str, optional
        Column of ``lines`` that names a line; None where there is one for each panel.
    columns : LineColumns
        Of ``lines``.
    notes : mapping of str to str, optional
        A line (such as the ICC) below a panel's title; the key of the only panel is "".

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    needed = [c for c in (first, second, panel) if c is not None]
    for column in needed:
        values_of(points, column)
    for column in (columns.slope, columns.intercept):
        values_of(lines, column)
    points = complete_rows(points, needed)
    refuse_empty(points, "the agreement plot")
    names, methods = levels_of(points, panel, None), levels_of(lines, method, None)
    figure, axes = panel_grid(len(names), max_columns=3, panel_height_in=2.75)
    for ax, name in zip(axes, names, strict=True):
        rows = rows_of(points, panel, name)
        x = rows[first].to_numpy(float) * first_quantity.factor
        y = rows[second].to_numpy(float) * second_quantity.factor
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        ax.plot(ends, ends, color=MUTED, linewidth=1, linestyle=":", label="identity")
        size = float(np.clip(900 / len(rows), 4, 15))
        dots = ax.scatter(x, y, s=size, color=colour_of(0), alpha=0.6, linewidth=0)
        dots.set_rasterized(len(points) > DENSE)
        for order, level in enumerate(methods, start=1):
            for line in rows_of(rows_of(lines, panel, name), method, level).to_dict("records"):
                slope, intercept = float(line[columns.slope]), float(line[columns.intercept])
                at = np.array([x.min(), x.max()])
                height = intercept * second_quantity.factor + slope * at
                style = "-" if order == 1 else "--"
                ax.plot(at, height, style, color=colour_of(order), label=level or "fit")
        heading(ax, name, (notes or {}).get(name, ""), count=len(rows))
        ax.set(xlabel=first_quantity.label, ylabel=second_quantity.label)
        ax.set_aspect("equal", adjustable="datalim")
    legend_below(figure, axes[0])
    return figure


@as_chart
def tolerance_shares(
    table: pd.DataFrame,
    *,
    tolerance: str = "tolerance",
    share: str = "share",
    low: str = "share_low",
    high: str = "share_high",
    series: str | None = None,
    series_order: Sequence[str] | None = None,
    units: str = "mm",
) -> Figure:
    """Return bars: the share of pairs that agree within each tolerance.

    Parameters
    ----------
    table : DataFrame
        A row for each tolerance (and series).
    tolerance, share : str
        Columns; shares run from 0 to 1.
    low, high : str
        Columns of the shares' interval, which is drawn where the table has them.
    series : str, optional
        Column of what is compared, such as the structure or the pair of methods.
    series_order : sequence of str, optional
    units : str
        Of the tolerances; those in ppm are shown in ppb.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing, nothing is left to draw, or a share is not within 0 and 1.
    """
    needed = [c for c in (tolerance, share, series) if c is not None]
    for column in needed:
        values_of(table, column)
    table = complete_rows(table, needed)
    refuse_empty(table, "the chart of shares within tolerances")
    if not table[share].between(0, 1).all():
        raise ValueError(f"the shares in the column {share!r} must lie between 0 and 1.")
    quantity = Quantity("difference", units)
    steps = sorted(table[tolerance].unique().tolist())
    found = levels_of(table, series, series_order)
    bars = len(steps) * len(found)
    width = float(np.clip(1.5 + 0.42 * bars, NARROW_IN, WIDTH_IN))
    figure = Figure(figsize=(width, 3.2), layout="constrained")
    ax = figure.subplots()
    breadth = 0.8 / len(found)
    for order, level in enumerate(found):
        for row in rows_of(table, series, level).to_dict("records"):
            at = steps.index(row[tolerance]) + (order + 0.5) * breadth - 0.4
            percent = 100 * float(row[share])
            ax.bar(at, percent, 0.92 * breadth, color=colour_of(order), alpha=0.85)
            top = percent
            if {low, high} <= row.keys():
                top = 100 * float(row[high])
                ax.plot([at, at], [100 * float(row[low]), top], color=INK, linewidth=1)
            if bars <= 24:
                text = f"{percent:.0f}"
                ax.text(at, top + 1.5, text, ha="center", va="bottom", fontsize=7.5)
        ax.plot([], [], "s", color=colour_of(order), label=level)
    ax.set_xticks(range(len(steps)), [f"≤ {s * quantity.factor:.6g}" for s in steps])
    ax.set(xlabel=quantity.label, ylabel="share of pairs (%)", ylim=(0, 108))
    ax.set_yticks(range(0, 101, 20))
    ax.grid(False, axis="x")
    ax.tick_params(axis="x", length=0)
    plain_ticks(ax, "y")
    legend_below(figure, ax)
    return figure

"""Charts of courses in time, and of power and sample sizes: data frames in, PNG and SVG out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

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

LINE_STYLES = ("-", "--", "-.", ":")


@as_chart
def courses(
    table: pd.DataFrame,
    quantity: Quantity,
    *,
    time: str = "years",
    value: str = "mean",
    unit: str = "participant_id",
    time_label: str = "years since the first session",
    panel: str | None = None,
    group: str | None = None,
    groups: Sequence[str] | None = None,
    means: pd.DataFrame | None = None,
    mean_low: str = "ci_low",
    mean_high: str = "ci_high",
) -> Figure:
    """Return a thin line for each participant (or lesion) over time, and a model's mean.

    Parameters
    ----------
    table : DataFrame
        A row for each unit and time.
    quantity : Quantity
        Of ``value``.
    time, value, unit : str
        Columns.
    time_label : str
    panel : str, optional
        Column with what each panel is of.
    group : str, optional
        Column; each group has its colour.
    groups : sequence of str, optional
        Their order.
    means : DataFrame, optional
        Columns ``time``, ``value``, ``mean_low`` and ``mean_high`` (and ``panel`` and ``group``,
        where given): the mean of a model at some times, with its interval.
    mean_low, mean_high : str
        Columns of ``means``.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    needed = [c for c in (time, value, unit, panel, group) if c is not None]
    for column in needed:
        values_of(table, column)
    table = complete_rows(table, needed).sort_values([unit, time], kind="stable")
    refuse_empty(table, "the chart of courses")
    names, found = levels_of(table, panel, None), levels_of(table, group, groups)
    figure, axes = panel_grid(len(names), max_columns=3, panel_height_in=2.6)
    for ax, name in zip(axes, names, strict=True):
        rows = rows_of(table, panel, name)
        units = rows[unit].nunique()
        for order, level in enumerate(found):
            of_group = rows_of(rows, group, level)
            lines = _courses_of_group(ax, of_group, order, quantity, time, value, unit)
            for line in lines:
                line.set_rasterized(len(table) > DENSE)
            ax.plot([], [], color=colour_of(order), marker=marker_of(order), label=level)
            if means is not None:
                course = rows_of(rows_of(means, panel, name), group, level).sort_values(time)
                at, factor = course[time].to_numpy(float), quantity.factor
                ax.plot(at, course[value] * factor, color="white", linewidth=4.4)
                ax.plot(at, course[value] * factor, color=colour_of(order), linewidth=2.6)
                low, high = course[mean_low] * factor, course[mean_high] * factor
                ax.fill_between(at, low, high, color=colour_of(order), alpha=0.25, linewidth=0)
        heading(ax, name, f"n = {units}, {len(rows)} values")
        ax.set(xlabel=time_label, ylabel=quantity.label)
    legend_below(figure, axes[0])
    return figure


def _courses_of_group(
    ax: Axes,
    rows: pd.DataFrame,
    order: int,
    quantity: Quantity,
    time: str,
    value: str,
    unit: str,
) -> list[Line2D]:
    faint = float(np.clip(15 / max(1, rows[unit].nunique()), 0.2, 0.4))
    lines = []
    for _, course in rows.groupby(unit, sort=True):
        lines += ax.plot(
            course[time],
            course[value] * quantity.factor,
            color=colour_of(order),
            marker=marker_of(order),
            markersize=2.2,
            linewidth=0.8,
            alpha=faint,
        )
    return lines


@as_chart
def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    x_label: str,
    y_label: str,
    *,
    series: str | None = None,
    series_order: Sequence[str] | None = None,
    series_label: str = "",
    target: float | None = None,
    simulated: str | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Return power over the sample size, or the sample size over an effect, one line a series.

    Parameters
    ----------
    table : DataFrame
        A row for each point of each curve.
    x, y : str
        Columns.
    x_label, y_label : str
    series : str, optional
        Column that names the curves, such as the effect.
    series_order : sequence of str, optional
    series_label : str
        What the curves differ by, as the legend's title.
    target : float, optional
        A wanted power: a line, and the first abscissa of each curve that reaches it.
    simulated : str, optional
        Column with the same by simulation, drawn as points.
    logarithmic : bool
        Whether ``y`` (sample sizes) is on a logarithmic scale.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    needed = [c for c in (x, y, series) if c is not None]
    for column in (*needed, *([] if simulated is None else [simulated])):
        values_of(table, column)
    table = complete_rows(table, needed)
    refuse_empty(table, "the chart of curves")
    found = levels_of(table, series, series_order)
    figure = Figure(figsize=(WIDTH_IN if len(found) > 1 else NARROW_IN, 3.5), layout="constrained")
    ax = figure.subplots()
    if target is not None:
        ax.axhline(target, color=MUTED, linewidth=1, linestyle=":")
    for order, level in enumerate(found):
        rows = rows_of(table, series, level).sort_values(x, kind="stable")
        colour, style = colour_of(order), LINE_STYLES[order % len(LINE_STYLES)]
        name = level
        if target is not None and (rows[y] >= target).any():
            first = rows[rows[y] >= target].iloc[0]
            ax.plot([first[x]] * 2, [0, target], color=colour, linewidth=0.8, linestyle=":")
            ax.plot([first[x]], [first[y]], "o", color=colour, markersize=4)
            name = f"{level} → {float(first[x]):.6g}".strip()
        ax.plot(rows[x], rows[y], style, color=colour, label=name)
        if simulated is not None:
            dots = {"s": 14, "facecolor": "white", "edgecolor": colour, "zorder": 3}
            ax.scatter(rows[x], rows[simulated], **dots)
    if logarithmic:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.minorticks_off()
    else:
        ax.set_ylim(bottom=0, top=1.02 if table[y].max() <= 1 else None)
    plain_ticks(ax)
    ax.set(xlabel=x_label, ylabel=y_label)
    if simulated is not None:
        hollow = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": INK}
        ax.plot([], [], linewidth=0, label="simulated", **hollow)
    title = series_label if target is None else f"{series_label} → {x_label}".strip()
    _legend_beside(figure, ax, title)
    return figure


def _legend_beside(figure: Figure, ax: Axes, title: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    kept = [(h, text) for h, text in zip(handles, labels, strict=True) if text]
    if not kept:
        return
    figure.legend(*zip(*kept, strict=True), loc="outside right upper", title=title or None)

"""Charts of groups and regressions: data frames in, PNG and SVG out.

Rows with a missing or infinite value in a drawn column are left out; how many are drawn is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    WIDTH_IN,
    Quantity,
    as_chart,
    beside,
    colour_of,
    complete_rows,
    legend_below,
    levels_of,
    marker_of,
    plain_ticks,
    refuse_empty,
    rows_of,
    values_of,
)
from bids_qsm.report.numbers import common_decimals, interval_text, p_statement, p_text
from bids_qsm.report.tables import decimals

STRUCTURES_IN_ROW = 8
"""At most; rows are filled evenly."""
KINDS = ("violin", "box")
FEWEST_IN_VIOLIN = 5
ESTIMATE_PT, P_PT = 8.0, 124.0
"""How far from the axes the numbers of a forest plot stand."""
BAND_POINTS = 100


@dataclass(frozen=True)
class Interval:
    """The columns of an estimate and its confidence interval."""

    estimate: str = "difference"
    low: str = "ci_low"
    high: str = "ci_high"


@as_chart
def values_by_group(
    table: pd.DataFrame,
    quantity: Quantity,
    *,
    value: str = "mean",
    structure: str = "structure",
    group: str | None = "group",
    groups: Sequence[str] | None = None,
    p_values: Mapping[str, float] | None = None,
    kind: str = "violin",
) -> Figure:
    """Return violins or boxes of each group for each structure, with all points.

    The box spans the quartiles with a line at the median, its whiskers reach the last point within
    1.5 interquartile ranges, and a white diamond marks the mean.

    Parameters
    ----------
    table : DataFrame
        One row for each participant and structure.
    quantity : Quantity
        Of ``value``; its units are those of the table.
    value, structure : str
        Columns.
    group : str, optional
        Column; None for one group.
    groups : sequence of str, optional
        Their order; as they come if not given.
    p_values : mapping of str to float, optional
        Written above a structure.
    kind : {"violin", "box"}

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing, nothing is left to draw, or the kind is another one.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind of the chart is one of {', '.join(KINDS)}, not {kind!r}.")
    columns = [value, structure, *([] if group is None else [group])]
    for column in columns:
        values_of(table, column)
    table = complete_rows(table, columns)
    refuse_empty(table, "the chart of values by group")
    structures, found = levels_of(table, structure, None), levels_of(table, group, groups)
    per_row = -(-len(structures) // -(-len(structures) // STRUCTURES_IN_ROW))
    rows = [structures[i : i + per_row] for i in range(0, len(structures), per_row)]
    width = min(WIDTH_IN, max(3.2, 1.1 + 0.62 * per_row * len(found)))
    figure = Figure(figsize=(width, 0.5 + 2.9 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0].tolist()
    for ax, names in zip(axes, rows, strict=True):
        for place, name in enumerate(names):
            of_structure = rows_of(table, structure, name)
            samples = [
                rows_of(of_structure, group, level)[value].to_numpy(float) * quantity.factor
                for level in found
            ]
            for order, sample in enumerate(samples):
                at = place + (order + 0.5) / len(found) * 0.86 - 0.43
                _distribution(ax, sample, at, 0.36 / len(found), order, kind, len(table) > DENSE)
        _name_structures(ax, names, p_values or {})
        ax.set_xlim(-0.55, per_row - 0.45)  # of all rows alike
        ax.set_ylabel(quantity.label)
    _group_legend(figure, axes[0], table, structure, group, found)
    return figure


def _distribution(
    ax: Axes,
    sample: NDArray,
    at: float,
    half_width: float,
    order: int,
    kind: str,
    is_dense: bool,
) -> None:
    """Draw one violin or box with its points."""
    if not sample.size:
        return
    colour, sample = colour_of(order), np.sort(sample)
    density = np.ones(sample.size)
    if sample.size >= FEWEST_IN_VIOLIN and np.ptp(sample) > 0:
        kernel = stats.gaussian_kde(sample)
        margin = np.sqrt(kernel.covariance[0, 0])
        grid = np.linspace(sample[0] - margin, sample[-1] + margin, BAND_POINTS)
        outline = kernel(grid)
        density = kernel(sample) / outline.max()
        if kind == "violin":
            reach = half_width * outline / outline.max()
            ax.fill_betweenx(grid, at - reach, at + reach, color=colour, alpha=0.22, linewidth=0)
    spread = half_width * (1.6 * _scattered(sample.size) - 0.8) * density
    size = float(np.clip(220 / sample.size, 2.5, 11))
    dots = ax.scatter(at + spread, sample, s=size, color=colour, marker=marker_of(order))
    dots.set(alpha=0.55, linewidth=0, rasterized=is_dense)
    ax.boxplot(
        [sample],
        positions=[at],
        widths=half_width * (0.5 if kind == "violin" else 1.5),
        showfliers=False,
        showmeans=True,
        manage_ticks=False,
        boxprops={"color": INK, "linewidth": 0.9},
        whiskerprops={"color": INK, "linewidth": 0.9},
        medianprops={"color": INK, "linewidth": 1.8},
        capprops={"linewidth": 0},
        meanprops={
            "marker": "D",
            "markersize": 3.6,
            "markerfacecolor": "white",
            "markeredgecolor": INK,
            "markeredgewidth": 0.8,
        },
    )


def _scattered(count: int) -> NDArray[np.float64]:
    """Return numbers spread evenly over 0 to 1, neighbours far from each other (van der Corput)."""
    places = np.arange(1, count + 1)
    numbers, weight = np.zeros(count), 0.5
    while places.any():
        numbers += weight * (places & 1)
        places, weight = places >> 1, weight / 2
    return numbers


def _name_structures(ax: Axes, names: Sequence[str], p_values: Mapping[str, float]) -> None:
    crowded = len(names) > 4 and max(map(len, names)) > 9
    ax.set_xticks(range(len(names)), names)
    if crowded:
        ax.tick_params(axis="x", rotation=30)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.grid(False, axis="x")
    ax.tick_params(axis="x", length=0)
    plain_ticks(ax, "y")
    for place, name in enumerate(names):
        if name in p_values:
            ax.text(
                place,
                1.01,
                p_statement(p_values[name]),
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7.5 if len(names) < 7 else 6.5,
            )


def _group_legend(
    figure: Figure,
    ax: Axes,
    table: pd.DataFrame,
    structure: str,
    group: str | None,
    found: Sequence[str],
) -> None:
    if group is None:
        return
    counts = table.groupby([table[group].astype(str), table[structure].astype(str)]).size()
    for order, level in enumerate(found):
        fewest, most = counts[level].min(), counts[level].max()
        number = f"{most}" if fewest == most else f"{fewest} to {most}"
        mark = {"color": colour_of(order), "marker": marker_of(order), "linewidth": 0}
        ax.plot([], [], label=f"{level} (n = {number})", markersize=5, **mark)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(found)))


@as_chart
def forest(
    table: pd.DataFrame,
    quantity: Quantity,
    *,
    label: str = "structure",
    columns: Interval = Interval(),
    series: str | None = None,
    series_order: Sequence[str] | None = None,
    p: str | None = None,
    reference_value: float = 0.0,
    sides: tuple[str, str] | None = None,
) -> Figure:
    """Return estimates with their intervals, one line each, and the numbers beside them.

    Parameters
    ----------
    table : DataFrame
        One row for each label (and series).
    quantity : Quantity
        Of the estimate, such as the difference of χ in ppm.
    label : str
        Column with the lines' names, from the top.
    columns : Interval
        The columns of the estimate and its interval.
    series : str, optional
        Column that tells several estimates of one label apart, such as before and after adjustment.
    series_order : sequence of str, optional
    p : str, optional
        Column that is written beside the interval, under its own name.
    reference_value : float
        Where the line of no effect stands, in the units of the table.
    sides : tuple of str, optional
        What estimates to the left and to the right of that line mean.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If a column is missing or nothing is left to draw.
    """
    needed = [label, columns.estimate, *([] if series is None else [series])]
    for column in (*needed, columns.low, columns.high, *([] if p is None else [p])):
        values_of(table, column)
    table = complete_rows(table, needed)
    refuse_empty(table, "the forest plot")
    names, found = levels_of(table, label, None), levels_of(table, series, series_order)
    lines = len(names) * (len(found) + (0.6 if len(found) > 1 else 0.2))
    figure = Figure(figsize=(WIDTH_IN, 1.0 + 0.19 * lines + 0.1), layout="constrained")
    ax = figure.subplots()
    ax.axvline(reference_value * quantity.factor, color=MUTED, linewidth=1)
    places = common_decimals(table[columns.estimate] * quantity.factor)
    for place, name in enumerate(names):
        of_label = rows_of(table, label, name)
        for order, level in enumerate(found):
            height = place + (order + 0.5) / len(found) * 0.72 - 0.36
            for row in rows_of(of_label, series, level).to_dict("records"):
                _estimate(ax, row, height, order, quantity.factor, columns, places)
                if p is not None:
                    beside(ax, height, P_PT, p_text(float(str(row[p]))))
    _finish_forest(figure, ax, names, found, quantity, p, sides)
    return figure


def _estimate(
    ax: Axes,
    row: Mapping[str, object],
    height: float,
    order: int,
    factor: float,
    columns: Interval,
    places: int,
) -> None:
    """Draw one estimate and write it at the right."""
    middle, low, high = (
        float(str(row[column])) * factor for column in (columns.estimate, columns.low, columns.high)
    )
    colour = colour_of(order)
    ax.plot([low, high], [height, height], color=colour, linewidth=1.6)
    ax.plot([middle], [height], marker_of(order), color=colour, markersize=5)
    beside(
        ax, height, ESTIMATE_PT, f"{decimals(middle, places)}  {interval_text(low, high, places)}"
    )


def _finish_forest(
    figure: Figure,
    ax: Axes,
    names: Sequence[str],
    found: Sequence[str],
    quantity: Quantity,
    p: str | None,
    sides: tuple[str, str] | None,
) -> None:
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "color": MUTED}
    above |= {"va": "bottom", "fontsize": 7.5}
    ax.annotate("estimate [95 % CI]", (1, 1), (ESTIMATE_PT, 3), **above)
    if p is not None:
        ax.annotate(p.replace("_", " "), (1, 1), (P_PT, 3), **above)
    if sides is not None:
        ax.annotate(f"← {sides[0]}", (0, 1), (0, 3), **above)
        ax.annotate(f"{sides[1]} →", (1, 1), (-4, 3), ha="right", **above)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    for place in range(1, len(names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f3f5f8", zorder=-1)
    plain_ticks(ax, "x")
    ax.set_xlabel(quantity.label)
    for order, level in enumerate(found):
        ax.plot([], [], marker_of(order) + "-", color=colour_of(order), label=level, markersize=5)
    legend_below(figure, ax)

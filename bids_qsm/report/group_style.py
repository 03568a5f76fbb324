"""How the charts of the group level look, and how their bytes are made.

A function that draws a chart is decorated with :func:`as_chart`: it is run under one style,
whatever the user's matplotlib settings, and what it returns becomes a PNG for the page and an SVG
for a paper.  Neither has a date or a version in it: the same input always gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from bids_qsm.report.annotations import encode_png
from bids_qsm.report.numbers import raised
from bids_qsm.report.tables import SHOWN_MEASURES, without_side

DPI = 200
WIDTH_IN = 7.2
"""Of a chart with several panels: the two columns of a journal."""
NARROW_IN = 4.8
MAX_COLUMNS = 4
MOST_COUNTED = 4096
"""Colours of a chart; pictures with more are written without a palette."""

INK = "#1a2027"
MUTED = "#55606d"
GRID = "#e3e7ec"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4A9E", "#8C6D1F")
"""Of groups, in their order (after Okabe and Ito, to be told apart by the colour-blind)."""
DENSE = 3000
"""Points of a chart; more are drawn as pixels in the SVG too, so that it stays small."""
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "p")
"""Of groups, so that they are told apart without colours too."""

STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "bids_qsm",
    "svg.fonttype": "path",
    "text.parse_math": False,  # names from data may hold a dollar sign
    "axes.formatter.use_mathtext": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "butt",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}

P = ParamSpec("P")


@dataclass(frozen=True)
class Chart:
    """A picture: PNG of :data:`DPI` dots per inch, and SVG (UTF-8)."""

    png: bytes
    svg: bytes


@dataclass(frozen=True)
class Quantity:
    """What an axis shows.

    Attributes
    ----------
    name : str
        Such as ``χ``.
    units : str
        As in the table; susceptibilities in ppm are shown in ppb, as on the subject's page.
    """

    name: str
    units: str = ""

    @property
    def factor(self) -> float:
        """What a value of the table is multiplied with to be shown."""
        return 1000.0 if re.match(r"ppm\b", self.units) else 1.0

    @property
    def shown_units(self) -> str:
        """The units that are shown."""
        return re.sub(r"^ppm\b", "ppb", self.units)

    @property
    def label(self) -> str:
        """The text at an axis."""
        return f"{self.name} ({self.shown_units})" if self.units else self.name


def quantity_of(measure: str, units: str) -> Quantity:
    """Return a measure of the tables (such as ``Chimap``) as it is shown."""
    return Quantity(SHOWN_MEASURES.get(measure.lower(), measure), units)


def structure_labels(names: pd.Series, hemispheres: pd.Series) -> pd.Series:
    """Return ``Putamen L`` for each row; a structure of both sides has its name alone."""
    sides = hemispheres.fillna("").astype(str).str[:1].str.upper()
    return without_side(names.astype(str)) + sides.where(sides.isin(["L", "R"]), "").map(
        lambda side: f" {side}" if side else ""
    )


def as_chart(draw: Callable[P, Figure]) -> Callable[P, Chart]:
    """Make a function that draws a figure return its bytes, drawn under :data:`STYLE`."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Chart:
        with matplotlib.style.context(["default", dict(STYLE)]):
            figure = draw(*args, **kwargs)
            return Chart(png_of(rasterised(figure)), svg_of(figure))

    return drawn


def rasterised(figure: Figure) -> Image.Image:
    """Return the figure in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def png_of(image: Image.Image) -> bytes:
    """Return the bytes of a PNG, with a palette unless it has as many colours as a map."""
    if image.getcolors(MOST_COUNTED) is not None:
        return encode_png(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def svg_of(figure: Figure) -> bytes:
    """Return the figure as SVG, with letters as outlines."""
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def panel_grid(
    count: int, *, panel_height_in: float = 2.3, max_columns: int = MAX_COLUMNS, **shared: bool
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels in rows; one panel makes a narrow figure.

    Parameters
    ----------
    count : int
    panel_height_in : float
    max_columns : int
        At most so many panels in a row; rows are filled evenly.
    **shared : bool
        ``sharex``, ``sharey``.
    """
    rows = -(-count // max_columns)
    columns = -(-count // rows)
    width, height = (NARROW_IN, 3.6) if count == 1 else (WIDTH_IN, rows * panel_height_in + 0.4)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    kept = axes[:count]
    for ax in kept:
        plain_ticks(ax)
    return figure, kept


def plain_ticks(ax: Axes, which: str = "xy") -> None:
    """Write the numbers at an axis without powers of ten at its end."""
    for name in which:
        axis = getattr(ax, f"{name}axis")
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, power = f"{value:.6e}".split("e")
        text = f"{float(mantissa):.4g}×10{raised(int(power))}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("-", "−")


def values_of(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column, or say which are there.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if column not in table.columns:
        there = ", ".join(map(str, table.columns))
        raise ValueError(f"a chart needs the column {column!r}, there are: {there}.")
    return table[column]


def complete_rows(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows that have a value, and no infinite one, in all of some columns."""
    known = table[list(columns)].replace([np.inf, -np.inf], np.nan).notna().all(axis=1)
    return table[known]


def levels_of(table: pd.DataFrame, column: str | None, wanted: Sequence[str] | None) -> list[str]:
    """Return the levels of a column in the wanted order, or as they come; one of no column.

    Raises
    ------
    ValueError
        If none of the wanted ones is there.
    """
    if column is None:
        return [""]
    found = list(dict.fromkeys(values_of(table, column).dropna().astype(str)))
    if wanted is None:
        return found
    kept = [level for level in wanted if level in found]
    if not kept:
        raise ValueError(
            f"a chart needs one of {', '.join(wanted)} in the column {column!r}, there are: "
            f"{', '.join(found)}."
        )
    return kept


def rows_of(table: pd.DataFrame, column: str | None, level: str) -> pd.DataFrame:
    """Return the rows of one level of :func:`levels_of`."""
    return table if column is None else table[values_of(table, column).astype(str) == level]


def refuse_empty(table: pd.DataFrame | Sequence[Any], what: str) -> None:
    """Raise ``ValueError`` if there is nothing to draw."""
    if not len(table):
        raise ValueError(f"{what} has no row to draw.")


def colour_of(place: int) -> str:
    """Return the colour of the group at ``place``."""
    return COLOURS[place % len(COLOURS)]


def marker_of(place: int) -> str:
    """Return the marker of the group at ``place``."""
    return MARKERS[place % len(MARKERS)]


def heading(ax: Axes, title: str, note: str, *, count: int | None = None) -> None:
    """Write a panel's title and, smaller, a note and the number of points above it."""
    parts = [note] if note else []
    parts += [] if count is None else [f"n = {count}"]
    ax.set_title(title, pad=17 if parts else 6)
    ax.annotate(
        " · ".join(parts),
        (0, 1),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color=MUTED,
        va="bottom",
    )


def beside(ax: Axes, height: float, distance_pt: float, text: str) -> None:
    """Write a text to the right of the axes, at a height in the units of the data."""
    ax.annotate(
        text,
        (1, height),
        (distance_pt, 0),
        xycoords=ax.get_yaxis_transform(),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def legend_below(figure: Figure, ax: Axes, *, marker_scale: float = 1.0) -> None:
    """Put one legend for all panels below them, where there is more than one entry."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        columns = min(len(labels), 5)
        where = {"loc": "outside lower center", "ncols": columns, "markerscale": marker_scale}
        figure.legend(handles, labels, **where)

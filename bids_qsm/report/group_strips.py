"""Strips: each scan a point on the axis of a metric, drawn as SVG that has the page's width.

Places along the axis are in percent, so that text and points keep their size on any screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.report.numbers import number_text

Float64 = NDArray[np.float64]

LANE_PX = 46
NAME_PX = 18
AXIS_PX = 24
ROUNDING = 1 + 1e-9
MARGIN = 0.015
"""Of the width, left free at both ends."""
MOST_TICKS = 6
FARTHEST = 6.0
"""Times the width of nine tenths of the points: beyond that a point is drawn at the axis' end."""
LOG_FROM = 20.0
"""Ratio of the largest to the least value from which an axis is logarithmic."""
BINS = 40
ALL_METRICS = "all metrics"
"""What distances are the ``name`` of."""
FEW = "other kinds, not compared"
CROWDED = 8
"""Points of a bin from which a lane is as wide as it can be."""


@dataclass(frozen=True)
class Point:
    """A scan: its place in percent and pixels, its marks, page, number and words."""

    x: str
    y: str
    mark: str
    page: str
    scan: int
    words: str


@dataclass(frozen=True)
class Lane:
    """The comparable scans of one kind.

    Attributes
    ----------
    name : str
        What they have in common; empty where there is one lane.
    y : float
        Middle, in pixels.
    left, width : str or None
        The expected range in percent; None where nothing is expected.
    median : str or None
    points : tuple of Point
    """

    name: str
    y: float
    left: str | None
    width: str | None
    median: str | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Strip:
    """A metric of all scans."""

    key: str
    title: str
    units: str
    facts: str
    is_log: bool
    height_px: int
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Axis:
    """Values to places from 0 to 1."""

    least: float
    largest: float
    is_log: bool

    def __call__(self, values: Float64) -> Float64:
        """Return the places of some values, which may lie outside."""
        ends = np.array([self.least, self.largest])
        if self.is_log:
            values, ends = np.log(np.maximum(values, 1e-300)), np.log(ends)
        places = (values - ends[0]) / (ends[1] - ends[0])
        return np.asarray(MARGIN + (1 - 2 * MARGIN) * places)


def strip(rows: pd.DataFrame, key: str) -> Strip | None:
    """Return the strip of a metric; None where no scan has a value.

    Parameters
    ----------
    rows : DataFrame
        A row for each scan: ``series, comparable, atlas, check, name, hemisphere, value, low,
        high, units, median, robust_z, is_out_of_range, is_outlier``, and ``number``, ``page`` and
        ``is_excluded`` of the scan.
    key : str
        Of its place in the page.
    """
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return None
    axis = _axis(rows)
    alone = rows["median"].isna()  # of kinds with few scans: one lane for all of them
    if rows.loc[alone, "comparable"].nunique() > 1:
        rows = rows.assign(comparable=rows["comparable"].mask(alone, FEW))
    kinds = list(dict.fromkeys(rows["comparable"]))
    lanes, y = [], 0.0
    for kind in kinds:
        name = kind if len(kinds) > 1 else ""
        y += NAME_PX if name else 0
        lanes.append(_lane(rows[rows["comparable"] == kind], axis, name, y + LANE_PX / 2))
        y += LANE_PX
    first = rows.iloc[0]
    return Strip(
        key,
        _title(first),
        str(first["units"]),
        _facts(rows, len(kinds)),
        axis.is_log,
        round(y + AXIS_PX),
        tuple(lanes),
        _labelled_ticks(axis),
    )


def _axis(rows: pd.DataFrame) -> Axis:
    """Return an axis on which the bulk is told apart; what lies far off is drawn at its end."""
    values = rows["value"].to_numpy(np.float64)
    is_log = bool(values.min() > 0 and values.max() / values.min() > LOG_FROM)
    scaled = np.log(values) if is_log else values
    usual = np.quantile(scaled, (0.05, 0.95))
    reach = FARTHEST * (usual[1] - usual[0]) or np.inf
    least = max(float(scaled.min()), float(usual[0]) - reach)
    largest = min(float(scaled.max()), float(usual[1]) + reach)
    span = largest - least
    for side, is_beyond in (("low", values < rows["low"]), ("high", values > rows["high"])):
        for bound in rows[side].dropna().unique():
            if is_log and bound <= 0:
                continue
            place = math.log(bound) if is_log else bound
            # without a value beyond it, a far bound would crowd the points at one end
            if is_beyond.any() or min(abs(place - least), abs(place - largest)) <= span:
                beyond = 0.1 * abs(place - (largest if side == "low" else least))
                beyond *= bool(is_beyond.any())
                least = min(least, place - beyond) if side == "low" else min(least, place)
                largest = max(largest, place + beyond) if side == "high" else max(largest, place)
    if largest <= least:
        half = abs(least) / 2 or 0.5
        least, largest = least - half, largest + half
    return Axis(math.exp(least), math.exp(largest), True) if is_log else Axis(least, largest, False)


def _lane(rows: pd.DataFrame, axis: Axis, name: str, y: float) -> Lane:
    bounds = (rows[side].unique() for side in ("low", "high"))  # in Hz they go with B0
    low, high = (float(found[0]) if len(found) == 1 else math.nan for found in bounds)
    left, width = None, None
    if math.isfinite(low) or math.isfinite(high):
        ends = [axis(np.array([b]))[0] if math.isfinite(b) else e for b, e in ((low, 0), (high, 1))]
        start, end = (min(1.0, max(0.0, float(place))) for place in ends)
        left, width = _percent(start), _percent(end - start)
    x = np.clip(axis(rows["value"].to_numpy(np.float64)), MARGIN, 1 - MARGIN)
    rows = rows.assign(x=x, mark=[_mark(r) for r in rows.itertuples()])
    rows = rows.sort_values(["x", "series"], kind="stable")
    rows["y"] = y + (LANE_PX / 2 - 6) * _spread(rows["x"].to_numpy(np.float64))
    # what stands out is drawn last, so that nothing hides it
    rows = rows.sort_values("mark", key=lambda mark: mark != "", kind="stable")
    points = tuple(
        Point(_percent(r.x), f"{r.y:.0f}", r.mark, r.page, r.number, _words(r))
        for r in rows.itertuples()
    )
    median = float(rows["median"].iloc[0])
    at = _percent(axis(np.array([median]))[0]) if math.isfinite(median) else None
    return Lane(name, y, left, width, at, points)


def _spread(x: Float64) -> Float64:
    """Return offsets from -1 to 1 that fill a lane where points are many: no random numbers."""
    bins = np.clip((x * BINS).astype(int), 0, BINS - 1)
    crowd = np.bincount(bins, minlength=BINS)[bins]
    width = np.minimum(1.0, (crowd - 1) / CROWDED)
    golden = np.arange(1, len(x) + 1) * 0.6180339887498949
    return np.asarray(width * (2 * (golden % 1) - 1))


def _mark(row: object) -> str:
    words = ("out", "odd", "gone")
    flags = ("is_out_of_range", "is_outlier", "is_excluded")
    return " ".join(w for w, flag in zip(words, flags, strict=True) if getattr(row, flag))


def _words(row: object) -> str:
    """Return what is said of a point: it is shown, and read out."""
    said = [f"{row.series}: {short_text(row.value)} {row.units}".rstrip()]  # type: ignore[attr-defined]
    z = row.robust_z  # type: ignore[attr-defined]
    said += [f"robust z {z:.1f}".replace("-", "−")] if math.isfinite(z) else []
    for word, text in (("out", "out of range"), ("odd", "outlier"), ("gone", "excluded")):
        said += [text] if word in row.mark.split() else []  # type: ignore[attr-defined]
    return ", ".join(said)


def _title(row: pd.Series) -> str:
    side = {"L": "left ", "R": "right "}.get(row["hemisphere"], "")
    return f"{row['check']}, {side}{row['name']}" if row["name"] != ALL_METRICS else row["check"]


def _facts(rows: pd.DataFrame, n_kinds: int) -> str:
    """Return what is said of a metric in one line."""
    low, high = rows["low"].iloc[0], rows["high"].iloc[0]
    said = []
    if n_kinds == 1:
        if rows["name"].iloc[0] == ALL_METRICS:
            said.append(f"cutoff {short_text(high)}")
        elif np.isfinite(low) and np.isfinite(high):
            said.append(f"expected {short_text(low)} to {short_text(high)}")
        elif np.isfinite(low):
            said.append(f"expected at least {short_text(low)}")
        elif np.isfinite(high):
            said.append(f"expected at most {short_text(high)}")
        if np.isfinite(rows["median"].iloc[0]):
            said.append(f"median {short_text(rows['median'].iloc[0])}")
    n_out, n_odd = int(rows["is_out_of_range"].sum()), int(rows["is_outlier"].sum())
    said += [f"{n_out} out of range"] if n_out else []
    said += [f"{n_odd} outlier{'' if n_odd == 1 else 's'}"] if n_odd else []
    return " · ".join(said)


def _labelled_ticks(axis: Axis) -> tuple[tuple[str, str], ...]:
    """Return the place and the text of each tick; near neighbours get all their digits."""
    values = _ticks(axis)
    texts = [short_text(value) for value in values]
    if len(set(texts)) < len(texts):
        texts = [f"{value:.10g}" for value in values]
    places = (_percent(axis(np.array([value]))[0]) for value in values)
    return tuple(zip(places, texts, strict=True))


def _ticks(axis: Axis) -> Sequence[float]:
    """Return round numbers within an axis."""
    if axis.is_log:
        powers = range(math.floor(math.log10(axis.least)), math.ceil(math.log10(axis.largest)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            ticks = [f * 10.0**power for power in powers for f in factors]
            ticks = [
                t for t in ticks if axis.least <= t * ROUNDING and t <= axis.largest * ROUNDING
            ]
            if len(ticks) <= MOST_TICKS:
                return ticks
        return ticks[:: -(-len(ticks) // MOST_TICKS)]
    span = axis.largest - axis.least
    power = 10.0 ** math.floor(math.log10(span))
    step = next(s * power for s in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (s * power) < MOST_TICKS)
    first, last = math.ceil(axis.least / step - 1e-9), math.floor(axis.largest / step + 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def short_text(value: float) -> str:
    """Return a number with three digits at most."""
    text = number_text(value)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def _percent(place: float) -> str:
    return f"{100 * place:.2f}%"

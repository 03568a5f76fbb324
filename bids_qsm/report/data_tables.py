"""Data frames of results as tables of a page: titles, units, intervals and numbers to be read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bids_qsm.report.group_style import structure_labels
from bids_qsm.report.numbers import common_decimals, interval_text, number_text, p_text
from bids_qsm.report.tables import NONE, SHOWN_MEASURES, Cell, Column, Row, Table, decimals

LARGEST = 500
"""Rows of a table that are shown."""
WIDEST = 3
"""More decimals than the largest value of a column needs; else each value has its own."""
TITLES: Mapping[str, str] = {
    "aic": "AIC",
    "bic": "BIC",
    "ci": "95 % CI",
    "cv_percent": "CV (%)",
    "df": "df",
    "f": "F",
    "fwhm_mm": "FWHM (mm)",
    "group_a": "group A",
    "group_b": "group B",
    "hedges_g": "Hedges g",
    "icc_2_1": "ICC(2,1)",
    "icc_3_1": "ICC(3,1)",
    "loa_lower": "lower limit",
    "loa_upper": "upper limit",
    "mad": "mean abs. difference",
    "mad_percent": "mean abs. difference (%)",
    "mean_a": "mean A",
    "mean_b": "mean B",
    "n": "n",
    "n_a": "n A",
    "n_b": "n B",
    "q_fdr": "q (FDR)",
    "r_squared": "R²",
    "sd": "SD",
    "sd_a": "SD A",
    "sd_b": "SD B",
    "sd_between": "SD between",
    "sd_within": "SD within",
    "structure": "structure",
    "volume_mm3": "volume (mm³)",
}
"""Titles of columns that are not their names with spaces."""
IS_P = re.compile(r"[pq](_|$)")


def data_table(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    in_units: Sequence[str] = (),
) -> Table:
    """Return a data frame as it is read.

    The first column names the rows; a ``hemisphere`` is joined to the structure.  Two columns
    ``x_low`` and ``x_high`` become one interval.  Numbers of a column have the same decimals among
    the rows of one unit where that is possible; p and q values (``p``, ``q``, ``p_...``) their own.

    Parameters
    ----------
    frame : DataFrame
        At most :data:`LARGEST` rows are taken.
    columns : mapping of str to str, optional
        Columns to show, in order, with their titles; an empty title is made from the name.
    in_units : sequence of str
        Columns in the ``units`` of the row: those in ppm become ppb, as does what ``units`` says.

    Raises
    ------
    ValueError
        If a column is not there, or there is none.
    """
    frame = frame.iloc[:LARGEST].reset_index(drop=True)
    titles = dict.fromkeys(map(str, frame.columns), "") if columns is None else dict(columns)
    absent = [name for name in titles if name not in frame.columns]
    if absent or not titles:
        there = ", ".join(map(str, frame.columns))
        raise ValueError(f"a table has no column {', '.join(absent)!r}, there are: {there}.")
    units = frame.get("units", pd.Series("", index=frame.index)).astype(str)
    frame = _in_ppb(frame[list(titles)], units, in_units)
    frame = _with_sides(frame)
    names = [name for name in titles if name in frame.columns]
    corner, *others = names
    intervals = {name.removesuffix("_low") for name in others if f"{_stem(name)}_high" in others}
    made = []
    for name in others:
        if name.endswith("_high") and name.removesuffix("_high") in intervals:
            continue
        stem = name.removesuffix("_low")
        is_interval = name.endswith("_low") and stem in intervals
        title = titles[name] or _title(stem, is_interval)
        cells = _intervals(frame, stem, units) if is_interval else _cells(frame[name], name, units)
        made.append((Column(title, is_text=_is_text(frame[name])), cells))
    heads = frame[corner].map(lambda value: NONE if pd.isna(value) else str(value))
    rows = tuple(
        Row(head, tuple((cells[place],) for _, cells in made)) for place, head in enumerate(heads)
    )
    corner_title = titles[corner] or _title(corner, is_interval=False)
    return Table(corner_title, tuple(column for column, _ in made), rows)


def _stem(name: str) -> str:
    return name.removesuffix("_low") if name.endswith("_low") else ""


def _title(name: str, is_interval: bool) -> str:
    if is_interval and name != "ci":
        return f"{_title(name, is_interval=False)}, CI"
    if name in TITLES:
        return TITLES[name]
    if IS_P.match(name) and len(name) > 2:
        return f"{name[0]} ({name[2:].replace('_', ' ')})"
    return name.replace("_", " ")


def _in_ppb(frame: pd.DataFrame, units: pd.Series, in_units: Sequence[str]) -> pd.DataFrame:
    """Return values in ppm as ppb, in the columns that have the row's units."""
    if not in_units:
        return frame
    frame, is_ppm = frame.copy(), units.str.match(r"ppm\b")
    for name in in_units:
        if name in frame.columns:
            frame[name] = frame[name].where(~is_ppm, frame[name] * 1000.0)
    if "units" in frame.columns:
        frame["units"] = units.str.replace(r"^ppm\b", "ppb", regex=True)
    return frame


def _with_sides(frame: pd.DataFrame) -> pd.DataFrame:
    """Return structures with their side, and measures by the names that pages give them."""
    frame = frame.copy()
    named = next((name for name in ("structure", "name") if name in frame.columns), None)
    if named is not None and "hemisphere" in frame.columns:
        frame[named] = structure_labels(frame[named], frame.pop("hemisphere"))
    if "measure" in frame.columns:
        shown = frame["measure"].astype(str)
        frame["measure"] = shown.map(lambda name: SHOWN_MEASURES.get(name.lower(), name))
    return frame


def _is_text(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values)


def _cells(values: pd.Series, name: str, units: pd.Series) -> list[Cell]:
    if pd.api.types.is_bool_dtype(values):
        return [Cell("yes" if value else "no") for value in values]
    if _is_text(values):
        return [Cell(NONE if pd.isna(value) else str(value)) for value in values]
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    if IS_P.match(name):
        texts = [p_text(value) for value in numbers]
    else:
        places = _places(values.to_frame(), units)
        texts = [_text(value, place) for value, place in zip(numbers, places, strict=True)]
    return [
        Cell(text, float(value)) if math.isfinite(value) else Cell(NONE)
        for text, value in zip(texts, numbers, strict=True)
    ]


def _intervals(frame: pd.DataFrame, stem: str, units: pd.Series) -> list[Cell]:
    columns = frame[[f"{stem}_low", f"{stem}_high"]]
    ends, places = columns.to_numpy(np.float64, na_value=np.nan), _places(columns, units)
    cells = []
    for (low, high), place in zip(ends, places, strict=True):
        if not math.isfinite(low) and not math.isfinite(high):
            cells.append(Cell(NONE))
        elif place is None:
            cells.append(Cell(f"[{number_text(low)}, {number_text(high)}]", float(low)))
        else:
            cells.append(Cell(interval_text(low, high, place), float(low)))
    return cells


def _text(value: float, place: int | None) -> str:
    return number_text(value) if place is None else decimals(value, place)


def _places(columns: pd.DataFrame, units: pd.Series) -> list[int | None]:
    """Return the decimals of each row; None where the values of its unit are too unlike for one."""
    places = pd.Series([None] * len(columns), index=columns.index, dtype=object)
    for _, rows in columns.groupby(units, sort=False):
        values = np.abs(rows.to_numpy(np.float64, na_value=np.nan)).ravel()
        values = values[np.isfinite(values) & (values > 0)]
        is_whole = bool((values == np.rint(values)).all())
        if not values.size or (is_whole and values.max() < 1e6):
            places[rows.index] = 0
        else:
            least = common_decimals([float(values.max())])
            wanted = common_decimals([float(np.quantile(values, 0.25, method="lower"))], digits=2)
            if values.max() < 1e6 and max(least, wanted) - least <= WIDEST:
                places[rows.index] = max(least, wanted)
    return places.tolist()

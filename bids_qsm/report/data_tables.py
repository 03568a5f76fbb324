"""Data frames of results as tables of a page: titles, units, intervals and numbers to be read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.report.group_style import structure_labels
from bids_qsm.report.numbers import common_decimals, number_text, p_text
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
    "delta_aic": "ΔAIC",
    "delta_bic": "ΔBIC",
    "delta_r2": "ΔR²",
    "df": "df",
    "f": "F",
    "fwhm_mm": "FWHM (mm)",
    "group_a": "group A",
    "group_b": "group B",
    "a": "A",
    "b": "B",
    "hedges_g": "Hedges g",
    "icc_2_1": "ICC(2,1)",
    "icc_3_1": "ICC(3,1)",
    "loa_lower": "lower limit",
    "loa_upper": "upper limit",
    "mad": "mean abs. difference",
    "mad_percent": "mean abs. difference (%)",
    "mad_percent_of_mean": "mean abs. difference (% of mean)",
    "n": "n",
    "n_a": "n A",
    "n_b": "n B",
    "p_holm": "p (Holm)",
    "p_tukey": "p (Tukey)",
    "p_welch": "p (Welch)",
    "q_fdr": "q (FDR)",
    "q_fdr_adjusted": "q (FDR), adjusted",
    "r2": "R²",
    "r2_after": "R² after",
    "r2_base": "R² base",
    "r2_before": "R² before",
    "r2_full": "R² full",
    "r_squared": "R²",
    "sd": "SD",
    "sd_between": "SD between",
    "sd_within": "SD within",
    "volume_mm3": "volume (mm³)",
}
"""Titles of columns that are not their names with spaces."""
IS_P = re.compile(r"[pq](_|$)")
IS_MEAN = re.compile(r"mean(_|$)")


def data_table(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    in_units: Sequence[str] = (),
) -> Table:
    """Return a data frame as it is read.

    The first column names the rows; a ``hemisphere`` is joined to the structure.  Two columns
    ``x_low`` and ``x_high`` become one interval, ``mean...`` and ``sd...`` one mean ± SD.  Numbers
    of a column have the same decimals among the rows of one unit where that is possible; p and q
    values (``p``, ``q``, ``p_...``) their own.

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
    taken = {partner for name in others if (partner := _partner(name)) in others}
    made = []
    for name in others:
        if name in taken:
            continue
        partner = _partner(name)
        is_pair = partner in taken
        title = titles[name] or (_pair_title(name) if is_pair else _title(name))
        make = _pairs if is_pair else _cells
        cells = make(frame[[name, partner] if is_pair else [name]], units)
        made.append((Column(title, is_text=_is_text(frame[name])), cells))
    heads = frame[corner].map(lambda value: NONE if pd.isna(value) else str(value))
    rows = tuple(
        Row(head, tuple((cells[place],) for _, cells in made)) for place, head in enumerate(heads)
    )
    corner_title = titles[corner] or _title(corner)
    return Table(corner_title, tuple(column for column, _ in made), rows)


def _partner(name: str) -> str:
    """Return the column that is shown in one with this one, if it is there; or nothing."""
    if name.endswith("_low"):
        return f"{name.removesuffix('_low')}_high"
    if IS_MEAN.match(name):
        return f"sd{name.removeprefix('mean')}"
    return ""


def _pair_title(name: str) -> str:
    if name.endswith("_low"):
        stem = name.removesuffix("_low")
        return _title(stem) if stem == "ci" else f"{_title(stem)}, CI"
    return f"mean ± SD {_title(name.removeprefix('mean').lstrip('_'))}".strip()


def _title(name: str) -> str:
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


def _cells(frame: pd.DataFrame, units: pd.Series) -> list[Cell]:
    """Return the cells of one column."""
    name = frame.columns[0]
    values = frame[name]
    if pd.api.types.is_bool_dtype(values):
        return [Cell("yes" if value else "no") for value in values]
    if _is_text(values):
        return [Cell(NONE if pd.isna(value) else str(value)) for value in values]
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    if IS_P.match(name):
        texts = [p_text(value) for value in numbers]
    else:
        places = _places(frame, units)
        texts = [_text(value, place) for value, place in zip(numbers, places, strict=True)]
    return [
        Cell(text, float(value)) if math.isfinite(value) else Cell(NONE)
        for text, value in zip(texts, numbers, strict=True)
    ]


def _pairs(frame: pd.DataFrame, units: pd.Series) -> list[Cell]:
    """Return the cells of two columns in one: an interval, or a mean and a standard deviation."""
    both, places = frame.to_numpy(np.float64, na_value=np.nan), _places(frame, units)
    is_interval = frame.columns[0].endswith("_low")
    cells = []
    for pair, place in zip(both, places, strict=True):
        one, other = (_text(float(value), place) for value in pair)
        text = f"[{one}, {other}]" if is_interval else f"{one} ± {other}"
        known = math.isfinite(pair[0])
        nothing = not (known or math.isfinite(pair[1]))
        cells.append(Cell(NONE if nothing else text, float(pair[0]) if known else None))
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
                places[rows.index] = _needed(values, max(least, wanted))
    return places.tolist()


def _needed(values: NDArray[np.float64], places: int) -> int:
    """Return fewer decimals where the last ones of all values are zero."""
    while places and np.allclose(values, np.round(values, places - 1), rtol=0, atol=1e-12):
        places -= 1
    return places

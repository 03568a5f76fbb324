"""Tables as a page shows them, and the tables of a series as they are read for that."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bids_qsm.reading import check_table

if TYPE_CHECKING:  # a page needs no data frame, and pandas takes long to import
    import pandas as pd

NONE = "–"
SHOWN_MEASURES = {
    "chimap": "χ",
    "chi": "χ",
    "r2starmap": "R2*",
    "r2star": "R2*",
    "paramagneticchimap": "χ paramagnetic",
    "diamagneticchimap": "χ diamagnetic",
}
"""Titles of measures, by their name in small letters."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    text : str
    value : float or None
        By which its column is sorted; a cell without one comes last in a column of numbers.
    mark : str
        ``partial``: much of it was not measured; ``passed`` or ``failed``: a verdict.
    """

    text: str
    value: float | None = None
    mark: Literal["", "partial", "passed", "failed"] = ""


@dataclass(frozen=True)
class Column:
    """A column, or several under one title.

    Attributes
    ----------
    title, unit, note : str
    parts : tuple of str
        Titles of the columns that it consists of, such as left and right.
    is_text : bool
    """

    title: str
    unit: str = ""
    note: str = ""
    parts: tuple[str, ...] = ()
    is_text: bool = False


@dataclass(frozen=True)
class Row:
    """A row; for each column its cells, of which one may stand for all parts."""

    name: str
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table in the order in which it is shown; ``corner`` is the title of the rows' names."""

    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def has_parts(self) -> bool:
        """Whether its head has two lines."""
        return any(column.parts for column in self.columns)


def read_rows(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Return the rows of a TSV file.

    Raises
    ------
    ValueError
        If it is no table of text, a row is not as long as the header, or one of ``columns`` is
        absent.
    OSError
        If it cannot be opened.
    """
    check_table(path)
    with path.open(encoding="utf-8", newline="") as lines:
        try:
            reader = csv.DictReader(lines, delimiter="\t")
            found = reader.fieldnames or ()
            rows = list(reader)
        except csv.Error as error:
            raise ValueError(f"it is no table: {error}") from None
    absent = [column for column in columns if column not in found]
    if absent:
        raise ValueError(f"it has no column {absent[0]!r}")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row is not as long as the header")
    return rows


def number(row: dict[str, str], column: str) -> float:
    """Return a value of a row; NaN where it is ``n/a``, or there is no such column.

    Raises
    ------
    ValueError
        If it is no number.
    """
    text = row.get(column, "n/a")
    if text == "n/a":
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"its column {column!r} holds {text!r}, which is no number") from None


def decimals(value: float, digits: int) -> str:
    """Return a number with so many decimals and a true minus sign."""
    return f"{value:z.{digits}f}".replace("-", "−") if math.isfinite(value) else NONE


def number_cell(value: float, digits: int) -> Cell:
    """Return the cell of a number; a dash where it is NaN."""
    return Cell(decimals(value, digits), value) if math.isfinite(value) else Cell(NONE)


def mean_cell(mean: float, sd: float, *, partial: bool = False) -> Cell:
    """Return the cell of a mean and a standard deviation, sorted by the mean."""
    mark: Literal["", "partial"] = "partial" if partial else ""
    if not math.isfinite(mean):
        return Cell(NONE, mark=mark)
    spread = f" ± {decimals(sd, 1)}" if math.isfinite(sd) else ""
    return Cell(decimals(mean, 1) + spread, mean, mark)


def without_side(names: pd.Series) -> pd.Series:
    """Return the names of structures without left or right, so that the two sides share one."""
    return names.str.replace(SIDE, "", case=False, regex=True)


SIDE = r"^(left|right)[ _-]+"
"""How the name of a structure of one side begins, in small or large letters."""

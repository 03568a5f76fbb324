"""The tables of the clinical steps as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bids_qsm.report.tables import Cell, Column, Row, Table, number, number_cell


@dataclass(frozen=True)
class Shown:
    """A column of a table: its title, its unit, and its decimals (None for text).

    ``factor`` takes the file's unit to the shown one, as 1000 from ppm to ppb.
    """

    title: str
    unit: str = ""
    digits: int | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Layout:
    """How a table is shown.

    Attributes
    ----------
    heading : str
        Of the section; tables of one heading stand together.
    title, caption : str
    corner : tuple of (column, title)
        What names the rows.
    columns : mapping of str to Shown
    empty : str
        What is said of a table without rows.
    """

    heading: str
    title: str
    caption: str
    corner: tuple[str, str]
    columns: Mapping[str, Shown]
    empty: str


LAYOUTS: Mapping[str, Layout] = {}
"""By the tables' rows of :data:`bids_qsm.bids.naming.OUTPUTS`, in the order of the report."""


def clinical_table(layout: Layout, rows: list[dict[str, str]]) -> Table:
    """Lay out the rows of a clinical table, in their order.

    Raises
    ------
    ValueError
        If a value is no number.
    """
    columns = tuple(
        Column(shown.title, shown.unit, is_text=shown.digits is None)
        for shown in layout.columns.values()
    )
    return Table(layout.corner[1], columns, tuple(_row(layout, row) for row in rows))


def _row(layout: Layout, row: dict[str, str]) -> Row:
    cells = tuple(
        Cell("–" if row[name] == "n/a" else row[name])
        if shown.digits is None
        else number_cell(shown.factor * number(row, name), shown.digits)
        for name, shown in layout.columns.items()
    )
    return Row(row[layout.corner[0]], tuple((cell,) for cell in cells))

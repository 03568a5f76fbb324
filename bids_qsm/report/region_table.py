"""The per-structure table as it is read: a row for each structure, left and right side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bids_qsm.report.tables import (
    NONE,
    SHOWN_MEASURES,
    SIDE,
    Cell,
    Column,
    Row,
    Table,
    mean_cell,
    number,
    number_cell,
)

FULL_COVERAGE = 0.9
"""A structure of which less than this was measured is marked."""
REGIONS_NEEDED = ("name", "hemisphere", "measure", "units", "mean", "sd", "volume_mm3", "coverage")
SIDES = ("left", "right")


@dataclass(frozen=True)
class _Value:
    """A row of the tidy table: one measure of one structure."""

    name: str
    side: str
    measure: str
    units: str
    reference: str
    row: dict[str, str]


def region_table(rows: Sequence[dict[str, str]], reference: str | None) -> Table:
    """Lay out the tidy per-structure table for reading.

    Parameters
    ----------
    rows : sequence of dict
        A row for each structure, measure and reference, with the columns :data:`REGIONS_NEEDED`.
    reference : str or None
        Of several references only this one is shown, if the table has it.

    Returns
    -------
    Table
        Each measure, then the same without veins where there are some in a structure, then
        volume and, where the table has it, confidence.

    Raises
    ------
    ValueError
        If a value is no number.
    """
    values = [value for value in map(_value, rows) if value.measure in SHOWN_MEASURES]
    if reference in {value.reference for value in values}:
        values = [value for value in values if value.reference in ("", reference)]
    columns, parts = [], []
    for column, part, cell in _layout(values):
        columns.append(column)
        parts.append((part, cell))
    names = dict.fromkeys(value.name for value in values)
    return Table(
        "Structure",
        tuple(columns),
        tuple(
            Row(name, tuple(_sides((v for v in part if v.name == name), f) for part, f in parts))
            for name in names
        ),
    )


def leaves_out_veins(rows: Iterable[dict[str, str]]) -> bool:
    """Return whether a structure has voxels of veins."""
    return any(number(row, "n_vein_voxels") > 0 for row in rows)


def _value(row: dict[str, str]) -> _Value:
    reference = row.get("reference", "n/a")
    return _Value(
        re.sub(SIDE, "", row["name"], flags=re.IGNORECASE),
        row["hemisphere"][:1].upper(),
        row["measure"].lower(),
        row["units"],
        "" if reference == "n/a" else reference,
        row,
    )


def _layout(
    values: Sequence[_Value],
) -> Iterable[tuple[Column, Sequence[_Value], Callable[[_Value], Cell]]]:
    """Yield the columns: what each is called, its part of the values, and what makes a cell."""
    veins = leaves_out_veins(value.row for value in values)
    several = len({value.reference for value in values if value.reference}) > 1
    part: list[_Value] = []
    for measure, units, reference in dict.fromkeys(
        (v.measure, v.units, v.reference) for v in values
    ):
        key = (measure, units, reference)
        part = [v for v in values if (v.measure, v.units, v.reference) == key]
        unit = "ppb" if units == "ppm" else units
        relative = f"relative to {reference}" if reference and several else ""
        title = SHOWN_MEASURES[measure]
        yield Column(title, unit, relative, SIDES), part, _mean
        if veins:
            note = ", ".join(filter(None, ("without veins", relative)))
            yield Column(title, unit, note, SIDES), part, _mean_without_veins
    # volume and confidence are the same with each measure
    yield (
        Column("Volume", "mm³", parts=SIDES),
        part,
        lambda v: number_cell(number(v.row, "volume_mm3"), 0),
    )
    if any(not math.isnan(number(value.row, "confidence")) for value in part):
        yield (
            Column("Confidence", "%", parts=SIDES),
            part,
            lambda v: number_cell(100 * number(v.row, "confidence"), 0),
        )


def _mean(value: _Value) -> Cell:
    partial = number(value.row, "coverage") < FULL_COVERAGE
    factor = _factor(value)
    mean, sd = number(value.row, "mean"), number(value.row, "sd")
    return mean_cell(factor * mean, factor * sd, partial=partial)


def _mean_without_veins(value: _Value) -> Cell:
    factor = _factor(value)
    mean, sd = number(value.row, "mean_without_veins"), number(value.row, "sd_without_veins")
    return mean_cell(factor * mean, factor * sd)


def _factor(value: _Value) -> float:
    return 1000.0 if value.units == "ppm" else 1.0


def _sides(values: Iterable[_Value], cell: Callable[[_Value], Cell]) -> tuple[Cell, ...]:
    """Return the cells of left and right; a structure of both sides has one."""
    cells = {value.side: cell(value) for value in values}
    if cells and not {"L", "R"} & cells.keys():
        return (next(iter(cells.values())),)
    return cells.get("L", Cell(NONE)), cells.get("R", Cell(NONE))

"""Lesions, volumes, thickness and checks of labels as they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bids_qsm.report.tables import (
    NONE,
    Cell,
    Column,
    Row,
    Table,
    decimals,
    mean_cell,
    number,
    number_cell,
)

LESIONS_NEEDED = ("index", "volume_mm3", "location", "lobe", "ventricle_distance_mm")
MEASURES_NEEDED = ("name", "hemisphere", "measure", "value", "units", "normalised", "source")
SERIES_CHECKS_NEEDED = ("check", "name", "value", "low", "high", "units", "passed")
CHECKS_NEEDED = (*SERIES_CHECKS_NEEDED, "hemisphere")
NOT_MEASURED = "n/a"
SIDES = {"L": "left", "R": "right", "B": "both"}
LESION = "lesion"
"""In the name of a measure: it belongs to the lesions."""

Rows = Sequence[dict[str, str]]


def lesion_table(rows: Rows) -> Table:
    """Lay out the table of lesions: a row for each, in its order.

    Raises
    ------
    ValueError
        If a value is no number.
    """
    columns = (
        Column("Volume", "mm³"),
        Column("Place", is_text=True),
        Column("Lobe", is_text=True),
        Column("To the ventricle", "mm"),
        Column("χ", "ppb"),
        Column("R2*", "1/s"),
        Column("Centre x, y, z", "mm", is_text=True),
    )
    return Table("Lesion", columns, tuple(_lesion(row) for row in rows))


def _lesion(row: dict[str, str]) -> Row:
    chi = (1000 * number(row, f"chi_ppm_{what}") for what in ("mean", "sd"))
    r2star = (number(row, f"r2star_per_s_{what}") for what in ("mean", "sd"))
    centre = (decimals(number(row, f"{axis}_mm"), 0) for axis in "xyz")
    cells = (
        number_cell(number(row, "volume_mm3"), 0),
        _text(row["location"]),
        _text(row["lobe"]),
        number_cell(number(row, "ventricle_distance_mm"), 1),
        mean_cell(*chi),
        mean_cell(*r2star),
        Cell(", ".join(centre)),
    )
    return Row(row["index"], tuple((cell,) for cell in cells))


def total_load(rows: Rows) -> str:
    """Return number and volume of all lesions as a sentence."""
    volume_ml = math.fsum(number(row, "volume_mm3") for row in rows) / 1000
    if not rows:
        return "No lesion was found: the load is 0 mL."
    noun = "lesion" if len(rows) == 1 else "lesions"
    return f"{len(rows)} {noun}, {decimals(volume_ml, 2)} mL in all."


def load_table(rows: Rows) -> Table:
    """Lay out number and volume of the lesions of each place, of all, and of enhancing ones.

    Parameters
    ----------
    rows : sequence of dict
        The measures of a head, of which those of lesions are taken.
    """
    kinds: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        if LESION in row["name"]:
            kinds.setdefault(row["name"], {})[row["measure"]] = row
    columns = (Column("Number"), Column("Volume", "mL"), Column("Normalised", "mL"))
    return Table("Lesions", columns, tuple(_load(name, found) for name, found in kinds.items()))


def _load(name: str, found: dict[str, dict[str, str]]) -> Row:
    volume = found.get("volume", {})
    cells = (
        number_cell(number(found.get("number", {}), "value"), 0),
        number_cell(number(volume, "value"), 2),
        number_cell(number(volume, "normalised"), 2),
    )
    return Row(name, tuple((cell,) for cell in cells))


def measure_table(rows: Rows, measure: str) -> Table:
    """Lay out volumes or thickness of a head, without its lesions.

    Parameters
    ----------
    rows : sequence of dict
        The measures of a head.
    measure : {"volume", "thickness"}

    Returns
    -------
    Table
        Side, normalised volume, and who measured it have columns where there is something to
        tell.
    """
    rows = [row for row in rows if row["measure"] == measure and LESION not in row["name"]]
    digits = 1 if measure == "volume" else 2
    unit = rows[0]["units"] if rows else ""
    columns, cells = [], []
    if any(row["hemisphere"] != "B" for row in rows):
        columns.append(Column("Side", is_text=True))
        cells.append([_text(SIDES.get(row["hemisphere"], row["hemisphere"])) for row in rows])
    columns.append(Column(measure.capitalize(), unit))
    cells.append([number_cell(number(row, "value"), digits) for row in rows])
    if any(row["normalised"] != "n/a" for row in rows):
        columns.append(Column("Normalised", unit))
        cells.append([number_cell(number(row, "normalised"), digits) for row in rows])
    if len({row["source"] for row in rows}) > 1:
        columns.append(Column("Measured by", is_text=True))
        cells.append([_text(row["source"]) for row in rows])
    return Table(
        "Part of the head",
        tuple(columns),
        tuple(
            Row(row["name"], tuple((cell,) for cell in of_row))
            for row, of_row in zip(rows, zip(*cells, strict=True), strict=True)
        ),
    )


def check_table(rows: Rows, of: str = "Structure") -> Table:
    """Lay out checks, those that failed first; ``of`` says what each is a check of."""
    columns = (
        Column(of, is_text=True),
        Column("Found"),
        Column("Expected", is_text=True),
        Column("Verdict", is_text=True),
    )
    rows = sorted(rows, key=has_passed)  # the order stays among equals
    return Table("Check", columns, tuple(_check(row) for row in rows))


def has_passed(row: dict[str, str]) -> bool:
    """Return whether a check passed, or could not be made."""
    return row["passed"].lower() != "false"


def _check(row: dict[str, str]) -> Row:
    units = "" if row["units"] == "n/a" else row["units"]
    side = row.get("hemisphere", "B")
    structure = row["name"] if side == "B" else f"{row['name']}, {SIDES.get(side, side)}"
    value = number(row, "value")
    found = Cell(f"{_short(value)} {units}".rstrip(), value) if math.isfinite(value) else Cell(NONE)
    verdict = Cell("passed", mark="passed") if has_passed(row) else Cell("failed", mark="failed")
    if row["passed"] == NOT_MEASURED:
        verdict = Cell(NONE)
    expected = _range(number(row, "low"), number(row, "high"), units)
    return Row(row["check"], ((Cell(structure),), (found,), (Cell(expected),), (verdict,)))


def _range(low: float, high: float, units: str) -> str:
    if math.isnan(low):
        text = f"at most {_short(high)}"
    elif math.isnan(high):
        text = f"at least {_short(low)}"
    else:
        text = _short(low) if low == high else f"{_short(low)} to {_short(high)}"
    return f"{text} {units}".rstrip()


def _short(value: float) -> str:
    """Return three digits of a number, and all those before the point."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def _text(text: str) -> Cell:
    return Cell(NONE if text in ("", "n/a") else text)

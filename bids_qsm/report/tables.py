"""The per-structure table as it is read: a row for each structure, left and right side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FULL_COVERAGE = 0.9
"""A structure of which less than this was measured is marked."""
SHOWN_MEASURES = {"chimap": "χ", "chi": "χ", "r2starmap": "R2*", "r2star": "R2*"}
COLUMNS = ("name", "hemisphere", "measure", "units", "mean", "sd", "volume_mm3", "coverage")


@dataclass(frozen=True)
class Cell:
    """A value for one side: its text, and whether much of the structure was not measured."""

    text: str
    partial: bool = False


@dataclass(frozen=True)
class Group:
    """Two columns, left and right.

    Attributes
    ----------
    title, unit : str
    note : str
        What the values are relative to; empty for most.
    """

    title: str
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A structure; each group has the cells of left and right, or one for both sides."""

    name: str
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class RegionTable:
    """The table in the order in which it is shown."""

    groups: tuple[Group, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, reference: str | None) -> RegionTable:
    """Read the tidy per-structure table and lay it out for reading.

    Parameters
    ----------
    path : Path
        TSV with a row for each structure, measure and reference.
    reference : str or None
        Of several references only this one is shown, if the table has it.

    Raises
    ------
    ValueError
        If the file is not such a table.
    OSError
        If it cannot be opened.
    """
    tidy = pd.read_csv(path, sep="\t", dtype={"name": str, "hemisphere": str, "reference": str})
    missing = [column for column in COLUMNS if column not in tidy.columns]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}")
    tidy["measure"] = tidy["measure"].astype(str)
    tidy = tidy[tidy["measure"].str.lower().isin(SHOWN_MEASURES)]
    tidy["reference"] = tidy["reference"].fillna("") if "reference" in tidy else ""
    if reference in set(tidy["reference"]):
        tidy = tidy[tidy["reference"].isin(["", reference])]
    tidy["side"] = tidy["hemisphere"].fillna("").str[:1].str.upper()
    tidy["name"] = without_side(tidy["name"])
    return _laid_out(tidy)


def without_side(names: pd.Series) -> pd.Series:
    """Return the names of structures without left or right, so that the two sides share one."""
    return names.str.replace(r"^(left|right)[ _-]+", "", case=False, regex=True)


def _laid_out(tidy: pd.DataFrame) -> RegionTable:
    columns = tidy[["measure", "units", "reference"]].drop_duplicates()
    groups, parts = [], []
    for measure, units, reference in columns.itertuples(index=False):
        is_ppm = units == "ppm"
        title = SHOWN_MEASURES[measure.lower()]
        groups.append(Group(title, "ppb" if is_ppm else str(units), reference))
        part = tidy[(tidy["measure"] == measure) & (tidy["reference"] == reference)]
        parts.append((part, 1000.0 if is_ppm else 1.0))
    rows = []
    for name in dict.fromkeys(tidy["name"]):
        cells = [_measured(part[part["name"] == name], factor) for part, factor in parts]
        volumes = _volumes(parts[0][0][parts[0][0]["name"] == name])
        rows.append(Row(str(name), (*cells, volumes)))
    return RegionTable((*groups, Group("Volume", "mm³")), tuple(rows))


def _measured(rows: pd.DataFrame, factor: float) -> tuple[Cell, ...]:
    cells = {
        side: Cell(_mean_and_sd(mean * factor, sd * factor), coverage < FULL_COVERAGE)
        for side, mean, sd, coverage in rows[["side", "mean", "sd", "coverage"]].itertuples(
            index=False
        )
    }
    return _sides(cells)


def _volumes(rows: pd.DataFrame) -> tuple[Cell, ...]:
    pairs = rows[["side", "volume_mm3"]].itertuples(index=False)
    return _sides({side: Cell("–" if pd.isna(v) else f"{v:.0f}") for side, v in pairs})


def _sides(cells: dict[str, Cell]) -> tuple[Cell, ...]:
    """Return the cells of left and right; a structure of both sides has one."""
    if cells and not {"L", "R"} & cells.keys():
        return (next(iter(cells.values())),)
    return cells.get("L", Cell("–")), cells.get("R", Cell("–"))


def _mean_and_sd(mean: float, sd: float) -> str:
    if pd.isna(mean):
        return "–"
    spread = "" if pd.isna(sd) else f" ± {sd:.1f}"
    return f"{mean:.1f}{spread}".replace("-", "−")

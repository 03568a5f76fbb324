"""Repeated measurements of the same structures, found in a tidy table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

STRUCTURE = ("atlas", "measure", "units", "reference", "index", "name", "hemisphere")
"""Columns of the tidy table that say what was measured, where they are there."""


@dataclass(frozen=True)
class Repeats:
    """Values of each subject (rows), occasion and structure.

    ``values`` has shape (subjects, occasions, structures) and is NaN where nothing was measured;
    ``structures`` has one row for each of the last axis; ``left_out`` says which subjects lack
    what (columns of the structures, empty where all are meant, and ``reason``).
    """

    values: NDArray[np.float64]
    participants: list[str]
    occasions: list[str]
    structures: pd.DataFrame
    left_out: pd.DataFrame


def require_columns(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a table that lacks one of the columns."""
    for column in columns:
        if column not in table.columns:
            there = ", ".join(str(c) for c in table.columns)
            raise ValueError(f"there is no column {column!r}; there are: {there}.")


def numbers(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as float64, NaN where it is empty; refuse text."""
    require_columns(table, [column])
    values = table[column].replace({"n/a": np.nan, "": np.nan})
    try:
        return pd.to_numeric(values).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the column {column!r} must hold numbers ({error}).") from error


def structure_columns(table: pd.DataFrame, by: Sequence[str] | None = None) -> list[str]:
    """Return the columns that say what was measured: those given, or what a table has of them."""
    if by is None:
        return [c for c in STRUCTURE if c in table.columns]
    require_columns(table, by)
    return list(by)


def repeats(
    table: pd.DataFrame,
    occasions: Sequence[str] | None = None,
    *,
    occasion: str = "session_id",
    value: str = "mean",
    by: Sequence[str] | None = None,
) -> Repeats:
    """Sort a tidy table into an array of repeated measurements.

    Parameters
    ----------
    table : DataFrame
        One row for each participant, occasion and structure.
    occasions : sequence of str, optional
        Those to compare, in this order; all of them, sorted, if not given.
    occasion : str
        Column that tells occasions (or raters, references, runs) from each other.
    value : str
        Column with the numbers.
    by : sequence of str, optional
        Columns that tell structures from each other; else those of :data:`STRUCTURE`.

    Raises
    ------
    ValueError
        If a column or an occasion is missing, or a measurement is there twice.
    """
    by = [c for c in structure_columns(table, by) if c != occasion]
    require_columns(table, ["participant_id", occasion, value])
    there = sorted(str(name) for name in table[occasion].dropna().unique())
    occasions = there if occasions is None else [str(name) for name in occasions]
    _check_occasions(occasions, there, occasion)
    participants = sorted(str(p) for p in table["participant_id"].unique())
    chosen = table[table[occasion].astype(str).isin(occasions)]
    structure = _codes(chosen, by)
    subject = pd.Index(participants).get_indexer(pd.Index(chosen["participant_id"].astype(str)))
    when = pd.Index(occasions).get_indexer(pd.Index(chosen[occasion].astype(str)))
    _refuse_twice(chosen, subject, when, structure, by, occasion)
    found = np.full((len(participants), len(occasions), int(structure.max()) + 1), np.nan)
    found[subject, when, structure] = numbers(chosen, value)
    found[~np.isfinite(found)] = np.nan
    first_rows = np.unique(structure, return_index=True)[1]
    structures = chosen.iloc[first_rows][by].reset_index(drop=True)
    present = np.zeros(found.shape[:2], bool)
    present[subject, when] = True
    left_out = _left_out(found, present, participants, occasions, structures, occasion, value)
    return Repeats(found, participants, occasions, structures, left_out)


def side_by_side(
    table: pd.DataFrame,
    first: str,
    second: str,
    *,
    column: str = "session_id",
    value: str = "mean",
    by: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a tidy table with two of its occasions as two columns, and who is left out.

    The first frame has one row for each participant and structure that was measured on both,
    with the columns ``participant_id``, those of the structure, and one named after each
    occasion.
    """
    found = repeats(table, [first, second], occasion=column, value=value, by=by)
    both = np.isfinite(found.values).all(axis=1)
    subject, structure = np.nonzero(both)
    wide = found.structures.iloc[structure].reset_index(drop=True)
    wide.insert(0, "participant_id", np.asarray(found.participants, dtype=object)[subject])
    wide[first] = found.values[subject, 0, structure]
    wide[second] = found.values[subject, 1, structure]
    return wide, found.left_out


def _check_occasions(occasions: Sequence[str], there: Sequence[str], column: str) -> None:
    listed = ", ".join(there) or "none"
    for name in occasions:
        if name not in there:
            raise ValueError(f"there is no {column} {name!r}; there are: {listed}.")
    if len(occasions) < 2 or len(set(occasions)) < len(occasions):
        raise ValueError(f"give at least two different values of {column}; there are: {listed}.")


def _codes(table: pd.DataFrame, by: Sequence[str]) -> NDArray[np.int64]:
    if not by:
        return np.zeros(len(table), np.int64)
    groups = table.groupby(list(by), dropna=False, sort=False, observed=True)
    return np.asarray(groups.ngroup(), np.int64)


def _refuse_twice(
    table: pd.DataFrame,
    subject: NDArray[np.int64],
    when: NDArray[np.int64],
    structure: NDArray[np.int64],
    by: Sequence[str],
    occasion: str,
) -> None:
    keys = pd.DataFrame({"subject": subject, "when": when, "structure": structure})
    twice = np.flatnonzero(keys.duplicated())
    if twice.size:
        row = table.iloc[int(twice[0])]
        what = ", ".join(str(row[c]) for c in by)
        raise ValueError(
            f"{row['participant_id']} was measured twice in {row[occasion]} ({what}): "
            "choose one series."
        )


def _left_out(
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    participants: Sequence[str],
    occasions: Sequence[str],
    structures: pd.DataFrame,
    occasion: str,
    value: str,
) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for subject, name in enumerate(participants):
        absent = [o for o, there in zip(occasions, present[subject], strict=True) if not there]
        if absent:
            reason = f"no {occasion} {' nor '.join(absent)}"
            rows.append({"participant_id": name, "reason": reason})
            continue
        for where in np.flatnonzero(np.isnan(values[subject]).any(axis=0)):
            gaps = np.isnan(values[subject, :, where])
            lacking = [o for o, gap in zip(occasions, gaps, strict=True) if gap]
            row = {str(c): v for c, v in structures.iloc[where].items()}
            reason = f"no {value} in {' and '.join(lacking)}"
            rows.append({"participant_id": name, **row, "reason": reason})
    return pd.DataFrame(rows, columns=["participant_id", *structures.columns, "reason"])

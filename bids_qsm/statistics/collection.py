"""Tables of single series joined into one tidy table over all subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

KEYS = ["participant_id", "session_id", "series"]
VALUE_KEYS = ["atlas", "name", "hemisphere", "measure", "reference"]


@dataclass(frozen=True)
class RegionTable:
    """A per-structure table of one series, with whom it belongs to and whose structures it has."""

    participant_id: str
    session_id: str
    series: str
    table: pd.DataFrame
    atlas: str = "n/a"


def collect(
    tables: Sequence[RegionTable],
    participants: pd.DataFrame | None = None,
    sessions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return one row for each subject, session, atlas, structure, measure and reference.

    Parameters
    ----------
    tables : sequence of RegionTable
    participants : DataFrame, optional
        ``participants.tsv``, joined on ``participant_id``.
    sessions : DataFrame, optional
        ``sessions.tsv`` of all subjects with their ``participant_id``, joined on both ids.

    Raises
    ------
    ValueError
        If nothing is given, a row stands twice, or a measure has more than one unit; the message
        is a sentence for the user.
    """
    if not tables:
        raise ValueError("there are no per-structure tables to collect.")
    rows = [
        t.table.assign(
            participant_id=t.participant_id, session_id=t.session_id, series=t.series, atlas=t.atlas
        )
        for t in tables
    ]
    joined = pd.concat(rows, ignore_index=True)
    _refuse_mixed_units(joined)
    _refuse_duplicates(joined, KEYS + VALUE_KEYS, "the per-structure tables")
    first = [*KEYS, "atlas"]
    joined = joined[first + [c for c in joined.columns if c not in first]]
    joined = with_columns(joined, participants, sessions)
    order = [*KEYS, "atlas", "index", "measure", "reference"]
    return joined.sort_values(order, kind="stable", ignore_index=True)


def with_columns(
    table: pd.DataFrame,
    participants: pd.DataFrame | None = None,
    sessions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a table of scans with the columns of ``participants.tsv`` and ``sessions.tsv``.

    Raises
    ------
    ValueError
        As :func:`collect`.
    """
    if participants is not None:
        table = _join(table, participants, ["participant_id"], "participants.tsv")
    if sessions is not None:
        table = _join(table, sessions, ["participant_id", "session_id"], "sessions.tsv")
    return table


def _refuse_mixed_units(table: pd.DataFrame) -> None:
    units = table.groupby("measure")["units"].unique()
    for measure, found in units.items():
        if len(found) > 1:
            raise ValueError(
                f"{measure} is given in more than one unit ({', '.join(sorted(found))}): "
                "process all subjects with the same version."
            )


def _refuse_duplicates(table: pd.DataFrame, keys: list[str], where: str) -> None:
    twice = table[table.duplicated(keys)]
    if len(twice):
        row = ", ".join(str(value) for value in twice.iloc[0][keys])
        raise ValueError(f"{where}: a row stands twice ({row}).")


def _join(table: pd.DataFrame, other: pd.DataFrame, keys: list[str], where: str) -> pd.DataFrame:
    missing = [key for key in keys if key not in other.columns]
    if missing:
        raise ValueError(f"{where} has no column {missing[0]!r}.")
    _refuse_duplicates(other, keys, where)
    taken = [c for c in other.columns if c in table.columns and c not in keys]
    renamed = other.rename(columns={c: f"{c}_{where.removesuffix('.tsv')}" for c in taken})
    return table.merge(renamed, on=keys, how="left")

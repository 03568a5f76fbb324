"""When the series of a subject were made, as the dataset's tables say."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from bids_qsm.bids.naming import entities_of, stem_from
from bids_qsm.errors import UnreadableInputError
from bids_qsm.reading import check_table

DATES = "acq_time"
NUMBERS = ("years", "days", "age")
"""Columns of the table of sessions that are taken where nothing has dates."""


def series_times(bids_dir: Path, subject: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the column that tells the times of a subject's series, and what it says of each.

    It is ``acq_time`` of the table of sessions, or of those of scans; else, of the table of
    sessions, ``years``, ``days`` or ``age``.  A series of which nothing is said is not in the
    result.

    Raises
    ------
    UnreadableInputError
        If a table cannot be read.
    """
    folder = bids_dir / f"sub-{subject}"
    sessions = {
        row.get("session_id", ""): row for row in _rows(folder / f"sub-{subject}_sessions.tsv")
    }
    of_series = {name: sessions.get(f"ses-{entities_of(name).get('ses')}", {}) for name in names}
    dates = {
        name: _said(row.get(DATES)) or _in_scans(folder, name) for name, row in of_series.items()
    }
    if any(dates.values()):
        return DATES, {name: date for name, date in dates.items() if date}
    for column in NUMBERS:
        found = {name: _said(row.get(column)) for name, row in of_series.items()}
        if any(found.values()):
            return column, {name: value for name, value in found.items() if value}
    return DATES, {}


def _in_scans(folder: Path, name: str) -> str:
    """Return the time of a series' first file in the table of scans; empty without one."""
    entities = entities_of(name)
    session = {key: entities[key] for key in ("sub", "ses") if key in entities}
    inner = folder / f"ses-{session['ses']}" if "ses" in session else folder
    for row in _rows(inner / f"{stem_from(session)}_scans.tsv"):
        file = (row.get("filename") or "").rsplit("/", 1)[-1]
        if file.startswith(f"{name}_") and _said(row.get(DATES)):
            return _said(row[DATES])
    return ""


def _said(value: str | None) -> str:
    text = (value or "").strip()
    return "" if text == "n/a" else text


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none where there is no such file."""
    try:
        check_table(path)
        # a spreadsheet may have put a byte order mark first
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines, delimiter="\t"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from None

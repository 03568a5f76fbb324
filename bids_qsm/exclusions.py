"""The list of scans that the user wants left out of the group level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bids_qsm.errors import NothingToDoError, UnreadableInputError
from bids_qsm.reading import check_table
from bids_qsm.report.record import SeriesRecord

YES = ("true", "yes", "1", "1.0")
NO = ("false", "no", "0", "0.0", "", "n/a")
ALL = ("", "n/a")
"""What stands in ``session_id`` or ``series`` of a row that is of all of them."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Exclusion:
    """A row of the list: a participant, or a session or series of it, and why it is left out."""

    participant_id: str
    session_id: str = ""
    series: str = ""
    reason: str = ""

    def is_of(self, record: SeriesRecord) -> bool:
        """Whether a series is left out by this row."""
        return (
            self.participant_id == f"sub-{record.subject}"
            and self.session_id in ("", f"ses-{record.session}")
            and self.series in ("", record.name)
        )

    @property
    def what(self) -> str:
        """The scans in words."""
        return self.series or " ".join(
            word for word in (self.participant_id, self.session_id) if word
        )


def read_exclusions(path: Path | None) -> tuple[Exclusion, ...]:
    """Return the rows of a list that are to be left out; none where there is no list.

    The table has tabs and the column ``participant_id``; ``session_id`` and ``series`` narrow a
    row down, where they are there and not ``n/a``.  Of a table with a column ``exclude`` the rows
    with ``true`` (``yes``, ``1``) count.

    Raises
    ------
    UnreadableInputError
        If the file is missing, is no such table, or ``exclude`` holds another word.
    """
    if path is None:
        return ()
    try:
        check_table(path)
        # a spreadsheet may have put a byte order mark first
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
        why = getattr(error, "strerror", None) or str(error).strip()
        raise UnreadableInputError(
            f"{path}: the list of exclusions cannot be read ({why})."
        ) from None
    if "participant_id" not in table:
        there = ", ".join(map(str, table.columns))
        raise UnreadableInputError(
            f"{path}: the list of exclusions needs a column 'participant_id', with tabs between "
            f"columns; there are: {there}."
        )
    table = table.fillna("").map(str.strip)  # a row may be shorter than the head
    if "exclude" in table:
        table = table[_is_yes(path, table["exclude"])]
    blank = pd.Series("", index=table.index)
    parts = [table.get(name, blank) for name in ("participant_id", "session_id", "series")]
    reasons = table.get("reasons", table.get("reason", blank))
    return tuple(
        Exclusion(
            f"sub-{participant.removeprefix('sub-')}",
            "" if session in ALL else f"ses-{session.removeprefix('ses-')}",
            "" if series in ALL else series,
            "" if reason in ALL else reason,
        )
        for participant, session, series, reason in zip(*parts, reasons, strict=True)
        if participant not in ALL
    )


def split_records(
    records: Sequence[SeriesRecord], exclusions: Sequence[Exclusion]
) -> tuple[list[SeriesRecord], list[tuple[SeriesRecord, str]]]:
    """Return the records that stay, and those that are left out with why.

    Raises
    ------
    NothingToDoError
        If none stays.
    """
    kept, left_out = [], []
    for record in records:
        of_it = [exclusion for exclusion in exclusions if exclusion.is_of(record)]
        if not of_it:
            kept.append(record)
        else:
            reasons = dict.fromkeys(e.reason for e in of_it if e.reason)
            left_out.append((record, "; ".join(reasons)))
    if left_out and not kept:
        raise NothingToDoError(
            f"the list of exclusions leaves none of the {len(records)} scans: rows of scans that "
            "are to stay need 'false' in a column 'exclude'."
        )
    return kept, left_out


def without_scan(
    records: Sequence[SeriesRecord], exclusions: Sequence[Exclusion]
) -> tuple[str, ...]:
    """Return a warning of exclusions that are of no scan."""
    unknown = [e.what for e in exclusions if not any(e.is_of(record) for record in records)]
    unknown = list(dict.fromkeys(unknown))
    if not unknown:
        return ()
    named = ", ".join(unknown[:MOST_NAMED])
    more = len(unknown) - MOST_NAMED
    named += f" and {more} more" if more > 0 else ""
    return (
        f"The list of exclusions names {named}, of which there is no scan; check its spelling.",
    )


def _is_yes(path: Path, words: pd.Series) -> pd.Series:
    lower = words.str.lower()
    other = words[~lower.isin((*YES, *NO))]
    if len(other):
        raise UnreadableInputError(
            f"{path}: the column 'exclude' holds {other.iloc[0]!r}; write true or false."
        )
    return lower.isin(YES)

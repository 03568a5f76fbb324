"""The group level: what the participant level left, in one tidy table over all subjects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bids_qsm.bids.dataset import check_output_dir
from bids_qsm.bids.naming import entities_of, group_table_path
from bids_qsm.bids.publishing import encode_json, encode_table, write_text
from bids_qsm.bids.sidecars import STATISTICS_COLUMNS
from bids_qsm.errors import NothingToDoError, UnreadableInputError
from bids_qsm.report.record import record_from_json
from bids_qsm.settings import Settings
from bids_qsm.statistics.collection import RegionTable, collect


def run(settings: Settings) -> int:
    """Collect the per-structure tables of all subjects and return the exit status."""
    check_output_dir(settings)
    tables = list(region_tables(settings))
    if not tables:
        raise NothingToDoError(
            f"{settings.output_dir}: there are no per-structure tables of the wanted subjects; "
            "run the participant level first (with T1w images, which labels need)."
        )
    try:
        table = collect(tables, participants(settings.bids_dir), sessions(settings.bids_dir))
    except ValueError as error:
        raise UnreadableInputError(f"{settings.output_dir}: {error}") from None
    path = settings.output_dir / group_table_path()
    if not settings.dry_run:
        write_text(path, encode_table(table))
        columns = {name: {"Description": text} for name, text in STATISTICS_COLUMNS.items()}
        write_text(path.with_suffix(".json"), encode_json(columns))
    subjects = table["participant_id"].nunique()
    sys.stdout.write(f"{len(tables)} series of {subjects} subjects, {len(table)} rows: {path}\n")
    return 0


def region_tables(settings: Settings) -> Iterator[RegionTable]:
    """Yield the table of each finished series, in the order of their names."""
    for path in sorted((settings.output_dir / "logs").glob("sub-*_record.json")):
        try:
            record = record_from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableInputError(
                f"{path}: the record cannot be read ({error}); process the subject again."
            ) from None
        wanted = settings.participant_labels
        if record.table is None or (wanted and record.subject not in wanted):
            continue
        session = "n/a" if record.session is None else f"ses-{record.session}"
        table = read_table(settings.output_dir / record.table)
        yield RegionTable(f"sub-{record.subject}", session, record.name, table)


def participants(bids_dir: Path) -> pd.DataFrame | None:
    """Return ``participants.tsv`` of the input dataset, None where there is none."""
    path = bids_dir / "participants.tsv"
    return read_table(path) if path.exists() else None


def sessions(bids_dir: Path) -> pd.DataFrame | None:
    """Return the ``sessions.tsv`` of all subjects, None where there is none."""
    tables = [
        read_table(path).assign(participant_id=f"sub-{entities_of(path.stem)['sub']}")
        for path in sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv"))
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def read_table(path: Path) -> pd.DataFrame:
    """Read a BIDS table; ids are texts, ``n/a`` is missing but in ids and texts of our own."""
    ids = {"participant_id": str, "session_id": str}
    try:
        table = pd.read_csv(path, sep="\t", dtype=ids, na_values=["n/a"], keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from None
    if "reference" in table:
        table["reference"] = table["reference"].fillna("n/a")
    return table

"""What the participant level left in the output folder, gathered for the group level."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bids_qsm.bids.naming import OUTPUTS, entities_of, output_path, tracking_record_path
from bids_qsm.bids.queries import subjects_of, without_prefix
from bids_qsm.bids.sidecars import STATISTICS_COLUMNS, TRACKING_COLUMNS
from bids_qsm.errors import NothingToDoError, UnreadableInputError
from bids_qsm.exclusions import read_exclusions, split_records, without_scan
from bids_qsm.reading import check_table
from bids_qsm.report.group_page import LeftOut
from bids_qsm.report.record import SeriesRecord, record_from_json, subject_record_from_json
from bids_qsm.settings import TEMPLATE, Settings
from bids_qsm.statistics.collection import KEYS, RegionTable, collect, with_columns
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.hemispheres import bilateral_means, sides, wide_table

MAPS = ("chi", "r2star")
"""Rows of :data:`bids_qsm.bids.naming.OUTPUTS` that are compared voxel by voxel."""
CLINICAL = ("contrast_to_noise", "trajectories")
"""Tables of clinical steps, one of each scan, that analyses are made of."""
NEEDED = ("index", "name", "hemisphere", "measure", "units", "reference", "mean")
"""Columns of per-structure tables without which there is nothing to compare."""
NO_REGIONS = pd.DataFrame(columns=[*KEYS, "atlas", *STATISTICS_COLUMNS])
NO_OUTCOMES = pd.DataFrame(
    columns=["column", "name", "hemisphere", "measure", "units", "reference"]
)


@dataclass(frozen=True, eq=False)
class Gathered:
    """The tables of all scans.

    Attributes
    ----------
    regions : DataFrame
        Tidy: a row for each scan, structure, measure and reference.
    morphometry : DataFrame
        Tidy: a row for each scan, tissue or lesion, and measure.
    scans, outcomes : DataFrame
        As of :class:`bids_qsm.analyses.cohort.Cohort`.
    images : DataFrame
        ``participant_id, session_id, series, measure, path``.
    atlases : tuple of str
        Whose structures the tables are of; that of the participant level's first comes first.
    reference : str
        What susceptibility is relative to in the maps of all, or of most.
    left_out : tuple of LeftOut
        Who has no part in this, and why.
    warnings : tuple of str
    records : tuple of SeriesRecord
        Of all finished series, those that were excluded too.
    excluded : mapping of str to str
        Why the user wants a series left out, by its name.
    tracking : DataFrame
        Tidy: a row for each scan and lesion that was followed.
    clinical : mapping of str to DataFrame
        Tables of clinical steps (:data:`CLINICAL`), where some scan has them.
    """

    regions: pd.DataFrame
    morphometry: pd.DataFrame
    scans: pd.DataFrame
    outcomes: pd.DataFrame
    images: pd.DataFrame
    atlases: tuple[str, ...]
    reference: str
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    records: tuple[SeriesRecord, ...]
    excluded: Mapping[str, str]
    tracking: pd.DataFrame
    clinical: Mapping[str, pd.DataFrame]


def gather(settings: Settings) -> Gathered:
    """Read the records and tables of all finished series that the settings ask for.

    Raises
    ------
    NothingToDoError
        If no series is finished, or the user excludes all.
    UnreadableInputError
        If a record or table cannot be read, or they do not fit each other.
    """
    records = list(read_records(settings))
    exclusions = read_exclusions(settings.exclude_file)
    kept, excluded = split_records(records, exclusions)
    if not kept:
        raise NothingToDoError(
            f"{settings.output_dir}: no series of the wanted subjects is finished; run the "
            "participant level first."
        )
    # without any structures there are still the scans, and their quality
    compared = [record for record in kept if record.table is not None] or kept
    is_all = not (settings.participant_labels or settings.session_labels)
    unknown = without_scan(records, exclusions) if is_all else ()
    participants, sessions = _participants(settings.bids_dir), _sessions(settings.bids_dir)
    try:
        of_regions = [t for r in compared for t in _region_tables(settings, r)]
        regions = collect(of_regions, participants, sessions) if of_regions else NO_REGIONS
        atlases = tuple(dict.fromkeys(table.atlas for table in of_regions))
        tables = [t for r in compared for t in _tables(settings, r, "morphometry")]
        morphometry = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=KEYS)
        most, warnings = _reference(compared)
        reference = most if regions.empty or most in set(regions["reference"]) else "n/a"
        scans, outcomes = (
            _scans(regions, morphometry, atlases, reference)
            if of_regions
            else (pd.DataFrame([scan_ids(r) for r in kept], columns=KEYS), NO_OUTCOMES)
        )
        scans = with_columns(scans, participants, sessions)
        tracking = with_columns(_tracking(settings, kept), participants, sessions)
        clinical = {
            key: with_columns(pd.concat(parts, ignore_index=True), participants, sessions)
            for key in CLINICAL
            if (parts := [t for r in compared for t in _tables(settings, r, key) if len(t)])
        }
    except ValueError as error:
        raise UnreadableInputError(f"{settings.output_dir}: {error}") from None
    return Gathered(
        regions,
        morphometry,
        scans,
        outcomes,
        _images(settings.output_dir, compared, most),
        atlases,
        reference,
        (*_left_out(settings, records, kept), *_excluded(settings, excluded)),
        (*warnings, *unknown, *_without_row(scans, participants, sessions)),
        tuple(records),
        {record.name: reason for record, reason in excluded},
        tracking,
        clinical,
    )


def read_records(settings: Settings) -> Iterator[SeriesRecord]:
    """Yield the record of each finished series that is wanted, in the order of their names."""
    wanted = without_prefix(settings.participant_labels, "sub-")
    sessions = without_prefix(settings.session_labels, "ses-")
    for path in sorted((settings.output_dir / "logs").glob("sub-*_record.json")):
        try:
            record = record_from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableInputError(
                f"{path}: the record cannot be read ({error}); process the subject again."
            ) from None
        if (wanted and record.subject not in wanted) or (
            sessions and record.session not in sessions
        ):
            continue
        yield record


def read_table(path: Path) -> pd.DataFrame:
    """Read a BIDS table; ids are texts, ``n/a`` is missing but in ids and texts of our own."""
    ids = {"participant_id": str, "session_id": str}
    try:
        check_table(path)
        # a spreadsheet may have put a byte order mark first
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=ids,
            na_values=["n/a"],
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from None
    if "reference" in table:
        table["reference"] = table["reference"].fillna("n/a")
    return table


def scan_ids(record: SeriesRecord) -> tuple[str, str, str]:
    """Return the participant, session (or n/a) and name of a series as tables have them."""
    session = "n/a" if record.session is None else f"ses-{record.session}"
    return f"sub-{record.subject}", session, record.name


def _region_tables(settings: Settings, record: SeriesRecord) -> Iterator[RegionTable]:
    for table in record.tables_of("stats"):
        path = settings.output_dir / table.path
        rows = read_table(path)
        for column in NEEDED:
            if column not in rows:
                raise UnreadableInputError(
                    f"{path}: the table has no column {column!r}; process the subject again."
                )
        yield RegionTable(*scan_ids(record), rows, table.atlas or "n/a")


def _tables(settings: Settings, record: SeriesRecord, key: str) -> Iterator[pd.DataFrame]:
    for table in record.tables_of(key):
        rows = read_table(settings.output_dir / table.path)
        yield pd.concat([_repeated(record, len(rows)), rows], axis=1)


def _tracking(settings: Settings, kept: Sequence[SeriesRecord]) -> pd.DataFrame:
    """Return the lesions that were followed, in the series that are kept."""
    tables = []
    for subject in sorted({record.subject for record in kept}):
        path = settings.output_dir / tracking_record_path(subject)
        try:
            record = subject_record_from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableInputError(
                f"{path}: the record cannot be read ({error}); process the subject again."
            ) from None
        for table in record.tables:
            rows = read_table(settings.output_dir / table.path).assign(
                participant_id=f"sub-{subject}"
            )
            tables.append(rows[rows["series"].isin([of.name for of in kept])])
    if not tables:
        return pd.DataFrame(columns=[*KEYS, *(c for c in TRACKING_COLUMNS if c not in KEYS)])
    joined = pd.concat(tables, ignore_index=True)
    joined["session_id"] = joined["session_id"].fillna("n/a")
    return joined[[*KEYS, *(c for c in joined.columns if c not in KEYS)]]


def _repeated(record: SeriesRecord, count: int) -> pd.DataFrame:
    return pd.DataFrame([scan_ids(record)] * count, columns=KEYS)


def _participants(bids_dir: Path) -> pd.DataFrame | None:
    path = bids_dir / "participants.tsv"
    return read_table(path) if path.exists() else None


def _sessions(bids_dir: Path) -> pd.DataFrame | None:
    tables = []
    for path in sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv")):
        table = read_table(path).assign(participant_id=f"sub-{entities_of(path.stem)['sub']}")
        if "session_id" not in table:
            raise UnreadableInputError(f"{path}: the table has no column 'session_id'; add it.")
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def _without_row(
    scans: pd.DataFrame, participants: pd.DataFrame | None, sessions: pd.DataFrame | None
) -> tuple[str, ...]:
    """Return warnings of participants and sessions that the input's tables do not know."""
    warnings = []
    if participants is not None:
        ids = scans["participant_id"].drop_duplicates()
        lacking = ids[~ids.isin(participants["participant_id"])]
        if len(lacking):
            warnings.append(
                f"participants.tsv has no row for {listed(lacking, 5)}, whose age, group and so on "
                "are not known; write each participant_id there as 'sub-...'."
            )
    if sessions is not None:
        with_table = scans[scans["participant_id"].isin(sessions["participant_id"])]
        ids = with_table["participant_id"] + " " + with_table["session_id"]
        lacking = ids[~ids.isin(sessions["participant_id"] + " " + sessions["session_id"])]
        if len(lacking):
            warnings.append(
                f"sessions.tsv has no row for {listed(lacking.drop_duplicates(), 5)}; write each "
                "session_id there as 'ses-...'."
            )
    return tuple(warnings)


def _reference(records: Sequence[SeriesRecord]) -> tuple[str, tuple[str, ...]]:
    """Return what the maps of most are relative to, and a warning if others differ."""
    counts = Counter(_region(record) for record in records if record.has_phase).most_common()
    if len(counts) < 2:
        return (counts[0][0] if counts else "n/a"), ()
    (most, count), *others = counts
    also = ", ".join(f"{n} to {'nothing' if o == 'n/a' else o}" for o, n in others)
    return most, (
        f"Susceptibility is relative to {most} in {counted(count, 'map')}, but in {also}: maps of "
        "different references are not compared voxel by voxel; process all with one '--reference'.",
    )


def _region(record: SeriesRecord) -> str:
    """Return what the susceptibility of a series is relative to."""
    return "n/a" if record.reference is None else record.reference.region


def _scans(
    regions: pd.DataFrame, morphometry: pd.DataFrame, atlases: Sequence[str], reference: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each scan with all its outcomes, and what these are.

    Susceptibility is in ppb and volumes are in mL, as papers give them.  What is of the first
    atlas and relative to the maps' reference has short names; others end in theirs.
    """
    own = [*KEYS, "atlas", "index", "name", "hemisphere", "measure", "units", "reference"]
    own += ["mean", "n_voxels", "volume_mm3"]
    tidy = regions[[c for c in own if c in regions.columns]]
    in_ppm = tidy["units"] == "ppm"
    tidy = tidy.assign(
        mean=tidy["mean"].where(~in_ppm, 1000 * tidy["mean"]),
        units=tidy["units"].where(~in_ppm, "ppb"),
    )
    if "n_voxels" in tidy.columns:
        joined, _ = bilateral_means(tidy)
        tidy = pd.concat([tidy[sides(tidy) != "B"], joined], ignore_index=True)
    parts = []
    for place, atlas in enumerate(atlases):
        rows = tidy[tidy["atlas"] == atlas]
        of_atlas = f"_{atlas}" if place else ""
        for other in dict.fromkeys((reference, *rows["reference"])):
            chosen = rows[
                rows["reference"].isin(("n/a", other) if other == reference else (other,))
            ]
            if (other == "n/a" and reference != "n/a") or chosen.empty:
                continue
            of_reference = "" if other == reference else f"_ref_{other}"
            parts.append(_wide(chosen, "mean", of_reference + of_atlas))
        if "volume_mm3" in rows.columns:
            volumes = rows[rows["measure"] == rows["measure"].iloc[0]]
            volumes = volumes.drop_duplicates([*KEYS, "name", "hemisphere"]).assign(
                volume_mm3=volumes["volume_mm3"] / 1000,
                measure="volume_mL",
                units="mL",
                reference="n/a",
            )
            parts.append(_wide(volumes, "volume_mm3", of_atlas))
    if len(morphometry):
        parts.append(_wide_morphometry(morphometry))
    scans = parts[0][0]
    for table, _ in parts[1:]:
        scans = scans.merge(table, on=KEYS, how="left")
    return scans, pd.concat([columns for _, columns in parts], ignore_index=True)


def _wide(rows: pd.DataFrame, value: str, ending: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    wide, outcomes = wide_table(rows, value, repeated=True)
    ending = re.sub(r"\W+", "_", ending).rstrip("_")
    names = {column: column + ending for column in outcomes["column"]}
    return wide[[*KEYS, *names]].rename(columns=names), outcomes.replace({"column": names})


def _wide_morphometry(morphometry: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return volumes and thickness in columns such as ``grey_matter_volume_mL``."""
    own = morphometry["source"].astype(str).str.lower().str.contains("freesurfer")
    names = [
        re.sub(r"\W+", "_", "_".join(part for part in parts if part)).strip("_")
        for parts in zip(
            morphometry["hemisphere"].map({"L": "left", "R": "right"}).fillna(""),
            morphometry["name"],
            morphometry["measure"],
            morphometry["units"].astype(str).replace({"1": "", "nan": ""}),
            own.map({True: "freesurfer", False: ""}),
            strict=True,
        )
    ]
    tidy = morphometry.assign(column=names)
    wide = tidy.pivot_table(index=KEYS, columns="column", values="value", aggfunc="first")
    columns = tidy.drop_duplicates("column")[["column", "name", "hemisphere", "measure", "units"]]
    return wide.reset_index().rename_axis(columns=None), columns.assign(reference="n/a")


def _images(output_dir: Path, records: Sequence[SeriesRecord], reference: str) -> pd.DataFrame:
    """Return the maps in the template's space; χ that is relative to another region has no part."""
    rows = []
    for record in records:
        for key in MAPS:
            path = output_path(record.name, key, space=TEMPLATE)
            other = key == "chi" and _region(record) != reference
            if path.as_posix() in record.outputs and not other:
                rows.append((*scan_ids(record), OUTPUTS[key].suffix, output_dir / path))
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "path"])


def _left_out(
    settings: Settings, records: Sequence[SeriesRecord], kept: Sequence[SeriesRecord]
) -> tuple[LeftOut, ...]:
    """Return the participants that have no record, and the series that have no table."""
    wanted = without_prefix(settings.participant_labels, "sub-")
    done = {record.subject for record in records}
    there = [s for s in subjects_of(settings.bids_dir) if not wanted or s in wanted]
    missing = [
        LeftOut(f"sub-{subject}", "the participant level has not finished any series of it")
        for subject in there
        if subject not in done
    ]
    no_table = [
        LeftOut(record.name, "it has no structures: there was no T1w image, or it was refused")
        for record in kept
        if record.table is None
    ]
    return (*missing, *no_table)


def _excluded(
    settings: Settings, excluded: Sequence[tuple[SeriesRecord, str]]
) -> tuple[LeftOut, ...]:
    """Return the series that the user's list leaves out."""
    name = "" if settings.exclude_file is None else settings.exclude_file.name
    return tuple(
        LeftOut(record.name, f"excluded by {name}" + (f": {reason}" if reason else ""))
        for record, reason in excluded
    )

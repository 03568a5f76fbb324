"""The quality of all scans: tables, a list of proposed exclusions, and their page."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bids_qsm import __version__
from bids_qsm.bids.naming import (
    entities_of,
    group_quality_path,
    group_report_path,
    group_table_path,
    report_path,
)
from bids_qsm.bids.publishing import encode_json, encode_table, write_text
from bids_qsm.bids.sidecars import GROUP_QUALITY_COLUMNS, GROUP_TABLE_COLUMNS
from bids_qsm.errors import UnreadableInputError
from bids_qsm.gathering import Gathered, scan_ids
from bids_qsm.report.group_quality import QualityText, quality_page
from bids_qsm.report.record import SeriesRecord, TableRecord
from bids_qsm.settings import Settings
from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.expressions import counted
from bids_qsm.statistics.scan_quality import judge_scans

NEEDED = ("check", "name", "value", "low", "high", "units", "passed")
"""Columns of tables of quality without which nothing can be compared."""
OWN = ("sub", "ses", "run")
"""Entities that do not tell how a scan was made."""
FACTS = ("Field strength", "Echo times", "Voxel size", "Manufacturer")
METHODS = (
    "Scans were compared with those of the same kind (entities of the name but subject, session "
    "and run; field strength, number of echoes, voxel size, manufacturer). Of each metric the "
    "robust z is the distance from the median over 1.4826 times the median absolute deviation, of "
    "logarithms where all values are above zero, and at most one for each hundredth of the way "
    "from the median to the bound of the expected range. An outlier is beyond the quantile of "
    "Student's t (0.37 (n − 1) degrees of freedom [@rousseeuw1993]) that a usual scan exceeds on "
    "the bad side in any of the metrics with a probability of 1 %. All metrics of the images at "
    "once were judged by the Mahalanobis distance from the reweighted minimum covariance "
    "determinant [@hubert2012] with the cutoff of Cerioli [@cerioli2010] at 0.05 %, or the same "
    "quantile of the distances themselves where that is larger; where there are fewer than five "
    "scans for each metric, among the first spherical principal components [@locantore1999], and "
    "by the distance from these [@hubert2005]. Fewer than eight scans of a kind are judged by the "
    "expected ranges alone. A scan is flagged if a metric of the images is out of its range "
    "(unless most scans of its kind are) or an outlier, if a check of its labels is both, or if a "
    "distance is beyond its cutoff; it is proposed for exclusion if a metric of the images, or "
    "three checks of the labels, are both out of range and outliers. Where half of the scans have "
    "one value there is no outlier, and the range alone counts."
)


@dataclass(frozen=True)
class QualityFound:
    """What the group's page says of the quality of the scans.

    Attributes
    ----------
    sentence : str
    path : Path or None
        The page of it, relative to the output folder; None if nothing was measured.
    """

    sentence: str
    path: Path | None


def write_quality(settings: Settings, gathered: Gathered) -> QualityFound:
    """Judge all scans, write ``group_quality.*`` and the list of proposed exclusions.

    Raises
    ------
    UnreadableInputError
        If a table of quality cannot be read.
    UnwritableOutputError
    """
    table = gather_quality(settings, gathered.records)
    if table is None:
        return QualityFound("not measured by the version that processed the scans", None)
    judged = judge_scans(table)
    folder = settings.output_dir
    columns = [name for name in GROUP_QUALITY_COLUMNS if name in judged.metrics]
    write_text(folder / group_table_path("quality"), encode_table(judged.metrics[columns]))
    proposed = folder / group_table_path("exclusions")
    is_in_use = settings.exclude_file is not None and _is_same(settings.exclude_file, proposed)
    if not is_in_use:  # it is the user's, who may have edited it
        write_text(proposed, encode_table(proposals(judged.scans, gathered.excluded)))
    for name, described in GROUP_TABLE_COLUMNS.items():
        fields = {column: {"Description": text} for column, text in described.items()}
        write_text((folder / group_table_path(name)).with_suffix(".json"), encode_json(fields))
    notes = judged.notes + _unmeasured(gathered.records, judged.scans)
    is_excluded = judged.scans["series"].isin(list(gathered.excluded))
    scans = judged.scans.assign(
        is_excluded=is_excluded,
        is_proposed=judged.scans["is_proposed"] & ~is_excluded,
        excluded_for=[gathered.excluded.get(name, "") for name in judged.scans["series"]],
        page=[
            report_path(participant.removeprefix("sub-")).as_posix()
            for participant in judged.scans["participant_id"]
        ],
    )
    text = QualityText(
        __version__,
        group_report_path().as_posix(),
        group_table_path("quality").as_posix(),
        group_table_path("exclusions").as_posix(),
        "" if settings.exclude_file is None else settings.exclude_file.name,
        notes,
        METHODS,
        is_in_use,
    )
    write_text(folder / group_quality_path(), quality_page(judged.metrics, scans, text))
    return QualityFound(_sentence(scans), group_quality_path())


def gather_quality(settings: Settings, records: Sequence[SeriesRecord]) -> pd.DataFrame | None:
    """Return a row for each scan and metric, as :func:`judge_scans` takes it; None of no scan."""
    kinds = {record.name: comparable(record) for record in records}
    parts = []
    for key in ("series_quality", "quality"):
        tables = [(record, table) for record in records for table in record.tables_of(key)]
        parts += list(_read_alike(settings.output_dir, tables, kinds))
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    for name in ("value", "low", "high"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    for name in ("hemisphere", "direction"):
        texts = table[name] if name in table else pd.Series(np.nan, table.index)
        table[name] = texts.astype(object).fillna("n/a")
    table["units"] = table["units"].fillna("")
    said = table["passed"].astype(str).str.lower()
    passed = [{"true": True, "false": False}.get(word) for word in said]
    table["passed"] = pd.Series(passed, table.index, dtype=object)
    both = table["low"].notna() == table["high"].notna()
    one = np.where(table["low"].notna(), "low", "high")
    table["direction"] = table["direction"].where(
        table["direction"] != "n/a", np.where(both, "both", one)
    )
    order = [*KEYS, "comparable", "atlas", "check", "name", "hemisphere", "value", "low", "high"]
    table = table[[*order, "units", "direction", "passed"]]
    return table.sort_values(KEYS, kind="stable", ignore_index=True)


def comparable(record: SeriesRecord) -> str:
    """Return what a scan was made with, in words: scans with the same text are compared."""
    words = [f"{k}-{v}" for k, v in entities_of(record.name).items() if k not in OWN]
    for name in FACTS:
        fact = record.facts.get(name, "")
        if name == "Echo times" and fact:
            fact = counted(len(fact.split(",")), "echo").replace("echos", "echoes")
        if fact and fact != "not stated":
            words.append(fact)
    return ", ".join(words) or "all scans"


def proposals(scans: pd.DataFrame, excluded: Mapping[str, str]) -> pd.DataFrame:
    """Return the list that the user may edit and give back by ``--exclude``.

    A row for each scan: first those that are proposed, then what is flagged, then all others.
    What the user excludes now stays so, with the reason that he gave.
    """
    now = scans["series"].isin(list(excluded))
    pairs = zip(scans["series"], scans["reasons"], strict=True)
    table = scans[KEYS].assign(
        exclude=np.where(now | scans["is_proposed"], "true", "false"),
        reasons=[excluded.get(series) or found or "n/a" for series, found in pairs],
    )
    order = pd.DataFrame({"a": ~(now | scans["is_proposed"]), "b": ~scans["is_flagged"]})
    return table.loc[order.sort_values(["a", "b"], kind="stable").index]


def _read_alike(
    folder: Path,
    tables: Sequence[tuple[SeriesRecord, TableRecord]],
    kinds: Mapping[str, str],
) -> Iterator[pd.DataFrame]:
    """Yield tables with the same columns as one, with the keys of the scans: it is read at once."""
    texts = []
    for record, table in tables:
        path = folder / table.path
        try:
            head, *lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from None
        for column in NEEDED:
            if column not in head.split("\t"):
                raise UnreadableInputError(
                    f"{path}: the table has no column {column!r}; process the subject again."
                )
        start = "\t".join((*scan_ids(record), kinds[record.name], table.atlas or "n/a"))
        texts.append((head, [f"{start}\t{line}\n" for line in lines if line]))
    texts.sort(key=lambda text: text[0])
    for head, alike in itertools.groupby(texts, key=lambda text: text[0]):
        names = "\t".join((*KEYS, "comparable", "atlas", head))
        body = "".join(line for _, lines in alike for line in lines)
        try:
            read = pd.read_csv(
                io.StringIO(f"{names}\n{body}"),
                sep="\t",
                dtype=dict.fromkeys((*KEYS, "comparable", "atlas", "units", "passed"), str),
                usecols=lambda name: name != "sentence",
                na_values={name: ["n/a"] for name in ("value", "low", "high", "units", "passed")},
                keep_default_na=False,
                low_memory=False,
            )
        except (ValueError, pd.errors.ParserError) as error:
            raise UnreadableInputError(
                f"{folder}: the tables of quality cannot be read ({error})."
            ) from None
        yield read


def _unmeasured(records: Sequence[SeriesRecord], scans: pd.DataFrame) -> tuple[str, ...]:
    n = len(records) - len(scans)
    if not n:
        return ()
    return (f"{counted(n, 'scan')} of {len(records)} without any table of quality: process again.",)


def _sentence(scans: pd.DataFrame) -> str:
    said = (
        f"{int(scans['is_flagged'].sum())} of {counted(len(scans), 'scan')} flagged, "
        f"{int(scans['is_proposed'].sum())} proposed for exclusion"
    )
    n = int(scans["is_excluded"].sum())
    return said + (f"; {n} excluded" if n else "")


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()

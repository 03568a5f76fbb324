"""The sections of a series' report that hold its tables, with what is said about each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bids_qsm.report.clinical_tables import LAYOUTS, Layout, clinical_table
from bids_qsm.report.head_tables import (
    CHECKS_NEEDED,
    LESIONS_NEEDED,
    MEASURES_NEEDED,
    SERIES_CHECKS_NEEDED,
    check_table,
    has_passed,
    lesion_table,
    load_table,
    measure_table,
    total_load,
)
from bids_qsm.report.record import ReferenceRecord, SeriesRecord, TableRecord
from bids_qsm.report.region_table import REGIONS_NEEDED, leaves_out_veins, region_table
from bids_qsm.report.tables import Table, decimals, read_rows

NO_TABLE = "There are no values of single structures."
NO_LESIONS = (
    "There is no table of lesions: it takes a FLAIR image, or a mask of lesions given by "
    "-d lesions=PATH."
)
NO_VOLUMES = "Tissues were not measured: a warning says why."
NO_CHECKS = "No labels were checked."
EACH_LESION = "A row for each lesion, the largest first; mean ± standard deviation of the maps."
LOAD = "Number and volume of the lesions of each place."
VOLUMES = "Volumes of tissues and structures."
THICKNESS = "Mean thickness of the cortex and of its lobes."
CHECKS = "What was found in the labels, and what is expected of an adult's head."
SERIES_CHECKS = "What was found in the images and the maps, and what is expected of a usable scan."
MEANS = "Mean ± standard deviation over the voxels of each structure."
PARTIAL = "† less than 90 % of the structure lies where the map is known."
NO_VEINS = "No voxel of a vein was found in a structure: without veins all values are the same."
CONFIDENCE = "Confidence: mean probability of the structure over its own voxels, as segmented."
NORMALISED = "Normalised: what it would be in a head of the template's size."

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class TableBlock:
    """A table and what is said of it.

    Attributes
    ----------
    title : str
    table : Table or None
    caption : str
    path : str
        The file, below the output folder, that has the same and more.
    summary : tuple of str
        Sentences above the table.
    failures : tuple of str
        Sentences that call for attention, above the table.
    notes : tuple of str
        Sentences below it.
    missing : str
        What is said in the place of a table.
    is_folded : bool
        Whether it is opened by hand.
    """

    title: str = ""
    table: Table | None = None
    caption: str = ""
    path: str = ""
    summary: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str = ""
    is_folded: bool = False


@dataclass(frozen=True)
class TableSection:
    """Tables under one heading."""

    key: str
    heading: str
    blocks: tuple[TableBlock, ...]
    summary: tuple[str, ...] = ()


def table_sections(record: SeriesRecord, key: str, output_dir: Path) -> tuple[TableSection, ...]:
    """Return the sections of a series, in the order of the report.

    Parameters
    ----------
    record : SeriesRecord
    key : str
        What their keys begin with.
    output_dir : Path
        Folder that the record's paths start from.  A table that is missing, or is none, is said.
    """

    def blocks(
        kind: str, needed: Collection[str], show: Callable[[Rows, TableRecord], TableBlock]
    ) -> list[TableBlock]:
        return [_read(of, needed, show, output_dir) for of in record.tables_of(kind)]

    region = None if record.reference is None else record.reference.region
    regions = blocks("stats", REGIONS_NEEDED, partial(_region_block, region))
    summary = _zero(record.reference) if regions else ()
    regions = regions or [TableBlock(missing=NO_TABLE)]
    sections = [TableSection(f"{key}-table", "Regional values", tuple(regions), summary)]
    clinical = _clinical_sections(record, key, output_dir)
    data = blocks("series_quality", SERIES_CHECKS_NEEDED, _series_check_block)
    quality = [TableSection(f"{key}-quality", "Data checks", tuple(data))] if data else []
    if not record.has_t1w:
        return (*sections, *clinical, *quality)
    lesions = blocks("lesion_table", LESIONS_NEEDED, _lesion_block)
    if lesions:
        lesions += blocks("morphometry", MEASURES_NEEDED, _load_block)
    volumes = blocks("morphometry", MEASURES_NEEDED, _volume_block)
    volumes += [
        block
        for block in blocks("morphometry", MEASURES_NEEDED, _thickness_block)
        if block.table is not None and block.table.rows
    ]
    for name, heading, found, missing in (
        ("lesions", "Lesions", lesions, NO_LESIONS),
        ("tissues", "Tissues", volumes, NO_VOLUMES),
        ("checks", "Label checks", blocks("quality", CHECKS_NEEDED, _check_block), NO_CHECKS),
    ):
        shown = tuple(found) or (TableBlock(missing=missing),)
        sections.append(TableSection(f"{key}-{name}", heading, shown))
    return (*sections, *clinical, *quality)


def _clinical_sections(record: SeriesRecord, key: str, output_dir: Path) -> list[TableSection]:
    """Return the sections of the clinical steps that were run."""
    blocks: dict[str, list[TableBlock]] = {}
    for kind, layout in LAYOUTS.items():
        needed = (layout.corner[0], *layout.columns)
        for of in record.tables_of(kind):
            block = _read(of, needed, partial(_clinical_block, layout), output_dir)
            blocks.setdefault(layout.heading, []).append(block)
    return [
        TableSection(f"{key}-clinical{place}", heading, tuple(found))
        for place, (heading, found) in enumerate(blocks.items(), start=1)
    ]


def clinical_blocks(tables: Sequence[TableRecord], output_dir: Path) -> tuple[TableBlock, ...]:
    """Return tables of clinical steps as they stand one below the other."""
    return tuple(
        _read(
            of,
            (LAYOUTS[of.key].corner[0], *LAYOUTS[of.key].columns),
            partial(_clinical_block, LAYOUTS[of.key]),
            output_dir,
        )
        for of in tables
    )


def _clinical_block(layout: Layout, rows: Rows, of: TableRecord) -> TableBlock:
    if not rows:
        return TableBlock(layout.title, path=of.path, missing=layout.empty)
    return TableBlock(layout.title, clinical_table(layout, rows), layout.caption, of.path)


def _read(
    of: TableRecord,
    needed: Collection[str],
    show: Callable[[Rows, TableRecord], TableBlock],
    output_dir: Path,
) -> TableBlock:
    """Return the block of a table, or one that says what is wrong with it."""
    try:
        return show(read_rows(output_dir / of.path, needed), of)
    except OSError:
        problem = f"The table {of.path} is missing."
    except ValueError as error:
        problem = f"The table {of.path} cannot be read: {error}."
    return TableBlock(of.atlas or "", missing=problem)


def _zero(reference: ReferenceRecord | None) -> tuple[str, ...]:
    """Return what is said of the region that susceptibility is relative to."""
    if reference is None or reference.region == "none":
        return ()
    mean, sd = (decimals(1000 * v, 1) for v in (reference.mean_ppm, reference.sd_ppm))
    return (
        f"χ is relative to {reference.region}: {mean} ± {sd} ppb over {reference.n_voxels} voxels "
        "before that mean was taken for zero (whole brain = 0).",
    )


def _region_block(reference: str | None, rows: Rows, of: TableRecord) -> TableBlock:
    table = region_table(rows, reference)
    if not table.rows:
        return TableBlock(of.atlas or "", missing=NO_TABLE)
    titles = [column.title for column in table.columns]
    notes = [PARTIAL, CONFIDENCE] if "Confidence" in titles else [PARTIAL]
    if "n_vein_voxels" in rows[0] and not leaves_out_veins(rows):
        notes.append(NO_VEINS)
    return TableBlock(of.atlas or "", table, MEANS, of.path, notes=tuple(notes))


def _lesion_block(rows: Rows, of: TableRecord) -> TableBlock:
    table = lesion_table(rows) if rows else None
    return TableBlock("Each lesion", table, EACH_LESION, of.path, (total_load(rows),))


def _load_block(rows: Rows, of: TableRecord) -> TableBlock:
    return TableBlock("Load", load_table(rows), LOAD, of.path, notes=(NORMALISED,))


def _volume_block(rows: Rows, of: TableRecord) -> TableBlock:
    table = measure_table(rows, "volume")
    return TableBlock("Volumes", table, VOLUMES, of.path, notes=(NORMALISED,))


def _thickness_block(rows: Rows, of: TableRecord) -> TableBlock:
    return TableBlock("Thickness", measure_table(rows, "thickness"), THICKNESS, of.path)


def _check_block(rows: Rows, of: TableRecord) -> TableBlock:
    return _checks(rows, of, check_table(rows), CHECKS)


def _series_check_block(rows: Rows, of: TableRecord) -> TableBlock:
    return _checks(rows, of, check_table(rows, "Measured in"), SERIES_CHECKS)


def _checks(rows: Rows, of: TableRecord, table: Table, caption: str) -> TableBlock:
    failed = tuple(row.get("sentence", "") for row in rows if not has_passed(row))
    said = f"{len(failed)} of {len(rows)} checks failed." if failed else ""
    return TableBlock(
        of.atlas or "",
        table,
        caption,
        of.path,
        summary=(said or f"All {len(rows)} checks passed.",),
        failures=failed,
        is_folded=True,
    )

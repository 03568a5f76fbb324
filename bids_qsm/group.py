"""The group level: tables over all subjects, the analyses that are asked for, and their page."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import scipy.fft

from bids_qsm import __version__
from bids_qsm.analyses import KINDS
from bids_qsm.analyses.cohort import Cohort, select
from bids_qsm.analyses.result import Result
from bids_qsm.anatomy.atlases import Atlas, load_atlas
from bids_qsm.bids.dataset import check_output_dir
from bids_qsm.bids.naming import (
    GROUP_FOLDER,
    group_folder,
    group_quality_path,
    group_report_path,
    group_table_path,
)
from bids_qsm.bids.publishing import (
    Staging,
    encode_json,
    encode_table,
    staging_dir,
    unwritable,
    write_text,
)
from bids_qsm.bids.sidecars import (
    MORPHOMETRY_COLUMNS,
    STATISTICS_COLUMNS,
    TABLE_COLUMNS,
    TRACKING_COLUMNS,
)
from bids_qsm.errors import BidsQsmError, UnreadableInputError, UnwritableOutputError
from bids_qsm.gathering import Gathered, gather
from bids_qsm.images import encode_image
from bids_qsm.models import Analysis, default_analyses, read_models
from bids_qsm.quality import QualityFound, write_quality
from bids_qsm.report.citations import Part, citation_files
from bids_qsm.report.group_page import FigureView, PageText, Section, TableView, group_page
from bids_qsm.report.group_references import GROUP_REFERENCES
from bids_qsm.report.references import REFERENCES
from bids_qsm.settings import Settings
from bids_qsm.statistics.expressions import counted


@dataclass(frozen=True)
class Failure:
    """An analysis that could not be made, and why."""

    name: str
    sentence: str


def run(settings: Settings) -> int:
    """Gather what there is of all subjects, make the analyses, and return the exit status."""
    check_output_dir(settings)
    asked = None if settings.models_file is None else read_models(settings.models_file)
    gathered = gather(settings)
    atlases = _atlases(settings, gathered)
    analyses, assumed = (
        (asked, ())
        if asked is not None
        else default_analyses(
            gathered.scans,
            settings.rescan,
            has_structures=len(gathered.regions) > 0,
            has_maps=len(gathered.images) > 0,
            follows_lesions=bool((gathered.tracking["years"] > 0).any()),
            clinical=gathered.clinical,
        )
    )
    _say(
        f"{len(gathered.scans)} scans of {gathered.scans['participant_id'].nunique()} subjects, "
        f"{len(gathered.regions)} rows"
    )
    if settings.dry_run:
        for analysis in analyses:
            _say(f"  {analysis.name}: {analysis.kind}")
        return 0
    page = settings.output_dir / group_report_path()
    _start(settings.output_dir)
    write_tables(settings.output_dir, gathered)
    quality = write_quality(settings, gathered)
    with _work_folder(settings.work_dir) as work:
        cohort = Cohort(
            gathered.regions,
            gathered.scans,
            gathered.outcomes,
            gathered.images,
            atlases,
            gathered.reference,
            work,
            tracking=gathered.tracking,
            clinical=gathered.clinical,
        )
        with scipy.fft.set_workers(settings.nprocs):  # and so all threads of our own
            done, failures = make_analyses(settings, cohort, analyses)
    values = overview(gathered, assumed)
    methods = "\n\n".join(f"## {section.title}\n\n{text}" for section, text in done)
    text = page_text(settings, gathered, failures, len(done), methods, quality)
    references = {**REFERENCES, **GROUP_REFERENCES}
    sections = [values, *(section for section, _ in done)]
    write_text(page, group_page(sections, text, references=references))
    cited = citation_files([Part("", methods)], title="Group analyses", references=references)
    for name, content in cited.items():
        write_text(settings.output_dir / GROUP_FOLDER / name, content)
    for failure in failures:
        _say(f"FAILED {failure.name}: {failure.sentence}")
    _say(f"Report: {page}")
    return 1 if failures else 0


def _start(output_dir: Path) -> None:
    """Remove the pages, which are of what lies there now, and what a killed run left hidden."""
    try:
        for page in (group_report_path(), group_quality_path()):
            (output_dir / page).unlink(missing_ok=True)
        for folder in output_dir.glob(staging_dir(output_dir, f"{GROUP_FOLDER}-*").name):
            shutil.rmtree(folder)
    except OSError as error:
        raise unwritable(output_dir / group_report_path(), error) from None


@contextlib.contextmanager
def _work_folder(parent: Path | None) -> Iterator[Path]:
    """Make a folder for large arrays, which is removed at the end."""
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=parent, prefix="bids-qsm-group-")
    except OSError as error:
        raise UnwritableOutputError(
            f"{parent or tempfile.gettempdir()}: no folder can be made there "
            f"({error.strerror}); give another with --work-dir."
        ) from None
    with made as name:
        yield Path(name)


def make_analyses(
    settings: Settings, cohort: Cohort, analyses: Sequence[Analysis]
) -> tuple[list[tuple[Section, str]], list[Failure]]:
    """Make and write all analyses; return the page's sections with their methods, and failures."""
    done: list[tuple[Section, str]] = []
    failures: list[Failure] = []
    for analysis in analyses:
        _say(f"  {analysis.name}: {analysis.kind}")
        try:
            result = analyse(cohort, analysis)
        except Exception as error:  # the last resort of one analysis: others must go on
            failures.append(Failure(analysis.name, _sentence(error)))
            _remove(settings.output_dir / group_folder(analysis.name))
            continue
        done.append((write_result(settings.output_dir, analysis, result), result.methods))
    return done, failures


def analyse(cohort: Cohort, analysis: Analysis) -> Result:
    """Make an analysis of its part of the cohort.

    Raises
    ------
    ValueError
        If it cannot be made of these data; the message is a sentence for the user.
    """
    return KINDS[analysis.kind](select(cohort, analysis.selection), **analysis.options)


def write_tables(output_dir: Path, gathered: Gathered) -> None:
    """Write the tables over all subjects, all at once: what was measured, and who is missing."""
    outcomes = gathered.outcomes
    described = {
        row.column: {"Description": f"{row.name}: {row.measure}", "Units": row.units}
        for row in outcomes.itertuples(index=False)
    }
    tables: dict[str, tuple[pd.DataFrame, Mapping[str, object]]] = {
        "regions": (gathered.regions, _descriptions(STATISTICS_COLUMNS)),
        "morphometry": (gathered.morphometry, _descriptions(MORPHOMETRY_COLUMNS)),
        "scans": (gathered.scans, described),
    }
    if len(gathered.tracking):
        tables = {**tables, "tracking": (gathered.tracking, _descriptions(TRACKING_COLUMNS))}
    tables |= {
        name: (table, _descriptions(TABLE_COLUMNS[name]))
        for name, table in gathered.clinical.items()
    }
    missing = pd.DataFrame(
        [(unit.unit, unit.reason) for unit in gathered.left_out], columns=["unit", "reason"]
    )
    with Staging(output_dir, f"{GROUP_FOLDER}-tables") as staging:
        for name, (table, columns) in tables.items():
            staging.write(group_table_path(name), encode_table(table), columns)
        staging.write(group_table_path("missing"), encode_table(missing))


def write_result(output_dir: Path, analysis: Analysis, result: Result) -> Section:
    """Write the files of an analysis, all at once, and return its part of the page."""
    folder = group_folder(analysis.name)
    with Staging(output_dir, f"{GROUP_FOLDER}-{analysis.name}") as staging:
        section = _write_parts(staging, folder, analysis, result)
        _remove(output_dir / folder)
    return section


def _write_parts(staging: Staging, folder: Path, analysis: Analysis, result: Result) -> Section:
    tables = []
    for item in result.tables:
        path = folder / f"{_file_name(item.name)}.tsv"
        staging.write(path, encode_table(item.table))
        tables.append(
            TableView(
                item.title,
                item.table,
                item.caption,
                path.as_posix(),
                item.columns,
                item.in_units,
                item.is_folded,
            )
        )
    figures = []
    for chart in result.charts:
        png, svg = (folder / f"{_file_name(chart.name)}.{end}" for end in ("png", "svg"))
        staging.write(png, chart.chart.png)
        staging.write(svg, chart.chart.svg)
        paths = {"PNG": png.as_posix(), "SVG": svg.as_posix()}
        figures.append(
            FigureView(
                chart.title, chart.chart.png, chart.caption, paths=paths, is_dark=chart.is_dark
            )
        )
    for item_map in result.maps:
        name = _file_name(item_map.name)
        path = folder / f"{name}.nii.gz"
        sidecar = {"Description": item_map.description, "Units": item_map.units or "arbitrary"}
        staging.write(path, encode_image(item_map.image), sidecar)
    described = {
        "Kind": analysis.kind,
        "Selection": vars(analysis.selection),
        "Options": dict(analysis.options),
        "Summary": result.summary,
        "Notes": list(dict.fromkeys(result.notes)),
        "Warnings": list(dict.fromkeys(result.warnings)),
        "Methods": result.methods,
    }
    staging.write(folder / "analysis.json", encode_json(described))
    return Section(
        analysis.title,
        result.summary,
        tuple(dict.fromkeys(result.notes)),
        tuple(dict.fromkeys(result.warnings)),
        tuple(tables),
        tuple(figures),
    )


def overview(gathered: Gathered, assumed: tuple[str, ...]) -> Section:
    """Return the part of the page on the values of all scans."""
    keys = ["name", "hemisphere", "measure", "units", "reference", "atlas"]
    values = gathered.regions.groupby(keys, sort=False)["mean"]
    table = values.agg(n="count", mean="mean", sd="std", lowest="min", highest="max").reset_index()
    shown = ("name", "hemisphere", "measure", "units", "reference", "n", "mean", "sd")
    return Section(
        "All values",
        "The structures' means as the participant level measured them, over all scans.",
        notes=assumed,
        tables=(
            TableView(
                "Structures",
                table,
                "Of the means of all scans: their mean, SD and range.",
                group_table_path("regions").as_posix(),
                dict.fromkeys((*shown, "lowest", "highest"), ""),
                ("mean", "sd", "lowest", "highest"),
            ),
            TableView(
                "Columns for formulas",
                gathered.outcomes,
                "What a formula may name besides the columns of participants.tsv and sessions.tsv.",
                group_table_path("scans").as_posix(),
                is_folded=True,
            ),
        ),
    )


def page_text(
    settings: Settings,
    gathered: Gathered,
    failures: Sequence[Failure],
    n_analyses: int,
    methods: str,
    quality: QualityFound,
) -> PageText:
    """Return what the page says besides the analyses."""
    title = "Quality of the scans"
    facts = {
        "Output folder": settings.output_dir.name,
        "Models file": "none: the default analyses"
        if settings.models_file is None
        else settings.models_file.name,
        "χ relative to": gathered.reference,
        "Atlases": ", ".join(gathered.atlases) or "none",
        "Exclusions": "none: no list was given by --exclude"
        if settings.exclude_file is None
        else f"{settings.exclude_file.name}: {counted(len(gathered.excluded), 'scan')} left out",
        title: quality.sentence,
    }
    numbers = {
        ("subject", "subjects"): gathered.scans["participant_id"].nunique(),
        ("scan", "scans"): len(gathered.scans),
        ("structure", "structures"): gathered.regions["name"].nunique(),
        ("analysis", "analyses"): n_analyses,
    }
    counts = {(one if n == 1 else many): str(n) for (one, many), n in numbers.items()}
    failed = tuple(f"{f.name} could not be made: {f.sentence}" for f in failures)
    return PageText(
        __version__,
        counts=counts,
        facts=facts,
        warnings=gathered.warnings + failed,
        left_out=gathered.left_out,
        methods=methods,
        pages={} if quality.path is None else {title: quality.path.as_posix()},
    )


def _atlases(settings: Settings, gathered: Gathered) -> Mapping[str, Atlas]:
    """Load the atlases of the tables, the first one first: by name, or from ``--atlas PATH``."""
    given = {load_atlas(asked).name: asked for asked in settings.atlases}
    loaded = {}
    for name in gathered.atlases:
        try:
            loaded[name] = load_atlas(given.get(name, name))
        except BidsQsmError as error:
            raise UnreadableInputError(
                f"the tables are of the atlas {name!r}, which is not known here; give it by "
                f"'--atlas PATH' as at the participant level ({error})"
            ) from None
    return loaded


def _sentence(error: Exception) -> str:
    """Return what is said of an analysis that could not be made."""
    if isinstance(error, (ValueError, BidsQsmError)):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"a fault in the program ({type(error).__name__}: {error}; {where})."


def _descriptions(columns: Mapping[str, str]) -> dict[str, object]:
    return {name: {"Description": text} for name, text in columns.items()}


def _file_name(name: str) -> str:
    """Return a name that may hold a column of the user's as one of a file, in its own folder."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    if plain == name:
        return name
    return f"{plain}-{zlib.crc32(name.encode()):08x}"  # two names shall not become one


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(folder, error) from None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

"""The report of a subject: one HTML file that holds all it shows and asks for nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from bids_qsm.reading import check_file
from bids_qsm.report.consensus import ChecklistItem, consensus_checklist
from bids_qsm.report.methods import (
    method_name,
    methods_body,
    methods_text,
    parameter_texts,
    step_name,
)
from bids_qsm.report.record import FigureRecord, SeriesRecord, SubjectRecord
from bids_qsm.report.references import REFERENCES, cited_keys
from bids_qsm.report.series_tables import (
    TableBlock,
    TableSection,
    clinical_blocks,
    table_sections,
)
from bids_qsm.report.templates import as_html, page_environment, png_uri, resource
from bids_qsm.report.viewer import Viewer, library, viewer

VIEWERS_BYTES = 24e6
LARGEST_PICTURE_BYTES = 64 * 2**20
"""What pictures, viewers and NiiVue may take of a page, which is to stay below 25 MB."""

NO_PHASE = (
    "This series has no phase: there is no field, no susceptibility map (χ) and nothing derived "
    "from them. R2* comes from the magnitude alone."
)
NO_T1W = (
    "No T1w image was found: there are no labels of structures, no regional values, no "
    "registration to check and no maps in T1w or template space."
)


@dataclass(frozen=True)
class Picture:
    """An embedded image, or what is said in its place."""

    uri: str | None
    missing: str


@dataclass(frozen=True)
class Figure:
    """A figure with its pictures; two of them are looked at in turn."""

    title: str
    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class FigureSection:
    """Figures under one heading."""

    key: str
    heading: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class SeriesView:
    """One series as the template shows it.

    ``pictured`` has the figures that stand with the tables of their heading.
    """

    key: str
    record: SeriesRecord
    label: str
    missing: tuple[str, ...]
    sections: tuple[FigureSection, ...]
    tables: tuple[TableSection, ...]
    pictured: Mapping[str, tuple[Figure, ...]]
    checklist: tuple[ChecklistItem, ...]
    methods: Markup
    methods_markdown: str
    viewer: Viewer | None


@dataclass(frozen=True)
class SubjectView:
    """What was made of all series together, as the template shows it."""

    key: str
    record: SubjectRecord
    sections: tuple[FigureSection, ...]
    tables: tuple[TableBlock, ...]
    methods: Markup
    methods_markdown: str
    missing: tuple[str, ...] = ()


def subject_page(
    subject: str,
    records: Sequence[SeriesRecord],
    output_dir: Path,
    across: Sequence[SubjectRecord] = (),
) -> str:
    """Return the HTML report of a subject.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    records : sequence of SeriesRecord
        The subject's processed series, in the order of the report.
    output_dir : Path
        Folder that the records' paths start from.  A file that is missing is said on the page.
    across : sequence of SubjectRecord
        What was made of all series together.
    """
    niivue = library()
    pictures_bytes = sum(_picture_bytes(record, output_dir) for record in records)
    room_bytes = (VIEWERS_BYTES - len(niivue) - pictures_bytes) / max(1, len(records))
    views = [
        _view(record, place, output_dir, viewer(record, output_dir, room_bytes))
        for place, record in enumerate(records, start=1)
    ]
    together = [_across(record, f"a{i}", output_dir) for i, record in enumerate(across, start=1)]
    has_viewer = any(view.viewer for view in views)
    texts = [view.methods_markdown for view in (*views, *together)]
    cited = sorted({key for text in texts for key in cited_keys(text)})
    environment = page_environment()
    environment.globals.update(
        step_name=step_name, method_name=method_name, parameter_texts=parameter_texts
    )
    environment.filters.update(duration=duration)
    return environment.get_template("subject.html").render(
        subject=subject,
        views=views,
        across=together,
        references=[(key, REFERENCES[key]) for key in cited],
        style=resource("report.css") + (resource("viewer.css") if has_viewer else ""),
        niivue=niivue if has_viewer else None,
        script=resource("report.js")
        + resource("tables.js")
        + (resource("viewer.js") if has_viewer else ""),
    )


def duration(seconds: float) -> str:
    """Return a time span as it is read."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _view(record: SeriesRecord, place: int, output_dir: Path, live: Viewer | None) -> SeriesView:
    body = methods_body(record.steps, version=record.version, reference=record.reference)
    missing = [] if record.has_phase else [NO_PHASE]
    missing += [] if record.has_t1w else [NO_T1W]
    key = f"s{place}"
    sections = _sections(record.figures, key, output_dir)
    tables = table_sections(record, key, output_dir)
    headings = {section.heading for section in tables}
    return SeriesView(
        key=key,
        record=record,
        label=_label(record),
        missing=tuple(missing),
        sections=tuple(section for section in sections if section.heading not in headings),
        tables=tables,
        pictured={s.heading: s.figures for s in sections if s.heading in headings},
        checklist=consensus_checklist(record),
        methods=as_html(body, heading="h4"),
        methods_markdown=methods_text(
            record.steps, version=record.version, reference=record.reference
        ),
        viewer=live,
    )


def _across(record: SubjectRecord, key: str, output_dir: Path) -> SubjectView:
    body = methods_body(record.steps, version=record.version)
    return SubjectView(
        key,
        record,
        _sections(record.figures, key, output_dir),
        clinical_blocks(record.tables, output_dir),
        as_html(body, heading="h4"),
        methods_text(record.steps, version=record.version),
    )


def _label(record: SeriesRecord) -> str:
    """Return what tells a series from the subject's others."""
    others = record.name.removeprefix(f"sub-{record.subject}").strip("_").replace("_", " ")
    return others or record.name


def _sections(
    figures: Sequence[FigureRecord], key: str, output_dir: Path
) -> tuple[FigureSection, ...]:
    headings = list(dict.fromkeys(figure.section for figure in figures))
    return tuple(
        FigureSection(
            f"{key}-figures{place}",
            heading,
            tuple(
                Figure(f.title, f.caption, tuple(_picture(output_dir, path) for path in f.paths))
                for f in figures
                if f.section == heading
            ),
        )
        for place, heading in enumerate(headings, start=1)
    )


def _picture_bytes(record: SeriesRecord, output_dir: Path) -> int:
    """Return what a record's pictures take of the page: four letters for three bytes."""
    paths = [output_dir / path for figure in record.figures for path in figure.paths]
    return sum(4 * path.stat().st_size // 3 for path in paths if path.is_file())


def _picture(output_dir: Path, path: str) -> Picture:
    try:
        check_file(output_dir / path, LARGEST_PICTURE_BYTES)
        content = (output_dir / path).read_bytes()
    except (OSError, ValueError):
        return Picture(None, f"The picture {path} is missing.")
    return Picture(png_uri(content), "")

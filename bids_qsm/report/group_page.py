"""The report of the group level: one HTML file that holds all it shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import pandas as pd
from PIL import Image

from bids_qsm.report.data_tables import LARGEST, data_table
from bids_qsm.report.references import REFERENCES, Reference, cited_keys
from bids_qsm.report.tables import Table
from bids_qsm.report.templates import as_html, page_environment, png_uri, resource

SHOWN_SCALE = 1.6
"""Pixels of a picture for each pixel of the page, so that print and fine screens have enough."""


@dataclass(frozen=True)
class TableView:
    """A table of results.

    Attributes
    ----------
    title : str
    table : DataFrame
        At most :data:`~bids_qsm.report.data_tables.LARGEST` rows are shown.
    caption : str
    path : str
        The file with all rows, relative to the page; it is linked.
    columns : mapping of str to str, optional
        The columns to show, in order, with their titles (an empty title: the usual one); all if not
        given.
    in_units : tuple of str
        Columns whose values are in the row's ``units``: those in ppm are shown in ppb.
    is_folded : bool
        Whether the reader opens it by hand.
    empty : str
        What is said of a table without a row.
    """

    title: str
    table: pd.DataFrame
    caption: str = ""
    path: str = ""
    columns: Mapping[str, str] | None = None
    in_units: tuple[str, ...] = ()
    is_folded: bool = False
    empty: str = "There is no row."


@dataclass(frozen=True)
class FigureView:
    """A picture.

    Attributes
    ----------
    title : str
    png : bytes
    caption : str
    alt : str
        What is seen, for those who do not; title and caption if not given.
    paths : mapping of str to str
        Files, relative to the page, by what their links say, such as ``{"SVG": "figures/a.svg"}``.
    is_dark : bool
        Whether the picture is on black, as maps are.
    """

    title: str
    png: bytes
    caption: str = ""
    alt: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    is_dark: bool = False


@dataclass(frozen=True)
class Section:
    """An analysis: what was done in one sentence, what was assumed, and what came out."""

    title: str
    summary: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[TableView, ...] = ()
    figures: tuple[FigureView, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A unit (subject, session, structure, analysis) that could not be used, and why."""

    unit: str
    reason: str


@dataclass(frozen=True)
class PageText:
    """What the page says besides the analyses.

    Attributes
    ----------
    version : str
        Of the program.
    title, subtitle : str
    counts : mapping of str to str
        Large numbers at the top, by what they count.
    facts : mapping of str to str
        Name and value, such as the models file.
    warnings : tuple of str
        Of the whole run; those of an analysis stand there.
    left_out : tuple of LeftOut
    methods : str
        Paragraphs with headings (``## ``) and citations such as ``[@first2001]``.
    pages : mapping of str to str
        Further pages by their titles; a fact of the same title is the link's text.
    """

    version: str
    title: str = "Group level"
    subtitle: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    methods: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _TableItem:
    view: TableView
    table: Table
    left_off: int
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _FigureItem:
    figure: FigureView
    uri: str
    width_px: int
    height_px: int
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _SectionView:
    key: str
    section: Section
    tables: tuple[_TableItem, ...]
    figures: tuple[_FigureItem, ...]


def group_page(
    sections: Sequence[Section],
    text: PageText,
    *,
    references: Mapping[str, Reference] = REFERENCES,
) -> str:
    """Return the HTML report of the group level.

    All text is escaped, whatever it holds.  Pictures are within the page; tables and figures link
    to their files by addresses relative to it.

    Parameters
    ----------
    sections : sequence of Section
        In the order of the page.
    text : PageText
    references : mapping of str to Reference
        What the methods may cite.

    Raises
    ------
    ValueError
        If a table has none of the columns that it is to show.
    """
    environment = page_environment()
    environment.filters.update(relative_address=relative_address)
    cited = sorted(key for key in cited_keys(text.methods) if key in references)
    methods = text.methods or "No methods were recorded."
    return environment.get_template("group.html").render(
        page=text,
        views=[_view(section, place) for place, section in enumerate(sections, start=1)],
        n_warnings=len(text.warnings) + sum(len(section.warnings) for section in sections),
        methods=as_html(methods, heading="h3", references=references),
        references=[(key, references[key]) for key in cited],
        style=resource("report.css") + resource("group.css"),
        script=resource("tables.js"),
    )


def relative_address(path: str) -> str:
    """Return a path below the page's folder as a link that can lead nowhere else."""
    return "./" + quote(path.lstrip("/"))


def _view(section: Section, place: int) -> _SectionView:
    return _SectionView(
        f"a{place}",
        section,
        tuple(_table_item(view) for view in section.tables),
        tuple(_figure_item(figure) for figure in section.figures),
    )


def _table_item(view: TableView) -> _TableItem:
    links = ((f"TSV: {view.path}", view.path),) if view.path else ()
    left_off = max(0, len(view.table) - LARGEST)
    return _TableItem(view, data_table(view.table, view.columns, view.in_units), left_off, links)


def _figure_item(figure: FigureView) -> _FigureItem:
    width, height = Image.open(io.BytesIO(figure.png)).size
    return _FigureItem(
        figure,
        png_uri(figure.png),
        round(width / SHOWN_SCALE),
        round(height / SHOWN_SCALE),
        tuple(figure.paths.items()),
    )

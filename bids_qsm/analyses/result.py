"""What an analysis of the group level gives: tables, charts, maps, and what is to be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from bids_qsm.images import Image
from bids_qsm.report.group_style import Chart


@dataclass(frozen=True)
class ResultTable:
    """A table.

    Attributes
    ----------
    name : str
        Of its file, without extension.
    title : str
    table : DataFrame
    caption : str
    columns : mapping of str to str, optional
        The columns that the page shows, with their titles (empty: the usual one); all if not given.
    in_units : tuple of str
        Columns whose values are in the row's ``units``.
    is_folded : bool
        Whether the page's reader opens it by hand.
    """

    name: str
    title: str
    table: pd.DataFrame
    caption: str = ""
    columns: Mapping[str, str] | None = None
    in_units: tuple[str, ...] = ()
    is_folded: bool = False


@dataclass(frozen=True)
class ResultChart:
    """A picture; ``name`` is that of its files, without extension."""

    name: str
    title: str
    chart: Chart
    caption: str = ""
    is_dark: bool = False


@dataclass(frozen=True)
class ResultMap:
    """A map in the atlas' space; ``name`` is that of its file, without extension."""

    name: str
    image: Image
    description: str
    units: str = ""


@dataclass(frozen=True)
class Result:
    """What an analysis gives.

    Attributes
    ----------
    summary : str
        What was done, in a sentence or two.
    notes : tuple of str
        What was assumed, and who was left out: sentences.
    warnings : tuple of str
        What the reader must know before he uses the numbers.
    tables : tuple of ResultTable
    charts : tuple of ResultChart
    maps : tuple of ResultMap
    methods : str
        A paragraph with citations such as ``[@welch1947]``.
    """

    summary: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[ResultTable, ...] = ()
    charts: tuple[ResultChart, ...] = ()
    maps: tuple[ResultMap, ...] = field(default_factory=tuple)
    methods: str = ""

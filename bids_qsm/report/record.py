"""What is kept of one processed series for its report, its sidecars and a later report-only run."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class StepRecord:
    """One step as it was run.

    Attributes
    ----------
    name : str
        Such as ``phase``, ``offset``, ``unwrapping``, ``field``, ``mask``, ``background``,
        ``inversion``, ``reference``, ``relaxometry``, ``t1w``, ``registration``, ``atlas``.
    method : str
        Registry name of the method.
    parameters : mapping
        All of its options with the values used.
    seconds : float
    peak_mib : float
        The most memory that the process had held when the step ended, this one or an earlier.
    """

    name: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mib: float = 0.0


@dataclass(frozen=True)
class FigureRecord:
    """A picture of the report.

    Attributes
    ----------
    section : str
        Heading under which it stands.
    title, caption : str
    paths : tuple of str
        Files below the output folder; two of them are shown as a before/after flicker.
    """

    section: str
    title: str
    caption: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class TableRecord:
    """A table of the report.

    Attributes
    ----------
    key : str
        What it holds: a key of the table of outputs, ``OUTPUTS`` in ``bids_qsm.bids.naming``.
    path : str
        File below the output folder.
    atlas : str or None
        Whose structures it is about.
    """

    key: str
    path: str
    atlas: str | None = None


@dataclass(frozen=True)
class ReferenceRecord:
    """The region that χ is relative to, with its values before referencing (whole brain = 0).

    Attributes
    ----------
    region : str
    mean_ppm, sd_ppm : float
    n_voxels : int
    """

    region: str
    mean_ppm: float
    sd_ppm: float
    n_voxels: int


@dataclass(frozen=True)
class InputRecord:
    """A file that was read.

    Attributes
    ----------
    name : str
        Its BIDS URI; of a file from elsewhere the name.
    n_bytes : int
    sha256 : str
        Of its bytes, as ``sha256sum`` says it.
    """

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class RunRecord:
    """What a run was given and what it ran with; nothing in it is of one machine.

    Attributes
    ----------
    command : tuple of str
        The words of the command line, without folders; none where there was no command line.
    settings : mapping
        All that decides the outputs: every method with its name and the options that were set,
        output spaces, further steps, atlases, names of the given derivatives, random seed.
    versions : mapping of str to str
        Of Python and of the libraries that decide numbers.
    code : str
        Fingerprint of the program's source.
    inputs : tuple of InputRecord
        All files of images that were read, with their fingerprints.
    reused : tuple of str
        Names of the kept results that were read back from an earlier run; the times of their steps
        are those of reading.
    """

    command: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    inputs: tuple[InputRecord, ...] = ()
    reused: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesRecord:
    """One series as it was processed.

    Attributes
    ----------
    subject, session : str
        Labels, without their prefix.
    name : str
        Stem of its outputs.
    version : str
        Of the program.
    facts : mapping of str to str
        What the summary says, in its order: echoes, field strength, voxel size, files, versions.
    steps : tuple of StepRecord
        In the order in which they were run.
    warnings : tuple of str
        Everything that was guessed, substituted or left out, as sentences.
    figures : tuple of FigureRecord
    reference : ReferenceRecord or None
        None where χ is not referenced, or there is no χ.
    tables : tuple of TableRecord
        In the order of the report; those of the first atlas come first.
    has_t1w, has_phase : bool
        Whether the series has these inputs.
    seconds, peak_mib : float
        What the whole run took, but for the writing of outputs.
    key : str
        Fingerprint of all that decides the outputs.
    outputs : tuple of str
        The published files, below the output folder.
    run : RunRecord
        What the run was given and what it ran with; empty in records of older versions.
    """

    subject: str
    session: str | None
    name: str
    version: str
    facts: Mapping[str, str]
    steps: tuple[StepRecord, ...]
    warnings: tuple[str, ...]
    figures: tuple[FigureRecord, ...]
    reference: ReferenceRecord | None = None
    tables: tuple[TableRecord, ...] = ()
    has_t1w: bool = False
    has_phase: bool = True
    seconds: float = 0.0
    peak_mib: float = 0.0
    key: str = ""
    outputs: tuple[str, ...] = ()
    run: RunRecord = field(default_factory=RunRecord)

    def step(self, name: str) -> StepRecord | None:
        """Return the step of that name, if it was run."""
        return next((step for step in self.steps if step.name == name), None)

    def tables_of(self, key: str) -> tuple[TableRecord, ...]:
        """Return the tables of that kind, one for each atlas or the only one."""
        return tuple(table for table in self.tables if table.key == key)

    @property
    def table(self) -> str | None:
        """The first atlas' per-structure table, a file below the output folder."""
        return next((table.path for table in self.tables_of("stats")), None)


@dataclass(frozen=True)
class SubjectRecord:
    """What was made of all series of a subject together.

    Attributes
    ----------
    subject : str
        Label, without its prefix.
    heading : str
        Under which it stands on the subject's page.
    version : str
        Of the program.
    steps, warnings, figures, tables, key, outputs
        As of :class:`SeriesRecord`.
    """

    subject: str
    heading: str
    version: str
    steps: tuple[StepRecord, ...]
    warnings: tuple[str, ...]
    figures: tuple[FigureRecord, ...]
    tables: tuple[TableRecord, ...]
    key: str
    outputs: tuple[str, ...]


Record = TypeVar("Record", SeriesRecord, SubjectRecord)


def subject_record_from_json(text: str) -> SubjectRecord:
    """Return the record that :func:`record_to_json` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the text is not such a record.
    """
    return _built(SubjectRecord, _fields(text))


def record_to_json(record: SeriesRecord | SubjectRecord) -> str:
    """Return a record as JSON text, its facts and parameters in their own order."""
    return json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False)


def record_from_json(text: str) -> SeriesRecord:
    """Return the record that :func:`record_to_json` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the text is not such a record.
    """
    return _built(SeriesRecord, _fields(text))


def _fields(text: str) -> dict[str, Any]:
    """Return the fields of a record."""
    try:
        fields = json.loads(text, object_hook=_with_tuples)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return fields


def _built(kind: type[Record], fields: Mapping[str, Any]) -> Record:
    """Return the record of these fields, which leads nowhere out of the output folder."""
    record: Record = _of_type(kind, fields)
    for name in _files(record):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of the output folder")
    return record


def _files(record: SeriesRecord | SubjectRecord) -> tuple[str, ...]:
    figures = [path for figure in record.figures for path in figure.paths]
    return (*figures, *(table.path for table in record.tables), *record.outputs)


def _of_type(kind: Any, value: Any) -> Any:
    """Return a value of JSON as the type that a field has: a page is made of nothing else."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and type(None) in inner):
        return value
    if origin is UnionType:
        return _of_type(inner[0], value)
    if origin is tuple and isinstance(value, tuple):
        return tuple(_of_type(inner[0], item) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: _of_type(inner[1], item) for key, item in value.items()}
    if isinstance(value, dict) and dataclasses.is_dataclass(kind) and isinstance(kind, type):
        kinds = _field_types(kind)
        return kind(**{key: _of_type(kinds[key], item) for key, item in value.items()})
    if kind is float and isinstance(value, (int, float)) and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    numbers = (int, float) if kind is float else kind
    if origin is None and isinstance(value, numbers) and isinstance(value, bool) == (kind is bool):
        return value
    raise TypeError(f"{reprlib.repr(value)} is no {getattr(kind, '__name__', kind)}")


@cache
def _field_types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return JSON's lists as the tuples that records hold."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}

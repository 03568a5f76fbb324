"""What is kept of one processed series for its report, its sidecars and a later report-only run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One step as it was run.

    Attributes
    ----------
    name : str
        The step: ``phase``, ``offset``, ``unwrapping``, ``field``, ``mask``, ``background``,
        ``inversion``, ``reference``, ``relaxometry``, ``t1w``, ``registration``, ``template``,
        ``atlas``, ``regions``.
    method : str
        Registry name of the method.
    parameters : mapping
        All of its options with the values used.
    seconds : float
    """

    name: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


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
class ReferenceRecord:
    """The region that χ is relative to, with its values before referencing (whole brain = 0)."""

    region: str
    mean_ppm: float
    sd_ppm: float
    n_voxels: int


@dataclass(frozen=True)
class SeriesRecord:
    """One series: facts, steps, warnings, figures, table."""

    subject: str
    session: str | None
    name: str
    version: str
    facts: Mapping[str, str]
    steps: tuple[StepRecord, ...]
    warnings: tuple[str, ...]
    figures: tuple[FigureRecord, ...]
    reference: ReferenceRecord | None = None
    table: str | None = None
    atlas: str | None = None
    has_t1w: bool = False
    has_phase: bool = True
    seconds: float = 0.0
    peak_mib: float = 0.0

    def step(self, name: str) -> StepRecord | None:
        """Return the step of that name, if it was run."""
        return next((step for step in self.steps if step.name == name), None)


def record_to_json(record: SeriesRecord) -> str:
    """Return a record as JSON text."""
    return json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, ensure_ascii=False)


def record_from_json(text: str) -> SeriesRecord:
    """Return the record that :func:`record_to_json` wrote."""
    fields = json.loads(text)
    reference = fields.pop("reference")
    return SeriesRecord(
        **{k: v for k, v in fields.items() if k not in ("steps", "figures", "warnings")},
        steps=tuple(StepRecord(**step) for step in fields["steps"]),
        figures=tuple(
            FigureRecord(**{**figure, "paths": tuple(figure["paths"])})
            for figure in fields["figures"]
        ),
        warnings=tuple(fields["warnings"]),
        reference=None if reference is None else ReferenceRecord(**reference),
    )

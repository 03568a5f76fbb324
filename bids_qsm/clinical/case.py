"""What the clinical steps are given, and what each of them gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bids_qsm.frames import pd
from bids_qsm.images import Image
from bids_qsm.job import Job
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import Lesions
from bids_qsm.report.picture import Picture

COARSEST_MM = 2.0
"""Longest edge of a voxel in which a bleed of 3 mm, or a rim of one or two, can still be told."""


@dataclass(frozen=True)
class Case:
    """All that is known of a head when its maps, structures and lesions are there."""

    maps: Maps
    anatomy: Anatomy | None
    structures: Sequence[Structures]
    lesions: Lesions | None


def warn_of_coarse_voxels(job: Job, voxel_mm: Sequence[float], purpose: str) -> None:
    """Warn where voxels are too large for what is looked for; ``purpose`` ends the clause."""
    largest_mm = max(voxel_mm)
    if largest_mm > COARSEST_MM + 1e-3:
        job.journal.warn(
            f"Voxels of {largest_mm:.3g} mm are too large {purpose}; {COARSEST_MM:.0f} mm or less "
            "is needed."
        )


@dataclass(frozen=True)
class NamedImage:
    """An image to be written: its row of :data:`bids_qsm.bids.naming.OUTPUTS` and its space.

    ``fields`` are further fields of its sidecar.
    """

    key: str
    image: Image
    space: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedTable:
    """A table to be written: its row of :data:`bids_qsm.bids.naming.OUTPUTS`."""

    key: str
    table: pd.DataFrame


def _nothing() -> tuple[Picture, ...]:
    return ()


@dataclass(frozen=True)
class Finding:
    """What a clinical step has found.

    Attributes
    ----------
    images : tuple of NamedImage
    tables : tuple of NamedTable
    draw : callable
        Returns the pictures of the report.  It imports what draws them: the maps appear before.
    facts : mapping of str to str
        What the summary of the report says.
    """

    images: tuple[NamedImage, ...] = ()
    tables: tuple[NamedTable, ...] = ()
    draw: Callable[[], Iterable[Picture]] = _nothing
    facts: Mapping[str, str] = field(default_factory=dict)

"""What the clinical steps are given, and what each of them gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bids_qsm.images import Image
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import Lesions
from bids_qsm.report.picture import Picture


@dataclass(frozen=True)
class Case:
    """All that is known of a head when its maps, structures and lesions are there."""

    maps: Maps
    anatomy: Anatomy | None
    structures: Sequence[Structures]
    lesions: Lesions | None


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

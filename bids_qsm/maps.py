"""What the steps of a series hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

from bids_qsm.images import Image
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.referencing import Referenced
from bids_qsm.numerics.relaxometry import Relaxation
from bids_qsm.numerics.separation import Sources
from bids_qsm.numerics.series_quality import FitQuality, Value


@dataclass(frozen=True)
class Brain:
    """The brain on the grid of a series, and what it was found in."""

    mask: Bool
    source: str


@dataclass(frozen=True)
class TotalField:
    """The total field of a series, where it can be trusted, and how long its parts took."""

    field_hz: Float32
    noise_hz: Float32
    quality: Float32
    mask: Bool
    fit: FitQuality
    seconds: tuple[float, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Susceptibility:
    """Susceptibility with a free constant."""

    chi_ppm: Float32


@dataclass(frozen=True)
class ReferencedMap:
    """Susceptibility relative to a region that has a name; ``voxels`` is None without one."""

    region: str
    result: Referenced
    voxels: Bool | None


@dataclass(frozen=True)
class Veins:
    """Voxels of veins."""

    mask: Bool


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviation of the published susceptibility."""

    sd_ppm: Float32


@dataclass(frozen=True)
class Weighted:
    """A susceptibility-weighted image and its minimum intensity projection."""

    swi: Float32
    minip: Float32


@dataclass(frozen=True)
class Maps:
    """All that was computed on the grid of a series; None where the input had no part for it.

    ``chi`` holds the published map first, then the one relative to the whole brain where that is
    another; ``acquired`` what was measured of the images.
    """

    magnitude: Image
    first_phase: Float32 | None
    b0_t: float
    brain: Bool
    relaxation: Relaxation | None
    total: TotalField | None
    local: FieldMap | None
    chi: tuple[ReferencedMap, ...]
    weighted: Weighted | None = None
    sources: Sources | None = None
    uncertainty: Uncertainty | None = None
    veins: Veins | None = None
    acquired: tuple[Value, ...] = ()

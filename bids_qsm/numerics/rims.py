"""Paramagnetic rims of lesions: susceptibility in shells along the lesion's border."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, Float32

Float64 = NDArray[np.float64]
Labels = NDArray[np.integer]

HYPERINTENSE, ISOINTENSE, HYPOINTENSE = "hyperintense", "isointense", "hypointense"
COLUMNS = (
    "index",
    "volume_mm3",
    "core_ppm",
    "rim_ppm",
    "outside_ppm",
    "rim_to_core_ppm",
    "rim_to_outside_ppm",
    "rim_offset_mm",
    "coverage",
    "core_to_outside_ppm",
    "score",
)
"""What is known of each lesion; :meth:`Rims.table` adds what follows from it."""
_MARGIN_MM = 6.0
_OFFSETS_MM = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5)
_OUTSIDE_MM = (2.0, 5.0)
_SECTORS = 20
_LEAST_IN_SECTOR, _LEAST_IN_SHELL = 2, 6
_ISOINTENSE_PPM = 0.015


@dataclass(frozen=True)
class Rims:
    """What is known of each lesion.

    Attributes
    ----------
    values : ndarray of float64, shape (n, len(COLUMNS))
        NaN where a lesion is too small, or susceptibility is not known.
    least_score : float
        From which on a rim is called one.
    """

    values: Float64
    least_score: float

    def table(self) -> pd.DataFrame:
        """Return a row for each lesion, with what its core is like and whether it has a rim."""
        table = pd.DataFrame(self.values, columns=list(COLUMNS)).astype({"index": np.int64})
        core = table["core_to_outside_ppm"]
        kinds = np.select(
            [core.isna(), core > _ISOINTENSE_PPM, core < -_ISOINTENSE_PPM],
            ["", HYPERINTENSE, HYPOINTENSE],
            ISOINTENSE,
        )
        score = table["score"]
        has_rim = (score >= self.least_score).astype(object).where(score.notna(), None)
        core_type = pd.Series(kinds, dtype=object).replace("", None)
        return table.assign(core_type=core_type, has_rim=has_rim)


def shells(
    chi_ppm: Float32,
    labels: Labels,
    valid: Bool,
    voxel_mm: tuple[float, float, float],
    veins: Bool | None = None,
    *,
    least_score: float = 0.5,
    least_volume_mm3: float = 40.0,
    thickness_mm: float = 1.5,
    contrast_ppm: float = 0.015,
) -> Rims:
    """Score how much each lesion looks like one with a paramagnetic rim.

    Susceptibility is compared between the lesion's core, a shell along its border and what lies
    2 to 5 mm outside.  FLAIR and gradient echo do not show one border: the shell lies where it is
    brightest against both, from 2 mm within the border to 0.5 mm outside.  The border is
    parted into sectors by direction; the coverage is the share of them in which the shell is
    brighter than the core and than the outside there.  The score is a logistic function of the
    coverage.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility with any constant.
    labels : ndarray of int, shape (x, y, z)
        Number of the lesion of each voxel; 0 is none.
    valid : ndarray of bool, shape (x, y, z)
        Where the map can be trusted.
    voxel_mm : tuple of float
    veins : ndarray of bool, shape (x, y, z), optional
        Are left out: a vein often runs through a lesion or along it.
    least_score : float
        From which on a lesion is said to have a rim.
    least_volume_mm3 : float
        Smaller lesions have no score.
    thickness_mm : float
        Of the shell.
    contrast_ppm : float
        By which the shell must be brighter in a sector.

    Returns
    -------
    Rims

    References
    ----------
    Bagnato et al. 2024, 10.1093/brain/awae013 (what is a paramagnetic rim); Absinta et al. 2016,
    10.1172/JCI86198.
    """
    rows = []
    usable = valid & np.isfinite(chi_ppm)
    if veins is not None:
        usable &= ~veins
    margins = [math.ceil(_MARGIN_MM / v) for v in voxel_mm]
    for number, span in enumerate(ndimage.find_objects(labels), start=1):
        if span is None:
            continue
        part = tuple(
            slice(max(s.start - m, 0), s.stop + m) for s, m in zip(span, margins, strict=True)
        )
        lesion = labels[part] == number
        volume_mm3 = float(lesion.sum()) * math.prod(voxel_mm)
        known = usable[part] & (lesion | (labels[part] == 0))
        found = [math.nan] * (len(COLUMNS) - 2)
        if volume_mm3 >= least_volume_mm3:
            values = chi_ppm[part].astype(np.float64)
            found = _measured(values, lesion, known, voxel_mm, thickness_mm, contrast_ppm)
        rows.append([number, volume_mm3, *found])
    return Rims(np.array(rows, np.float64).reshape(-1, len(COLUMNS)), least_score)


METHODS = {"shells": shells}


def _measured(
    chi_ppm: Float64,
    lesion: Bool,
    known: Bool,
    voxel_mm: tuple[float, float, float],
    thickness_mm: float,
    contrast_ppm: float,
) -> list[float]:
    """Return the values of a lesion from ``core_ppm`` on."""
    nothing = [math.nan] * (len(COLUMNS) - 2)
    # voxels' centres lie half a voxel from the border
    half = 0.5 * min(voxel_mm)
    signed = np.where(
        lesion, half - distance_mm(lesion, voxel_mm), distance_mm(~lesion, voxel_mm) - half
    )
    outside = known & (signed >= _OUTSIDE_MM[0]) & (signed <= _OUTSIDE_MM[1])
    if np.count_nonzero(outside) < _LEAST_IN_SHELL:
        return nothing
    outside_ppm = float(np.median(chi_ppm[outside]))
    best: tuple[float, float, float, float] | None = None
    for offset in _OFFSETS_MM:
        core = known & (signed < offset - thickness_mm / 2)
        shell = known & (np.abs(signed - offset) <= thickness_mm / 2)
        if min(np.count_nonzero(core), np.count_nonzero(shell)) < _LEAST_IN_SHELL:
            continue
        core_ppm, rim_ppm = float(np.median(chi_ppm[core])), float(chi_ppm[shell].mean())
        merit = rim_ppm - max(core_ppm, outside_ppm)
        if best is None or merit > best[0]:
            best = merit, offset, core_ppm, rim_ppm
    if best is None:
        return nothing
    _, offset, core_ppm, rim_ppm = best
    shell = known & (np.abs(signed - offset) <= thickness_mm / 2)
    coverage = _coverage(chi_ppm, lesion, shell, outside, core_ppm, voxel_mm, contrast_ppm)
    contrasts = (rim_ppm - core_ppm, rim_ppm - outside_ppm)
    rest = (offset, coverage, core_ppm - outside_ppm, _score(coverage))
    return [core_ppm, rim_ppm, outside_ppm, *contrasts, *rest]


def _coverage(
    chi_ppm: Float64,
    lesion: Bool,
    shell: Bool,
    outside: Bool,
    core_ppm: float,
    voxel_mm: tuple[float, float, float],
    contrast_ppm: float,
) -> float:
    """Return the share of the shell's voxels in sectors that are brighter than core and outside."""
    middle = np.argwhere(lesion).mean(axis=0)
    in_shell, around = _sectors(shell, middle, voxel_mm), _sectors(outside, middle, voxel_mm)
    sums = np.bincount(in_shell, chi_ppm[shell], _SECTORS)
    counts = np.bincount(in_shell, minlength=_SECTORS)
    sums_outside = np.bincount(around, chi_ppm[outside], _SECTORS)
    counts_outside = np.bincount(around, minlength=_SECTORS)
    used = (counts >= _LEAST_IN_SECTOR) & (counts_outside >= _LEAST_IN_SECTOR)
    if not used.any():
        return 0.0
    here = sums[used] / counts[used]
    there = np.maximum(sums_outside[used] / counts_outside[used], core_ppm)
    return float(counts[used][here > there + contrast_ppm].sum() / counts[used].sum())


def _sectors(region: Bool, middle: Float64, voxel_mm: tuple[float, float, float]) -> Labels:
    """Return the nearest of some directions, spread evenly, for each voxel of a region."""
    number = np.arange(_SECTORS) + 0.5
    height = 1 - 2 * number / _SECTORS
    turn = math.pi * (1 + math.sqrt(5)) * number
    wide = np.sqrt(1 - height**2)
    directions = np.stack([wide * np.cos(turn), wide * np.sin(turn), height], axis=1)
    away = (np.argwhere(region) - middle) * np.array(voxel_mm)
    return np.asarray(np.argmax(np.einsum("ni,si->ns", away, directions), axis=1))


def _score(coverage: float) -> float:
    """Return the score, 0.5 at a coverage of an eighth.

    The slope is a logistic regression's over simulated lesions; the size of the contrast, which
    differs between lesions without a rim as well, told no more.
    """
    return 1 / (1 + math.exp(1.4 - 11.5 * coverage))

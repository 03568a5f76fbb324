"""Microbleeds and calcifications: small compact sources that are no vessels and no nuclei."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.numerics.blobs import Blob, find_blobs
from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry
from bids_qsm.numerics.moments import (
    Moment,
    fit_moment,
    fit_moment_to_total,
    unexplained_field,
)
from bids_qsm.numerics.voids import notches

Float64 = NDArray[np.float64]

BLEED, CALCIFICATION = "microbleed", "calcification"
COLUMNS = (
    "i",
    "j",
    "k",
    "sign",
    "diameter_mm",
    "peak_ppm",
    "strength_ppm",
    "moment_ppm_mm3",
    "dipole_ppm_mm3",
    "dipole_sd_ppm_mm3",
    "explained",
    "saddle",
    "edge_mm",
    "in_nucleus",
    "at_edge",
    "confidence",
)
"""What is known of each inclusion; ``i, j, k`` is its place in voxels."""
_RADII_MM, _N_RADII = (1.1, 5.0), 6
_LEAST_EDGE_MM = 1.5
_LEAST_SHELL_VOXELS = 30
_BEYOND_MM = 3.0
_BESIDE_VOXELS = 1.0
_SADDLE_ROUNDS = 6
_SHADOW_MM, _SHADOW_SHARE = 4.0, 0.2
_NOTCH_MM, _LEAST_DEPTH_MM = 14.0, 1.9
_LARGEST_MOMENT_PPM_MM3 = 600.0
_COEFFICIENTS = {1: (-1.62, -9.40, 3.25, 1.82, 0.0), -1: (-4.55, -4.50, 5.40, 0.88, -4.77)}
"""Of the confidence, by sign: constant, saddle, share of the field explained, strength, edge.

Logistic regressions over the candidates of simulated heads (five of this phantom's, and for
diamagnetic ones two of another simulator's); ``tests/benchmarks/microbleeds.py`` judges them."""
_FACES = ndimage.generate_binary_structure(3, 1)
_CORNERS = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class Inclusions:
    """Microbleeds and calcifications, the surest first.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Number of each (from 1).
    values : ndarray of float64, shape (n, len(COLUMNS))
    """

    labels: NDArray[np.int16]
    values: Float64

    def table(self) -> pd.DataFrame:
        """Return a row for each, with its number and kind."""
        table = pd.DataFrame(self.values, columns=list(COLUMNS))
        kind = np.where(table["sign"] > 0, BLEED, CALCIFICATION)
        return table.assign(index=np.arange(1, len(table) + 1), kind=kind)


@dataclass(frozen=True)
class _Candidate:
    """A source and its place (mm from the first voxel's centre); names as in ``COLUMNS``."""

    voxels: tuple[NDArray[np.intp], ...]
    centre_mm: tuple[float, float, float]
    strength_ppm: float
    sign: int
    diameter_mm: float
    peak_ppm: float
    moment_ppm_mm3: float
    dipole: Moment
    saddle: float
    edge_mm: float
    in_nucleus: float
    at_edge: bool = False
    confidence: float = 0.0


@dataclass(frozen=True)
class _Maps:
    """What candidates are measured in, on one grid."""

    local: FieldMap
    chi_ppm: Float32
    unexplained_ppm: Float32
    edge_mm: Float64
    nuclei: Bool


def compact_sources(
    local: FieldMap,
    chi_ppm: Float32,
    total_ppm: Float32 | None = None,
    nuclei: Bool | None = None,
    *,
    least_confidence: float = 0.35,
    least_strength_ppm: float = 0.018,
    edge_voids: bool = True,
) -> Inclusions:
    r"""Find small compact sources of either sign, and measure their total susceptibility.

    A candidate is a peak of the least of the three curvatures of the map over scales: a vessel or
    a sheet has none.  Its *moment*, in ppm mm\ :sup:`3`, is the sum of the map over it and its
    rim, less the surroundings: the field outside fixes it, so that neither the signal lost inside
    nor the echo time changes it.  The dipole fitted to that field gives it a second time, whatever
    the inversion, and says how much of the field a single source explains.  A vessel is
    told by its *saddle*: the level, relative to the peak, down to which one can leave the source
    without going lower; along a vessel that is high.  Where a strong source at the brain's edge
    has cut a notch into the mask, susceptibility is not known, and background removal has taken
    its field for background: there a dipole is fitted to the total field.

    The confidence is a logistic function of strength, saddle, the share of the field explained by
    the dipole and, for a diamagnetic source, the distance from the mask's edge, where bone passes
    for calcification; see ``_believed``.

    Parameters
    ----------
    local : FieldMap
        Local field, noise, magnitude and mask.
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility with any constant.
    total_ppm : ndarray of float32, shape (x, y, z), optional
        Total field; without it no voids at the edge are looked for.
    nuclei : ndarray of bool, shape (x, y, z), optional
        Iron-rich nuclei: what lies there must stand out more.
    least_confidence : float
        Below it a candidate is left out.
    least_strength_ppm : float
        Least curvature, scaled to ppm: a fifth of the contrast of a ball that the voxels resolve.
    edge_voids : bool
        Whether voids at the mask's edge are looked at.

    Returns
    -------
    Inclusions
        Memory: some ten volumes of float32 of the mask's box.

    References
    ----------
    Liu et al. 2012, 10.1148/radiol.11110251; McAuley et al. 2011, 10.1002/mrm.22745;
    Chen et al. 2014, 10.1148/radiol.13122640 (calcifications); Greenberg et al. 2009,
    10.1016/S1474-4422(09)70013-4 (what is a microbleed).
    """
    known = local.mask & np.isfinite(chi_ppm)
    if not known.any():
        return Inclusions(np.zeros(known.shape, np.int16), np.empty((0, len(COLUMNS))))
    geometry = local.geometry
    first = max(_RADII_MM[0], 0.75 * geometry.voxel_mm3 ** (1 / 3))
    radii = np.geomspace(first, _RADII_MM[1], _N_RADII).tolist()
    blobs = find_blobs(chi_ppm, known, geometry.voxel_mm, radii, least_strength_ppm)
    maps = _Maps(
        local,
        chi_ppm,
        unexplained_field(local, chi_ppm),
        distance_mm(known, geometry.voxel_mm),
        np.zeros(known.shape, np.bool_) if nuclei is None else nuclei,
    )
    inner = [blob for blob in blobs if maps.edge_mm[blob.voxel] > _LEAST_EDGE_MM]
    found = [c for c in (_measured(blob, maps, least_confidence) for blob in inner) if c]
    if edge_voids and total_ppm is not None:
        found += _voids(total_ppm, local)
    sure = [c for c in found if c.confidence >= least_confidence]
    return _numbered(_without_shadows(_apart(sure)), geometry)


METHODS = {"compact-sources": compact_sources}


def _measured(blob: Blob, maps: _Maps, least_confidence: float) -> _Candidate | None:
    """Measure a blob; None where it has no surroundings or cannot be believed."""
    geometry = maps.local.geometry
    voxel_mm = np.array(geometry.voxel_mm)
    middle = np.array(blob.voxel) * voxel_mm
    reach = 2.5 * blob.radius_mm + 4.0
    part, distance = _around(geometry, middle, reach)
    mask, sign = maps.local.mask[part], 1 if blob.strength > 0 else -1
    values = sign * maps.chi_ppm[part].astype(np.float64)
    shell = mask & (distance > 1.5 * blob.radius_mm + 1.0) & (distance <= reach)
    if np.count_nonzero(shell) < _LEAST_SHELL_VOXELS:
        return None
    contrast = np.where(mask, values - np.median(values[shell]), 0.0)
    near = mask & (distance <= max(blob.radius_mm, float(voxel_mm.max())))
    top = np.unravel_index(np.argmax(np.where(near, contrast, -np.inf)), contrast.shape)
    peak = float(contrast[top])
    if peak <= 0:
        return None
    pieces, _ = ndimage.label(
        (contrast > 0.5 * peak) & (distance <= 2.0 * blob.radius_mm + 1.0), _FACES
    )
    region = pieces == pieces[top]
    diameter = (6 / math.pi * float(region.sum()) * geometry.voxel_mm3) ** (1 / 3)
    start = np.array([p.start for p in part]) * voxel_mm
    offsets = np.argwhere(region) * voxel_mm
    centre = start + np.average(offsets, axis=0, weights=contrast[region])
    away = _distance_from(part, geometry, centre)
    around = mask & (away <= 0.65 * diameter + 1.0)
    integral = sign * float(contrast[around].sum()) * geometry.voxel_mm3
    x, y, z = (float(c) for c in centre)
    candidate = _Candidate(
        tuple(w + p.start for w, p in zip(np.nonzero(region), part, strict=True)),
        (x, y, z),
        abs(blob.strength),
        sign,
        diameter,
        peak,
        integral,
        Moment(math.nan, math.nan, (x, y, z), 1.0),
        _saddle(contrast / peak, top, away > diameter / 2 + _BEYOND_MM),
        float(maps.edge_mm[blob.voxel]),
        float(maps.nuclei[part][region].mean()),
    )
    if _believed(candidate).confidence < least_confidence:
        return None  # whatever the field around it says
    radius = diameter / 2 + _BESIDE_VOXELS * float(voxel_mm.max())
    dipole = fit_moment(maps.unexplained_ppm, maps.chi_ppm, maps.local, (x, y, z), radius)
    unknown = replace(candidate.dipole, explained=0.0)
    return _believed(replace(candidate, dipole=dipole or unknown))


def _saddle(relative: Float64, top: tuple[np.intp, ...], outside: Bool) -> float:
    """Return the highest level above which the top is joined with what is outside."""
    low, high = 0.0, 1.0
    for _ in range(_SADDLE_ROUNDS):
        level = 0.5 * (low + high)
        pieces, _ = ndimage.label(relative >= level, _CORNERS)
        joined = bool((outside & (pieces == pieces[top])).any())
        low, high = (level, high) if joined else (low, level)
    return 0.5 * (low + high)


def _voids(total_ppm: Float32, local: FieldMap) -> list[_Candidate]:
    """Return the paramagnetic sources in notches of the mask, as far as there are any."""
    geometry = local.geometry
    voxel_mm = np.array(geometry.voxel_mm)
    points, depths = notches(local.mask, geometry.voxel_mm, _NOTCH_MM, _LEAST_DEPTH_MM)
    found = []
    for point, depth in zip(points * voxel_mm, depths.tolist(), strict=True):
        start = (float(point[0]), float(point[1]), float(point[2]))
        dipole = fit_moment_to_total(total_ppm, local, start, depth + 1.0)
        # bone in a notch is diamagnetic; air is far stronger than any bleed
        if dipole is None or not 0 < dipole.ppm_mm3 < _LARGEST_MOMENT_PPM_MM3:
            continue
        part, distance = _around(geometry, np.array(dipole.centre_mm), depth + 1.0)
        void = ~local.mask[part] & (distance <= depth + 0.5)
        if not void.any():
            continue
        voxels = tuple(w + p.start for w, p in zip(np.nonzero(void), part, strict=True))
        diameter = (6 / math.pi * float(void.sum()) * geometry.voxel_mm3) ** (1 / 3)
        inside = (0.0, 1, diameter, math.nan, dipole.ppm_mm3, dipole, 0.0, 0.0, 0.0)
        found.append(_believed(_Candidate(voxels, dipole.centre_mm, *inside, at_edge=True)))
    return found


def _believed(candidate: _Candidate) -> _Candidate:
    """Return the candidate with its confidence.

    For a void at the edge the field that it explains decides alone; and what fills a nucleus must
    stand out of it by 0.35 ppm.
    """
    explained = min(max(candidate.dipole.explained, 0.0), 1.0)
    if candidate.at_edge:
        logit = (explained - 0.55) / 0.07
    else:
        constant, saddle, field, strength, edge = _COEFFICIENTS[candidate.sign]
        logit = (
            constant
            + saddle * candidate.saddle
            + field * explained
            + strength * math.log2(candidate.strength_ppm / 0.03)
            + edge * math.exp(-candidate.edge_mm / 5)
        )
        logit -= 8.0 * candidate.in_nucleus * max(0.0, 1.0 - candidate.peak_ppm / 0.35)
    return replace(candidate, confidence=1 / (1 + math.exp(-min(max(logit, -30.0), 30.0))))


def _apart(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Return, of candidates of one sign that overlap, the surest; the surest first."""
    order = sorted(candidates, key=lambda c: (-c.confidence, c.centre_mm))
    kept: list[_Candidate] = []
    for candidate in order:
        if not any(
            other.sign == candidate.sign
            and math.dist(other.centre_mm, candidate.centre_mm)
            < max(2.5, 0.5 * (other.diameter_mm + candidate.diameter_mm))
            for other in kept
        ):
            kept.append(candidate)
    return kept


def _without_shadows(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Return the candidates without those that a far stronger one of the other sign casts."""
    return [
        candidate
        for candidate in candidates
        if not any(
            other.sign != candidate.sign
            and abs(candidate.moment_ppm_mm3) < _SHADOW_SHARE * abs(other.moment_ppm_mm3)
            and math.dist(other.centre_mm, candidate.centre_mm)
            < 0.5 * (other.diameter_mm + candidate.diameter_mm) + _SHADOW_MM
            for other in candidates
        )
    ]


def _numbered(candidates: Sequence[_Candidate], geometry: Geometry) -> Inclusions:
    labels = np.zeros(geometry.shape, np.int16)
    rows = []
    for number, c in enumerate(candidates, start=1):
        free = labels[c.voxels] == 0
        labels[tuple(axis[free] for axis in c.voxels)] = number
        place = [p / v for p, v in zip(c.centre_mm, geometry.voxel_mm, strict=True)]
        moment = (c.moment_ppm_mm3, c.dipole.ppm_mm3, c.dipole.sd_ppm_mm3, c.dipole.explained)
        rest = (c.saddle, c.edge_mm, c.in_nucleus, float(c.at_edge), c.confidence)
        size = (c.sign, c.diameter_mm, c.sign * c.peak_ppm, c.strength_ppm)
        rows.append([*place, *size, *moment, *rest])
    return Inclusions(labels, np.array(rows, np.float64).reshape(-1, len(COLUMNS)))


def _around(
    geometry: Geometry, centre_mm: Float64, reach_mm: float
) -> tuple[tuple[slice, ...], Float64]:
    """Return a box around a point, and the distance of its voxels to that."""
    part = tuple(
        slice(max(math.floor((c - reach_mm) / v), 0), min(math.ceil((c + reach_mm) / v) + 1, n))
        for c, v, n in zip(centre_mm, geometry.voxel_mm, geometry.shape, strict=True)
    )
    return part, _distance_from(part, geometry, centre_mm)


def _distance_from(part: tuple[slice, ...], geometry: Geometry, point_mm: Float64) -> Float64:
    lines = [
        np.arange(p.start, p.stop) * v - c
        for p, v, c in zip(part, geometry.voxel_mm, point_mm, strict=True)
    ]
    x, y, z = np.ix_(*lines)
    return np.asarray(np.sqrt(x**2 + y**2 + z**2))

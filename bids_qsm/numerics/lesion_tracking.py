"""The same lesions in several scans of a head: matched, and measured in the same region."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32

FOUND, NOT_FOUND, OUTSIDE = "found", "not found", "outside"
PEAK_PERCENTILE = 99.0
NEAR_MM = 2.0
"""What is so near to a region counts to its moment, and not to what is around it."""
_PARTS = 3
"""Points along each axis of a voxel that tell how much of it lies in a region."""

Float64 = NDArray[np.float64]
Labels = NDArray[np.int16]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionScan:
    """A scan in which lesions are followed.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Number of the lesion as this scan alone has them; 0 is none.
    chi_ppm : ndarray of float32, shape (x, y, z)
    r2star_per_s : ndarray of float32, shape (x, y, z), or None
    mask : ndarray of bool, shape (x, y, z)
        Where susceptibility is known.
    affine : ndarray, shape (4, 4)
        Voxel to position (mm).
    to_common : ndarray, shape (4, 4)
        Rigid mapping from positions of this scan to those of the first one.
    """

    labels: Labels
    chi_ppm: Float32
    r2star_per_s: Float32 | None
    mask: Bool
    affine: Float64
    to_common: Float64

    @property
    def voxel_mm(self) -> Float64:
        """Return the lengths of the voxels' edges."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)), np.float64)

    @property
    def voxel_to_common(self) -> Float64:
        """Return the mapping from voxels to positions of the first scan."""
        return np.asarray(self.to_common @ self.affine, np.float64)


@dataclass(frozen=True)
class Region:
    """Where a lesion is, on a fine grid that belongs to no scan.

    Attributes
    ----------
    inside : ndarray of bool, shape (x, y, z)
    first_mm : ndarray, shape (3,)
        Position of the first voxel's centre in the common world, along whose axes the grid lies.
    step_mm : float
    """

    inside: Bool
    first_mm: Float64
    step_mm: float

    @property
    def volume_mm3(self) -> float:
        """Return its volume."""
        return float(np.count_nonzero(self.inside)) * self.step_mm**3

    @property
    def centre_mm(self) -> Float64:
        """Return its centre of mass in the common world."""
        middle = np.argwhere(self.inside).mean(axis=0)
        return np.asarray(self.first_mm + self.step_mm * middle, np.float64)


@dataclass(frozen=True)
class Tracked:
    """Lesions followed over scans.

    Attributes
    ----------
    table : DataFrame
        A row for each lesion and scan.
    labels : tuple of ndarray of int16
        For each scan the regions that were measured, by the number of the lesion.
    regions : mapping of int to Region
    """

    table: pd.DataFrame
    labels: tuple[Labels, ...]
    regions: Mapping[int, Region]


def same_region(
    scans: Sequence[LesionScan],
    years: Sequence[float],
    *,
    threshold_percent: float = 6.0,
    least_overlap: float = 0.25,
    least_coverage: float = 0.7,
    shell_mm: float = 4.0,
) -> Tracked:
    """Follow lesions over scans, each measured in the same part of the head.

    Lesions of two scans are the same one where they overlap.  A lesion's region is all that
    belongs to it in any scan, so that no scan is favoured and growth is not missed; the region is
    brought to each scan as the share of each voxel that lies in it, and susceptibility is
    measured there without resampling it.

    Parameters
    ----------
    scans : sequence of LesionScan
        In the order of time.
    years : sequence of float
        When they were made; NaN where that is not known.
    threshold_percent : float
        A rise of the mean susceptibility from one scan to the next that is flagged.
    least_overlap : float
        Share of the smaller of two lesions that lies in the other if they are the same.
    least_coverage : float
        Share of a region in which susceptibility is known; else there is no value.
    shell_mm : float
        Width of the shell, 2 mm away from a lesion, that its moment is relative to.

    Returns
    -------
    Tracked
        Columns of the table: ``lesion, scan, state, x_mm, y_mm, z_mm`` (centre, in this scan's
        world), ``region_mm3, coverage, chi_ppm_mean, chi_ppm_sd, chi_ppm_p99, chi_ppm_around,
        moment_ppm_mm3, r2star_per_s_mean, own_chi_ppm_mean, own_volume_mm3, years``, then as
        :func:`with_changes`.

    References
    ----------
    Zeineddine et al. 2018, 10.1002/jmri.25831 (threshold); Reuter et al. 2012,
    10.1016/j.neuroimage.2012.02.084 (no scan favoured).
    """
    members = match_lesions(scans, least_overlap)
    regions = {number: _region(scans, of) for number, of in members.items()}
    near = [_all_regions(scan, regions) for scan in scans]
    rows = []
    for number, region in regions.items():
        for place, scan in enumerate(scans):
            own = np.isin(scan.labels, [label for s, label in members[number] if s == place])
            rows.append(
                {
                    "lesion": number,
                    "scan": place,
                    **_measured(scan, region, near[place], own, least_coverage, shell_mm),
                    "years": years[place],
                }
            )
    table = pd.DataFrame(rows, columns=None if rows else ["lesion", "scan", "years"])
    return Tracked(with_changes(table, threshold_percent), tuple(near), regions)


METHODS = {"same-region": same_region}


def match_lesions(
    scans: Sequence[LesionScan], least_overlap: float = 0.25
) -> dict[int, tuple[tuple[int, int], ...]]:
    """Return which lesions of single scans are one: by number, the pairs (scan, label).

    They are numbered from 1 in the order of the scans and, within a scan, of its labels.
    """
    volumes = [np.bincount(s.labels.ravel()) * float(np.prod(s.voxel_mm)) for s in scans]
    nodes = [
        (place, int(label))
        for place, of in enumerate(volumes)
        for label in np.flatnonzero(of)
        if label > 0
    ]
    leader = {node: node for node in nodes}

    def top(node: tuple[int, int]) -> tuple[int, int]:
        while leader[node] != node:
            node = leader[node]
        return node

    for (i, a), (j, b) in itertools.combinations(enumerate(scans), 2):
        for one, other, overlap_mm3 in _overlaps(a, b):
            if overlap_mm3 >= least_overlap * min(volumes[i][one], volumes[j][other]):
                first, second = sorted((top((i, one)), top((j, other))))
                leader[second] = first
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for node in nodes:
        groups.setdefault(top(node), []).append(node)
    return {number: tuple(of) for number, of in enumerate(groups.values(), start=1)}


def _overlaps(a: LesionScan, b: LesionScan) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of lesions of two scans that overlap, and by how much (mm3)."""
    voxels = np.argwhere(a.labels > 0)
    if not len(voxels):
        return
    to_b = np.linalg.inv(b.voxel_to_common) @ a.voxel_to_common
    there = _lookup(b.labels, _moved(to_b, voxels))
    pairs = np.stack([a.labels[a.labels > 0], there], axis=1)[there > 0]
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    voxel_mm3 = float(np.prod(a.voxel_mm))
    for (one, other), count in zip(found, counts, strict=True):
        yield int(one), int(other), float(count) * voxel_mm3


def _region(scans: Sequence[LesionScan], members: Sequence[tuple[int, int]]) -> Region:
    """Return all that belongs to a lesion in any scan, on a grid of half the smallest voxel."""
    step = 0.5 * min(float(scan.voxel_mm.min()) for scan in scans)
    parts = [(scans[place], scans[place].labels == label) for place, label in members]
    centres = [_moved(scan.voxel_to_common, np.argwhere(mask)) for scan, mask in parts]
    reach = max(float(scan.voxel_mm.max()) for scan in scans)
    low = np.min([c.min(axis=0) for c in centres], axis=0) - reach
    high = np.max([c.max(axis=0) for c in centres], axis=0) + reach
    shape = np.ceil((high - low) / step).astype(int) + 1
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(points), np.bool_)
    for scan, mask in parts:
        to_voxel = np.linalg.inv(scan.voxel_to_common)
        coordinates = _moved(to_voxel, low + step * points).T
        inside |= ndimage.map_coordinates(mask.astype(np.float32), coordinates, order=1) >= 0.5
    return Region(inside.reshape(shape), low, step)


def region_shares(region: Region, scan: LesionScan) -> tuple[Box, Float32]:
    """Return a box of a scan's voxels and how much of each lies in a region.

    The box is empty where the region lies outside the scan.
    """
    corners = np.array(list(itertools.product(*((0, n - 1) for n in region.inside.shape))))
    to_voxel = np.linalg.inv(scan.voxel_to_common)
    there = _moved(to_voxel, region.first_mm + region.step_mm * corners)
    low = np.clip(np.floor(there.min(axis=0)).astype(int) - 1, 0, scan.labels.shape)
    high = np.clip(np.ceil(there.max(axis=0)).astype(int) + 2, 0, scan.labels.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shape = tuple(int(n) for n in high - low)
    share = np.zeros(shape, np.float32)
    if share.size:
        inside = region.inside.astype(np.float32)
        voxels = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
        offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
        for offset in itertools.product(offsets, repeat=3):
            common = _moved(scan.voxel_to_common, voxels.reshape(-1, 3) + offset)
            fine = (common - region.first_mm) / region.step_mm
            share += ndimage.map_coordinates(inside, fine.T, order=1).reshape(shape)
    return (x, y, z), share / np.float32(_PARTS**3)


def _all_regions(scan: LesionScan, regions: Mapping[int, Region]) -> Labels:
    """Return the voxels of which most lies in a region, by its number."""
    labels = np.zeros(scan.labels.shape, np.int16)
    for number, region in regions.items():
        box, share = region_shares(region, scan)
        labels[box][share > 0.5] = number
    return labels


def _measured(
    scan: LesionScan,
    region: Region,
    all_regions: Labels,
    own: Bool,
    least_coverage: float,
    shell_mm: float,
) -> dict[str, object]:
    """Return what is measured of a lesion in a scan."""
    voxel_mm3 = float(np.prod(scan.voxel_mm))
    box, share = region_shares(region, scan)
    weight = (share * scan.mask[box]).astype(np.float64)
    coverage = float(weight.sum()) * voxel_mm3 / region.volume_mm3
    state = FOUND if own.any() else NOT_FOUND
    # positions in the scanner are of no use outside the field of view, and else where it is
    centre = _moved(np.linalg.inv(scan.to_common), region.centre_mm[None])[0]
    row: dict[str, object] = {
        "state": state if coverage >= least_coverage else OUTSIDE,
        **dict(zip(("x_mm", "y_mm", "z_mm"), map(float, centre), strict=True)),
        "region_mm3": region.volume_mm3,
        "coverage": min(coverage, 1.0),
        "own_volume_mm3": float(np.count_nonzero(own)) * voxel_mm3,
        "own_chi_ppm_mean": _mean_of(scan.chi_ppm, own & scan.mask),
    }
    if coverage < least_coverage:
        return row | {"own_volume_mm3": np.nan}
    chi = scan.chi_ppm[box].astype(np.float64)
    total = float(weight.sum())
    mean = float((weight * chi).sum()) / total
    spread = float((weight * (chi - mean) ** 2).sum()) / total
    most = weight > 0.5 * weight.max()
    around, moment = _around(scan, all_regions, box, share, shell_mm)
    row |= {
        "chi_ppm_mean": mean,
        "chi_ppm_sd": float(np.sqrt(spread)),
        "chi_ppm_p99": float(np.percentile(chi[most], PEAK_PERCENTILE)),
        "chi_ppm_around": around,
        "moment_ppm_mm3": moment,
    }
    if scan.r2star_per_s is not None:
        r2star = scan.r2star_per_s[box].astype(np.float64)
        row["r2star_per_s_mean"] = float((weight * r2star).sum()) / total
    return row


def _around(
    scan: LesionScan, all_regions: Labels, box: Box, share: Float32, shell_mm: float
) -> tuple[float, float]:
    """Return the median in a shell around a region, and the moment relative to that.

    The moment is of all within 2 mm of the region, so that it does not depend on where the border
    was drawn; what belongs to another lesion counts for neither.
    """
    voxel_mm = scan.voxel_mm
    margin = np.ceil((NEAR_MM + shell_mm) / voxel_mm).astype(int) + 1
    x, y, z = (
        slice(max(s.start - m, 0), min(s.stop + m, n))
        for s, m, n in zip(box, margin, scan.labels.shape, strict=True)
    )
    wide = (x, y, z)
    inside = np.zeros([s.stop - s.start for s in wide], np.bool_)
    inner = tuple(
        slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True)
    )
    inside[inner] = share > 0
    away = ndimage.distance_transform_edt(~inside, sampling=voxel_mm)
    chi, known = scan.chi_ppm[wide].astype(np.float64), scan.mask[wide]
    free = known & (all_regions[wide] == 0) & (scan.labels[wide] == 0)
    shell = free & (away > NEAR_MM) & (away <= NEAR_MM + shell_mm)
    if not shell.any():
        return float("nan"), float("nan")
    around = float(np.median(chi[shell]))
    whole = (known & inside) | (free & (away <= NEAR_MM))
    return around, float((chi[whole] - around).sum() * np.prod(voxel_mm))


def with_changes(table: pd.DataFrame, threshold_percent: float) -> pd.DataFrame:
    """Return the table with the change of the mean susceptibility of each lesion.

    ``change_percent`` and ``moment_change_percent`` are since the scan before that has a value,
    ``change_percent_per_year`` that over the time between, ``total_change_percent`` since the
    first; ``exceeds_threshold`` is missing where nothing came before.
    """
    columns = [*MEASURES, "years"]
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *columns])])
    known = table["chi_ppm_mean"].notna()
    groups = table[known].groupby("lesion", sort=False)
    before, first = groups[columns].shift(), groups["chi_ppm_mean"].transform("first")
    chi = table["chi_ppm_mean"]
    change = 100 * (chi - before["chi_ppm_mean"]) / before["chi_ppm_mean"].abs()
    moment = table["moment_ppm_mm3"]
    between = (table["years"] - before["years"]).where(lambda years: years > 0)
    # a rise of exactly the threshold counts, whatever its last binary digit
    exceeds = (change >= threshold_percent - 1e-9).astype(object)
    return table.assign(
        change_percent=change,
        change_percent_per_year=change / between,
        total_change_percent=(100 * (chi - first) / first.abs()).where(change.notna()),
        moment_change_percent=100
        * (moment - before["moment_ppm_mm3"])
        / before["moment_ppm_mm3"].abs(),
        exceeds_threshold=exceeds.where(change.notna()),
    )


MEASURES = (
    "chi_ppm_mean",
    "chi_ppm_sd",
    "chi_ppm_p99",
    "chi_ppm_around",
    "moment_ppm_mm3",
    "r2star_per_s_mean",
)


def _mean_of(values: Float32, where: Bool) -> float:
    return float(values[where].mean(dtype=np.float64)) if where.any() else float("nan")


def _moved(mapping: NDArray[np.floating], points: NDArray) -> Float64:
    return np.asarray(
        np.einsum("ij,nj->ni", mapping[:3, :3], np.asarray(points, np.float64)) + mapping[:3, 3]
    )


def _lookup(values: NDArray, voxels: Float64) -> NDArray:
    """Return the values of the nearest voxels; 0 outside the array."""
    nearest = np.rint(voxels).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < values.shape)).all(axis=1)
    found = np.zeros(len(voxels), values.dtype)
    found[inside] = values[tuple(nearest[inside].T)]
    return found

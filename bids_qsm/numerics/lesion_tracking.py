"""The same lesions in several scans of a head: matched, and measured in the same region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.lesion_regions import (
    Box,
    Float64,
    Labels,
    LesionScan,
    Region,
    match_lesions,
    merged_region,
    moved_points,
    region_shares,
)

FOUND, NOT_FOUND, OUTSIDE = "found", "not found", "outside"
PEAK_PERCENTILE = 99.0
NEAR_MM = 2.0
"""What is so near to a region counts to its moment, and not to what is around it."""


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

    Notes
    -----
    On simulated heads that lie elsewhere in each session (1.5 mm, SNR 80), the change of steady
    lesions of 6 to 12 mm has a standard deviation of 0.8 % in the same region, of 1.9 % where each
    session has its own border, and of 5 % for the 99th percentile: noise and position alone,
    without motion or another scanner.

    References
    ----------
    Zeineddine et al. 2018, 10.1002/jmri.25831 (threshold); Reuter et al. 2012,
    10.1016/j.neuroimage.2012.02.084 (no scan favoured).
    """
    members = match_lesions(scans, least_overlap)
    boxes = [ndimage.find_objects(scan.labels) for scan in scans]
    regions = {number: merged_region(scans, boxes, of) for number, of in members.items()}
    near = [_all_regions(scan, regions) for scan in scans]
    sums = [_sums(scan) for scan in scans]
    rows = []
    for number, region in regions.items():
        for place, scan in enumerate(scans):
            own = sums[place][[label for s, label in members[number] if s == place]].sum(axis=0)
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


def _sums(scan: LesionScan) -> Float64:
    """Return of each label its volume (mm3), its voxels in the mask, and the sum of their values.

    A row for each label from 0.
    """
    labels, known = scan.labels.ravel(), scan.mask.ravel()
    size = int(labels.max(initial=0)) + 1
    volume = np.bincount(labels, minlength=size) * float(np.prod(scan.voxel_mm))
    count = np.bincount(labels[known], minlength=size)
    total = np.bincount(labels[known], scan.chi_ppm.ravel()[known], size)
    return np.stack([volume, count, total], axis=1)


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
    own: Float64,
    least_coverage: float,
    shell_mm: float,
) -> dict[str, object]:
    """Return what is measured of a lesion in a scan; ``own`` is a sum of rows of :func:`_sums`."""
    voxel_mm3 = float(np.prod(scan.voxel_mm))
    box, share = region_shares(region, scan)
    weight = (share * scan.mask[box]).astype(np.float64)
    coverage = float(weight.sum()) * voxel_mm3 / region.volume_mm3
    volume_mm3, n_known, total_ppm = (float(value) for value in own)
    state = FOUND if volume_mm3 else NOT_FOUND
    # positions in the scanner are of no use outside the field of view, and else where it is
    centre = moved_points(np.linalg.inv(scan.to_common), region.centre_mm[None])[0]
    row: dict[str, object] = {
        "state": state if coverage >= least_coverage else OUTSIDE,
        **dict(zip(("x_mm", "y_mm", "z_mm"), map(float, centre), strict=True)),
        "region_mm3": region.volume_mm3,
        "coverage": min(coverage, 1.0),
        "own_volume_mm3": volume_mm3,
        "own_chi_ppm_mean": total_ppm / n_known if n_known else np.nan,
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


MEASURES = (
    "chi_ppm_mean",
    "chi_ppm_sd",
    "chi_ppm_p99",
    "chi_ppm_around",
    "moment_ppm_mm3",
    "r2star_per_s_mean",
)


def with_changes(table: pd.DataFrame, threshold_percent: float) -> pd.DataFrame:
    """Return the table with the change of the mean susceptibility of each lesion.

    Changes are since the scan before that has a value: ``change_percent`` of the mean,
    ``contrast_change_percent`` of the mean less what is around, ``moment_change_percent`` of the
    moment, and ``change_percent_per_year`` of the mean over the time between.
    ``total_change_percent`` of the mean is since the first scan.  ``exceeds_threshold`` is missing
    where nothing came before.
    """
    columns = [*MEASURES, "years"]
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *columns])])
    groups = table[table["chi_ppm_mean"].notna()].groupby("lesion", sort=False)
    before, first = groups[columns].shift(), groups["chi_ppm_mean"].transform("first")
    chi, chi_before = table["chi_ppm_mean"], before["chi_ppm_mean"]
    change = _percent(chi, chi_before)
    contrast = chi - table["chi_ppm_around"]
    between = (table["years"] - before["years"]).where(lambda years: years > 0)
    # a rise of exactly the threshold counts, whatever its last binary digit
    exceeds = (change >= threshold_percent - 1e-9).astype(object)
    return table.assign(
        change_percent=change,
        change_percent_per_year=change / between,
        total_change_percent=_percent(chi, first).where(change.notna()),
        contrast_change_percent=_percent(contrast, chi_before - before["chi_ppm_around"]),
        moment_change_percent=_percent(table["moment_ppm_mm3"], before["moment_ppm_mm3"]),
        exceeds_threshold=exceeds.where(change.notna()),
    )


def _percent(value: pd.Series, before: pd.Series) -> pd.Series:
    return 100 * (value - before) / before.abs()

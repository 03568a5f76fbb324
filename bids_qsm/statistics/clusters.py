"""Clusters of a statistical map: where they are, how large, in which structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bids_qsm.statistics.neighbours import Bool, Int32, components, neighbour_table

Float64 = NDArray[np.float64]

UNLABELLED = "elsewhere"


@dataclass(frozen=True, eq=False)
class Regions:
    """Structures at the voxels of a mask.

    Attributes
    ----------
    labels : ndarray of int, shape (n_voxels,)
        0 is none.
    names : mapping of int to str
        The structures, in the order of tables; labels that are not named count as none.
    """

    labels: NDArray[np.integer]
    names: Mapping[int, str]


def find_clusters(
    statistic: NDArray[np.floating],
    mask: Bool,
    threshold: float,
    *,
    connectivity: int = 18,
    both_signs: bool = True,
    min_voxels: int = 1,
) -> Int32:
    """Give each voxel the number of its cluster above a threshold, the largest first.

    Parameters
    ----------
    statistic : ndarray, shape (n_voxels,)
        In the voxels of the mask; voxels that are not finite are in no cluster.
    mask : ndarray of bool, shape (x, y, z)
    threshold : float
        Of the statistic, above 0.
    connectivity : {6, 18, 26}
        Neighbours by faces, edges (as SPM) or corners.
    both_signs : bool
        Whether there are clusters below the negative threshold too, apart from the others.
    min_voxels : int
        Smaller ones are left out.

    Returns
    -------
    ndarray of int32, shape (n_voxels,)
        0 outside; clusters of one size are in the order of their first voxel.

    Raises
    ------
    ValueError
        If the statistic does not fit the mask, or the threshold is not above 0.
    """
    values = np.asarray(statistic, np.float64)
    _check_size(values, int(mask.sum()), "the statistic")
    if not threshold > 0:
        raise ValueError(f"the threshold of clusters must be above 0, and is {threshold}.")
    neighbours = neighbour_table(mask, connectivity)
    clusters, n_found = components(values > threshold, neighbours)
    if both_signs:
        negative, n_negative = components(values < -threshold, neighbours)
        clusters += np.where(negative > 0, negative + n_found, 0).astype(np.int32)
        n_found += n_negative
    sizes = np.bincount(clusters, minlength=n_found + 1)[1:]
    ranked = np.argsort(-sizes, kind="stable")
    number = np.zeros(n_found + 1, np.int32)
    number[ranked + 1] = np.where(sizes[ranked] >= min_voxels, np.arange(1, n_found + 1), 0)
    return number[clusters]


def cluster_table(
    statistic: NDArray[np.floating],
    clusters: NDArray[np.integer],
    mask: Bool,
    affine: ArrayLike,
    *,
    regions: Regions | None = None,
    n_peaks: int = 3,
    peak_distance_mm: float = 8.0,
) -> pd.DataFrame:
    """Return one row for each cluster, in the order of their numbers.

    Parameters
    ----------
    statistic : ndarray, shape (n_voxels,)
    clusters : ndarray of int, shape (n_voxels,)
        Number of the cluster, 0 outside, as of :func:`find_clusters` or
        :func:`bids_qsm.statistics.permutation.permutation_test`.
    mask : ndarray of bool, shape (x, y, z)
    affine : array_like, shape (4, 4)
        Voxel index to mm.
    regions : Regions, optional
    n_peaks : int
        Peaks at most of each cluster, the highest among them.
    peak_distance_mm : float
        Least distance of two peaks of a cluster.

    Returns
    -------
    pandas.DataFrame
        ``cluster``, ``sign`` (1 or -1), ``n_voxels``, ``volume_mm3``, ``peak_statistic``,
        ``peak_i, peak_j, peak_k`` (voxel), ``peak_x_mm, peak_y_mm, peak_z_mm``, with regions
        ``peak_region`` and ``regions`` (``Left putamen 62 %; ...``), and ``sub_peaks``
        (``4.21 (24, 8, 2 mm); ...``).
    """
    peaks = peak_table(
        statistic,
        clusters,
        mask,
        affine,
        regions=regions,
        n_peaks=n_peaks,
        peak_distance_mm=peak_distance_mm,
    )
    edges = np.asarray(affine, np.float64)[:3, :3]
    voxel_mm3 = abs(float(np.dot(edges[:, 0], np.cross(edges[:, 1], edges[:, 2]))))
    rows = []
    for number in range(1, int(np.max(clusters, initial=0)) + 1):
        its = peaks[peaks["cluster"] == number]
        inside = np.asarray(clusters) == number
        first = its.iloc[0]
        row = {
            "cluster": number,
            "sign": int(np.sign(first["peak_statistic"])),
            "n_voxels": int(inside.sum()),
            "volume_mm3": float(inside.sum()) * voxel_mm3,
            **first.drop(["cluster", "peak"]).to_dict(),
        }
        if regions is not None:
            row["regions"] = region_shares(inside, regions)
        row["sub_peaks"] = "; ".join(_peak_words(peak) for _, peak in its.iloc[1:].iterrows())
        rows.append(row)
    columns = ["cluster", "sign", "n_voxels", "volume_mm3", *peaks.columns[2:]]
    columns += [*([] if regions is None else ["regions"]), "sub_peaks"]
    return pd.DataFrame(rows, columns=columns)


def peak_table(
    statistic: NDArray[np.floating],
    clusters: NDArray[np.integer],
    mask: Bool,
    affine: ArrayLike,
    *,
    regions: Regions | None = None,
    n_peaks: int = 3,
    peak_distance_mm: float = 8.0,
) -> pd.DataFrame:
    """Return one row for each peak of each cluster, the highest first.

    A peak is a voxel that none of its 26 neighbours in the cluster exceeds.  Parameters as in
    :func:`cluster_table`.

    Returns
    -------
    pandas.DataFrame
        ``cluster, peak`` (from 1), ``peak_statistic, peak_i, peak_j, peak_k, peak_x_mm,
        peak_y_mm, peak_z_mm`` and, with regions, ``peak_region``.
    """
    values, numbers = np.asarray(statistic, np.float64), np.asarray(clusters)
    n_voxels = int(mask.sum())
    _check_size(values, n_voxels, "the statistic")
    _check_size(numbers, n_voxels, "the clusters")
    where = np.argwhere(mask)
    matrix = np.asarray(affine, np.float64)
    positions = np.einsum("vj,ij->vi", where.astype(np.float64), matrix[:3, :3]) + matrix[:3, 3]
    candidates = _local_maxima(np.abs(values), numbers, neighbour_table(mask, 26))
    rows: list[tuple[object, ...]] = []
    for number in range(1, int(numbers.max(initial=0)) + 1):
        its = candidates[numbers[candidates] == number]
        highest = its[np.argsort(-np.abs(values[its]), kind="stable")]
        chosen = _apart(highest, positions, n_peaks, peak_distance_mm)
        for peak, voxel in enumerate(chosen, start=1):
            place = (*where[voxel].tolist(), *positions[voxel].tolist())
            name = () if regions is None else (_name(regions, int(regions.labels[voxel])),)
            rows.append((number, peak, float(values[voxel]), *place, *name))
    columns = ["cluster", "peak", "peak_statistic", "peak_i", "peak_j", "peak_k"]
    columns += ["peak_x_mm", "peak_y_mm", "peak_z_mm"]
    columns += [] if regions is None else ["peak_region"]
    return pd.DataFrame(rows, columns=columns)


def region_shares(inside: Bool, regions: Regions) -> str:
    """Say how a set of voxels is shared among structures: ``Left putamen 62 %; ...``."""
    _check_size(np.asarray(regions.labels), inside.size, "the labels")
    names = [_name(regions, int(label)) for label in np.unique(regions.labels[inside])]
    counts = dict.fromkeys(names, 0)
    for name, label in zip(names, np.unique(regions.labels[inside]), strict=True):
        counts[name] += int(np.count_nonzero(regions.labels[inside] == label))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    total = max(1, int(inside.sum()))
    return "; ".join(f"{name} {100 * n / total:.0f} %" for name, n in ordered)


def significant_by_region(
    values: NDArray[np.floating],
    regions: Regions,
    significant: Bool,
    groups: Sequence[str] | NDArray[np.str_],
    *,
    group_order: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Return each structure's significant part: its size, and the groups' means in it.

    The voxels were chosen by the difference that is then tested, so that the part's means differ
    by more, and its p is lower, than in new subjects: they describe, and prove nothing.

    Parameters
    ----------
    values : ndarray or memmap, shape (n_images, n_voxels)
        One image of each subject; what is not finite is left out of a subject's mean.
    regions : Regions
        Of the same voxels.  For both sides of a nucleus as one, give them one label.
    significant : ndarray of bool, shape (n_voxels,)
    groups : sequence of str, length n_images
    group_order : (str, str), optional
        Groups *a* and *b*; in alphabetical order if not given.

    Returns
    -------
    pandas.DataFrame
        ``index, name, n_voxels, n_significant, percent_significant, group_a, group_b, n_a, n_b,
        mean_a, sd_a, mean_b, sd_b, difference`` (a less b), ``t, df, p_welch``: of the subjects'
        means over the significant voxels; NaN where there are none.

    Raises
    ------
    ValueError
        If shapes do not agree, there are not two groups, or one has a single subject.
    """
    chosen = np.asarray(significant, np.bool_)
    names = np.array([str(group) for group in groups], dtype=object)
    n_images, n_voxels = values.shape
    _check_size(chosen, n_voxels, "the significant voxels")
    _check_size(np.asarray(regions.labels), n_voxels, "the labels")
    if names.shape != (n_images,):
        raise ValueError(f"there are {n_images} images and {names.size} groups: name each's group.")
    pair = _two_groups(names, group_order)
    members = [np.flatnonzero(names == group) for group in pair]
    rows = []
    for index, name in regions.names.items():
        inside = np.asarray(regions.labels) == index
        voxels = np.flatnonzero(inside & chosen)
        n_inside = int(inside.sum())
        means = _subject_means(values, voxels)
        percent = 100 * voxels.size / n_inside if n_inside else np.nan
        row = {"index": index, "name": name, "n_voxels": n_inside, "n_significant": voxels.size}
        row |= {"percent_significant": percent, "group_a": pair[0], "group_b": pair[1]}
        rows.append(row | _welch(*(means[m][np.isfinite(means[m])] for m in members)))
    return pd.DataFrame(rows)


def _welch(a: Float64, b: Float64) -> dict[str, float]:
    n_a, n_b = len(a), len(b)
    row: dict[str, float] = {"n_a": n_a, "n_b": n_b}
    keys = ("mean_a", "sd_a", "mean_b", "sd_b", "difference", "t", "df", "p_welch")
    if min(n_a, n_b) < 2:
        return row | dict.fromkeys(keys, np.nan)
    test = stats.ttest_ind(a, b, equal_var=False)
    found = [a.mean(), a.std(ddof=1), b.mean(), b.std(ddof=1), a.mean() - b.mean()]
    found += [test.statistic, test.df, test.pvalue]
    return row | {key: float(value) for key, value in zip(keys, found, strict=True)}


def _subject_means(values: NDArray[np.floating], voxels: NDArray[np.intp]) -> Float64:
    """Return each image's mean over some voxels, NaN where none is finite; reads image by image."""
    means = np.full(len(values), np.nan)
    if voxels.size:
        for i, image in enumerate(values):
            taken = np.asarray(image[voxels], np.float64)
            taken = taken[np.isfinite(taken)]
            if taken.size:
                means[i] = taken.mean()
    return means


def _two_groups(names: NDArray[np.object_], order: tuple[str, str] | None) -> tuple[str, str]:
    found = sorted({str(name) for name in names})
    pair = tuple(found) if order is None else tuple(order)
    if len(pair) != 2 or set(pair) != set(found):
        raise ValueError(
            f"two groups are compared, and there are {len(found)}: {', '.join(found)}; "
            "choose the subjects of two."
        )
    for group in pair:
        if np.count_nonzero(names == group) < 2:
            raise ValueError(f"the group {group!r} has one subject: a SD needs two.")
    return pair[0], pair[1]


def _local_maxima(heights: Float64, numbers: NDArray[np.integer], neighbours: Int32) -> NDArray:
    """Return the voxels of clusters that no neighbour in their cluster exceeds."""
    inside = np.flatnonzero(numbers > 0)
    others = neighbours[inside]
    same = (others >= 0) & (numbers[others] == numbers[inside][:, np.newaxis])
    around = np.where(same, heights[others], -np.inf).max(axis=1, initial=-np.inf)
    return inside[heights[inside] >= around]


def _apart(ordered: NDArray, positions: Float64, n_peaks: int, distance_mm: float) -> list[int]:
    """Return the first voxels of a list that are not too near to those taken before."""
    taken: list[int] = []
    for voxel in ordered.tolist():
        gaps = np.linalg.norm(positions[taken] - positions[voxel], axis=1)
        if (gaps >= distance_mm).all():
            taken.append(voxel)
        if len(taken) == n_peaks:
            break
    return taken


def _name(regions: Regions, label: int) -> str:
    return regions.names.get(label, UNLABELLED)


def _peak_words(peak: pd.Series) -> str:
    x, y, z = (f"{peak[f'peak_{axis}_mm']:.0f}" for axis in "xyz")
    return f"{peak['peak_statistic']:.2f} ({x}, {y}, {z} mm)"


def _check_size(array: NDArray, n_voxels: int, what: str) -> None:
    if array.shape != (n_voxels,):
        raise ValueError(
            f"{what} must have one value for each of the {n_voxels} voxels, and the shape is "
            f"{array.shape}."
        )

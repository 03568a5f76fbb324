"""Statistics of a map in each labelled region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bids_qsm.frames import pd
from bids_qsm.numerics.geometry import Bool

STATISTICS = ("mean", "median", "sd", "p05", "p95")
WITHOUT_VEINS = {
    "n_vein_voxels": "Number of the voxels measured that belong to veins.",
    "mean_without_veins": "Mean over the voxels of the structure that belong to no vein.",
    "median_without_veins": "Median over the voxels of the structure that belong to no vein.",
    "sd_without_veins": "Standard deviation over the voxels that belong to no vein.",
}
"""Columns that the other statistics stand beside, and what they hold."""


def region_statistics(
    values: NDArray[np.floating],
    labels: NDArray[np.integer],
    index: Sequence[int],
    voxel_mm3: float,
    valid: Bool,
) -> pd.DataFrame:
    """Return one row of statistics for each label.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
        The map; values that are not finite are left out.
    labels : ndarray of int, shape (x, y, z)
        Label of each voxel.
    index : sequence of int
        The labels wanted, in the order of the rows; one may be absent from ``labels``.
    voxel_mm3 : float
        Volume of a voxel in mm3.
    valid : ndarray of bool, shape (x, y, z)
        Where the map can be trusted; other voxels are left out.

    Returns
    -------
    pandas.DataFrame
        Columns ``index, mean, median, sd, p05, p95`` (of the voxels used; ``sd`` with N - 1),
        ``n_voxels`` (used), ``volume_mm3`` (of all voxels of the label) and ``coverage`` (share
        of the label's voxels that were used).  Undefined values are NaN.

    Notes
    -----
    The wanted voxels are sorted by label once, however many labels there are.  Memory: a bool
    volume, and some four times the wanted voxels.
    """
    wanted = np.asarray(index, dtype=np.int64)
    chosen = np.isin(labels, wanted)
    label_of, value_of, usable = labels[chosen], values[chosen], valid[chosen]
    usable &= np.isfinite(value_of)
    order = np.argsort(label_of, kind="stable")
    label_of, value_of, usable = label_of[order], value_of[order], usable[order]
    starts = np.searchsorted(label_of, wanted, side="left")
    stops = np.searchsorted(label_of, wanted, side="right")
    rows = []
    for start, stop in zip(starts, stops, strict=True):
        used = value_of[start:stop][usable[start:stop]].astype(np.float64)
        total = int(stop - start)
        rows.append(
            (
                *_statistics(used),
                used.size,
                total * voxel_mm3,
                used.size / total if total else np.nan,
            )
        )
    table = pd.DataFrame(rows, columns=[*STATISTICS, "n_voxels", "volume_mm3", "coverage"])
    table.insert(0, "index", wanted)
    return table


def statistics_without(
    table: pd.DataFrame,
    values: NDArray[np.floating],
    labels: NDArray[np.integer],
    voxel_mm3: float,
    valid: Bool,
    left_out: Bool,
) -> pd.DataFrame:
    """Return a table of :func:`region_statistics` with what changes if some voxels are left out.

    Parameters
    ----------
    table : pandas.DataFrame
        Of the same values, labels and valid voxels.
    values, labels, voxel_mm3, valid
        As in :func:`region_statistics`.
    left_out : ndarray of bool, shape (x, y, z)
        The veins.

    Returns
    -------
    pandas.DataFrame
        The table and the columns of :data:`WITHOUT_VEINS`.
    """
    without = region_statistics(
        values, labels, table["index"].tolist(), voxel_mm3, valid & ~left_out
    )
    return table.assign(
        n_vein_voxels=table["n_voxels"].to_numpy() - without["n_voxels"].to_numpy(),
        **{f"{name}_without_veins": without[name].to_numpy() for name in ("mean", "median", "sd")},
    )


def _statistics(used: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the values of :data:`STATISTICS`, in that order."""
    if not used.size:
        return (np.nan,) * len(STATISTICS)
    p05, median, p95 = np.percentile(used, (5, 50, 95))
    sd = used.std(ddof=1) if used.size > 1 else np.nan
    return float(used.mean()), float(median), float(sd), float(p05), float(p95)

"""Lesions counted, measured and placed: one row for each, and the load."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.frames import pd
from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool
from bids_qsm.numerics.regions import region_statistics

PERIVENTRICULAR_MM = 3.0
JUXTACORTICAL_MM = 1.5
LOCATIONS = ("infratentorial", "periventricular", "juxtacortical", "deep white")
_WITH_CORNERS = ndimage.generate_binary_structure(3, 3)

Labels = NDArray[np.integer]


def label_lesions(mask: Bool, voxel_mm3: float, minimum_mm3: float = 0.0) -> NDArray[np.int16]:
    """Return the pieces of a lesion mask, numbered with the largest first.

    Voxels that share a face, an edge or a corner hang together.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    voxel_mm3 : float
    minimum_mm3 : float
        Smaller pieces are left out.

    Raises
    ------
    ValueError
        If there are more pieces than int16 can number.
    """
    pieces, count = ndimage.label(mask, _WITH_CORNERS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] * voxel_mm3 >= minimum_mm3]
    if order.size > np.iinfo(np.int16).max:
        raise ValueError(f"there are {order.size} lesions: the mask is not one of lesions")
    number = np.zeros(count + 1, np.int16)
    number[order + 1] = np.arange(1, order.size + 1)
    return number[pieces]


def lesion_table(
    labels: Labels,
    affine: NDArray[np.float64],
    *,
    ventricles: Bool | None = None,
    cortex: Bool | None = None,
    infratentorial: Bool | None = None,
    lobes: Labels | None = None,
    lobe_names: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Return one row for each lesion: its volume and where it lies.

    A lesion is infratentorial if most of it lies in brain stem and cerebellum; else
    periventricular within 3 mm of the ventricles; else juxtacortical within 1.5 mm of the
    cortex; else in the deep white matter.

    Parameters
    ----------
    labels : ndarray of int, shape (x, y, z)
        Number of the lesion of each voxel; 0 is none.
    affine : ndarray, shape (4, 4)
        Voxel to position (RAS, mm).
    ventricles, cortex, infratentorial : ndarray of bool, shape (x, y, z), optional
        What the location is told by; without it that location is not given.
    lobes : ndarray of int, shape (x, y, z), optional
    lobe_names : mapping of int to str, optional
        Names of the numbers in ``lobes``; a lesion is in the one that holds most of its voxels,
        else in the nearest.

    Returns
    -------
    pandas.DataFrame
        Columns ``index, volume_mm3, x_mm, y_mm, z_mm`` (centroid), ``location`` (missing where
        nothing tells it), ``lobe`` and ``ventricle_distance_mm`` (least distance from a voxel of
        the lesion to one of the ventricles; NaN without them).

    References
    ----------
    The locations are those of the McDonald criteria: Thompson et al. 2018,
    10.1016/S1474-4422(17)30470-2.
    """
    index = np.unique(labels[labels > 0]).astype(np.int64)
    voxel_mm = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    position = _centroids_mm(labels, index, affine)
    to_ventricle = _least_distance_mm(ventricles, labels, index, voxel_mm)
    to_cortex = _least_distance_mm(cortex, labels, index, voxel_mm)
    below = np.zeros(index.size)
    if infratentorial is not None and index.size:
        below = np.asarray(ndimage.mean(infratentorial.astype(np.float32), labels, index))
    known = any(region is not None for region in (ventricles, cortex, infratentorial))
    return pd.DataFrame(
        {
            "index": index,
            "volume_mm3": np.bincount(labels[labels > 0], minlength=1)[index]
            * float(np.prod(voxel_mm)),
            "x_mm": position[:, 0],
            "y_mm": position[:, 1],
            "z_mm": position[:, 2],
            "location": [
                _location(*numbers) if known else None
                for numbers in zip(below, to_ventricle, to_cortex, strict=True)
            ],
            "lobe": _lobes_of(labels, index, lobes, lobe_names or {}, voxel_mm),
            "ventricle_distance_mm": to_ventricle,
        }
    )


def with_map(
    table: pd.DataFrame,
    measure: str,
    values: NDArray[np.floating],
    labels: Labels,
    valid: Bool,
) -> pd.DataFrame:
    """Return the table with the mean and standard deviation of a map in each lesion.

    Parameters
    ----------
    table : pandas.DataFrame
        Of :func:`lesion_table`.
    measure : str
        Begins the names of the new columns ``<measure>_mean, <measure>_sd, <measure>_n_voxels``:
        ``chi_ppm``, ``r2star_per_s``.
    values, labels, valid : ndarray, shape (x, y, z)
        The map, the lesions brought to its grid, and where it can be trusted.
    """
    found = region_statistics(values, labels, table["index"].tolist(), 1.0, valid)
    added = {f"{measure}_{name}": found[name].to_numpy() for name in ("mean", "sd", "n_voxels")}
    return table.assign(**added)


def lesion_load(table: pd.DataFrame) -> pd.DataFrame:
    """Return number and volume (mL) of all lesions and of those of each location.

    Returns
    -------
    pandas.DataFrame
        Columns ``location, n_lesions, volume_ml``; the first row is ``all``.
    """
    rows = [("all", len(table), table["volume_mm3"].sum() / 1000)]
    for location in LOCATIONS:
        here = table[table["location"] == location]
        rows.append((location, len(here), here["volume_mm3"].sum() / 1000))
    return pd.DataFrame(rows, columns=["location", "n_lesions", "volume_ml"])


def _centroids_mm(
    labels: Labels, index: NDArray[np.int64], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not index.size:
        return np.empty((0, 3))
    voxels = np.argwhere(labels > 0)
    of = labels[labels > 0]
    counts = np.bincount(of)[index]
    middle = np.stack([np.bincount(of, voxels[:, i])[index] / counts for i in range(3)], axis=1)
    turned: NDArray[np.float64] = np.einsum("ij,nj->ni", affine[:3, :3], middle) + affine[:3, 3]
    return turned


def _least_distance_mm(
    region: Bool | None, labels: Labels, index: NDArray[np.int64], voxel_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the least distance of each lesion's voxels to a region; NaN without one."""
    if region is None or not region.any() or not index.size:
        return np.full(index.size, np.nan)
    away = distance_mm(~region, tuple(voxel_mm))
    return np.asarray(ndimage.minimum(away, labels, index), np.float64)


def _location(below: float, to_ventricle_mm: float, to_cortex_mm: float) -> str:
    if below > 0.5:
        return LOCATIONS[0]
    if to_ventricle_mm <= PERIVENTRICULAR_MM:
        return LOCATIONS[1]
    return LOCATIONS[2] if to_cortex_mm <= JUXTACORTICAL_MM else LOCATIONS[3]


def _lobes_of(
    labels: Labels,
    index: NDArray[np.int64],
    lobes: Labels | None,
    names: Mapping[int, str],
    voxel_mm: NDArray[np.float64],
) -> list[str | None]:
    if lobes is None or not np.isin(lobes, list(names)).any():
        return [None] * index.size
    named = np.isin(lobes, list(names))
    nearest = ndimage.distance_transform_edt(
        ~named, tuple(voxel_mm), return_distances=False, return_indices=True
    )
    of = labels[labels > 0]
    lobe_of = lobes[tuple(axis[labels > 0] for axis in nearest)]
    found: list[str | None] = []
    for number in index:
        values, counts = np.unique(lobe_of[of == number], return_counts=True)
        found.append(names[int(values[np.argmax(counts)])])
    return found

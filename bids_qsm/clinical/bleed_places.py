"""Where microbleeds and calcifications lie: lobar, deep or infratentorial, and usual places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.lesions import LOBE_NAMES
from bids_qsm.anatomy.lobes import RIGHT, lobes_of
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.template import load_freesurfer_labels, load_template
from bids_qsm.frames import pd
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.labelling import Anatomy
from bids_qsm.numerics.microbleeds import BLEED

LOBAR, DEEP, INFRATENTORIAL = "lobar", "deep", "infratentorial"
PINEAL, CHOROID_PLEXUS, FALX = "pineal gland", "choroid plexus", "falx"
CORTEX = (1000, 2036)
LIMBIC = (17, 18, 53, 54)
BELOW_TENT = (7, 8, 15, 16, 46, 47)
VENTRICLES, PLEXUS = (4, 43), (31, 63)
CENTRAL = (
    *(10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60),
    *(251, 252, 253, 254, 255),
    *VENTRICLES,
    14,
)
"""Deep grey matter, corpus callosum, and ventricles with the white matter beside them."""
REACH_MM = 30.0
PLEXUS_MM = 3.0
PINEAL_MNI_MM, PINEAL_RADIUS_MM = (0.0, -29.0, 2.0), 8.0
FALX_HALF_WIDTH_MM, FALX_FROM_MM = 3.5, 25.0

Labels = NDArray[np.integer]


def place_inclusions(table: pd.DataFrame, anatomy: Anatomy) -> pd.DataFrame:
    """Return columns ``region, lobe, usual_place`` for a table with ``i, j, k`` and ``kind``.

    What lies in white matter belongs to the nearest of cortex (lobar), deep grey matter, corpus
    callosum and ventricles (deep), and brain stem and cerebellum (infratentorial): the regions of
    the rating scales.  Places where calcification is usual in health are named.

    References
    ----------
    Gregoire et al. 2009, 10.1212/WNL.0b013e3181c34a7d; Cordonnier et al. 2009,
    10.1161/STROKEAHA.108.526996.
    """
    mappings = (anatomy.rigid.gre_to_t1w, *anatomy.warp.t1w_to_template)
    labels, usual = (
        apply_transforms(image, anatomy.grid, mappings, "nearest").data
        for image in (load_freesurfer_labels(), usual_places(load_template()))
    )
    return placed(table, labels, usual, voxel_sizes_mm(anatomy.grid.affine))


def usual_places(template: Image) -> Image:
    """Return where on the template the pineal gland (1) and the falx (2) lie (int16)."""
    axes = [np.arange(n, dtype=np.float64) for n in template.shape]
    voxel = np.meshgrid(*axes, indexing="ij", sparse=True)
    x, y, z = (sum((row[j] * voxel[j] for j in range(3)), row[3]) for row in template.affine[:3])
    middle = zip((x, y, z), PINEAL_MNI_MM, strict=True)
    distance = np.sqrt(sum((axis - centre) ** 2 for axis, centre in middle))
    falx = (np.abs(x) <= FALX_HALF_WIDTH_MM) & (z >= FALX_FROM_MM)
    places = np.where(falx, np.int16(2), np.int16(0))
    return template.like(np.where(distance <= PINEAL_RADIUS_MM, np.int16(1), places))


def placed(
    table: pd.DataFrame, labels: Labels, usual: Labels, voxel_mm: tuple[float, float, float]
) -> pd.DataFrame:
    """Return the places by FreeSurfer's numbers and the usual places on the table's grid."""
    rows = []
    for row in table.itertuples():
        place = (row.i, row.j, row.k)
        near, distance = _neighbourhood(labels, voxel_mm, place)
        cortex = (near >= CORTEX[0]) & (near < CORTEX[1])
        grey = cortex | np.isin(near, LIMBIC)
        candidates = (
            (LOBAR, grey),
            (DEEP, np.isin(near, CENTRAL)),
            (INFRATENTORIAL, np.isin(near, BELOW_TENT)),
        )
        distances = {name: _least(distance, where) for name, where in candidates}
        region = min(distances, key=lambda name: distances[name])
        if not np.isfinite(distances[region]):
            rows.append((None, None, None))
            continue
        lobe = None
        if region == LOBAR and cortex.any():
            gyrus = near[cortex][np.argmin(distance[cortex])]
            lobe = LOBE_NAMES.get(int(lobes_of(np.array([gyrus]))[0]) % RIGHT)
        usual_place = None
        if row.kind != BLEED:
            at = tuple(
                min(max(round(p), 0), n - 1) for p, n in zip(place, usual.shape, strict=True)
            )
            plexus = np.isin(near, PLEXUS) | np.isin(near, VENTRICLES)
            if usual[at]:
                usual_place = (PINEAL, FALX)[int(usual[at]) - 1]
            elif _least(distance, plexus) <= PLEXUS_MM:
                usual_place = CHOROID_PLEXUS
        rows.append((region, lobe, usual_place))
    names = ["region", "lobe", "usual_place"]
    return pd.DataFrame(rows, columns=names, index=table.index, dtype=object)


def _neighbourhood(
    labels: Labels, voxel_mm: tuple[float, float, float], place: Sequence[float]
) -> tuple[Labels, NDArray[np.float64]]:
    """Return the labels in a box around a place (voxels), and their distances to it (mm)."""
    part = tuple(
        slice(max(int(p - REACH_MM / v), 0), min(int(p + REACH_MM / v) + 2, n))
        for p, v, n in zip(place, voxel_mm, labels.shape, strict=True)
    )
    lines = [
        (np.arange(s.start, s.stop) - p) * v for s, p, v in zip(part, place, voxel_mm, strict=True)
    ]
    x, y, z = np.ix_(*lines)
    return labels[part], np.sqrt(x**2 + y**2 + z**2)


def _least(distance: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    return float(distance[where].min()) if where.any() else float("inf")

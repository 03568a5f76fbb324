"""Checks that find a failed segmentation by itself: sizes, sides, places, and contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from bids_qsm.frames import pd
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.segmentation_quality.check import Check
from bids_qsm.numerics.segmentation_quality.contrasts import (
    brain_check,
    chi_checks,
    coverage_checks,
    fluid_checks,
    r2star_checks,
)
from bids_qsm.numerics.segmentation_quality.outlines import outline_checks
from bids_qsm.numerics.segmentation_quality.structures import Labels, find_structures


def check_segmentation(
    labels: Labels,
    table: pd.DataFrame,
    affine: NDArray[np.float64],
    *,
    chi_ppm: Float32 | None = None,
    r2star_per_s: Float32 | None = None,
    fluid: Float32 | None = None,
    valid: Bool | None = None,
    brain: Bool | None = None,
    t1w_brain: Bool | None = None,
    head_scale: float = 1.0,
) -> tuple[Check, ...]:
    """Check labels of the deep grey matter against what is known of adults' brains.

    Parameters
    ----------
    labels : ndarray of int, shape (x, y, z)
    table : pandas.DataFrame
        Columns ``index, name, hemisphere``; structures that no check knows are passed over.
    affine : ndarray, shape (4, 4)
        Voxel index to mm, axes to the right, front and top.
    chi_ppm, r2star_per_s : ndarray of float32, shape (x, y, z), optional
        Maps on the same grid; each adds its checks.
    fluid : ndarray of float32, shape (x, y, z), optional
        Share of fluid (0 to 1) that the T1w image shows.
    valid : ndarray of bool, shape (x, y, z), optional
        Where the maps can be trusted.
    brain, t1w_brain : ndarray of bool, shape (x, y, z), optional
        Brain of the gradient echo and of the T1w image, both on the labels' grid.
    head_scale : float
        Size of the head over the usual one: the expected volumes are multiplied by it.

    Returns
    -------
    tuple of Check
        In a fixed order.

    Notes
    -----
    Memory: one volume of labels, and the voxels of each structure.
    """
    structures = find_structures(labels, table)
    checks = outline_checks(structures, labels.shape, affine, head_scale)
    present = [s for s in structures if s.voxels.size]
    if valid is not None:
        checks += coverage_checks(present, valid)
    usable = np.ones(labels.shape, bool) if valid is None else valid
    if chi_ppm is not None:
        checks += chi_checks(present, chi_ppm, usable)
    if r2star_per_s is not None:
        checks += r2star_checks(present, r2star_per_s, usable)
    if fluid is not None:
        checks += fluid_checks(present, fluid)
    if brain is not None and t1w_brain is not None:
        checks.append(brain_check(brain, t1w_brain))
    return tuple(checks)


def checks_table(checks: Sequence[Check]) -> pd.DataFrame:
    """Return one row for each check; infinite bounds are NaN."""
    columns = list(Check.__dataclass_fields__)
    table = pd.DataFrame([asdict(check) for check in checks], columns=columns)
    return table.replace([np.inf, -np.inf], np.nan)


def failures(checks: Sequence[Check], atlas: str = "") -> tuple[str, ...]:
    """Return the sentences of the checks that failed; those on labels name the atlas, if given."""
    return tuple(
        f"{atlas}: {check.sentence}" if atlas and check.name != "brain" else check.sentence
        for check in checks
        if check.passed is False
    )

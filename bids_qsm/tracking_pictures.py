"""The pictures of lesions that are followed: what is drawn, and what is said below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.lesion_regions import LesionScan, Region, region_shares
from bids_qsm.numerics.lesion_tracking import Tracked
from bids_qsm.report.picture import Picture
from bids_qsm.report.tracking_charts import MOST_LESIONS, lesion_courses, lesion_slices

SLICE_MM, PIXEL_MM = 50.0, 0.5


def tracking_pictures(
    scans: Sequence[LesionScan],
    sessions: Sequence[str],
    tracked: Tracked,
    threshold_percent: float,
    section: str,
) -> list[Picture]:
    """Return the courses of the first lesions, and each of them in each session.

    Parameters
    ----------
    scans : sequence of LesionScan
    sessions : sequence of str
        What each scan is called.
    tracked : Tracked
    threshold_percent : float
    section : str
    """
    lesions = list(tracked.regions)[:MOST_LESIONS]
    if not lesions:
        return []
    regions = [tracked.regions[lesion] for lesion in lesions]
    slices = [[_slice(scan, region) for scan in scans] for region in regions]
    left = len(tracked.regions) - len(lesions)
    said = f" The first {MOST_LESIONS} of {len(tracked.regions)} lesions." if left else ""
    return [
        Picture(
            section,
            "lesioncourses",
            "Course of each lesion",
            "Mean χ in the same region in all sessions. The band goes from the first value to "
            f"{threshold_percent:g} % more; a ring marks a rise by as much from one session to the "
            f"next.{said}",
            (("", lesion_courses(tracked.table, threshold_percent).png),),
        ),
        Picture(
            section,
            "lesionslices",
            "Each lesion in each session",
            "Axial slices of χ (-0.1 to 0.6 ppm) through the middle of the region that is measured "
            f"(line), in the position of the first session.{said}",
            (("", lesion_slices(slices, lesions, sessions).png),),
        ),
    ]


def _slice(scan: LesionScan, region: Region) -> tuple[NDArray, NDArray] | None:
    """Return an axial slice through a lesion and what of it is in its region; None outside."""
    if not region_shares(region, scan)[1].any():
        return None
    side = np.arange(-SLICE_MM / 2, SLICE_MM / 2 + 1e-6, PIXEL_MM)
    x, y = np.meshgrid(side, side, indexing="ij")
    points = region.centre_mm + np.stack([x, y, np.zeros_like(x)], axis=-1)
    to_fine = np.diag([1 / region.step_mm] * 3 + [1.0])
    to_fine[:3, 3] = -region.first_mm / region.step_mm
    chi = _sampled(scan.chi_ppm, np.linalg.inv(scan.voxel_to_common), points)
    return chi, _sampled(region.inside.astype(np.float32), to_fine, points)


def _sampled(values: NDArray, to_voxel: NDArray, points: NDArray) -> NDArray[np.float32]:
    voxels = np.einsum("ij,xyj->ixy", to_voxel[:3, :3], points) + to_voxel[:3, 3, None, None]
    return np.asarray(ndimage.map_coordinates(values, voxels, order=1), np.float32)

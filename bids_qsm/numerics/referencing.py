"""Susceptibility is known up to a constant: a reference region gives it its zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_qsm.numerics.geometry import Bool, Float32

SMALLEST_REGION = 10
"""Number of voxels below which a region's mean is too uncertain to refer to."""


@dataclass(frozen=True)
class Referenced:
    """A susceptibility map relative to a region.

    Attributes
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility less the region's mean; zero outside the mask.
    mean_ppm, sd_ppm : float
        Mean and standard deviation of the region when the whole mask is the reference, which the
        consensus asks to report (Bilgic 2024, 10.1002/mrm.30006).
    n_voxels : int
        Number of the region's voxels within the mask.
    """

    chi_ppm: Float32
    mean_ppm: float
    sd_ppm: float
    n_voxels: int


def reference_to(chi_ppm: Float32, region: Bool, mask: Bool) -> Referenced:
    """Give a susceptibility map the mean zero in ``region``.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility with any constant; values that are not finite are left out of the means
        and stay as they are.
    region : ndarray of bool, shape (x, y, z)
        Reference region; its part outside the mask is not used.
    mask : ndarray of bool, shape (x, y, z)
        Where the map is valid.

    Returns
    -------
    Referenced
        Memory: one volume, and the values within the mask.

    Raises
    ------
    ValueError
        If the region has too few valid voxels.
    """
    valid = mask & np.isfinite(chi_ppm)
    inside = chi_ppm[region & valid].astype(np.float64)
    if inside.size < SMALLEST_REGION:
        raise ValueError(
            f"The reference region has {inside.size} valid voxels within the mask; "
            f"at least {SMALLEST_REGION} are needed."
        )
    mean = inside.mean()
    whole_brain = chi_ppm[valid].mean(dtype=np.float64)
    return Referenced(
        chi_ppm=np.where(mask, chi_ppm - np.float32(mean), np.float32(0)),
        mean_ppm=float(mean - whole_brain),
        sd_ppm=float(inside.std()),
        n_voxels=int(inside.size),
    )

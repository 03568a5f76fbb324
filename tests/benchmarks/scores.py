"""How far a map is from the truth: arrays in, numbers out.

All scores are taken in the core, 6 mm and more inside the true mask, and after the mean over the
core is taken off both maps: susceptibility has a free constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    bounding_box,
    dipole_kernel,
    forward_fft,
    frequencies,
)

CORE_MM, TISSUE_PPM, LEAST_VOXELS = 6.0, 0.2, 20
SIGMA_VOXELS = 1.5
_REACH_VOXELS = 6
"""How far the filters below reach: four standard deviations."""
_XSIM_CUT = 3.5
_LUMINANCE, _STRUCTURE = 0.01**2, 0.001**2
_CONE = 0.1

CHI_SCORES = (
    "nrmse_core_percent",
    "nrmse_tissue_percent",
    "hfen_percent",
    "xsim",
    "nuclei_slope",
    "nuclei_error_ppb",
    "streak_index",
    "covered_percent",
)
FIELD_SCORES = ("nrmse_core_percent", "nrmse_tissue_percent", "hfen_percent", "covered_percent")


@dataclass(frozen=True)
class Truth:
    """What is true of a head.

    Attributes
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
    core, tissue : ndarray of bool, shape (x, y, z)
        The tissue is the core without veins, calcifications and blood: below 0.2 ppm.
    labels : ndarray of int16, shape (x, y, z)
    nuclei : tuple of int
        Labels of the deep nuclei.
    geometry : Geometry
    """

    chi_ppm: Float32
    core: Bool
    tissue: Bool
    labels: NDArray[np.int16]
    nuclei: tuple[int, ...]
    geometry: Geometry


def truth_of(
    chi_ppm: Float32,
    mask: Bool,
    labels: NDArray[np.int16],
    nuclei: tuple[int, ...],
    geometry: Geometry,
) -> Truth:
    """Return the truth with its regions; ``mask`` is the whole brain."""
    core = core_of(mask, geometry.voxel_mm)
    tissue = core & (np.abs(chi_ppm) < TISSUE_PPM)
    return Truth(chi_ppm, core, tissue, labels, nuclei, geometry)


def core_of(mask: Bool, voxel_mm: tuple[float, float, float], depth_mm: float = CORE_MM) -> Bool:
    """Return what lies deeper than ``depth_mm`` in the mask; the volume's end is outside."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=voxel_mm)
    return depth[1:-1, 1:-1, 1:-1] > depth_mm


def score_chi(found: Float32, truth: Truth) -> dict[str, float]:
    """Return all of ``CHI_SCORES`` of a susceptibility map in ppm."""
    maps = found, truth.chi_ppm
    slope, error_ppb = nuclei_agreement(*maps, truth)
    values = (
        nrmse_percent(*maps, truth.core),
        nrmse_percent(*maps, truth.tissue),
        hfen_percent(*maps, truth.core),
        xsim(*maps, truth.core),
        slope,
        error_ppb,
        streak_index(*maps, truth.core, truth.geometry),
        covered_percent(found, truth.core),
    )
    return dict(zip(CHI_SCORES, values, strict=True))


def score_field(found: Float32, true: Float32, truth: Truth) -> dict[str, float]:
    """Return all of ``FIELD_SCORES`` of a local field."""
    values = (
        nrmse_percent(found, true, truth.core),
        nrmse_percent(found, true, truth.tissue),
        hfen_percent(found, true, truth.core),
        covered_percent(found, truth.core),
    )
    return dict(zip(FIELD_SCORES, values, strict=True))


def nrmse_percent(found: NDArray, true: NDArray, where: Bool) -> float:
    """Return the error's norm over the truth's, each map less its own mean in ``where``."""
    a, b = _demeaned(found, where), _demeaned(true, where)
    return float(100 * np.linalg.norm(a - b) / np.linalg.norm(b))


def hfen_percent(found: NDArray, true: NDArray, where: Bool) -> float:
    """Return the error of the fine structure: the NRMSE behind a Laplacian of a Gaussian.

    References
    ----------
    Ravishankar and Bresler 2011, 10.1109/TMI.2010.2090538; Langkammer 2018, 10.1002/mrm.26830.
    """
    a, b, inside = _compact(found, true, where)
    a, b = (ndimage.gaussian_laplace(m, SIGMA_VOXELS)[inside] for m in (a, b))
    return float(100 * np.linalg.norm(a - b) / np.linalg.norm(b))


def xsim(found: NDArray, true: NDArray, where: Bool) -> float:
    """Return the structural similarity of two maps in ppm, with the constants meant for QSM.

    Local means, variances and the covariance are weighted by a Gaussian of 1.5 voxels, cut at
    five; the dynamic range is 1 ppm, K = (0.01, 0.001).

    References
    ----------
    Milovic 2024, 10.1002/mrm.30271; Wang 2004, 10.1109/TIP.2003.819861.
    """
    a, b, inside = _compact(found, true, where)

    def local(m: NDArray[np.float64]) -> NDArray[np.float64]:
        return ndimage.gaussian_filter(m, SIGMA_VOXELS, truncate=_XSIM_CUT)[inside]

    mean_a, mean_b = local(a), local(b)
    spread_a, spread_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    shared = local(a * b) - mean_a * mean_b
    level = (2 * mean_a * mean_b + _LUMINANCE) / (mean_a**2 + mean_b**2 + _LUMINANCE)
    shape = (2 * shared + _STRUCTURE) / (spread_a + spread_b + _STRUCTURE)
    return float((level * shape).mean())


def nuclei_agreement(found: NDArray, true: NDArray, truth: Truth) -> tuple[float, float]:
    """Return slope of the nuclei's means on the true ones, and their mean absolute error in ppb.

    Means are relative to the core's.  A nucleus with 20 voxels or fewer in the core is left out;
    with fewer than two nuclei there is no slope, with none no error (NaN).
    """
    parts = [truth.core & (truth.labels == label) for label in truth.nuclei]
    parts = [part for part in parts if part.sum() > LEAST_VOXELS]
    a, b = (
        np.array([m[part].mean(dtype=np.float64) for part in parts])
        - m[truth.core].mean(dtype=np.float64)
        for m in (found, true)
    )
    slope = float(np.polyfit(b, a, 1)[0]) if len(parts) > 1 else float("nan")
    return slope, float(1000 * np.abs(a - b).mean()) if parts else float("nan")


def streak_index(found: NDArray, true: NDArray, where: Bool, geometry: Geometry) -> float:
    """Return how much more of the error lies by the dipole's cone than in other directions.

    The error's power where the dipole kernel is below 0.1 is set against what it would be if, on
    each sphere in k-space, it were the same in all directions: 1 is an error without streaks, 5.7
    one that is nothing but streaks.  Spheres end where the coarsest axis ends.  The index does
    not say how large the error is.  It is NaN for maps that agree.
    """
    a, b, inside = _compact(found, true, where)
    grid = geometry.with_shape(inside.shape)
    spectrum = forward_fft((a - b).astype(np.float32))
    power = np.abs(spectrum).astype(np.float64) ** 2
    kx, ky, kz = frequencies(grid)
    # all but the first (and, if even, the last) plane stand for two of the whole spectrum
    twice = 2.0 - ((kz == 0) | (2 * kz * grid.voxel_mm[2] == 1))
    radius = np.sqrt(kx**2 + ky**2 + kz**2)
    step = max(1 / (n * v) for n, v in zip(grid.shape, grid.voxel_mm, strict=True))
    ball = (radius > 0) & (radius <= 0.5 / max(grid.voxel_mm))
    shell = (radius[ball] / step).astype(np.intp)
    weight = np.broadcast_to(twice, power.shape)[ball]
    cone = np.abs(dipole_kernel(grid)[ball]) < _CONE
    size = np.bincount(shell, weight)
    shell_power = np.bincount(shell, weight * power[ball])
    isotropic = np.divide(shell_power, size, out=np.zeros_like(size), where=size > 0)
    expected = float((weight * isotropic[shell])[cone].sum())
    return float((weight * power[ball])[cone].sum()) / expected if expected else float("nan")


def covered_percent(found: NDArray, where: Bool) -> float:
    """Return how much of ``where`` the map has a value in."""
    return float(100 * (found[where] != 0).mean())


def _demeaned(values: NDArray, where: Bool) -> NDArray[np.float64]:
    inside = values[where].astype(np.float64)
    return inside - inside.mean()


def _compact(
    found: NDArray, true: NDArray, where: Bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], Bool]:
    """Return both maps, demeaned and zero outside, and the region, in a box that filters need."""
    box = tuple(
        slice(max(part.start - _REACH_VOXELS, 0), part.stop + _REACH_VOXELS)
        for part in bounding_box(where)
    )
    inside = where[box]
    maps = []
    for values in (found, true):
        compact = np.zeros(inside.shape)
        compact[inside] = _demeaned(values, where)
        maps.append(compact)
    return maps[0], maps[1], inside

"""Lesions of the white matter, some of them with a paramagnetic rim: their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.phantom.bleeds import R2STAR_PER_PPM, Float32
from bids_qsm.phantom.tissues import LESION_LABEL

RIM_PPM = (0.04, 0.10)
RIM_MM = 1.0
LEAST_RADIUS_MM = 3.0


@dataclass(frozen=True)
class Lesion:
    """A lesion: an ellipsoid, as far as there is white matter.

    Attributes
    ----------
    centre_mm, radii_mm : tuple of float
        From the centre of the first voxel, along the axes of the simulation.
    rim_ppm : float
        Susceptibility of its rim above that of its middle; 0 without a rim.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    rim_ppm: float = 0.0


def choose_rims(lesions: Sequence[Lesion], seed: int, share: float) -> tuple[Lesion, ...]:
    """Give a share of the lesions a rim; these have radii of 3 mm at least.

    Values as reported of active iron in the rim: Dal-Bianco 2017, 10.1007/s00401-016-1636-z;
    Hagemeier 2018, 10.1002/jmri.25835.
    """
    rng = np.random.default_rng([seed, 77])
    chosen = set(rng.permutation(len(lesions))[: round(share * len(lesions))].tolist())
    result = []
    for number, lesion in enumerate(lesions):
        rim_ppm = float(rng.uniform(*RIM_PPM))
        if number in chosen:
            x, y, z = (max(r, LEAST_RADIUS_MM) for r in lesion.radii_mm)
            lesion = replace(lesion, radii_mm=(x, y, z), rim_ppm=rim_ppm)
        result.append(lesion)
    return tuple(result)


def paint_rims(
    labels: NDArray[np.int16],
    chi_ppm: Float32,
    r2star_per_s: Float32,
    affine: NDArray[np.float64],
    lesions: Sequence[Lesion],
) -> None:
    """Raise susceptibility and R2* in the outer millimetre of lesions with a rim, in place."""
    voxel_mm = np.array(voxel_sizes_mm(affine))
    for lesion in lesions:
        if not lesion.rim_ppm:
            continue
        centre, radii = np.array(lesion.centre_mm), np.array(lesion.radii_mm)
        low = np.maximum(np.floor((centre - radii) / voxel_mm).astype(int), 0)
        high = np.ceil((centre + radii) / voxel_mm).astype(int) + 1
        part = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        lines = [
            np.arange(p.start, min(p.stop, n)) * v - c
            for p, n, v, c in zip(part, labels.shape, voxel_mm, centre, strict=True)
        ]
        x, y, z = np.ix_(*lines)
        within = _level(x, y, z, np.maximum(radii - RIM_MM, 0.1)) < 1
        rim = (labels[part] == LESION_LABEL) & (_level(x, y, z, radii) < 1) & ~within
        chi_ppm[part][rim] += np.float32(lesion.rim_ppm)
        r2star_per_s[part][rim] += np.float32(R2STAR_PER_PPM * lesion.rim_ppm)


def _level(x: NDArray, y: NDArray, z: NDArray, radii: NDArray) -> NDArray:
    return np.asarray((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)

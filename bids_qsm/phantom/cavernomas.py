"""Cavernous malformations: paramagnetic ellipsoids that may gain susceptibility with time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.phantom.head import Phantom
from bids_qsm.phantom.tissues import CAVERNOMA, WHITE_MATTER, is_brain

RADII_MM, CHI_PPM = (3.0, 6.0), (0.3, 0.7)
"""Range of each half axis, and of susceptibility above that of the tissue that is there."""
R2STAR_PER_PPM = 137.0
"""Rate (1/s at 3 T) of 1 ppm that is spread finely: Shin 2021, 10.1016/j.neuroimage.2021.118371."""
APART_MM, FROM_EDGE_MM, FROM_GREY_MM, COARSE_MM = 12.0, 4.0, 1.0, 2.0
OUTER_CSF = 24


@dataclass(frozen=True)
class Cavernoma:
    """A cavernous malformation.

    Attributes
    ----------
    label : int
    centre_mm : tuple of float
        In the world of the head, as simulated without a change of its position.
    radii_mm : tuple of float
        Half axes of the ellipsoid, along the axes of the head's grid.
    chi_ppm : float
        Above that of the tissue that is there, at the first session.
    growth_percent_per_year : float
        Rise of that, of its first value.
    """

    label: int
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    chi_ppm: float
    growth_percent_per_year: float = 0.0

    def chi_after(self, years: float) -> float:
        """Return its susceptibility so long after the first session."""
        return self.chi_ppm * (1 + self.growth_percent_per_year * years / 100)


def draw_cavernomas(
    head: Phantom, number: int, growth_percent: float, seed: int
) -> tuple[Cavernoma, ...]:
    """Find places in white matter, 12 mm apart; the first, the third and so on grow.

    Parameters
    ----------
    head : Phantom
    number : int
        Wanted; there are fewer where there is no room.
    growth_percent : float
        For each year.
    seed : int
    """
    # its own random numbers: the rest of the head is as it is without them
    rng = np.random.default_rng([seed, CAVERNOMA.labels[0]])
    voxel_mm = np.array(head.voxel_mm)
    stride = [max(round(COARSE_MM / v), 1) for v in voxel_mm]
    coarse = head.labels[tuple(slice(None, None, s) for s in stride)]
    spacing = voxel_mm * stride
    inside = is_brain(coarse) & (coarse != OUTER_CSF)
    to_edge = ndimage.distance_transform_edt(inside, sampling=spacing)
    to_other = ndimage.distance_transform_edt(np.isin(coarse, WHITE_MATTER), sampling=spacing)
    free = np.ones(coarse.shape, np.bool_)
    found: list[Cavernoma] = []
    for label in CAVERNOMA.labels[:number]:
        radii = rng.uniform(*RADII_MM, 3)
        chi = float(rng.uniform(*CHI_PPM))
        points = np.argwhere(
            free & (to_edge > radii.max() + FROM_EDGE_MM) & (to_other > FROM_GREY_MM)
        )
        if not len(points):
            continue
        point = points[rng.integers(len(points))] * spacing
        free &= _distance_mm(coarse.shape, spacing, point) > APART_MM + 2 * RADII_MM[1]
        point = point + rng.uniform(-0.5, 0.5, 3) * spacing
        x, y, z = head.affine[:3, :3] @ (point / voxel_mm) + head.affine[:3, 3]
        growth = growth_percent if len(found) % 2 == 0 else 0.0
        a, b, c = (float(r) for r in radii)
        centre = (float(x), float(y), float(z))
        found.append(Cavernoma(label, centre, (a, b, c), chi, growth))
    return tuple(found)


def with_cavernomas(head: Phantom, cavernomas: Sequence[Cavernoma], years: float = 0.0) -> Phantom:
    """Return the head with cavernomas as they are so long after the first session."""
    if not cavernomas:
        return head
    labels, chi, r2star = head.labels.copy(), head.chi_ppm.copy(), head.r2star_per_s.copy()
    for cavernoma in cavernomas:
        part, share = _ellipsoid(head, cavernoma)
        added = cavernoma.chi_after(years)
        chi[part] += np.float32(added) * share
        r2star[part] += np.float32(R2STAR_PER_PPM * added) * share
        labels[part][share > 0.5] = cavernoma.label
    own = tuple(c.label for c in cavernomas)
    return replace(
        head,
        labels=labels,
        chi_ppm=chi,
        r2star_per_s=r2star,
        label_values=head.label_values + own,
        tissues=head.tissues + (CAVERNOMA,) * len(own),
    )


def _distance_mm(shape: tuple[int, ...], spacing: NDArray, point: NDArray) -> NDArray:
    lines = [np.arange(n) * s - p for n, s, p in zip(shape, spacing, point, strict=True)]
    x, y, z = np.ix_(*lines)
    return np.asarray(np.sqrt(x**2 + y**2 + z**2))


def _ellipsoid(head: Phantom, cavernoma: Cavernoma) -> tuple[tuple[slice, ...], NDArray]:
    """Return a part of the head's grid and how much of each voxel there is in an ellipsoid."""
    voxel_mm, radii = np.array(head.voxel_mm), np.array(cavernoma.radii_mm)
    centre = np.linalg.inv(head.affine)[:3] @ (*cavernoma.centre_mm, 1.0)
    low = np.floor(centre - radii / voxel_mm).astype(int) - 1
    high = np.ceil(centre + radii / voxel_mm).astype(int) + 2
    part = tuple(
        slice(max(int(a), 0), min(int(b), n))
        for a, b, n in zip(low, high, head.labels.shape, strict=True)
    )
    lines = [
        (np.arange(p.start, p.stop) - c) * v / r
        for p, c, v, r in zip(part, centre, voxel_mm, radii, strict=True)
    ]
    x, y, z = np.ix_(*lines)
    depth_mm = (1 - np.sqrt(x**2 + y**2 + z**2)) * radii.mean()
    return part, np.clip(depth_mm / voxel_mm.mean() + 0.5, 0, 1).astype(np.float32)

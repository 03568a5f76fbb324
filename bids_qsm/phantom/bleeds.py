"""Microbleeds and calcifications: small balls of other susceptibility, with their truth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.phantom.tissues import (
    BLEED_LABEL,
    CALCIFICATION_LABEL,
    CHOROID_PLEXUS,
    WHITE_MATTER,
    is_brain,
)

Float32 = NDArray[np.float32]
Labels = NDArray[np.int16]

BLEED, CALCIFICATION = "microbleed", "calcification"
PLACES = {
    BLEED: (("lobar", 0.6), ("deep", 0.2), ("infratentorial", 0.2)),
    CALCIFICATION: (
        ("choroid plexus", 0.35),
        ("pineal", 0.15),
        ("falx", 0.15),
        ("lobar", 0.2),
        ("deep", 0.15),
    ),
}
"""Where they are looked for, and how many in each place."""
BLEED_MM, BLEED_PPM = (2.0, 8.0), (0.2, 2.0)
CALCIFICATION_MM, CALCIFICATION_PPM = (2.0, 6.0), (0.2, 1.5)
R2STAR_PER_PPM = 137.0
"""Rate (1/s at 3 T) of 1 ppm that is spread finely: Shin 2021, 10.1016/j.neuroimage.2021.118371."""
APART_MM, FROM_EDGE_MM, COARSE_MM = 12.0, 1.5, 2.0
CORTEX = (3, 42)
DEEP = (10, 11, 12, 13, 49, 50, 51, 52)
INFRATENTORIAL = (7, 8, 16, 46, 47)
THIRD_VENTRICLE, OUTER_CSF = 14, 24
_PARTS = 4


@dataclass(frozen=True)
class Inclusion:
    """A microbleed or a calcification.

    Attributes
    ----------
    kind, place : str
        As in :data:`PLACES`.
    centre_mm : tuple of float
        In the world of the head, as simulated without a change of its position.
    diameter_mm : float
        Of the ball that holds the susceptibility; the signal that it takes away reaches farther.
    chi_ppm, r2star_per_s : float
        Above those of the tissue that is there.
    moment_ppm_mm3 : float
        Susceptibility times volume, as the voxels of the simulation hold it.
    """

    kind: str
    place: str
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    chi_ppm: float
    r2star_per_s: float
    moment_ppm_mm3: float


def plant(
    labels: Labels,
    chi_ppm: Float32,
    r2star_per_s: Float32,
    affine: NDArray[np.float64],
    seed: int,
    microbleeds: int,
    calcifications: int,
) -> tuple[Inclusion, ...]:
    """Plant inclusions into a head, in place, 12 mm apart where there is room; return them.

    Size is drawn uniformly, and susceptibility uniformly in its logarithm; both cover what is
    reported of microbleeds.

    References
    ----------
    Liu et al. 2012, 10.1148/radiol.11110251; McAuley et al. 2011, 10.1002/mrm.22745.
    """
    # its own random numbers: the rest of the head is as it is without inclusions
    rng = np.random.default_rng([seed, 985])
    voxel_mm = np.array(voxel_sizes_mm(affine))
    seeds = _Seeds(labels, affine)
    planted: list[Inclusion] = []
    for kind, number in ((BLEED, microbleeds), (CALCIFICATION, calcifications)):
        names, shares = zip(*PLACES[kind], strict=True)
        for place in rng.choice(names, number, p=shares):
            diameter = rng.uniform(*(BLEED_MM if kind == BLEED else CALCIFICATION_MM))
            low, high = BLEED_PPM if kind == BLEED else CALCIFICATION_PPM
            chi = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            centre = seeds.draw(rng, str(place), diameter / 2)
            if centre is None:
                continue
            sign, label = (1, BLEED_LABEL) if kind == BLEED else (-1, CALCIFICATION_LABEL)
            part, share = _ball(labels.shape, voxel_mm, centre, diameter / 2)
            chi_ppm[part] += np.float32(sign * chi) * share
            r2star = R2STAR_PER_PPM * chi
            r2star_per_s[part] += np.float32(r2star) * share
            labels[part][share > 0.5] = label
            moment = sign * chi * float(share.sum(dtype=np.float64)) * float(voxel_mm.prod())
            world = affine[:3, :3] @ (centre / voxel_mm) + affine[:3, 3]
            x, y, z = (round(float(c), 3) for c in world)
            planted.append(
                Inclusion(kind, str(place), (x, y, z), diameter, sign * chi, r2star, moment)
            )
    return tuple(planted)


class _Seeds:
    """Where an inclusion can go: points on a coarse grid, fewer with each one taken."""

    def __init__(self, labels: Labels, affine: NDArray[np.float64]) -> None:
        voxel_mm = np.array(voxel_sizes_mm(affine))
        stride = [max(round(COARSE_MM / v), 1) for v in voxel_mm]
        coarse = labels[tuple(slice(None, None, s) for s in stride)]
        self._spacing = voxel_mm * stride
        self._inside = ndimage.distance_transform_edt(is_brain(coarse), sampling=self._spacing)
        self._labels = np.where((coarse >= 1000) & (coarse < 3000), CORTEX[0], coarse)
        self._free = np.ones(coarse.shape, np.bool_)
        # scanner position of each point, to find the midline
        axes = [np.arange(n) * s for n, s in zip(coarse.shape, self._spacing, strict=True)]
        turned = affine[:3, :3] / voxel_mm
        self._world = [
            sum(turned[i, j] * a for j, a in enumerate(np.ix_(*axes))) + affine[i, 3]
            for i in range(3)
        ]

    def draw(self, rng: np.random.Generator, place: str, radius_mm: float) -> NDArray | None:
        """Return a point (mm from the first voxel's centre) and take what is around it."""
        room = self._free & (self._inside > radius_mm + FROM_EDGE_MM)
        points = np.argwhere(room & self._region(place))
        if not len(points):
            return None
        point = points[rng.integers(len(points))] * self._spacing
        lines = [
            np.arange(n) * s - c
            for n, s, c in zip(self._free.shape, self._spacing, point, strict=True)
        ]
        x, y, z = np.ix_(*lines)
        self._free &= x**2 + y**2 + z**2 > (APART_MM + radius_mm) ** 2
        return np.asarray(point + rng.uniform(-0.5, 0.5, 3) * self._spacing)

    def _region(self, place: str) -> NDArray[np.bool_]:
        if place == "lobar":
            return np.isin(self._labels, (*WHITE_MATTER, *CORTEX))
        if place == "deep":
            return np.isin(self._labels, DEEP)
        if place == "infratentorial":
            return np.isin(self._labels, INFRATENTORIAL)
        if place == "choroid plexus":
            return np.isin(self._labels, CHOROID_PLEXUS)
        return self._pineal() if place == "pineal" else self._falx()

    def _pineal(self) -> NDArray[np.bool_]:
        """Return the points within 3 mm of one that is 4 mm behind the third ventricle."""
        x, y, z = self._world
        inside = self._labels == THIRD_VENTRICLE
        if not inside.any():
            return inside
        back = np.broadcast_to(y, inside.shape)[inside]
        rear = inside & (y <= np.percentile(back, 5))
        middle = [np.broadcast_to(w, inside.shape)[rear].mean() for w in (x, y, z)]
        offsets = zip((x, y, z), middle, (0.0, -4.0, 1.0), strict=True)
        distance = sum((w - m - o) ** 2 for w, m, o in offsets)
        return np.asarray(distance < 9.0)

    def _falx(self) -> NDArray[np.bool_]:
        """Return fluid in the midline, high above the third ventricle."""
        x, _, z = self._world
        inside = self._labels == THIRD_VENTRICLE
        if not inside.any():
            return inside
        middle, level = (np.broadcast_to(w, inside.shape)[inside].mean() for w in (x, z))
        near = (np.abs(x - middle) < 3.0) & (z > level + 35.0)
        return near & (self._labels == OUTER_CSF)


def _ball(
    shape: tuple[int, ...], voxel_mm: NDArray, centre_mm: NDArray, radius_mm: float
) -> tuple[tuple[slice, ...], Float32]:
    """Return a part of a grid and how much of each of its voxels lies in a ball."""
    low = np.floor((centre_mm - radius_mm) / voxel_mm).astype(int) - 1
    high = np.ceil((centre_mm + radius_mm) / voxel_mm).astype(int) + 2
    part = tuple(
        slice(max(int(a), 0), min(int(b), n)) for a, b, n in zip(low, high, shape, strict=True)
    )
    share = np.zeros([p.stop - p.start for p in part], np.float32)
    offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    for offset in itertools.product(offsets, repeat=3):
        x, y, z = np.ix_(
            *(
                (np.arange(p.start, p.stop) + o) * v - c
                for p, o, v, c in zip(part, offset, voxel_mm, centre_mm, strict=True)
            )
        )
        share += x**2 + y**2 + z**2 < radius_mm**2
    return part, share / np.float32(_PARTS**3)

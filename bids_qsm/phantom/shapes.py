"""A grid of 1 mm voxels in MNI space and simple shapes to paint on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int16]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Voxels of 1 mm: position of the first one, and how many there are."""

    first_mm: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index to position in mm."""
        affine = np.eye(4)
        affine[:3, 3] = self.first_mm
        return affine

    def axes_mm(self) -> tuple[NDArray[np.float32], ...]:
        """Return the broadcastable positions along x, y and z."""
        return self.part_mm(tuple(slice(0, n) for n in self.shape))

    def part_mm(self, part: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the broadcastable positions in a box of the grid."""
        lines = [
            np.arange(p.start, p.stop, dtype=np.float32) + first
            for p, first in zip(part, self.first_mm, strict=True)
        ]
        return tuple(np.ix_(*lines))

    def box(self, low_mm: NDArray, high_mm: NDArray) -> tuple[slice, ...]:
        """Return the part of the grid that holds a box, cut at the grid's border."""
        return tuple(
            slice(min(max(int(np.floor(a)) - f, 0), n), max(min(int(np.ceil(b)) - f + 1, n), 0))
            for a, b, f, n in zip(low_mm, high_mm, self.first_mm, self.shape, strict=True)
        )


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the axes: centre and radii in mm."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]

    def mirrored(self) -> Ellipsoid:
        """Return the same on the other side of the midline."""
        x, y, z = self.centre_mm
        return Ellipsoid((-x, y, z), self.radii_mm)

    def grown(self, mm: float) -> Ellipsoid:
        """Return it with longer radii."""
        x, y, z = (r + mm for r in self.radii_mm)
        return Ellipsoid(self.centre_mm, (x, y, z))

    def level(self, axes_mm: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
        """Return the squared distance from the centre in radii: 1 on the surface."""
        x, y, z = (
            ((a - np.float32(c)) / np.float32(r)) ** 2
            for a, c, r in zip(axes_mm, self.centre_mm, self.radii_mm, strict=True)
        )
        return x + y + z


def both_sides(*ellipsoids: Ellipsoid) -> tuple[Ellipsoid, ...]:
    """Return ellipsoids and their mirror images."""
    return tuple(side for e in ellipsoids for side in (e, e.mirrored()))


def fill(
    labels: Labels, grid: Grid, ellipsoid: Ellipsoid, label: int, where: Bool | None = None
) -> None:
    """Give the voxels of an ellipsoid a label, in place; only those of ``where`` if it is given."""
    centre, radii = np.array(ellipsoid.centre_mm), np.array(ellipsoid.radii_mm)
    part = grid.box(centre - radii, centre + radii)
    inside = ellipsoid.level(grid.part_mm(part)) < 1
    if where is not None:
        inside &= where[part]
    labels[part][inside] = label


def union(grid: Grid, ellipsoids: tuple[Ellipsoid, ...]) -> Bool:
    """Return the mask of all voxels within any of the ellipsoids."""
    volume = np.zeros(grid.shape, np.int16)
    for ellipsoid in ellipsoids:
        fill(volume, grid, ellipsoid, 1)
    return volume.astype(bool)

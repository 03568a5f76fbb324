"""Where lesions are: in single scans of a head, and in the head itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32

_PARTS = 3
"""Points along each axis of a voxel that tell how much of it lies in a region."""

Float64 = NDArray[np.float64]
Labels = NDArray[np.int16]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionScan:
    """A scan in which lesions are followed.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Number of the lesion as this scan alone has them; 0 is none.
    chi_ppm : ndarray of float32, shape (x, y, z)
    r2star_per_s : ndarray of float32, shape (x, y, z), or None
    mask : ndarray of bool, shape (x, y, z)
        Where susceptibility is known.
    affine : ndarray, shape (4, 4)
        Voxel to position (mm).
    to_common : ndarray, shape (4, 4)
        Rigid mapping from positions of this scan to those of the first one.
    """

    labels: Labels
    chi_ppm: Float32
    r2star_per_s: Float32 | None
    mask: Bool
    affine: Float64
    to_common: Float64

    @property
    def voxel_mm(self) -> Float64:
        """Return the lengths of the voxels' edges."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)), np.float64)

    @property
    def voxel_to_common(self) -> Float64:
        """Return the mapping from voxels to positions of the first scan."""
        return np.asarray(self.to_common @ self.affine, np.float64)


@dataclass(frozen=True)
class Region:
    """Where a lesion is, on a fine grid that belongs to no scan.

    Attributes
    ----------
    inside : ndarray of bool, shape (x, y, z)
    first_mm : ndarray, shape (3,)
        Position of the first voxel's centre in the common world, along whose axes the grid lies.
    step_mm : float
    """

    inside: Bool
    first_mm: Float64
    step_mm: float

    @property
    def volume_mm3(self) -> float:
        """Return its volume."""
        return float(np.count_nonzero(self.inside)) * self.step_mm**3

    @property
    def centre_mm(self) -> Float64:
        """Return its centre of mass in the common world."""
        middle = np.argwhere(self.inside).mean(axis=0)
        return np.asarray(self.first_mm + self.step_mm * middle, np.float64)


def match_lesions(
    scans: Sequence[LesionScan], least_overlap: float = 0.25
) -> dict[int, tuple[tuple[int, int], ...]]:
    """Return which lesions of single scans are one: by number, the pairs (scan, label).

    They are numbered from 1 in the order of the scans and, within a scan, of its labels.
    """
    volumes = [np.bincount(s.labels.ravel()) * float(np.prod(s.voxel_mm)) for s in scans]
    nodes = [
        (place, int(label))
        for place, of in enumerate(volumes)
        for label in np.flatnonzero(of)
        if label > 0
    ]
    leader = {node: node for node in nodes}

    def top(node: tuple[int, int]) -> tuple[int, int]:
        while leader[node] != node:
            node = leader[node]
        return node

    for (i, a), (j, b) in itertools.combinations(enumerate(scans), 2):
        for one, other, overlap_mm3 in _overlaps(a, b):
            if overlap_mm3 >= least_overlap * min(volumes[i][one], volumes[j][other]):
                first, second = sorted((top((i, one)), top((j, other))))
                leader[second] = first
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for node in nodes:
        groups.setdefault(top(node), []).append(node)
    return {number: tuple(of) for number, of in enumerate(groups.values(), start=1)}


def _overlaps(a: LesionScan, b: LesionScan) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of lesions of two scans that overlap, and by how much (mm3)."""
    voxels = np.argwhere(a.labels > 0)
    if not len(voxels):
        return
    to_b = np.linalg.inv(b.voxel_to_common) @ a.voxel_to_common
    there = _lookup(b.labels, moved_points(to_b, voxels))
    pairs = np.stack([a.labels[a.labels > 0], there], axis=1)[there > 0]
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    voxel_mm3 = float(np.prod(a.voxel_mm))
    for (one, other), count in zip(found, counts, strict=True):
        yield int(one), int(other), float(count) * voxel_mm3


def merged_region(
    scans: Sequence[LesionScan],
    boxes: Sequence[Sequence[tuple[slice, ...] | None]],
    members: Sequence[tuple[int, int]],
) -> Region:
    """Return all that belongs to a lesion in any scan, on a grid of half the smallest voxel.

    ``boxes`` holds for each scan the box around each of its labels, from 1.
    """
    step = 0.5 * min(float(scan.voxel_mm.min()) for scan in scans)
    parts = []
    for place, label in members:
        box = boxes[place][label - 1]
        assert box is not None
        start = np.array([s.start for s in box]) - 1
        parts.append((scans[place], start, np.pad(scans[place].labels[box] == label, 1)))
    centres = [
        moved_points(scan.voxel_to_common, np.argwhere(mask) + start) for scan, start, mask in parts
    ]
    reach = max(float(scan.voxel_mm.max()) for scan in scans)
    low = np.min([c.min(axis=0) for c in centres], axis=0) - reach
    high = np.max([c.max(axis=0) for c in centres], axis=0) + reach
    shape = np.ceil((high - low) / step).astype(int) + 1
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(points), np.bool_)
    for scan, start, mask in parts:
        to_voxel = np.linalg.inv(scan.voxel_to_common)
        coordinates = (moved_points(to_voxel, low + step * points) - start).T
        inside |= ndimage.map_coordinates(mask.astype(np.float32), coordinates, order=1) >= 0.5
    return Region(inside.reshape(shape), low, step)


def region_shares(region: Region, scan: LesionScan) -> tuple[Box, Float32]:
    """Return a box of a scan's voxels and how much of each lies in a region.

    The box is empty where the region lies outside the scan.
    """
    corners = np.array(list(itertools.product(*((0, n - 1) for n in region.inside.shape))))
    to_voxel = np.linalg.inv(scan.voxel_to_common)
    there = moved_points(to_voxel, region.first_mm + region.step_mm * corners)
    low = np.clip(np.floor(there.min(axis=0)).astype(int) - 1, 0, scan.labels.shape)
    high = np.clip(np.ceil(there.max(axis=0)).astype(int) + 2, 0, scan.labels.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shape = tuple(int(n) for n in high - low)
    share = np.zeros(shape, np.float32)
    if share.size:
        inside = region.inside.astype(np.float32)
        voxels = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
        offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
        for offset in itertools.product(offsets, repeat=3):
            common = moved_points(scan.voxel_to_common, voxels.reshape(-1, 3) + offset)
            fine = (common - region.first_mm) / region.step_mm
            share += ndimage.map_coordinates(inside, fine.T, order=1).reshape(shape)
    return (x, y, z), share / np.float32(_PARTS**3)


def moved_points(mapping: NDArray[np.floating], points: NDArray) -> Float64:
    """Return points, shape (n, 3), brought on by an affine mapping."""
    return np.asarray(
        np.einsum("ij,nj->ni", mapping[:3, :3], np.asarray(points, np.float64)) + mapping[:3, 3]
    )


def _lookup(values: NDArray, voxels: Float64) -> NDArray:
    """Return the values of the nearest voxels; 0 outside the array."""
    nearest = np.rint(voxels).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < values.shape)).all(axis=1)
    found = np.zeros(len(voxels), values.dtype)
    found[inside] = values[tuple(nearest[inside].T)]
    return found

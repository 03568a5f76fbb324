"""Which slices of a volume a picture shows, how each is cut, and where it stands on the canvas.

Volumes are shown in the order of axes that is nearest to right, anterior, superior, in the
neurological convention: the subject's left is on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.numerics.geometry import Bool

MAX_ASPECT = 0.95
COLUMNS = 7
MARGIN_MM = 10.0
GAP_PX = 2
TRIMMED_AREA = 0.04
"""Slices with less of the region than this part of its largest slice (a bit of cord) are not
counted to its extent."""

SAGITTAL, CORONAL, AXIAL = 0, 1, 2
SPAN = {AXIAL: (0.12, 0.92), CORONAL: (0.12, 0.88), SAGITTAL: (0.12, 0.88)}
"""The part of the shown region, from its first to its last slice, that slices are taken from."""


@dataclass(frozen=True)
class Cell:
    """One slice on the canvas.

    Attributes
    ----------
    axis : {0, 1, 2}
        The axis (right, anterior, superior) that the slice is perpendicular to.
    index : int
        Voxel along that axis.
    position_mm : float
        Scanner coordinate of the slice's centre along that axis.
    left, top, width, height : int
        Where it stands, in pixels.
    """

    axis: int
    index: int
    position_mm: float
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """The slices of a picture.

    Attributes
    ----------
    box : tuple of slice
        The shown part of the reoriented volume.
    cells : tuple of Cell
    width, height : int
        Size of the canvas in pixels.
    pixels_per_mm : float
    """

    box: tuple[slice, slice, slice]
    cells: tuple[Cell, ...]
    width: int
    height: int
    pixels_per_mm: float


def reoriented(volume: NDArray, affine: NDArray) -> NDArray:
    """Return a view of the volume with its axes nearest to right, anterior, superior."""
    return nib.orientations.apply_orientation(volume, nib.io_orientation(affine))


def reoriented_affine(affine: NDArray, shape: Sequence[int]) -> NDArray:
    """Return the affine that belongs to :func:`reoriented` of a volume of ``shape``."""
    orientation = nib.io_orientation(affine)
    return affine @ nib.orientations.inv_ornt_aff(orientation, tuple(shape))


def lay_out(region: Bool, affine: NDArray, width_px: int) -> Layout:
    """Choose the slices and place them: two rows of axial, one of coronal, one of sagittal ones.

    Parameters
    ----------
    region : ndarray of bool, shape (x, y, z)
        What is to be seen, not reoriented; all of the volume where it is empty.
    affine : ndarray, shape (4, 4)
    width_px : int
        Of the canvas; its height is at most :data:`MAX_ASPECT` of it.
    """
    shown = reoriented(region if region.any() else np.ones_like(region), affine)
    affine = reoriented_affine(affine, region.shape)
    voxel_mm = np.array(voxel_sizes_mm(affine))
    tight = _extent(shown)
    box = _with_margin(tight, shown.shape, voxel_mm)
    size_mm = [(part.stop - part.start) * v for part, v in zip(box, voxel_mm, strict=True)]

    rows = _rows(tight, size_mm)
    heights_mm = [size_mm[_up(axis)] for axis, _ in rows]
    pixels_per_mm = min(
        width_px / (COLUMNS * size_mm[0]),
        width_px / size_mm[1],
        MAX_ASPECT * width_px / sum(heights_mm),
    )
    centre = [(part.start + part.stop - 1) / 2 for part in box]
    cells: list[Cell] = []
    top = 0
    for axis, indices in rows:
        height = max(1, round(size_mm[_up(axis)] * pixels_per_mm))
        pitch = width_px / len(indices)
        wanted = round(size_mm[_across(axis)] * pixels_per_mm)
        width = max(1, min(wanted, int(pitch) - GAP_PX))
        for place, index in enumerate(indices):
            left = round((place + 0.5) * pitch - width / 2)
            at = [index if i == axis else c for i, c in enumerate(centre)]
            position_mm = float((affine @ [*at, 1.0])[axis])
            cells.append(Cell(axis, index, position_mm, left, top, width, height))
        top += height + GAP_PX
    return Layout(box, tuple(cells), width_px, top, pixels_per_mm)


def cut(volume: NDArray, box: tuple[slice, slice, slice], cell: Cell) -> NDArray:
    """Return a slice of a reoriented volume as rows from top to bottom, columns left to right."""
    where: list[slice | int] = list(box)
    where[cell.axis] = cell.index
    return volume[tuple(where)].T[::-1]


def enlarged(values: NDArray, cell: Cell) -> NDArray[np.float32]:
    """Return a slice in the pixels of its cell (cubic; averaged where pixels are larger)."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resized = image.resize((cell.width, cell.height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)


def enlarged_region(region: Bool, cell: Cell) -> Bool:
    """Return a region of a slice in the pixels of its cell, with a smooth border."""
    image = Image.fromarray(np.ascontiguousarray(region, dtype=np.float32))
    resized = image.resize((cell.width, cell.height), Image.Resampling.BILINEAR)
    return np.asarray(resized) > 0.5


def _rows(
    tight: tuple[slice, slice, slice], size_mm: Sequence[float]
) -> list[tuple[int, list[int]]]:
    """Return the rows: their axis, and the voxels along it."""
    axial = _spread(tight[AXIAL], 2 * COLUMNS, AXIAL)
    in_sagittal_row = max(1, int(COLUMNS * size_mm[0] / size_mm[1]))
    rows = [(AXIAL, axial[:COLUMNS]), (AXIAL, axial[COLUMNS:])]
    rows.append((CORONAL, _spread(tight[CORONAL], COLUMNS, CORONAL)))
    rows.append((SAGITTAL, _spread(tight[SAGITTAL], in_sagittal_row, SAGITTAL)))
    return [(axis, indices) for axis, indices in rows if indices]


def _spread(extent: slice, count: int, axis: int) -> list[int]:
    """Return up to ``count`` evenly spread voxels of an extent."""
    first, last = SPAN[axis]
    length = extent.stop - extent.start - 1
    places = extent.start + length * np.linspace(first, last, count)
    return sorted({int(place) for place in np.rint(places)})


def _extent(region: Bool) -> tuple[slice, slice, slice]:
    """Return the box that holds all but the smallest slices of a region."""
    spans = []
    for axis in range(3):
        area = region.sum(axis=tuple({0, 1, 2} - {axis}))
        kept = np.flatnonzero(area >= TRIMMED_AREA * area.max())
        spans.append(slice(int(kept[0]), int(kept[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _with_margin(
    box: tuple[slice, slice, slice], shape: Sequence[int], voxel_mm: NDArray
) -> tuple[slice, slice, slice]:
    margins = np.ceil(MARGIN_MM / voxel_mm).astype(int)
    x, y, z = (
        slice(max(0, part.start - int(m)), min(n, part.stop + int(m)))
        for part, n, m in zip(box, shape, margins, strict=True)
    )
    return x, y, z


def _across(axis: int) -> int:
    """Return the axis that runs from left to right in a slice."""
    return 1 if axis == SAGITTAL else 0


def _up(axis: int) -> int:
    """Return the axis that runs upward in a slice."""
    return 1 if axis == AXIAL else 2

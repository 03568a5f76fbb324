"""The maps of all scans in the voxels of some structures, side by side in one array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.analyses.cohort import Cohort
from bids_qsm.anatomy.atlases import Atlas, same_grid
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.errors import UnreadableInputError, UnwritableOutputError
from bids_qsm.images import Image, load_image, voxel_sizes_mm
from bids_qsm.report.tables import without_side
from bids_qsm.statistics.clusters import Regions
from bids_qsm.statistics.expressions import counted

FWHM_PER_SD = 2.3548
UNITS = {"Chimap": "ppm", "R2starmap": "1/s"}
"""Of the maps, by measure."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Maps in the voxels of a mask.

    Attributes
    ----------
    values : memmap of float32, shape (n_scans, n_voxels)
        NaN where a scan was not measured.
    mask : Image
        bool; ``values[:, i]`` belongs to ``np.argwhere(mask.data)[i]``.
    labels : ndarray of int, shape (n_voxels,)
        Structures of the atlas.
    sided, joined : Regions
        The structures, with both sides apart and as one.
    """

    values: NDArray[np.float32]
    mask: Image
    labels: NDArray[np.int16]
    sided: Regions
    joined: Regions

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """The size of a voxel."""
        return voxel_sizes_mm(self.mask.affine)

    def volume(self, values: NDArray, fill: float = 0) -> Image:
        """Return values of the voxels as an image."""
        data = np.full(self.mask.shape, fill, values.dtype)
        data[self.mask.data] = values
        return self.mask.like(data)


def stack_maps(cohort: Cohort, paths: Sequence[Path], smoothing_mm: float = 0.0) -> Stack:
    """Read maps in the voxels of the cohort's structures into a file that is mapped to memory.

    Parameters
    ----------
    cohort : Cohort
        Of one atlas.
    paths : sequence of Path
        Maps in the atlas' space.
    smoothing_mm : float
        Full width at half maximum of a Gaussian; what lies outside the structures, or was not
        measured, has no part in it.

    Raises
    ------
    UnreadableInputError
        If a map cannot be read, or lies on another grid.
    ValueError
        If none of the structures has a voxel.
    """
    if smoothing_mm < 0:
        raise ValueError(f"'smoothing_mm' must not be below 0, got {smoothing_mm:g}.")
    first = load_image(paths[0], np.float32)
    (atlas,) = cohort.atlases.values()
    labels = _labels_on(atlas, first, cohort.regions["name"])
    mask = first.like(labels.data > 0)
    if not mask.data.any():
        raise ValueError("none of the structures has a voxel in the atlas' space.")
    inside = labels.data[mask.data]
    shape = (len(paths), len(inside))
    values = _mapped(cohort.work_dir / "stack.f32", shape)

    def read(place: int) -> None:
        image = load_image(paths[place], np.float32, order="K")
        if not same_grid(image, mask):
            raise UnreadableInputError(
                f"{paths[place]}: the map lies on another grid than {paths[0].name}; process all "
                "subjects with the same version."
            )
        values[place] = _inside(image.data, mask, smoothing_mm)

    with ThreadPoolExecutor(scipy.fft.get_workers()) as threads:
        list(threads.map(read, range(len(paths))))
    table = atlas.table.set_index("index")["name"]
    there = [index for index in table.index if (inside == index).any()]
    names = {int(index): str(table[index]) for index in there}
    return Stack(values, mask, inside, Regions(inside, names), _joined(inside, names))


def _mapped(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an array in a file, whose space is taken now: a full disk kills who writes later."""
    n_bytes = 4 * shape[0] * shape[1]
    try:
        with path.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, n_bytes)
    except OSError as error:
        raise UnwritableOutputError(
            f"{path.parent}: {n_bytes / 2**30:.2g} GiB for all maps side by side cannot be written "
            f"({error.strerror}); free some space, or give another folder with --work-dir."
        ) from None
    return np.memmap(path, np.float32, "r+", shape=shape)


def _labels_on(atlas: Atlas, grid: Image, wanted: pd.Series) -> Image:
    """Return the labels of the structures whose names are wanted, with or without their side."""
    table = atlas.table
    known = {*wanted.astype(str).str.lower()}
    names = table["name"].astype(str)
    chosen = names.str.lower().isin(known) | without_side(names).str.lower().isin(known)
    labels = atlas.labels if same_grid(atlas.labels, grid) else on_grid(atlas.labels, grid, 0)
    return grid.like(np.where(np.isin(labels.data, table["index"][chosen]), labels.data, 0))


def _inside(data: NDArray, mask: Image, smoothing_mm: float) -> NDArray[np.float32]:
    """Return a map's values in the mask, NaN where it is zero: there it was not measured."""
    values = data[mask.data]
    known = np.isfinite(values) & (values != 0)
    if smoothing_mm:
        sd = [smoothing_mm / FWHM_PER_SD / v for v in voxel_sizes_mm(mask.affine)]
        (box,) = ndimage.find_objects(mask.data.astype(np.int8))
        weight = np.zeros(mask.shape, np.float32)
        weight[mask.data] = known
        total = np.zeros(mask.shape, np.float32)
        total[mask.data] = np.where(known, values, 0)
        # beyond the box there is nothing, and not its mirror image
        share, smooth = (
            ndimage.gaussian_filter(part[box], sd, mode="constant")[mask.data[box]]
            for part in (weight, total)
        )
        values = smooth / np.maximum(share, 1e-6)
    return np.where(known, values, np.float32(np.nan)).astype(np.float32)


def _joined(inside: NDArray[np.int16], names: dict[int, str]) -> Regions:
    """Return the structures with left and right as one."""
    bare = without_side(pd.Series(names))
    numbers: dict[str, int] = {}
    for name in bare:
        numbers.setdefault(name[:1].upper() + name[1:], len(numbers) + 1)
    joined = np.zeros_like(inside)
    for index, name in bare.items():
        joined[inside == index] = numbers[name[:1].upper() + name[1:]]
    return Regions(joined, {number: name for name, number in numbers.items()})


def not_measured(stack: Stack, valid: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return a sentence on voxels that have no test."""
    lost = int((~valid).sum())
    if not lost:
        return ()
    return (
        f"{counted(lost, 'voxel')} of {len(valid)} were not measured in all scans and have no "
        "test.",
    )

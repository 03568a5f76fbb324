"""The heads of a multi-atlas registered to a subject, several at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.atlases import AtlasMember, AtlasMemberFiles
from bids_qsm.anatomy.deep_grey import Contrasts, centre_mm, scaled_brain
from bids_qsm.anatomy.grids import coarser
from bids_qsm.anatomy.itk import register_linearly
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms
from bids_qsm.anatomy.warp import (
    DEEP,
    WHOLE,
    WHOLE_SEARCH,
    WORKING_VOXEL_MM,
    Pair,
    Search,
    deform,
    pairs,
)
from bids_qsm.images import Image

# What is left at 4 mm is enough: the fusion searches around each voxel, and labels are fitted to
# the images thereafter.  Going on to 2 mm takes five times as long.
MEMBER_SEARCH = Search("CC", "2", "60", "4", "1")


@dataclass(frozen=True)
class Subject:
    """The head that members are registered to.

    Attributes
    ----------
    brain : Image
        T1w of the brain alone at 2 mm, scaled.
    deep : Contrasts
        T1w and χ on the grid of the deep grey matter.
    """

    brain: Image
    deep: Contrasts


@dataclass(frozen=True)
class WarpedMember:
    """A member on the grid of the subject's deep grey matter."""

    deep: Contrasts
    labels: NDArray[np.int16]


def warp_members(
    members: Sequence[AtlasMemberFiles], subject: Subject, folder: Path, threads: int = 1
) -> list[WarpedMember]:
    """Register members to a subject; those whose result is in ``folder`` are read.

    Each is registered by a process of its own with one thread, so that the result does not depend
    on ``threads``.

    Parameters
    ----------
    members : sequence of AtlasMemberFiles
    subject : Subject
    folder : Path
        The caller gives another one when the subject or the atlas changes.
    threads : int
        Members at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{member.name}.npz" for member in members]
    missing = [pair for pair in zip(members, paths, strict=True) if not pair[1].is_file()]
    if threads > 1 and len(missing) > 1:
        # fresh processes: ITK does not survive a fork
        with ProcessPoolExecutor(min(threads, len(missing)), get_context("spawn")) as pool:
            futures = [pool.submit(_keep, files, subject, path) for files, path in missing]
            for future in futures:
                future.result()
    else:
        for files, path in missing:
            _keep(files, subject, path)
    return [_read(path, subject) for path in paths]


def warp_member(member: AtlasMember, subject: Subject) -> WarpedMember:
    """Register a member to the subject: affine, whole brain, then the deep grey matter.

    χ takes part where both have it.
    """
    t1w = scaled_brain(member.t1w)
    grid = subject.deep.t1w
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        to_member = _affine(subject.brain, t1w)
        moving = apply_transforms(t1w, subject.brain, (to_member,))
        deform([Pair(subject.brain, moving)], WHOLE_SEARCH, folder, WHOLE)
        whole: tuple[PointMapping, ...] = (folder / WHOLE[0], to_member)
        nearly = _brought(grid, whole, t1w, member.chi)
        deform(pairs(subject.deep, nearly), MEMBER_SEARCH, folder, DEEP)
        mappings = (folder / DEEP[0], *whole)
        labels = apply_transforms(member.labels, grid, mappings, "label")
        return WarpedMember(_brought(grid, mappings, t1w, member.chi), labels.data)


def _affine(brain: Image, t1w: Image) -> NDArray[np.float64]:
    """Return the affine mapping from the subject's world to the member's."""
    start = np.eye(4)
    start[:3, 3] = centre_mm(t1w) - centre_mm(brain)
    small = coarser(t1w, WORKING_VOXEL_MM)
    return register_linearly(brain, small, ("Rigid", "Affine"), start=start, shrink="4x2")


def _brought(
    grid: Image, mappings: Sequence[PointMapping], t1w: Image, chi: Image | None
) -> Contrasts:
    moved = None if chi is None else apply_transforms(chi, grid, mappings)
    return Contrasts(apply_transforms(t1w, grid, mappings), moved)


def _keep(files: AtlasMemberFiles, subject: Subject, path: Path) -> None:
    """Write a member's result; the file appears at once, or not at all."""
    warped = warp_member(files.load(), subject)
    chi = {} if warped.deep.chi is None else {"chi": warped.deep.chi.data}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, t1w=warped.deep.t1w.data, labels=warped.labels, allow_pickle=False, **chi)
    partial.replace(path)


def _read(path: Path, subject: Subject) -> WarpedMember:
    grid = subject.deep.t1w
    with np.load(path, allow_pickle=False) as kept:
        chi = grid.like(kept["chi"]) if "chi" in kept.files else None
        return WarpedMember(Contrasts(grid.like(kept["t1w"]), chi), kept["labels"])

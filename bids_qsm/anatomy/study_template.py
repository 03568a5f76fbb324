"""A template of a group: the mean of its brains once all are bent to their common shape."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.atlas_build import SubjectFiles
from bids_qsm.anatomy.brain import prepare_t1w
from bids_qsm.anatomy.grids import coarser, near, on_grid
from bids_qsm.anatomy.itk import RAS_TO_LPS, metric, run_registration, to_itk
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import CommandLineError, NothingToDoError, UnwritableOutputError
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.settings import TEMPLATE

INVERSION_STEPS = 6
CHI_WEIGHT = "0.5"
FINEST_MM = 2.0  # of the search; means are finer


@dataclass(frozen=True)
class Aligned:
    """A person's brain on the grid of the template-to-be, after the affine: files of arrays.

    Attributes
    ----------
    t1w : Path
        float32; 1 is the brain's median, 0 is outside.
    chi, chi_weight : Path or None
        ppm and how much of the voxel is known (0 to 1); None where the person has no map.
    """

    t1w: Path
    chi: Path | None
    chi_weight: Path | None


def write_study_template(
    parent: Path,
    name: str,
    subjects: Sequence[SubjectFiles],
    iterations: int = 4,
    voxel_mm: float = 1.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Make a group's template and write ``tpl-<name>`` with its T1w image and χ map.

    Position and size are those of MNI152NLin2009cAsym, to which each brain is aligned by an
    affine; the shape is the group's own.

    Parameters
    ----------
    parent : Path
    name : str
        Letters and digits.
    subjects : sequence of SubjectFiles
    iterations : int
        Rounds of registering everybody and averaging.
    voxel_mm : float
        About; each axis of the 1 mm grid is divided by a whole number.
    tell : callable, optional
        Is given a line for each round.

    Raises
    ------
    CommandLineError
        If the folder is there.
    NothingToDoError
        If there are fewer than two persons.
    """
    if len(subjects) < 2:
        raise NothingToDoError(f"A template needs two persons or more, found {len(subjects)}.")
    folder = parent / f"tpl-{name}"
    if folder.exists():
        raise CommandLineError(f"{folder}: there is such a template; remove it or rename this one.")
    with tempfile.TemporaryDirectory() as work:
        grid = coarser(load_template(), voxel_mm)
        aligned = []
        for number, subject in enumerate(subjects, 1):
            tell(f"sub-{subject.name}: brain and affine ({number} of {len(subjects)})")
            aligned.append(_aligned(subject, grid, Path(work) / str(number)))
        t1w, chi = group_mean(aligned, grid, iterations, tell)
    _write(folder, name, t1w, chi, len(subjects))
    return folder


def group_mean(
    aligned: Sequence[Aligned],
    grid: Image,
    iterations: int,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Image, Image | None]:
    """Return the mean T1w image and χ map of brains bent to their common shape.

    In each round every brain is registered to the mean by SyN, with T1w and χ together; the new
    mean is then bent by the inverse of the mean deformation, so that it is nobody's shape but the
    middle of all.

    Parameters
    ----------
    aligned : sequence of Aligned
        On the shape of ``grid``.
    grid : Image
    iterations : int
    tell : callable, optional

    Notes
    -----
    Memory: some 20 volumes of the grid, however many persons there are.

    References
    ----------
    Avants et al. 2010, 10.1016/j.neuroimage.2009.09.062.
    """
    t1w, chi = _averaged(aligned, grid, [None] * len(aligned))
    for round_number in range(1, iterations + 1):
        tell(f"round {round_number} of {iterations}")
        with tempfile.TemporaryDirectory() as work:
            warps = []
            for number, person in enumerate(aligned):
                folder = Path(work) / str(number)
                folder.mkdir()
                warps.append(_bent(t1w, chi, person, folder))
            t1w, chi = _averaged(aligned, grid, warps)
            back = inverse_displacement(_mean_displacement(warps), grid)
        t1w = grid.like(displaced(t1w.data, back, grid))
        chi = None if chi is None else grid.like(displaced(chi.data, back, grid))
    return t1w, chi


def inverse_displacement(field_mm: NDArray[np.float32], grid: Image) -> NDArray[np.float32]:
    """Return the field that takes back a displacement, by fixed-point iteration.

    Both are (x, y, z, 3), in mm of the grid's world (RAS), and map a point to itself plus the
    field there.
    """
    back = np.zeros_like(field_mm)
    for _ in range(INVERSION_STEPS):
        back = -np.stack([displaced(field_mm[..., i], back, grid) for i in range(3)], axis=-1)
    return back


def displaced(
    data: NDArray[np.float32], field_mm: NDArray[np.float32], grid: Image
) -> NDArray[np.float32]:
    """Return ``data`` read at each voxel's place plus the field there (linear)."""
    step = np.einsum("ij,xyzj->ixyz", np.linalg.inv(grid.affine[:3, :3]), field_mm)
    where = np.indices(grid.shape) + step
    return ndimage.map_coordinates(data, where, order=1, mode="nearest").astype(np.float32)


def _aligned(subject: SubjectFiles, grid: Image, stem: Path) -> Aligned:
    """Prepare a person's images and write them on the grid."""
    prepared = prepare_t1w(load_image(subject.t1w))
    mapping = (prepared.template_to_t1w,)
    inside = prepared.brain.data
    brain = np.where(inside, prepared.image.data / np.median(prepared.image.data[inside]), 0)
    moved = apply_transforms(prepared.image.like(brain.astype(np.float32)), grid, mapping)
    t1w = _saved(moved.data, stem.with_suffix(".t1w.npy"))
    if subject.chi is None:
        return Aligned(t1w, None, None)
    chi = on_grid(load_image(subject.chi), prepared.image)
    known = apply_transforms(chi.like((chi.data != 0).astype(np.float32)), grid, mapping)
    values = apply_transforms(chi, grid, mapping)
    return Aligned(
        t1w,
        _saved(values.data, stem.with_suffix(".chi.npy")),
        _saved(known.data, stem.with_suffix(".known.npy")),
    )


def _saved(data: NDArray, path: Path) -> Path:
    np.save(path, data.astype(np.float32))
    return path


def _bent(t1w: Image, chi: Image | None, person: Aligned, folder: Path) -> Path:
    """Register a person to the mean and return the file of the displacement."""
    moving = t1w.like(np.load(person.t1w))
    mask = to_itk(t1w.like(near(t1w.data > 0.1, 6.0, t1w.geometry.voxel_mm)))
    images = [to_itk(t1w), to_itk(moving)]
    stages = ["--transform", "SyN[0.2,3,0]", "--metric", metric("MI", *images, "1", "32")]
    if chi is not None and person.chi is not None:
        images += [to_itk(chi), to_itk(t1w.like(np.load(person.chi)))]
        stages += ["--metric", metric("CC", *images[2:], CHI_WEIGHT, "2")]
    last = max(1, round(FINEST_MM / min(t1w.geometry.voxel_mm)))
    factors = f"{4 * last}x{2 * last}x{last}"
    stages += ["--convergence", "[60x60x30,1e-7,10]", "--shrink-factors", factors]
    stages += ["--smoothing-sigmas", "3x2x1vox"]
    run_registration(stages, folder, mask)
    return folder / "0Warp.nii.gz"


def _averaged(
    aligned: Sequence[Aligned], grid: Image, warps: Sequence[Path | None]
) -> tuple[Image, Image | None]:
    """Return the means over persons, each bent by its displacement where it has one.

    χ is the mean of those who have it there, where that is half of them or more.
    """
    brightness = np.zeros(grid.shape)
    chi, weight, n_chi = np.zeros(grid.shape), np.zeros(grid.shape), 0
    for person, warp in zip(aligned, warps, strict=True):
        brightness += _moved(person.t1w, grid, warp)
        if person.chi is not None and person.chi_weight is not None:
            chi += _moved(person.chi, grid, warp)
            weight += _moved(person.chi_weight, grid, warp)
            n_chi += 1
    t1w = grid.like((brightness / len(aligned)).astype(np.float32))
    if n_chi == 0:
        return t1w, None
    known = weight >= 0.5 * n_chi
    return t1w, grid.like(np.where(known, chi / np.where(known, weight, 1), 0).astype(np.float32))


def _moved(path: Path, grid: Image, warp: Path | None) -> NDArray[np.float32]:
    data = np.load(path)
    return data if warp is None else apply_transforms(grid.like(data), grid, (warp,)).data


def _mean_displacement(warps: Sequence[Path]) -> NDArray[np.float32]:
    """Return the mean of ITK's displacement fields, (x, y, z, 3) in mm, RAS."""
    total = 0.0
    for path in warps:
        total = total + np.asarray(nib.load(path).dataobj, np.float64)[:, :, :, 0, :]
    return (total / len(warps) * np.diag(RAS_TO_LPS)[:3]).astype(np.float32)


def _write(folder: Path, name: str, t1w: Image, chi: Image | None, n_subjects: int) -> None:
    description = {
        "Name": name,
        "Identifier": name,
        "NumberOfSubjects": n_subjects,
        "Space": f"shape of the group, position and size of {TEMPLATE}",
    }
    try:
        folder.mkdir(parents=True)
        (folder / f"tpl-{name}_T1w.nii.gz").write_bytes(encode_image(t1w))
        if chi is not None:
            (folder / f"tpl-{name}_Chimap.nii.gz").write_bytes(encode_image(chi))
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (folder / "template_description.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnwritableOutputError(f"{folder}: cannot be written ({error.strerror}).") from None

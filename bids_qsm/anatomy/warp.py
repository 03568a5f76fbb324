"""T1w to template: affine and SyN, finest around the deep grey matter."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.deep_grey import (
    DEEP_GREY_BOX_MM,
    Contrasts,
    SeriesChi,
    brain_alone,
    contrasts_through,
    cropped,
)
from bids_qsm.anatomy.grids import coarser, near
from bids_qsm.anatomy.itk import metric, read_matrix, run_registration, to_itk, write_matrix
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.template import load_template
from bids_qsm.images import Image

WORKING_VOXEL_MM = 2.0

AFFINE = "template_to_t1w.txt"
WHOLE = ("whole_warp.nii.gz", "whole_inverse.nii.gz")
DEEP = ("deep_warp.nii.gz", "deep_inverse.nii.gz")


@dataclass(frozen=True)
class Search:
    """How SyN looks for a deformation: lists by level, sizes in voxels of its grid."""

    metric: str
    radius_or_bins: str
    iterations: str
    shrink: str
    smoothing: str


# Mutual information brings the whole brain near without pulling the lentiform nucleus, whose
# contrast is weak, to the insula; cross-correlation then fits the borders of the nuclei.
WHOLE_SEARCH = Search("MI", "32", "100x100x60", "8x4x2", "3x2x1")
DEEP_SEARCH = Search("CC", "2", "30", "2", "0.5")
# two contrasts take twice the time, and labels fitted afterwards gain nothing from the last steps
DEEP_SEARCH_BY_BOTH = Search("CC", "2", "20", "2", "0.5")


# χ beside the T1w: the pallidum, which T1w hardly tells from white matter, is bright on it
CHI_WEIGHT = 1.0


@dataclass(frozen=True)
class Pair:
    """Two images on one grid that belong together, and how much they count."""

    fixed: Image
    moving: Image
    weight: float = 1.0


@dataclass(frozen=True)
class Warp:
    """The way between template and T1w: files.

    Attributes
    ----------
    folder : Path
        Holds the affine (ITK text) and two displacement fields with their inverses: one of the
        whole brain, one around the deep grey matter.
    deep_folder : Path, optional
        Holds another field around the deep grey matter, which is taken instead.
    """

    folder: Path
    deep_folder: Path | None = None

    @property
    def template_to_t1w(self) -> tuple[Path | NDArray[np.float64], ...]:
        """Point mappings in turn from the template; they bring a T1w image to the template."""
        return (self._deep / DEEP[0], self.folder / WHOLE[0], self._affine)

    @property
    def t1w_to_template(self) -> tuple[Path | NDArray[np.float64], ...]:
        """Point mappings in turn from the T1w; they bring the template's labels to the T1w."""
        inverse = np.asarray(np.linalg.inv(self._affine), np.float64)
        return (inverse, self.folder / WHOLE[1], self._deep / DEEP[1])

    @property
    def has_whole(self) -> bool:
        """Whether the files of the whole brain are there."""
        return all((self.folder / name).is_file() for name in (AFFINE, *WHOLE))

    @property
    def is_complete(self) -> bool:
        """Whether every file is there."""
        return self.has_whole and all((self._deep / name).is_file() for name in DEEP)

    @property
    def _deep(self) -> Path:
        return self.deep_folder or self.folder

    @property
    def _affine(self) -> NDArray[np.float64]:
        return read_matrix(self.folder / AFFINE)


def register_to_template(
    t1w: PreparedT1w, folder: Path, template: Image | None = None, *, deep_grey: bool = True
) -> Warp:
    """Register a T1w's brain to the template's by SyN, or take the result that is in ``folder``.

    The affine comes from :func:`~bids_qsm.anatomy.brain.prepare_t1w`.  SyN with mutual
    information deforms the whole brain, SyN with local cross-correlation finds what is left in a
    box around the deep grey matter.

    Parameters
    ----------
    t1w : PreparedT1w
    folder : Path
        Work folder of this T1w; the caller gives another one when the T1w changes.
    template : Image, optional
        A brain that is zero outside; MNI152NLin2009cAsym by default.
    deep_grey : bool
        Whether to fit the deep grey matter, too: it can be left to :func:`refit_deep_grey`.

    References
    ----------
    Avants et al. 2008, 10.1016/j.media.2007.06.004.
    """
    warp = Warp(folder)
    if warp.is_complete or (warp.has_whole and not deep_grey):
        return warp
    folder.mkdir(parents=True, exist_ok=True)
    template = template or load_template()
    brain = brain_alone(t1w)
    write_matrix(t1w.template_to_t1w, folder / AFFINE)
    fixed = coarser(template, WORKING_VOXEL_MM)
    moving = apply_transforms(brain, fixed, (t1w.template_to_t1w,))
    deform([Pair(fixed, moving)], WHOLE_SEARCH, folder, WHOLE)
    return refit_deep_grey(warp, t1w, folder, template=template) if deep_grey else warp


def refit_deep_grey(
    warp: Warp,
    t1w: PreparedT1w,
    folder: Path,
    series: SeriesChi | None = None,
    chi_template: Image | None = None,
    template: Image | None = None,
    *,
    chi_weight: float = CHI_WEIGHT,
) -> Warp:
    """Register the deep grey matter by the T1w, or by T1w and χ together.

    It starts from what the T1w gave for the whole brain.

    Parameters
    ----------
    warp : Warp
        Of the whole brain.
    t1w : PreparedT1w
    folder : Path
        Work folder of this series; a result in it is taken.
    series : SeriesChi, optional
    chi_template : Image, optional
        χ in ppm on the template's grid, for example from
        :func:`~bids_qsm.anatomy.chi_template.chi_from_labels`.
    template : Image, optional
        A brain that is zero outside; MNI152NLin2009cAsym by default.
    chi_weight : float
        Weight of χ in the metric; that of the T1w is 1.
    """
    refitted = Warp(warp.folder, None if folder == warp.folder else folder)
    if refitted.is_complete:
        return refitted
    folder.mkdir(parents=True, exist_ok=True)
    box = cropped(template or load_template(), DEEP_GREY_BOX_MM)
    chi = None if chi_template is None else cropped(chi_template, DEEP_GREY_BOX_MM)
    fixed = Contrasts(box, chi)
    whole = (warp.folder / WHOLE[0], t1w.template_to_t1w)
    moving = contrasts_through(box, whole, t1w, series)
    images = pairs(fixed, moving, chi_weight)
    deform(images, DEEP_SEARCH if len(images) == 1 else DEEP_SEARCH_BY_BOTH, folder, DEEP)
    return refitted


def pairs(fixed: Contrasts, moving: Contrasts, chi_weight: float = CHI_WEIGHT) -> list[Pair]:
    """Return the contrasts that both heads have, each with its share in the metric."""
    if fixed.chi is None or moving.chi is None:
        return [Pair(fixed.t1w, moving.t1w)]
    return [
        Pair(fixed.t1w, moving.t1w, 1 / (1 + chi_weight)),
        Pair(fixed.chi, moving.chi, chi_weight / (1 + chi_weight)),
    ]


def deform(images: Sequence[Pair], search: Search, folder: Path, names: tuple[str, str]) -> None:
    """Write the SyN field, and its inverse, between pairs of images that an affine has aligned.

    The metric counts near where the first fixed image is not zero.
    """
    fixed = images[0].fixed
    mask = to_itk(fixed.like(near(fixed.data > 0, 4.0, fixed.geometry.voxel_mm)))
    itk = [(to_itk(pair.fixed), to_itk(pair.moving)) for pair in images]  # kept: ITK points to them
    with tempfile.TemporaryDirectory() as temporary:
        stages = ["--transform", "SyN[0.2,3,0]"]
        for pair, both in zip(images, itk, strict=True):
            weight = f"{pair.weight:g}"
            stages += ["--metric", metric(search.metric, *both, weight, search.radius_or_bins)]
        stages += ["--convergence", f"[{search.iterations},1e-8,20]"]
        stages += ["--shrink-factors", search.shrink]
        stages += ["--smoothing-sigmas", f"{search.smoothing}vox"]
        run_registration(stages, Path(temporary), mask)
        for made, name in zip(("Warp", "InverseWarp"), names, strict=True):
            partial = folder / f"{name}.partial"
            shutil.move(Path(temporary) / f"0{made}.nii.gz", partial)
            partial.replace(folder / name)

"""T1w to template: affine and SyN, finest around the deep grey matter."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import coarser, near
from bids_qsm.anatomy.itk import metric, read_matrix, run_registration, to_itk, write_matrix
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.template import load_template
from bids_qsm.images import Image

WORKING_VOXEL_MM = 2.0
# deep grey matter and ventricles in the template's world (RAS, mm), with room to deform in
DEEP_GREY_BOX_MM = ((-52.0, 52.0), (-62.0, 48.0), (-42.0, 44.0))

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


@dataclass(frozen=True)
class Warp:
    """The way between template and T1w: files in one folder.

    Attributes
    ----------
    folder : Path
        Holds the affine (ITK text) and two displacement fields with their inverses: one of the
        whole brain, one around the deep grey matter.
    """

    folder: Path

    @property
    def template_to_t1w(self) -> tuple[Path | NDArray[np.float64], ...]:
        """Point mappings in turn from the template; they bring a T1w image to the template."""
        return (*(self.folder / name[0] for name in (DEEP, WHOLE)), self._affine)

    @property
    def t1w_to_template(self) -> tuple[Path | NDArray[np.float64], ...]:
        """Point mappings in turn from the T1w; they bring the template's labels to the T1w."""
        return (
            np.linalg.inv(self._affine),
            *(self.folder / name[1] for name in (WHOLE, DEEP)),
        )

    @property
    def is_complete(self) -> bool:
        """Whether every file is there."""
        return all((self.folder / name).is_file() for name in (AFFINE, *WHOLE, *DEEP))

    @property
    def _affine(self) -> NDArray[np.float64]:
        return read_matrix(self.folder / AFFINE)


def register_to_template(t1w: PreparedT1w, folder: Path, template: Image | None = None) -> Warp:
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

    References
    ----------
    Avants et al. 2008, 10.1016/j.media.2007.06.004.
    """
    warp = Warp(folder)
    if warp.is_complete:
        return warp
    folder.mkdir(parents=True, exist_ok=True)
    template = template or load_template()
    brain = t1w.image.like(_brain_alone(t1w))
    write_matrix(t1w.template_to_t1w, folder / AFFINE)
    fixed = coarser(template, WORKING_VOXEL_MM)
    moving = apply_transforms(brain, fixed, (t1w.template_to_t1w,))
    _deform(fixed, moving, WHOLE_SEARCH, folder, WHOLE)
    box = _cropped(template, DEEP_GREY_BOX_MM)
    moving = apply_transforms(brain, box, (folder / WHOLE[0], t1w.template_to_t1w))
    _deform(box, moving, DEEP_SEARCH, folder, DEEP)
    return warp


def _brain_alone(t1w: PreparedT1w) -> NDArray[np.float32]:
    top = float(np.percentile(t1w.image.data[t1w.brain.data], 99))
    return np.where(t1w.brain.data, np.minimum(t1w.image.data / top, 1.0), 0).astype(np.float32)


def _deform(
    fixed: Image, moving: Image, search: Search, folder: Path, names: tuple[str, str]
) -> None:
    """Write the SyN field, and its inverse, between two images that an affine has aligned."""
    images = [to_itk(fixed), to_itk(moving)]
    mask = to_itk(fixed.like(near(fixed.data > 0, 4.0, fixed.geometry.voxel_mm)))
    with tempfile.TemporaryDirectory() as temporary:
        stages = ["--transform", "SyN[0.2,3,0]"]
        stages += ["--metric", metric(search.metric, *images, "1", search.radius_or_bins)]
        stages += ["--convergence", f"[{search.iterations},1e-8,20]"]
        stages += ["--shrink-factors", search.shrink]
        stages += ["--smoothing-sigmas", f"{search.smoothing}vox"]
        run_registration(stages, Path(temporary), mask)
        for made, name in zip(("Warp", "InverseWarp"), names, strict=True):
            partial = folder / f"{name}.partial"
            shutil.move(Path(temporary) / f"0{made}.nii.gz", partial)
            partial.replace(folder / name)


def _cropped(image: Image, box_mm: tuple[tuple[float, float], ...]) -> Image:
    """Return the part of an image within a box of its world; the axes may be flipped."""
    corners = np.array(np.meshgrid(*box_mm)).reshape(3, -1)
    to_voxel = np.linalg.inv(image.affine)
    voxels = to_voxel[:3, :3] @ corners + to_voxel[:3, 3:]
    first = np.maximum(np.floor(voxels.min(axis=1)).astype(int), 0)
    last = np.minimum(np.ceil(voxels.max(axis=1)).astype(int) + 1, image.shape)
    shift = np.eye(4)
    shift[:3, 3] = first
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return Image(np.ascontiguousarray(image.data[part]), image.affine @ shift)

"""FLAIR and contrast-enhanced images brought to the T1w's grid, and lesions found there.

Lesions are drawn on the T1w image's grid: tissues, atlas labels and the ways to the series and
to the template start there, so that the FLAIR image is the only one that is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w, remove_receive_field
from bids_qsm.anatomy.grids import coarser, near
from bids_qsm.anatomy.itk import register_linearly
from bids_qsm.anatomy.lobes import LOBE_NUMBERS, RIGHT, lobes_of
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms
from bids_qsm.anatomy.template import load_freesurfer_labels, load_tissue_prior
from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image, load_image, voxel_sizes_mm
from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.enhancement import Enhancement, enhancing_lesions
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.lesion_growth import GrownLesions, grow_from_points
from bids_qsm.numerics.lesion_tables import lesion_table
from bids_qsm.numerics.lesions import T2Lesions, t2_lesions
from bids_qsm.reading import check_table

WORKING_VOXEL_MM = 2.0
RIM_MM = 5.0
BRAIN_STEM = 16
WHITE_MATTER = (2, 7, 16, 28, 41, 46, 60, 77, 251, 252, 253, 254, 255)
CHOROID_PLEXUS = (31, 63)
GREY_REACH_MM = 2.0
VENTRICLES = (4, 5, 14, 43, 44)
INFRATENTORIAL = (7, 8, 15, 16, 46, 47)
CORTEX = (1000, 2036)
LOBE_NAMES = {number: name for name, number in LOBE_NUMBERS.items()}
POINT_COLUMNS = ("x", "y", "z")


@dataclass(frozen=True)
class LesionRegions:
    """What the template tells of a T1w image: arrays on its grid.

    Attributes
    ----------
    white, grey : ndarray of float32
        Probability of white and of grey matter.
    labels : ndarray of int16
        FreeSurfer's numbers.
    """

    white: Float32
    grey: Float32
    labels: NDArray[np.int16]

    def lobes(self) -> NDArray[np.int16]:
        """Return the number of the lobe (see ``LOBE_NAMES``) of each cortical voxel."""
        return lobes_of(self.labels) % RIGHT

    def free_of_grey(self, voxel_mm: tuple[float, float, float]) -> Bool:
        """Return white matter and ventricles that are far enough from all grey matter."""
        region = np.isin(self.labels, (*WHITE_MATTER, *VENTRICLES, *CHOROID_PLEXUS))
        return distance_mm(region, voxel_mm) > GREY_REACH_MM


def align_to_t1w(t1w: PreparedT1w, image: Image) -> Image:
    """Return an image of the same head on the T1w's grid, registered rigidly, field removed.

    An image that is on that grid already was brought there by someone: it stays as it is, without
    another interpolation, unless the head lies off by more than half of a voxel's diagonal.

    Parameters
    ----------
    t1w : PreparedT1w
    image : Image, shape (x, y, z)
        FLAIR, or T1w after contrast agent; its header need only be near the truth.

    References
    ----------
    Mattes et al. 2003, 10.1109/TMI.2003.809072.
    """
    top = 1.2 * float(np.percentile(t1w.image.data[t1w.brain.data], 99))
    fixed = coarser(t1w.image.like(np.minimum(t1w.image.data, top)), WORKING_VOXEL_MM)
    brain = coarser(t1w.brain.like(t1w.brain.data.astype(np.float32)), WORKING_VOXEL_MM)
    # the brain's edge shows in a rim around the mask
    mask = brain.like(near(brain.data > 0.5, RIM_MM, voxel_sizes_mm(brain.affine)))
    moving = coarser(image, WORKING_VOXEL_MM)
    mapping = register_linearly(
        fixed, moving, ("Rigid",), start=np.eye(4), shrink="4x2x1", mask=mask
    )
    if not (_same_grid(image, t1w.image) and _moves_little(mapping, t1w.brain)):
        image = apply_transforms(image, t1w.image, (mapping,))
    return remove_receive_field(image, t1w.brain)


def _moves_little(mapping: NDArray[np.float64], brain: Image) -> bool:
    """Return whether a mapping moves the brain by less than half a voxel's diagonal (rms)."""
    grid = coarser(brain.like(brain.data.astype(np.float32)), 8.0)
    voxels = np.argwhere(grid.data > 0.5)
    points = np.einsum("ij,nj->ni", grid.affine[:3, :3], voxels) + grid.affine[:3, 3]
    moved = np.einsum("ij,nj->ni", mapping[:3, :3], points) + mapping[:3, 3]
    rms_mm = np.sqrt(((moved - points) ** 2).sum(axis=1).mean())
    return bool(rms_mm < 0.5 * np.linalg.norm(voxel_sizes_mm(brain.affine)))


def regions_from_template(t1w: Image, t1w_to_template: tuple[PointMapping, ...]) -> LesionRegions:
    """Bring the template's tissue probabilities and FreeSurfer labels to a T1w image's grid.

    Parameters
    ----------
    t1w : Image
    t1w_to_template : tuple
        Point mappings, as :attr:`bids_qsm.anatomy.warp.Warp.t1w_to_template`.
    """
    white, grey = (
        apply_transforms(load_tissue_prior(tissue), t1w, t1w_to_template).data
        for tissue in ("wm", "gm")
    )
    labels = apply_transforms(load_freesurfer_labels(), t1w, t1w_to_template, "nearest").data
    return LesionRegions(white, grey, labels)


def find_lesions(
    t1w: PreparedT1w, flair: Image, regions: LesionRegions, **options: float
) -> T2Lesions:
    """Find T2 lesions on the T1w's grid; ``flair`` comes from :func:`align_to_t1w`.

    ``options`` are those of :func:`bids_qsm.numerics.lesions.t2_lesions`.
    """
    return t2_lesions(
        flair.data,
        t1w.image.data,
        t1w.brain.data & (flair.data > 0),
        regions.white,
        regions.grey,
        voxel_sizes_mm(t1w.image.affine),
        stem=regions.labels == BRAIN_STEM,
        free_of_grey=regions.free_of_grey(voxel_sizes_mm(t1w.image.affine)),
        **options,
    )


def grow_lesions(t1w: PreparedT1w, flair: Image, points_mm: NDArray[np.float64]) -> GrownLesions:
    """Grow lesions from points (RAS, mm, in the T1w's world) on the T1w's grid."""
    to_voxel = np.linalg.inv(t1w.image.affine)
    voxels = np.einsum("ij,nj->ni", to_voxel[:3, :3], points_mm) + to_voxel[:3, 3]
    return grow_from_points(flair.data, voxels, t1w.brain.data, voxel_sizes_mm(t1w.image.affine))


def find_enhancement(
    t1w: PreparedT1w, after: Image, found: T2Lesions, lesions: Bool
) -> Enhancement:
    """Find lesions that enhance in ``after``, which comes from :func:`align_to_t1w`."""
    return enhancing_lesions(
        t1w.image.data,
        after.data,
        t1w.brain.data,
        found.white,
        lesions,
        voxel_sizes_mm(t1w.image.affine),
    )


def locate_lesions(
    labels: NDArray[np.integer], affine: NDArray[np.float64], regions: LesionRegions
) -> pd.DataFrame:
    """Return the table of lesions, placed by the template's ventricles, cortex and lobes."""
    return lesion_table(
        labels,
        affine,
        ventricles=np.isin(regions.labels, VENTRICLES),
        cortex=(regions.labels >= CORTEX[0]) & (regions.labels < CORTEX[1]),
        infratentorial=np.isin(regions.labels, INFRATENTORIAL),
        lobes=regions.lobes(),
        lobe_names=LOBE_NAMES,
    )


def read_points(path: Path) -> NDArray[np.float64]:
    """Return the points of a table with the columns x, y, z (RAS, mm; tabs between).

    Raises
    ------
    UnreadableInputError
        If the file or a column is missing, or a number is none.
    """
    try:
        check_table(path)
        table = pd.read_csv(path, sep="\t")
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
        raise UnreadableInputError(f"{path}: the points cannot be read ({error}).") from error
    missing = [column for column in POINT_COLUMNS if column not in table]
    if missing:
        raise UnreadableInputError(
            f"{path}: the table of points lacks the column {missing[0]!r}; it needs x, y and z "
            "in mm, separated by tabs."
        )
    points = table[list(POINT_COLUMNS)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not len(points) or not np.isfinite(points).all():
        raise UnreadableInputError(f"{path}: each point needs three numbers; there is none or NaN.")
    return np.asarray(points, np.float64)


def load_lesion_mask(path: Path, t1w: Image, flair: Image | None = None) -> Image:
    """Return a user's lesion mask on the T1w's grid; it was drawn there or on the FLAIR image.

    On another grid the mask is brought over as its affine says, nearest neighbour, which
    presumes that the two images lie over each other by their headers.

    Raises
    ------
    UnreadableInputError
        If the mask has the grid of neither image.
    """
    mask = load_image(path)
    drawn = mask.like(mask.data > 0.5)
    if _same_grid(drawn, t1w):
        return t1w.like(drawn.data)
    if flair is None or not _same_grid(drawn, flair):
        raise UnreadableInputError(
            f"{path}: the lesion mask has the shape {mask.shape}, the T1w image {t1w.shape}; "
            "draw it on the grid of the T1w or of the FLAIR image."
        )
    moved = apply_transforms(drawn.like(drawn.data.astype(np.uint8)), t1w, (np.eye(4),), "nearest")
    return t1w.like(moved.data > 0)


def _same_grid(a: Image, b: Image) -> bool:
    return a.shape == b.shape and bool(np.allclose(a.affine, b.affine, atol=1e-2))

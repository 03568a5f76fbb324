"""Grey matter, white matter and fluid of a T1w image: maps, volumes, and the size of the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import deep_inside, on_grid
from bids_qsm.anatomy.template import load_tissue_prior
from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image
from bids_qsm.numerics.geometry import Bool, Float32, bounding_box
from bids_qsm.numerics.tissue_mixture import (
    TissueMixture,
    fit_tissue_mixture,
    tissue_shares,
)

LABELS = {"GM": 1, "WM": 2, "CSF": 3}
"""Index in the dseg, as BIDS numbers the tissues; the shares are in this order."""
NAMES = ("grey matter", "white matter", "cerebrospinal fluid")
NOT_GREY = ("ventricle", "csf", "fluid", "white", "vessel", "plexus", "stem", "cortex", "chiasm")
RIM_MM = 8.0  # fluid nearer to the mask's edge may be bone or dura
FEWEST_VOXELS = 50
CLEAR_CONTRAST = 2.0
USUAL_GREY_TO_WHITE = (0.8, 2.2)
COLUMNS = ("name", "hemisphere", "measure", "value", "units", "normalised", "source")


UNITS = {"volume": "mL", "thickness": "mm", "number": "1"}


@dataclass(frozen=True)
class Measure:
    """One number about a head: ``measure`` is a key of :data:`UNITS`."""

    name: str
    hemisphere: str
    measure: str
    value: float


@dataclass(frozen=True)
class Tissues:
    """What each voxel of a T1w image holds.

    Attributes
    ----------
    shares : ndarray of uint8, shape (3, x, y, z)
        Percent of grey matter, white matter and fluid; 0 outside the brain.
    labels : ndarray of uint8, shape (x, y, z)
        The tissue with most: 1 grey, 2 white, 3 fluid, 0 outside.
    volumes_ml : tuple of float
        Grey matter, white matter, fluid: sums of the shares.
    brain_ml : float
        Volume of the brain mask, with its fluid.
    head_scale : float
        Volume of this brain over the template's: the determinant of the affine between them.
    warnings : tuple of str
    """

    shares: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    volumes_ml: tuple[float, float, float]
    brain_ml: float
    head_scale: float
    warnings: tuple[str, ...] = ()

    def measures(self) -> tuple[Measure, ...]:
        """Return the volumes."""
        grey, white, _ = self.volumes_ml
        pairs = [*zip(NAMES, self.volumes_ml, strict=True)]
        pairs += [("grey and white matter", grey + white), ("brain with fluid", self.brain_ml)]
        return tuple(Measure(name, "B", "volume", value) for name, value in pairs)


def measures_table(
    measures: Sequence[Measure], head_scale: float, source: str = "bids-qsm"
) -> pd.DataFrame:
    """Return one row for each measure of a head.

    Columns ``name, hemisphere, measure, value, units, normalised, source``.  ``normalised`` is a
    volume divided by ``head_scale``: what it would be in a head of the template's size.
    Thickness and numbers are not normalised (NaN).
    """
    rows = []
    for m in measures:
        is_volume = m.measure == "volume"
        normalised = m.value / head_scale if is_volume else np.nan
        units = UNITS[m.measure]
        rows.append((m.name, m.hemisphere, m.measure, m.value, units, normalised, source))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def segment_tissues(
    t1w: PreparedT1w,
    labels: Image | None = None,
    table: pd.DataFrame | None = None,
    lesions: Image | None = None,
) -> Tissues:
    """Part a T1w image's brain into grey matter, white matter and fluid.

    Brightness is modelled by pure and mixed tissues, started where the template's tissue maps
    are sure.  Thalamus, pallidum and other nuclei, which T1w shows nearly as bright as white
    matter, count as grey where labels say so; lesions, which look grey, count as white matter.

    Parameters
    ----------
    t1w : PreparedT1w
    labels : Image, optional
        An atlas' labels on the grid of the T1w.
    table : pandas.DataFrame, optional
        Their table (``index, name``); without it every label counts as grey.
    lesions : Image, optional
        Mask on the grid of the T1w.

    Raises
    ------
    UnreadableInputError
        If the brightness does not rise from fluid to grey to white matter.

    Notes
    -----
    Volumes are divided by the determinant of the affine between template and brain, as SIENAX
    does; unlike there the skull has no part in that affine, so that loss of tissue which widens
    only the sulci leaves it alone, but it follows what the outline of the brain does.
    Memory: some 40 floats for each voxel of the brain.

    References
    ----------
    Normalisation: Smith et al. 2002, 10.1006/nimg.2002.1040.  Tissue maps: Fonov et al. 2011,
    10.1016/j.neuroimage.2010.07.033.
    """
    box = bounding_box(t1w.brain.data)
    image, brain = cropped(t1w.image, box), t1w.brain.data[box]
    start = _start_means(image, brain, t1w.template_to_t1w)
    mixture = fit_tissue_mixture(image.data[brain], start)
    voxel_mm = t1w.image.geometry.voxel_mm
    fluid, grey, white = tissue_shares(image.data, brain, voxel_mm, mixture)
    if labels is not None:
        deep = np.isin(labels.data[box], _grey_labels(labels, table))
        grey, white = grey + np.where(deep, white, 0), np.where(deep, 0, white)
    if lesions is not None:
        lesion = (lesions.data[box] > 0) & brain
        grey, fluid = np.where(lesion, 0, grey), np.where(lesion, 0, fluid)
        white = np.where(lesion, 1, white)
    parts = np.stack([grey, white, fluid])
    return _result(t1w, box, brain, parts, mixture)


def cropped(image: Image, box: tuple[slice, ...]) -> Image:
    """Return a box of an image, in its place."""
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Image(image.data[box], affine)


def _grey_labels(labels: Image, table: pd.DataFrame | None) -> NDArray[np.integer]:
    """Return the labels of nuclei; ventricles, white matter and the like are not."""
    if table is None:
        present = np.unique(labels.data)
        return present[present != 0]
    names = table["name"].str.lower()
    return table.loc[~names.str.contains("|".join(NOT_GREY)), "index"].to_numpy()


def _start_means(
    image: Image, brain: Bool, template_to_t1w: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return the brightness of fluid, grey and white matter where the template is sure of them."""
    priors = (load_tissue_prior("gm"), load_tissue_prior("wm"))
    grey, white = (on_grid(Image(p.data, template_to_t1w @ p.affine), image).data for p in priors)
    inner = deep_inside(brain, RIM_MM, image.geometry.voxel_mm)
    regions = (inner & (grey + white < 0.1), brain & (grey > 0.7), brain & (white > 0.9))
    fluid, dark, bright = (
        float(np.median(image.data[r])) if r.sum() >= FEWEST_VOXELS else np.nan for r in regions
    )
    if not bright > dark:
        raise UnreadableInputError(
            "In the T1w image white matter is not brighter than grey matter: tissues cannot be "
            "told apart; check that the image is T1-weighted."
        )
    # small ventricles hold no pure fluid
    fluid = min(fluid if fluid == fluid else np.inf, dark - 0.6 * (bright - dark))
    return max(fluid, 0.0), dark, bright


def _result(
    t1w: PreparedT1w,
    box: tuple[slice, ...],
    brain: Bool,
    parts: Float32,
    mixture: TissueMixture,
) -> Tissues:
    voxel_ml = t1w.image.geometry.voxel_mm3 / 1000
    volumes = [float(part.sum(dtype=np.float64)) * voxel_ml for part in parts]
    shares = np.zeros((3, *t1w.image.shape), np.uint8)
    shares[(slice(None), *box)] = np.rint(100 * parts)
    labels = np.zeros(t1w.image.shape, np.uint8)
    labels[box] = np.where(brain, parts.argmax(axis=0) + 1, 0)
    return Tissues(
        shares,
        labels,
        (volumes[0], volumes[1], volumes[2]),
        float(brain.sum()) * voxel_ml,
        float(np.linalg.det(t1w.template_to_t1w[:3, :3])),
        _doubts(mixture, volumes),
    )


def _doubts(mixture: TissueMixture, volumes: Sequence[float]) -> tuple[str, ...]:
    contrast = (mixture.means[2] - mixture.means[1]) / np.hypot(*mixture.sds[1:])
    ratio = volumes[0] / max(volumes[1], 1e-3)
    warnings = []
    if contrast < CLEAR_CONTRAST:
        warnings.append(
            f"Grey and white matter differ little in the T1w (by {contrast:.1f} times their "
            "spread): their volumes are uncertain."
        )
    if not USUAL_GREY_TO_WHITE[0] < ratio < USUAL_GREY_TO_WHITE[1]:
        warnings.append(
            f"The T1w has {ratio:.1f} times as much grey as white matter, which is unusual: "
            "check the tissues in the report."
        )
    return tuple(warnings)

"""Cortical thickness from tissue maps, and its mean in each lobe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.itk import from_itk, load_ants, to_itk
from bids_qsm.anatomy.lobes import LOBE_NUMBERS, RIGHT, SIDES, lobes_of
from bids_qsm.anatomy.template import load_freesurfer_labels
from bids_qsm.anatomy.tissues import LABELS, Measure, Tissues, cropped
from bids_qsm.images import Image
from bids_qsm.numerics.geometry import Bool, Float32, bounding_box

MARGIN_VOXELS = 4
MAXIMUM_MM = 8.0
_WHITE, _GREY = 3, 2  # the numbers that kelly_kapowski's own default has


def load_lobes() -> tuple[Image, dict[int, tuple[str, str]]]:
    """Return the cerebral cortex's lobes in the template's space.

    Returns
    -------
    Image
        int16 labels: 1 to 6 on the left, 11 to 16 on the right; 0 elsewhere.
    dict
        Name and hemisphere of each label.
    """
    labels = load_freesurfer_labels()
    names = {
        number + right: (lobe, side)
        for side, right in zip(SIDES, (0, RIGHT), strict=True)
        for lobe, number in LOBE_NUMBERS.items()
    }
    return labels.like(lobes_of(labels.data)), names


def cortical_thickness(t1w: Image, tissues: Tissues, *, iterations: int = 20) -> Image:
    """Return the thickness of the grey matter in mm, by DiReCT; 0 outside it.

    White matter grows diffeomorphically through the grey; the way that it goes is the thickness.

    Parameters
    ----------
    t1w : Image
        Gives the grid.
    tissues : Tissues
    iterations : int
        Cost is proportional to them.

    Returns
    -------
    Image, float32

    Notes
    -----
    One thread; the same at every run.  Slow: some 13 minutes for a head at 1 mm (45 iterations
    take twice as long and change the mean by 2 %).  On shells of
    known thickness the values are short by 0.8 of a voxel and their differences are true: compare
    groups, not with values of other programs.  Grey matter that is no cortex (nuclei,
    cerebellum) has values too: :func:`thickness_measures` takes the mean in the cortex alone.

    References
    ----------
    Das et al. 2009, 10.1016/j.neuroimage.2008.12.016.
    """
    thickness = np.zeros(t1w.shape, np.float32)
    if not (tissues.labels == LABELS["WM"]).any() or not (tissues.labels == LABELS["GM"]).any():
        return t1w.like(thickness)
    box = tuple(
        slice(max(0, part.start - MARGIN_VOXELS), part.stop + MARGIN_VOXELS)
        for part in bounding_box(tissues.labels > 0)
    )
    labels = tissues.labels[box]
    numbered = np.where(labels == LABELS["WM"], _WHITE, 0)
    numbered = np.where(labels == LABELS["GM"], _GREY, numbered)
    grid = cropped(t1w, box)
    grey, white = (
        to_itk(grid.like(tissues.shares[(i, *box)].astype(np.float32) / 100)) for i in (0, 1)
    )
    found = load_ants().kelly_kapowski(
        to_itk(grid.like(numbered)),
        grey,
        white,
        its=iterations,
        r=0.025,
        m=1.5,
        gm_label=_GREY,
        wm_label=_WHITE,
    )
    inside = np.clip(from_itk(found).data, 0, MAXIMUM_MM)
    thickness[box] = np.where(labels == LABELS["GM"], inside, 0)
    return t1w.like(thickness)


def thickness_measures(
    thickness_mm: Float32,
    lobes: NDArray[np.integer],
    names: Mapping[int, tuple[str, str]],
) -> tuple[Measure, ...]:
    """Return the mean thickness of the cortex, of each side's and of each lobe's.

    Parameters
    ----------
    thickness_mm : ndarray of float32, shape (x, y, z)
        0 where there is no grey matter.
    lobes : ndarray of int, shape (x, y, z)
        Labels on the same grid.
    names : mapping of int to (str, str)
        Name and hemisphere of each label.
    """
    cortex = thickness_mm > 0
    sides = [sorted(k for k, (_, side) in names.items() if side == s) for s in SIDES]
    wanted = [("cortex", "B", sorted(names))]
    wanted += [("cortex", side, k) for side, k in zip(SIDES, sides, strict=True)]
    wanted += [(name, side, [k]) for k, (name, side) in sorted(names.items())]
    return tuple(
        Measure(name, side, "thickness", _mean(thickness_mm, cortex & np.isin(lobes, k)))
        for name, side, k in wanted
    )


def _mean(values: Float32, where: Bool) -> float:
    return float(values[where].mean(dtype=np.float64)) if where.any() else float("nan")

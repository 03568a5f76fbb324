"""Persons with labels: made ready, brought to the template, and what most of them say there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.atlases import AtlasMember
from bids_qsm.anatomy.brain import prepare_t1w
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.template import load_template, package_file
from bids_qsm.anatomy.warp import register_to_template
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image, voxel_sizes_mm
from bids_qsm.settings import TEMPLATE

# one space: b has half the voxel size of a
SYMMETRIC = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SPACES_APART_MM = 8.0  # more than the templates differ by anywhere in the brain
SPACES = {"MNI152NLin2009aSym": SYMMETRIC, "MNI152NLin2009bSym": SYMMETRIC}


def make_member(
    name: str, t1w: Image, chi: Image | None, labels: Image
) -> tuple[AtlasMember, Image]:
    """Return a person of a multi-atlas, and the labels on the template.

    The T1w image's receive field is removed and its brain found, then it is registered to the
    template by SyN (one to two minutes).

    Parameters
    ----------
    name : str
    t1w : Image
        Whole head, defaced, or a brain alone.
    chi : Image or None
        ppm; brought to the grid of ``t1w`` as the affines say.
    labels : Image
        Whole numbers; likewise.

    Raises
    ------
    UnreadableInputError
        If no brain is found, or if the labels do not lie in it.
    """
    prepared = prepare_t1w(t1w)
    on_t1w = _onto(labels, t1w, 0)
    labelled = on_t1w.data > 0
    if not labelled.any() or (labelled & prepared.brain.data).sum() < 0.9 * labelled.sum():
        raise UnreadableInputError(
            f"The labels of {name} do not lie in the brain of its T1w image: check that both are "
            "in the same space."
        )
    inside = prepared.brain.data | labelled
    susceptibility = None
    if chi is not None:
        values = _onto(chi, t1w, 1).data
        susceptibility = t1w.like(np.where(inside, values, 0).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        warp = register_to_template(prepared, Path(folder))
        on_template = apply_transforms(on_t1w, load_template(), warp.template_to_t1w, "label")
    brain = np.where(inside, prepared.image.data, 0).astype(np.float32)
    return AtlasMember(name, t1w.like(brain), susceptibility, on_t1w), on_template


def labels_from_space(labels: Image, space: str) -> Image:
    """Return labels of a known template's space in that of MNI152NLin2009cAsym.

    The one template is registered to the other by SyN.  The labels come on the part of their own
    grid around them, as the two spaces are nearly in the same place.

    Raises
    ------
    UnreadableInputError
        If the space is not known.

    References
    ----------
    Fonov et al. 2011, 10.1016/j.neuroimage.2010.07.033.
    """
    if space == TEMPLATE:
        return labels
    if space not in SPACES:
        known = ", ".join([TEMPLATE, *SPACES])
        raise UnreadableInputError(
            f"The space {space!r} is not known (known: {known}); give the T1w image of that space "
            "by --t1w."
        )
    other = prepare_t1w(load_image(package_file("nilearn", SPACES[space])))
    with tempfile.TemporaryDirectory() as folder:
        warp = register_to_template(other, Path(folder))
        part = cropped(labels, round(SPACES_APART_MM / min(voxel_sizes_mm(labels.affine))))
        return apply_transforms(part, part, warp.template_to_t1w, "label")


def cropped(labels: Image, margin_voxels: int) -> Image:
    """Return the part of a label image around its labels."""
    where = np.argwhere(labels.data)
    first = np.maximum(where.min(axis=0) - margin_voxels, 0)
    last = np.minimum(where.max(axis=0) + margin_voxels + 1, labels.shape)
    shift = np.eye(4)
    shift[:3, 3] = first
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return Image(np.ascontiguousarray(labels.data[part]), labels.affine @ shift)


def majority(votes: Sequence[Image]) -> Image:
    """Return what most say in each voxel: no label where more than half say none.

    Among labels with as many votes the smallest number wins.
    """
    stack = np.stack([v.data for v in votes])
    labelled = 2 * np.count_nonzero(stack, axis=0) >= len(votes)
    most = np.zeros(stack.shape[1:], np.int16)
    winner = np.zeros(stack.shape[1:], np.int16)
    for index in np.unique(stack[stack > 0]):
        count = np.count_nonzero(stack == index, axis=0)
        better = labelled & (count > most)
        winner[better], most[better] = index, count[better]
    return votes[0].like(winner)


def _onto(image: Image, reference: Image, order: int) -> Image:
    same = image.shape == reference.shape and np.allclose(image.affine, reference.affine, atol=1e-3)
    return reference.like(image.data) if same else on_grid(image, reference, order)

"""Deep grey matter segmented by one atlas or by several heads: one result, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.appearance import fit_to_appearance
from bids_qsm.anatomy.atlases import Atlas, AtlasMemberFiles
from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.deep_grey import (
    DEEP_GREY_BOX_MM,
    Contrasts,
    SeriesChi,
    brain_alone,
    contrasts_through,
    cropped,
    deep_grey_grid,
)
from bids_qsm.anatomy.fusion import fuse_labels
from bids_qsm.anatomy.grids import coarser
from bids_qsm.anatomy.member_registration import Subject, WarpedMember, warp_members
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms
from bids_qsm.anatomy.warp import WORKING_VOXEL_MM, Warp
from bids_qsm.frames import pd
from bids_qsm.images import Image
from bids_qsm.numerics.geometry import Float32

CERTAIN = 255
"""The probability one, as it is stored."""
SEARCH_VOXELS = 2
MARGIN_MM = 15.0
FUSED_DOUBT_MM = 0.7
"""How far the borders of fused labels may be wrong: less than those of one atlas."""


@dataclass(frozen=True)
class Segmentation:
    """Structures on an upright 1 mm grid around the deep grey matter, in the T1w's world.

    Attributes
    ----------
    labels : Image
        int16; 0 is background.
    indices : ndarray of int16, shape (n,)
        The labels that were looked for, in the order of the next ones.
    probabilities : ndarray of uint8, shape (n, x, y, z)
        255 is certain.
    confidence : ndarray of float32, shape (n,)
        Mean probability of each label over its own voxels; 0 where it has none.
    agreement : ndarray of float32, shape (n,)
        Mean Dice overlap of each label with what the registered atlases said, each by itself.
    """

    labels: Image
    indices: NDArray[np.int16]
    probabilities: NDArray[np.uint8]
    confidence: Float32
    agreement: Float32

    def probability_on(
        self, index: int, reference: Image, mappings: Sequence[PointMapping] = ()
    ) -> Image:
        """Return a label's probability (float32) on another grid.

        ``mappings`` lead in turn from the world of ``reference`` to the T1w's.
        """
        which = int(np.flatnonzero(self.indices == index)[0])
        stored = self.labels.like(self.probabilities[which].astype(np.float32) / CERTAIN)
        return apply_transforms(stored, reference, mappings)

    def probabilities_on(self, reference: Image, mappings: Sequence[PointMapping] = ()) -> Image:
        """Return all probabilities (uint8, 255 is certain) on another grid, along a fourth axis."""
        stored = np.zeros((*reference.shape, len(self.indices)), np.uint8)
        found = self._part_within(reference, mappings)
        if found is not None:
            part, grid = found
            for k, index in enumerate(self.indices):
                probability = self.probability_on(int(index), grid, mappings).data
                stored[(*part, k)] = np.rint(CERTAIN * probability)
        return reference.like(stored)

    def table(self) -> pd.DataFrame:
        """Return confidence and agreement of each label: columns ``index`` and these two."""
        return pd.DataFrame(
            {"index": self.indices, "confidence": self.confidence, "agreement": self.agreement}
        )

    def labels_on(self, reference: Image, mappings: Sequence[PointMapping] = ()) -> Image:
        """Return the likeliest labels (int16) on another grid; zero beyond the box."""
        labels = np.zeros(reference.shape, np.int16)
        within = self._part_within(reference, mappings)
        if within is None:
            return reference.like(labels)
        part, grid = within
        found = np.zeros(grid.shape, np.int16)
        best, rest = np.zeros(grid.shape, np.float32), np.ones(grid.shape, np.float32)
        for index in self.indices:
            probability = self.probability_on(int(index), grid, mappings).data
            rest -= probability
            found[probability > best] = index
            np.maximum(best, probability, out=best)
        labels[part] = np.where(best > rest, found, 0)
        return reference.like(labels)

    def labels_of(self, probabilities: Image) -> Image:
        """Return the likeliest labels (int16) of what :meth:`probabilities_on` returned."""
        shape = probabilities.shape[:3]
        found, best = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
        rest = np.full(shape, CERTAIN, np.int16)
        for k, index in enumerate(self.indices):
            probability = probabilities.data[..., k]
            rest -= probability
            found[probability > best] = index
            np.maximum(best, probability, out=best)
        return probabilities.like(np.where(best > rest, found, 0).astype(np.int16))

    def _part_within(
        self, reference: Image, mappings: Sequence[PointMapping]
    ) -> tuple[tuple[slice, ...], Image] | None:
        """Return which part of another grid the box reaches, and that part as a grid."""
        everywhere = self.labels.like(np.ones(self.labels.shape, np.float32))
        inside = apply_transforms(everywhere, reference, mappings, "nearest").data > 0
        if not inside.any():
            return None
        part = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(inside))
        shift = np.eye(4)
        shift[:3, 3] = [side.start for side in part]
        return part, Image(np.zeros(inside[part].shape, np.float32), reference.affine @ shift)


def segment_single(
    t1w: PreparedT1w, warp: Warp, atlas: Atlas, series: SeriesChi | None = None
) -> Segmentation:
    """Segment the deep grey matter by one atlas: its labels warped, then fitted to the images.

    Parameters
    ----------
    t1w : PreparedT1w
    warp : Warp
        Between the T1w and the template; best by both contrasts
        (:func:`~bids_qsm.anatomy.warp.refit_deep_grey`).
    atlas : Atlas
    series : SeriesChi, optional
        Susceptibility; without it the T1w decides alone.

    References
    ----------
    See :func:`~bids_qsm.anatomy.appearance.fit_to_appearance`.
    """
    grid = deep_grey_grid(t1w)
    indices = _present(atlas.table, [atlas.labels.data])
    around = [(low - MARGIN_MM, high + MARGIN_MM) for low, high in DEEP_GREY_BOX_MM]
    labels = cropped(atlas.labels, around)
    priors = np.stack([_warped(labels, index, grid, warp) for index in indices])
    said = _likeliest(priors, indices)
    fitted = fit_to_appearance(priors, contrasts_through(grid, (), t1w, series))
    return _segmentation(grid, indices, fitted, [said])


def segment_multi(
    t1w: PreparedT1w,
    members: Sequence[AtlasMemberFiles],
    table: pd.DataFrame,
    folder: Path,
    series: SeriesChi | None = None,
    *,
    threads: int = 1,
) -> Segmentation:
    """Segment the deep grey matter by several heads: each registered, their labels fused.

    χ takes part in a registration where the member has one, and in the fusion where all have.

    Parameters
    ----------
    t1w : PreparedT1w
    members : sequence of AtlasMemberFiles
    table : pandas.DataFrame
        The atlas': which labels are looked for (column ``index``).
    folder : Path
        Keeps the registered members, so that a run that was stopped goes on; the caller gives
        another one when the T1w, χ or the atlas changes.
    series : SeriesChi, optional
    threads : int
        Registrations at a time; the result does not depend on it.

    References
    ----------
    Wang et al. 2013, 10.1109/TPAMI.2012.143; the labels are then fitted to the images as by
    :func:`~bids_qsm.anatomy.appearance.fit_to_appearance`.
    """
    grid = deep_grey_grid(t1w)
    own = contrasts_through(grid, (), t1w, series)
    subject = Subject(coarser(brain_alone(t1w), WORKING_VOXEL_MM), own)
    warped = warp_members(members, subject, folder, threads)
    indices = _present(table, [member.labels for member in warped])
    fused = fuse_members(own, warped, indices)
    said = [np.where(np.isin(m.labels, indices), m.labels, 0) for m in warped]
    fitted = fit_to_appearance(fused, own, doubt_mm=FUSED_DOUBT_MM)
    return _segmentation(grid, indices, fitted, said)


def fuse_members(
    own: Contrasts, members: Sequence[WarpedMember], indices: NDArray[np.int16]
) -> Float32:
    """Return the labels' probabilities (n, x, y, z) by joint fusion of registered members."""
    with_chi = own.chi is not None and all(member.deep.chi is not None for member in members)
    target = _stacked(own, with_chi)
    look_up = np.zeros(int(max(member.labels.max() for member in members)) + 1, np.uint8)
    here = indices[indices < len(look_up)]
    look_up[here] = 1 + np.arange(len(here))
    labels = np.stack([look_up[member.labels] for member in members])
    around = np.ones((2 * SEARCH_VOXELS + 1,) * 3, bool)
    region = ndimage.binary_dilation(labels.max(axis=0) > 0, around)
    images = np.stack([_stacked(member.deep, with_chi) for member in members])
    fused = fuse_labels(
        target, images, labels, region, len(indices) + 1, search_radius=SEARCH_VOXELS
    )
    return fused[1:]


def _stacked(contrasts: Contrasts, with_chi: bool) -> Float32:
    if contrasts.chi is None or not with_chi:
        return contrasts.t1w.data[None]
    return np.stack([contrasts.t1w.data, contrasts.chi.data])


def _present(table: pd.DataFrame, labels: Sequence[NDArray]) -> NDArray[np.int16]:
    """Return the labels of a table that occur."""
    there = np.unique(np.concatenate([np.unique(image) for image in labels]))
    return np.array(sorted(set(table["index"]) & set(there.tolist()) - {0}), np.int16)


def _warped(labels: Image, index: int, grid: Image, warp: Warp) -> Float32:
    one = labels.like((labels.data == index).astype(np.float32))
    return apply_transforms(one, grid, warp.t1w_to_template).data


def _likeliest(probabilities: Float32, indices: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the label of highest probability, 0 where the background's is higher."""
    best = probabilities.argmax(axis=0)
    rest = 1 - probabilities.sum(axis=0)
    return np.where(probabilities.max(axis=0) > rest, indices[best], 0).astype(np.int16)


def _segmentation(
    grid: Image,
    indices: NDArray[np.int16],
    probabilities: Float32,
    said: Sequence[NDArray],
) -> Segmentation:
    labels = _likeliest(probabilities, indices)
    confidence = np.zeros(len(indices), np.float32)
    agreement = np.zeros(len(indices), np.float32)
    for k, index in enumerate(indices):
        own = labels == index
        if own.any():
            confidence[k] = probabilities[k][own].mean(dtype=np.float64)
        agreement[k] = np.mean([_dice(own, other == index) for other in said])
    stored = np.rint(np.clip(probabilities, 0, 1) * CERTAIN).astype(np.uint8)
    return Segmentation(grid.like(labels), indices, stored, confidence, agreement)


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0

"""Anatomy of a series: the T1w image brought to it, and through that the atlas' structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bids_qsm.anatomy.atlases import Atlas, load_atlas
from bids_qsm.anatomy.brain import PreparedT1w, prepare_t1w
from bids_qsm.anatomy.chi_template import chi_from_labels
from bids_qsm.anatomy.deep_grey import DEEP_GREY_BOX_MM, SeriesChi, cropped
from bids_qsm.anatomy.reference_region import atria_box, ventricle_labels
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms, resample_map
from bids_qsm.anatomy.rigid import RigidTransform, register_t1w_to_gre
from bids_qsm.anatomy.segmentation import Segmentation, segment_multi, segment_single
from bids_qsm.anatomy.template import load_template
from bids_qsm.anatomy.warp import Warp, refit_deep_grey, register_to_template
from bids_qsm.execution.steps import Steps, files_fingerprint, fingerprint, locked
from bids_qsm.frames import pd
from bids_qsm.images import Image, load_image
from bids_qsm.job import Job, digest, work_dir
from bids_qsm.maps import Susceptibility
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool
from bids_qsm.settings import TEMPLATE

LEAST_IN_BOX = 0.9


@dataclass(frozen=True)
class Anatomy:
    """A T1w image and the way between it, a series and the template."""

    t1w: PreparedT1w
    rigid: RigidTransform
    warp: Warp
    grid: Image

    def t1w_on_grid(self, registered: bool = True) -> Image:
        """Return the T1w image on the series' grid; unregistered, as the headers alone say."""
        mapping = self.rigid.gre_to_t1w if registered else np.eye(4)
        return apply_transforms(self.t1w.image, self.grid, (mapping,))

    def brain_on_grid(self) -> Bool:
        """Return the T1w image's brain mask on the series' grid."""
        return apply_transforms(self.t1w.brain, self.grid, (self.rigid.gre_to_t1w,)).data

    def atria_on_grid(self) -> Bool:
        """Return where on the series' grid lateral ventricles are atria."""
        mappings = (self.rigid.gre_to_t1w, *self.warp.t1w_to_template)
        return apply_transforms(atria_box(load_template()), self.grid, mappings).data

    def t1w_on_template(self) -> Image:
        """Return the T1w image in the template's space."""
        return apply_transforms(self.t1w.image, load_template(), self.warp.template_to_t1w)

    def warped_labels(self, labels: Image, space: str) -> Image:
        """Return labels of the template in a space: ``orig`` (the series), or ``T1w``."""
        to_template = self.warp.t1w_to_template
        if space == "T1w":
            return apply_transforms(labels, self.t1w.image, to_template, "label")
        mappings = (self.rigid.gre_to_t1w, *to_template)
        return apply_transforms(labels, self.grid, mappings, "label")

    def map_in(self, space: str, values: Image, mask: Bool) -> Image:
        """Return a map of the series in the space of the T1w image or of the template."""
        target, mappings = self._to_grid(space)
        return resample_map(values, self.grid.like(mask), target, mappings)

    def mask_in(self, space: str, mask: Bool) -> Image:
        """Return a mask of the series in the space of the T1w image or of the template."""
        target, mappings = self._to_grid(space)
        return apply_transforms(self.grid.like(mask), target, mappings)

    def _to_grid(self, space: str) -> tuple[Image, tuple[PointMapping, ...]]:
        """Return the grid of a space and the mappings from its points to the series'."""
        if space == "T1w":
            return self.t1w.image, (self.rigid.t1w_to_gre,)
        return load_template(), (*self.warp.template_to_t1w, self.rigid.t1w_to_gre)


@dataclass(frozen=True)
class Structures:
    """An atlas' structures in a head.

    Attributes
    ----------
    atlas : Atlas
    segmentation : Segmentation
        The deep grey matter, fitted to T1w and susceptibility.
    labels, t1w_labels : Image
        All structures on the grids of the series and of the T1w: where the atlas has some beyond
        the deep grey matter, these are as the registration alone brings them.
    probabilities : Image
        Of the structures of the segmentation, uint8 on the grid of the series, along the fourth
        axis.
    """

    atlas: Atlas
    segmentation: Segmentation
    labels: Image
    t1w_labels: Image
    probabilities: Image

    def region(self, name: str) -> Bool:
        """Return the voxels of a structure, both sides where the name has none."""
        names = self.atlas.table["name"].str.lower()
        sides = [f"{side}{name.lower()}" for side in ("", "left ", "right ", "left-", "right-")]
        return np.isin(self.labels.data, self.atlas.table.loc[names.isin(sides), "index"])

    def labels_in(self, space: str) -> Image:
        """Return the labels in a space: ``orig`` (the series), ``T1w`` or the template."""
        if space == TEMPLATE:
            return on_template(self.atlas)
        return self.t1w_labels if space == "T1w" else self.labels


@dataclass(frozen=True)
class _Files:
    """A step whose result is its files."""

    n_files: int


def align_anatomy(job: Job, magnitude: Image, brain: Bool) -> Anatomy | None:
    """Prepare the T1w image and find the way from it to the series and to the template.

    What belongs to the T1w image alone is kept in its own folder and serves every series that
    uses it; a second process that wants it waits for the first.
    """
    path = job.series.t1w
    if path is None:
        job.journal.warn(
            "There is no T1w image: no structures are labelled, there is no table, nothing is "
            "brought to the template, and χ is relative to the whole brain."
        )
        return None
    folder = work_dir(job.settings) / path.name.split(".")[0]
    inputs = fingerprint(files_fingerprint([path]), job.settings.random_seed)
    with locked(folder):
        # other series of the subject read what lies here: nothing of it is made again meanwhile
        steps = Steps(folder, inputs, job.steps.tell, keep_from_s=0)
        t1w = steps.run("t1w", PreparedT1w, lambda _: prepare_t1w(load_image(path)), {})
        steps.run("template", _Files, lambda own: _warped(t1w, own), {}, after=["t1w"])
    rigid = job.steps.run(
        "registration",
        RigidTransform,
        lambda _: register_t1w_to_gre(t1w, magnitude, magnitude.like(brain)),
        {"inputs": inputs, "brain": digest(brain)},
    )
    job.journal.warn(*t1w.warnings, *rigid.warnings)
    job.journal.step("t1w", "N4", {}, steps.seconds("t1w"))
    job.journal.step("registration", "rigid", {}, job.steps.seconds("registration"))
    job.journal.step("template", "SyN", {"template": TEMPLATE}, steps.seconds("template"))
    return Anatomy(t1w, rigid, Warp(steps.folder_of("template")), magnitude)


def _warped(t1w: PreparedT1w, folder: Path) -> _Files:
    register_to_template(t1w, folder, deep_grey=False)  # refine_anatomy does that
    return _Files(len(list(folder.iterdir())))


def series_chi(
    anatomy: Anatomy | None, chi: Susceptibility | None, local: FieldMap | None
) -> SeriesChi | None:
    """Return susceptibility as registration and segmentation take it: any constant will do."""
    if anatomy is None or chi is None or local is None:
        return None
    # the whole brain's mean is near that of its tissue
    centred = np.where(local.mask, chi.chi_ppm - chi.chi_ppm[local.mask].mean(), 0)
    grid = anatomy.grid
    return SeriesChi(
        grid.like(centred.astype(np.float32)), grid.like(local.mask), anatomy.rigid.t1w_to_gre
    )


def refine_anatomy(
    job: Job, anatomy: Anatomy | None, series: SeriesChi | None, atlases: Sequence[Atlas]
) -> Anatomy | None:
    """Fit the deep grey matter to the template, by susceptibility too where there is one.

    What the template's susceptibility is comes from the first atlas: its own, or by its labels.
    """
    if anatomy is None:
        return None
    chi_template = None
    if series is not None:
        atlas, template = atlases[0], load_template()
        chi_template = atlas.chi or chi_from_labels(
            on_template(atlas), atlas.table, template.like(template.data > 0)
        )

    def refit(folder: Path) -> _Files:
        refit_deep_grey(anatomy.warp, anatomy.t1w, folder, series, chi_template)
        return _Files(len(list(folder.iterdir())))

    parameters = {
        "whole": anatomy.warp.folder.name,
        "chi": None if series is None else digest(series.chi.data),
        "template": None if chi_template is None else digest(chi_template.data),
    }
    job.steps.run("deep-grey", _Files, refit, parameters, after=["registration"])
    contrasts = "T1w" if series is None else "T1w and χ"
    parameters = {"template": TEMPLATE, "contrasts": contrasts}
    job.journal.step("deep-grey", "SyN", parameters, job.steps.seconds("deep-grey"))
    return replace(anatomy, warp=Warp(anatomy.warp.folder, job.steps.folder_of("deep-grey")))


def on_template(atlas: Atlas) -> Image:
    """Return an atlas' labels on the template's grid."""
    template, labels = load_template(), atlas.labels
    if labels.shape == template.shape and np.allclose(labels.affine, template.affine, atol=1e-3):
        return labels
    return apply_transforms(labels, template, (), "nearest")


def load_atlases(job: Job, anatomy: Anatomy | None) -> tuple[Atlas, ...]:
    """Return the atlases that the settings ask for, where there is a T1w image to use them."""
    return () if anatomy is None else tuple(map(load_atlas, job.settings.atlases))


def label_structures(
    job: Job, anatomy: Anatomy | None, series: SeriesChi | None, atlases: Sequence[Atlas]
) -> tuple[Structures, ...]:
    """Segment the structures of each atlas by T1w and, where there is one, susceptibility."""
    if anatomy is None:
        return ()
    return tuple(label_by_atlas(job, anatomy, series, atlas) for atlas in atlases)


def label_by_atlas(
    job: Job, anatomy: Anatomy, series: SeriesChi | None, atlas: Atlas
) -> Structures:
    """Segment an atlas' structures: those of the deep grey matter anew, the others as warped."""
    deep = replace(atlas, table=atlas.table[in_deep_grey(atlas)])
    parameters = {
        "atlas": digest(atlas.labels.data),
        "chi": None if series is None else digest(series.chi.data),
    }

    def segment(folder: Path) -> Segmentation:
        threads = fft.get_workers()
        if atlas.members:
            return segment_multi(
                anatomy.t1w, atlas.members, deep.table, folder / "members", series, threads=threads
            )
        return segment_single(anatomy.t1w, anatomy.warp, deep, series)

    step = f"labels-{atlas.name}"
    found = job.steps.run(step, Segmentation, segment, parameters, after=["deep-grey"])
    parameters = {
        "fused_heads": len(atlas.members),
        "contrasts": "T1w" if series is None else "T1w and χ",
    }
    job.journal.step("atlas", atlas.name, parameters, job.steps.seconds(step))
    probabilities = found.probabilities_on(anatomy.grid, (anatomy.rigid.gre_to_t1w,))
    return Structures(
        atlas,
        found,
        _with_others(
            found,
            found.labels_of(probabilities),
            anatomy.warped_labels(atlas.labels, "orig"),
        ),
        _with_others(
            found,
            found.labels_on(anatomy.t1w.image),
            anatomy.warped_labels(atlas.labels, "T1w"),
        ),
        probabilities,
    )


def ventricles(anatomy: Anatomy, structures: Sequence[Structures]) -> tuple[Image, pd.DataFrame]:
    """Return labels on the series' grid, and their table, in which the ventricles are.

    Where no atlas has them, they are those of the default atlas.
    """
    for of_atlas in structures:
        if ventricle_labels(of_atlas.atlas.table).size:
            return of_atlas.labels, of_atlas.atlas.table
    atlas = load_atlas("default")
    return anatomy.warped_labels(atlas.labels, "orig"), atlas.table


def in_deep_grey(atlas: Atlas) -> NDArray[np.bool_]:
    """Return which rows of an atlas' table lie, all but a tenth, in the box that is segmented."""
    box = cropped(atlas.labels, DEEP_GREY_BOX_MM).data
    most = max(int(atlas.labels.data.max()), int(atlas.table["index"].max())) + 1
    within = np.bincount(box.ravel(), minlength=most)
    everywhere = np.bincount(atlas.labels.data.ravel(), minlength=most)
    index = atlas.table["index"].to_numpy()
    return within[index] >= LEAST_IN_BOX * np.maximum(everywhere[index], 1)


def _with_others(segmentation: Segmentation, labels: Image, warped: Image) -> Image:
    """Return the segmented labels with those of the warped ones that were not looked for."""
    other = (labels.data == 0) & ~np.isin(warped.data, segmentation.indices)
    return labels.like(np.where(other, warped.data, labels.data))

"""Anatomy of a series: the T1w image brought to it, and through that the atlas' structures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.atlases import Atlas, load_atlas
from bids_qsm.anatomy.brain import PreparedT1w, prepare_t1w
from bids_qsm.anatomy.reference_region import atria_box
from bids_qsm.anatomy.resampling import PointMapping, apply_transforms, resample_map
from bids_qsm.anatomy.rigid import RigidTransform, register_t1w_to_gre
from bids_qsm.anatomy.template import load_template
from bids_qsm.anatomy.warp import Warp, register_to_template
from bids_qsm.execution.steps import Steps, files_fingerprint, fingerprint, locked
from bids_qsm.images import Image, load_image
from bids_qsm.job import Job, digest, work_dir
from bids_qsm.numerics.geometry import Bool
from bids_qsm.settings import TEMPLATE


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

    def labels_in(self, space: str, atlas: Atlas) -> Image:
        """Return the atlas' labels in a space: ``orig`` (the series), ``T1w`` or the template."""
        if space == TEMPLATE:
            return apply_transforms(atlas.labels, load_template(), (), "nearest")
        to_template = self.warp.t1w_to_template
        if space == "T1w":
            return apply_transforms(atlas.labels, self.t1w.image, to_template, "label")
        mappings = (self.rigid.gre_to_t1w, *to_template)
        return apply_transforms(atlas.labels, self.grid, mappings, "label")

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
    """An atlas' structures on the grid of a series."""

    atlas: Atlas
    labels: Image

    def region(self, name: str) -> Bool:
        """Return the voxels of a structure, both sides where the name has none."""
        names = self.atlas.table["name"].str.lower()
        sides = [f"{side}{name.lower()}" for side in ("", "left ", "right ", "left-", "right-")]
        return np.isin(self.labels.data, self.atlas.table.loc[names.isin(sides), "index"])


@dataclass(frozen=True)
class _Labels:
    """An atlas' labels on the grid of a series."""

    labels: NDArray[np.int16]


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
        steps = Steps(folder, inputs, job.steps.tell)
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
    register_to_template(t1w, folder)
    return _Files(len(list(folder.iterdir())))


def label_structures(job: Job, anatomy: Anatomy) -> Structures:
    """Bring the atlas' labels onto the grid of the series."""
    atlas = load_atlas(job.settings.atlas)
    labels = job.steps.run(
        "labels",
        _Labels,
        lambda _: _Labels(anatomy.labels_in("orig", atlas).data),
        {"atlas": digest(atlas.labels.data), "warp": anatomy.warp.folder.name},
        after=["registration"],
    )
    job.journal.step("atlas", atlas.name, {}, job.steps.seconds("labels"))
    return Structures(atlas, anatomy.grid.like(labels.labels))

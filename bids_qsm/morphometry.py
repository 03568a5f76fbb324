"""What T1w and FLAIR tell of a head: lesions, tissues and their volumes, doubts of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.freesurfer import find_freesurfer, read_freesurfer
from bids_qsm.anatomy.lesions import (
    LesionRegions,
    align_to_t1w,
    find_enhancement,
    grow_lesions,
    load_lesion_mask,
    locate_lesions,
    read_points,
    regions_from_template,
)
from bids_qsm.anatomy.lesions import find_lesions as find_t2_lesions
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.thickness import cortical_thickness, load_lobes, thickness_measures
from bids_qsm.anatomy.tissues import Measure, Tissues, measures_table, segment_tissues
from bids_qsm.bids.derivatives import find_lesion_mask, find_lesion_points
from bids_qsm.errors import UnreadableInputError
from bids_qsm.execution.steps import files_fingerprint
from bids_qsm.frames import pd
from bids_qsm.images import Image, load_image
from bids_qsm.job import Job, digest
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.numerics.enhancement import Enhancement
from bids_qsm.numerics.lesion_tables import label_lesions, lesion_load, with_map
from bids_qsm.numerics.lesions import T2Lesions
from bids_qsm.numerics.segmentation_quality import (
    Check,
    check_segmentation,
    checks_table,
    failures,
)

GIVEN, GROWN, FOUND = "given", "seed-and-grow", "flair-and-t1w"


@dataclass(frozen=True)
class Lesions:
    """T2 lesions of a head.

    Attributes
    ----------
    labels : Image
        Number of the lesion (int16), the largest first, on the T1w's grid.
    on_series : Image
        The same on the grid of the series.
    table : pandas.DataFrame
        A row for each: volume, place, and the maps' values in it.
    flair : Image or None
        FLAIR on the T1w's grid.
    enhancing : Image or None
        Number of the enhancing region (int16) on the T1w's grid; None where no image after
        contrast agent was there.
    """

    labels: Image
    on_series: Image
    table: pd.DataFrame
    flair: Image | None
    enhancing: Image | None

    def measures(self) -> tuple[Measure, ...]:
        """Return load and number of all lesions, of those of each place, and of enhancing ones."""
        rows = []
        for row in lesion_load(self.table).itertuples():
            name = "T2 lesions" if row.location == "all" else f"T2 lesions, {row.location}"
            rows.append(Measure(name, "B", "volume", float(row.volume_ml)))
            rows.append(Measure(name, "B", "number", float(row.n_lesions)))
        if self.enhancing is not None:
            voxel_ml = self.enhancing.geometry.voxel_mm3 / 1000
            volume_ml = voxel_ml * np.count_nonzero(self.enhancing.data)
            rows.append(Measure("enhancing lesions", "B", "volume", float(volume_ml)))
            number = float(self.enhancing.data.max(initial=0))
            rows.append(Measure("enhancing lesions", "B", "number", number))
        return tuple(rows)


@dataclass(frozen=True)
class Morphometry:
    """Tissues on the T1w's grid, all measures of the head, and the cortex' thickness (mm)."""

    tissues: Tissues
    table: pd.DataFrame
    thickness: Image | None


@dataclass(frozen=True)
class _Volume:
    """A step's result that is one volume."""

    data: NDArray


@dataclass(frozen=True)
class _Enhancing:
    """Numbers of enhancing regions."""

    labels: NDArray[np.int16]


def find_lesions(job: Job, anatomy: Anatomy | None) -> Lesions | None:
    """Find T2 lesions: the user's own mask wins, then the user's points, then FLAIR and T1w."""
    series = job.series
    mask_path = find_lesion_mask(job.settings, series)
    points = find_lesion_points(job.settings, series)
    if anatomy is None or (mask_path is None and series.flair is None):
        for given, needed in ((mask_path, "a T1w image"), (points, "a T1w and a FLAIR image")):
            if given is not None:
                job.journal.warn(f"{given}: it was not used, as it needs {needed}.")
        return None
    t1w = anatomy.t1w
    flair = usable_image(job, series.flair)
    aligned = None if flair is None else aligned_to_t1w(job, anatomy, "flair", flair)
    regions = regions_from_template(t1w.image, anatomy.warp.t1w_to_template)
    found = None if aligned is None else _automatic(job, anatomy, aligned, regions)
    if mask_path is not None:
        how, mask = GIVEN, load_lesion_mask(mask_path, t1w.image, flair).data
    elif points is not None and aligned is not None:
        grown = grow_lesions(t1w, aligned, read_points(points))
        job.journal.warn(*grown.warnings)
        how, mask = GROWN, grown.labels > 0
    elif found is not None:
        how, mask = FOUND, found.mask
    else:
        return None
    labels = t1w.image.like(label_lesions(mask, t1w.image.geometry.voxel_mm3))
    enhancing = None if found is None else _enhancing(job, anatomy, found, mask)
    seconds = job.steps.seconds("lesions") if found is not None else 0.0
    job.journal.step("lesions", how, {}, seconds)
    on_series = apply_transforms(labels, anatomy.grid, (anatomy.rigid.gre_to_t1w,), "label")
    table = locate_lesions(labels.data, labels.affine, regions)
    return Lesions(labels, on_series, table, aligned, enhancing)


def usable_image(job: Job, path: Path | None) -> Image | None:
    """Return an image; one that says nothing is left out with a warning, and the maps stay."""
    if path is None:
        return None
    image = load_image(path)
    if np.isfinite(image.data).all() and image.data.min() < image.data.max():
        return image
    job.journal.warn(f"{path}: the image is constant or holds NaN; it was left out.")
    return None


def _automatic(
    job: Job, anatomy: Anatomy, flair: Image, regions: LesionRegions
) -> T2Lesions | None:
    """Find lesions; where the images do not show tissues there are none, and the maps stay."""
    try:
        return job.steps.run(
            "lesions",
            T2Lesions,
            lambda _: find_t2_lesions(anatomy.t1w, flair, regions),
            {"flair": digest(flair.data)},
            after=["deep-grey"],
        )
    except ValueError as error:
        job.journal.warn(f"No lesions were found by FLAIR and T1w: {error}.")
        return None


def aligned_to_t1w(job: Job, anatomy: Anatomy, name: str, image: Image) -> Image:
    """Return an image of the same head on the T1w's grid; ``name`` is that of the step."""
    parameters = {"image": digest(image.data), "t1w": digest(anatomy.t1w.image.data)}
    moved = job.steps.run(
        name, _Volume, lambda _: _Volume(align_to_t1w(anatomy.t1w, image).data), parameters
    )
    return anatomy.t1w.image.like(moved.data)


def _enhancing(
    job: Job, anatomy: Anatomy, found: T2Lesions, mask: NDArray[np.bool_]
) -> Image | None:
    image = usable_image(job, job.series.t1w_after)
    if image is None:
        return None
    after = aligned_to_t1w(job, anatomy, "t1w-after", image)

    def find(_: object) -> _Enhancing:
        enhancement: Enhancement = find_enhancement(anatomy.t1w, after, found, mask)
        return _Enhancing(enhancement.labels)

    parameters = {"after": digest(after.data), "lesions": digest(mask)}
    try:
        labels = job.steps.run("enhancement", _Enhancing, find, parameters, ["lesions"]).labels
    except ValueError as error:
        job.journal.warn(f"No enhancing lesions were looked for: {error}.")
        return None
    job.journal.step("enhancement", "difference", {}, job.steps.seconds("enhancement"))
    return anatomy.t1w.image.like(labels)


def with_values(lesions: Lesions, maps: Maps) -> pd.DataFrame:
    """Return the table of lesions with the maps' means in each."""
    table, labels = lesions.table, lesions.on_series.data
    if maps.chi and maps.local is not None:
        chi_ppm = maps.chi[0].result.chi_ppm
        table = with_map(table, "chi_ppm", chi_ppm, labels, maps.local.mask)
    if maps.relaxation is not None:
        r2star_per_s = maps.relaxation.r2star_per_s
        table = with_map(table, "r2star_per_s", r2star_per_s, labels, maps.brain)
    return table


def measure_head(
    job: Job, anatomy: Anatomy | None, structures: Sequence[Structures], lesions: Lesions | None
) -> Morphometry | None:
    """Part the head into tissues and measure them; FreeSurfer's values join where it was run."""
    if anatomy is None:
        return None
    t1w = anatomy.t1w
    labels = structures[0].t1w_labels if structures else None
    atlas_table = structures[0].atlas.table if structures else None
    lesion_mask = None if lesions is None else lesions.labels
    parameters = {
        "t1w": digest(t1w.image.data),
        "labels": None if labels is None else digest(labels.data),
        "lesions": None if lesion_mask is None else digest(lesion_mask.data),
    }
    try:
        tissues = job.steps.run(
            "tissues",
            Tissues,
            lambda _: segment_tissues(t1w, labels, atlas_table, lesion_mask),
            parameters,
        )
    except (UnreadableInputError, ValueError) as error:
        job.journal.warn(f"Tissues were not measured: {error}")
        return None
    job.journal.warn(*tissues.warnings)
    job.journal.step("tissues", "mixture", {}, job.steps.seconds("tissues"))
    measures = tissues.measures()
    thickness = None
    if "thickness" in job.settings.extra_steps:
        thickness = _thickness(job, anatomy, tissues)
        lobes, names = load_lobes()
        lobes = apply_transforms(lobes, t1w.image, anatomy.warp.t1w_to_template, "label")
        measures += thickness_measures(thickness.data, lobes.data, names)
    if lesions is not None:
        measures += lesions.measures()
    tables = [measures_table(measures, tissues.head_scale), _freesurfer(job)]
    table = pd.concat([t for t in tables if t is not None], ignore_index=True)
    return Morphometry(tissues, table, thickness)


def _thickness(job: Job, anatomy: Anatomy, tissues: Tissues) -> Image:
    image = anatomy.t1w.image
    found = job.steps.run(
        "thickness",
        _Volume,
        lambda _: _Volume(cortical_thickness(image, tissues).data),
        {},
        after=["tissues"],
    )
    job.journal.step("thickness", "direct", {}, job.steps.seconds("thickness"))
    return image.like(found.data)


def _freesurfer(job: Job) -> pd.DataFrame | None:
    """Return the measures of a FreeSurfer derivative, where the user has given one."""
    root = job.settings.derivatives.get("freesurfer")
    if root is None:
        return None
    series = job.series
    folder = find_freesurfer(root, series.subject, series.session)
    if folder is None:
        job.journal.warn(f"{root}: FreeSurfer's derivative has no tables of sub-{series.subject}.")
        return None
    found = read_freesurfer(folder)
    job.journal.warn(*found.warnings)
    files = [name for name, *_ in files_fingerprint(sorted((folder / "stats").glob("*.stats")))]
    job.journal.step("freesurfer", "given", {"files": files}, 0.0)
    return measures_table(found.measures, found.head_scale, "FreeSurfer")


def check_structures(
    job: Job,
    maps: Maps,
    anatomy: Anatomy | None,
    structures: Sequence[Structures],
    head: Morphometry | None,
) -> tuple[pd.DataFrame, ...]:
    """Check each atlas' labels; what fails is a warning, and all of it a table."""
    if anatomy is None:
        return ()
    fluid = None
    if head is not None:
        share = anatomy.t1w.image.like(head.tissues.shares[2].astype(np.float32) / 100)
        fluid = apply_transforms(share, anatomy.grid, (anatomy.rigid.gre_to_t1w,)).data
    chi_ppm = maps.chi[0].result.chi_ppm if maps.chi else None
    r2star_per_s = None if maps.relaxation is None else maps.relaxation.r2star_per_s
    tables = []
    for of_atlas in structures:
        checks: tuple[Check, ...] = check_segmentation(
            of_atlas.labels.data,
            of_atlas.atlas.table,
            of_atlas.labels.affine,
            chi_ppm=chi_ppm,
            r2star_per_s=r2star_per_s,
            fluid=fluid,
            valid=None if maps.local is None else maps.local.mask,
            brain=maps.brain,
            t1w_brain=anatomy.brain_on_grid(),
        )
        job.journal.warn(*failures(checks, of_atlas.atlas.name if len(structures) > 1 else ""))
        tables.append(checks_table(checks))
    return tuple(tables)

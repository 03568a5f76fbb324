"""Strongly paramagnetic lesions of a session, which are then followed over the sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.bids.derivatives import find_tracked_lesions
from bids_qsm.bids.naming import entities_of
from bids_qsm.choices import method, note
from bids_qsm.clinical.case import (
    Case,
    Finding,
    NamedImage,
    NamedTable,
    warn_of_coarse_voxels,
)
from bids_qsm.clinical.nuclei import iron_rich
from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image, load_image
from bids_qsm.job import Job, digest
from bids_qsm.numerics.lesion_tables import label_lesions, lesion_table, with_map
from bids_qsm.report.picture import Picture

GIVEN = "given"
SECTION = "Lesion tracking"

Labels = NDArray[np.int16]


@dataclass(frozen=True)
class _Found:
    """Number of the lesion of each voxel."""

    labels: Labels


def find_paramagnetic(job: Job, case: Case) -> Finding | None:
    """Take the lesions that the user gives for this session, or find strongly paramagnetic ones.

    Where a folder with lesions is given, only those in it are followed: a session without a mask
    has none of its own.
    """
    if not case.maps.chi or case.maps.local is None:
        job.journal.warn("There is no susceptibility map: no lesion is followed in this series.")
        return None
    if "tracked-lesions" in job.settings.derivatives:
        labels = _given(job, case)
        if labels is None:
            return None
        job.journal.step("paramagnetic", GIVEN, {}, 0.0)
    else:
        warn_of_coarse_voxels(
            job,
            case.maps.local.geometry.voxel_mm,
            "to tell lesions from veins: pieces of veins are followed as lesions",
        )
        labels = _found(job, case)
    image = case.maps.magnitude.like(labels)
    table = _table(case, labels)
    return Finding(
        images=(NamedImage("tracked_dseg", image),),
        tables=(NamedTable("tracked_lesions", table),),
        draw=lambda: _pictures(case, labels),
        facts={"Lesions to follow": _said(table)},
    )


def _found(job: Job, case: Case) -> Labels:
    """Find lesions by their susceptibility."""
    function, options = method(job.settings.processing, "paramagnetic")
    local, chi_ppm = case.maps.local, case.maps.chi[0].result.chi_ppm
    assert local is not None
    relaxation = case.maps.relaxation
    r2star_per_s = None if relaxation is None else relaxation.r2star_per_s
    nuclei = iron_rich(case.structures)
    found = job.steps.run(
        "paramagnetic",
        _Found,
        lambda _: _Found(
            function(chi_ppm, r2star_per_s, local.mask, local.geometry, nuclei, **options)
        ),
        {
            "method": function.__name__,
            "chi": digest(chi_ppm),
            "r2star": None if r2star_per_s is None else digest(r2star_per_s),
            "nuclei": None if nuclei is None else digest(nuclei),
            **options,
        },
    )
    note(job, "paramagnetic", options, job.steps.seconds("paramagnetic"))
    return found.labels


def _given(job: Job, case: Case) -> Labels | None:
    """Return the user's lesions on the grid of the series, None with a warning if they are none.

    A mask is taken apart into its pieces; labels stay as they are.
    """
    try:
        path = find_tracked_lesions(job.settings, job.series)
        if path is None:
            return None
        if job.series.session is not None and "ses" not in entities_of(path.name):
            job.journal.warn(
                f"{path}: it does not say in which session it was drawn, and is not used; name it "
                f"sub-{job.series.subject}_ses-..., with that session."
            )
            return None
        labels = _on_series(path, case)
    except UnreadableInputError as error:
        job.journal.warn(f"{error} No lesion is taken from it for this session.")
        return None
    if not (labels > 0).any():
        job.journal.warn(f"{path}: the mask of lesions is empty: it has nothing to follow.")
        return None
    _warn_of_unknown(job, case, path, labels)
    return labels


def _on_series(path: Path, case: Case) -> Labels:
    """Return the labels of a file on the grid of the series.

    Raises
    ------
    UnreadableInputError
        If it cannot be read, or has the grid of neither the series nor the T1w image.
    """
    image, grid, anatomy = load_image(path, np.int16), case.maps.magnitude, case.anatomy
    image = image.like(np.maximum(image.data, 0))
    if image.data.ndim == 3 and "_mask." in path.name:
        image = image.like(label_lesions(image.data > 0, image.geometry.voxel_mm3))
    if _same_grid(image, grid):
        return np.asarray(image.data, np.int16)
    if anatomy is not None and _same_grid(image, anatomy.t1w.image):
        moved = apply_transforms(image, grid, (anatomy.rigid.gre_to_t1w,), "label")
        return np.asarray(moved.data, np.int16)
    raise UnreadableInputError(
        f"{path}: the lesions have the shape {image.data.shape}, the series {grid.shape}; draw "
        "them on the grid of the series or of the T1w image of the same session."
    )


def _same_grid(image: Image, other: Image) -> bool:
    same = image.data.shape == other.shape
    return same and bool(np.allclose(image.affine, other.affine, atol=1e-2))


def _warn_of_unknown(job: Job, case: Case, path: Path, labels: Labels) -> None:
    """Say which lesions lie where there is no susceptibility."""
    assert case.maps.local is not None
    known = np.unique(labels[case.maps.local.mask])
    lacking = [str(n) for n in np.unique(labels[labels > 0]) if n not in known]
    if lacking:
        job.journal.warn(
            f"{path}: susceptibility is not known anywhere in {_counted(len(lacking))} "
            f"({', '.join(lacking[:10])}); check the grid of the mask and the mask of the brain."
        )


def _table(case: Case, labels: Labels) -> pd.DataFrame:
    """Return a row for each lesion."""
    table = lesion_table(labels, case.maps.magnitude.affine)
    assert case.maps.local is not None
    chi_ppm = case.maps.chi[0].result.chi_ppm
    table = with_map(table, "chi_ppm", chi_ppm, labels, case.maps.local.mask)
    if case.maps.relaxation is not None:
        r2star_per_s = case.maps.relaxation.r2star_per_s
        table = with_map(table, "r2star_per_s", r2star_per_s, labels, case.maps.brain)
    return table


def _said(table: pd.DataFrame) -> str:
    if table.empty:
        return "none"
    return f"{len(table)}, {table['volume_mm3'].sum() / 1000:.2f} mL"


def _counted(number: int) -> str:
    return "one lesion" if number == 1 else f"{number} lesions"


def _pictures(case: Case, labels: Labels) -> Iterable[Picture]:
    from bids_qsm.report import figures

    names = {int(n): f"lesion {n}" for n in np.unique(labels[labels > 0])}
    if not names:
        return
    picture = figures.mosaic(
        case.maps.chi[0].result.chi_ppm,
        case.maps.magnitude.affine,
        figures.Scale("χ (ppm)", -0.2, 0.6, inside_only=True),
        region=case.maps.brain,
        labels=figures.Labels(labels, names),
    )
    yield Picture(
        SECTION,
        "trackedlesions",
        "Lesions to follow",
        "Susceptibility, with the borders of the lesions as this session alone has them.",
        (("", picture),),
    )

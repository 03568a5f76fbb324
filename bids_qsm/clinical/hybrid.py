"""The hybrid contrast of T1w and susceptibility, and how well nuclei stand out in each contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from bids_qsm.bids.sidecars import raw_uri
from bids_qsm.choices import method, note
from bids_qsm.clinical.case import Case, Finding, NamedImage, NamedTable
from bids_qsm.clinical.nuclei import ATLASES, GPE, GPI, RN, SIDES, SN, STN, Nuclei, structures_with
from bids_qsm.images import voxel_sizes_mm
from bids_qsm.job import Job, digest
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import aligned_to_t1w, usable_image
from bids_qsm.numerics.contrast import Nucleus, contrast_table, surround
from bids_qsm.numerics.geometry import Bool, Float32

T1W, T2W, CHI, HYBRID = "T1w", "T2w", "Chimap", "hybrid"
NEIGHBOURS: Mapping[str, str | None] = {GPI: GPE, STN: SN, SN: STN, RN: None}
"""The nuclei that are measured, and the neighbour that each must be told apart from."""
ALL, UNLABELLED = "all", "unlabelled"


@dataclass(frozen=True)
class Hybrid:
    """The weight of susceptibility.

    Attributes
    ----------
    k : float
        In the T1w image's units for each ppm.
    unit : float
        The T1w image's median signal in the brain.
    """

    k: float
    unit: float


@dataclass(frozen=True)
class Contrasts:
    """All contrasts on the T1w image's grid, and where they are all known.

    Attributes
    ----------
    images : mapping of str to ndarray of float32, shape (x, y, z)
        T1w and χ (ppm), and T2w where there is one.
    known : ndarray of bool, shape (x, y, z)
        Brain with susceptibility, and without veins where these were found.
    """

    images: Mapping[str, Float32]
    known: Bool


def make_hybrid(job: Job, case: Case) -> Finding | None:
    """Add susceptibility to T1w so that GPi stands out, and measure how well nuclei do."""
    maps, anatomy = case.maps, case.anatomy
    if anatomy is None or not maps.chi or maps.local is None:
        job.journal.warn(
            "No hybrid contrast was made: it needs a T1w image and a susceptibility map."
        )
        return None
    found = structures_with(case.structures, [GPI])
    if found is None:
        job.journal.warn(
            "No hybrid contrast was made: no atlas of this run parts the globus pallidus; "
            f"{ATLASES} does."
        )
        return None
    structures, nuclei = found
    function, options = method(job.settings.processing, "hybrid")
    contrasts = all_contrasts(job, maps, anatomy)
    t1w = anatomy.t1w.image
    voxel_mm = voxel_sizes_mm(t1w.affine)
    sides = [nucleus(structures, nuclei, contrasts.known, GPI, side) for side in SIDES]
    t1w_data, chi_ppm = contrasts.images[T1W], contrasts.images[CHI]

    def weigh(_: object) -> Hybrid:
        unit = float(np.median(t1w_data[contrasts.known]))
        return Hybrid(function(t1w_data, chi_ppm, sides, voxel_mm, unit, **options), unit)

    labels = structures.t1w_labels.data
    parameters = {
        "method": function.__name__,
        "images": [digest(t1w_data), digest(chi_ppm), digest(labels)],
        **options,
    }
    try:
        hybrid = job.steps.run("hybrid", Hybrid, weigh, parameters)
    except ValueError as error:
        job.journal.warn(f"No hybrid contrast was made: {error}.")
        return None
    note(job, "hybrid", options, job.steps.seconds("hybrid"))
    image = t1w.like((t1w_data + np.float32(hybrid.k) * chi_ppm).astype(np.float32))
    images = {**contrasts.images, HYBRID: image.data}
    shell = {name: options[name] for name in ("gap_mm", "shell_mm")}
    table = measure_contrasts(structures, nuclei, images, contrasts.known, voxel_mm, **shell)
    from bids_qsm.clinical.hybrid_pictures import draw_hybrid

    return Finding(
        images=(NamedImage("hybrid", image, "T1w", sidecar(job, hybrid, structures)),),
        tables=(NamedTable("contrast_to_noise", table),),
        draw=partial(draw_hybrid, images, structures.t1w_labels, nuclei),
        facts={"Hybrid contrast": f"T1w + {hybrid.k:.4g} χ (ppm)"},
    )


def all_contrasts(job: Job, maps: Maps, anatomy: Anatomy) -> Contrasts:
    """Bring χ, and T2w where there is one, to the T1w image's grid."""
    assert maps.local is not None
    chi = maps.magnitude.like(maps.chi[0].result.chi_ppm)
    known = anatomy.mask_in("T1w", maps.local.mask).data & anatomy.t1w.brain.data
    if maps.veins is not None:
        known &= ~anatomy.mask_in("T1w", maps.veins.mask).data
    images = {T1W: anatomy.t1w.image.data}
    t2w = usable_image(job, job.series.t2w)
    if t2w is not None:
        images[T2W] = aligned_to_t1w(job, anatomy, "t2w", t2w).data
        job.journal.step("t2w", "rigid", {}, job.steps.seconds("t2w"))
    images[CHI] = anatomy.map_in("T1w", chi, maps.local.mask).data
    return Contrasts(images, known)


def nucleus(structures: Structures, nuclei: Nuclei, known: Bool, name: str, side: str) -> Nucleus:
    """Return a nucleus and what its surround may be of: its neighbour, and what has no label."""
    labels = structures.t1w_labels.data
    neighbour = NEIGHBOURS[name]
    allowed = labels == 0
    if neighbour is not None:
        allowed |= nuclei.mask(labels, neighbour, side)
    return Nucleus(nuclei.mask(labels, name, side) & known, allowed & known)


def measure_contrasts(
    structures: Structures,
    nuclei: Nuclei,
    images: Mapping[str, Float32],
    known: Bool,
    voxel_mm: tuple[float, float, float],
    *,
    gap_mm: float,
    shell_mm: float,
) -> pd.DataFrame:
    """Return the contrast-to-noise ratio of each nucleus and side in each image."""
    labels = structures.t1w_labels.data
    parts = []
    for name, neighbour in NEIGHBOURS.items():
        for side in SIDES:
            own = nucleus(structures, nuclei, known, name, side)
            shell = surround(own, voxel_mm, gap_mm=gap_mm, shell_mm=shell_mm)
            outsides = {ALL: shell}
            if neighbour is not None and nuclei.of(neighbour, side):
                outsides[neighbour] = shell & nuclei.mask(labels, neighbour, side)
                outsides[UNLABELLED] = shell & (labels == 0)
            rows = contrast_table(images, own, outsides)
            parts.append(rows.assign(structure=name, hemisphere=side))
    table = pd.concat(parts, ignore_index=True)
    units = {CHI: "ppm"}
    return table.assign(units=[units.get(contrast, "arbitrary") for contrast in table["contrast"]])


def sidecar(job: Job, hybrid: Hybrid, structures: Structures) -> dict[str, object]:
    """Return what the sidecar of the hybrid image says besides."""
    series, bids_dir = job.series, job.settings.bids_dir
    files = (series.t1w, *series.files)
    return {
        "Sources": [raw_uri(path, bids_dir) for path in files if path is not None],
        "SusceptibilityWeight": hybrid.k,
        "SusceptibilityWeightUnits": "units of the T1w image for each ppm",
        "T1wMedianInBrain": hybrid.unit,
        "Atlas": structures.atlas.name,
    }

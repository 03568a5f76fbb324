"""The hybrid contrast of T1w and susceptibility, and how well nuclei stand out in each contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bids_qsm.bids.sidecars import raw_uri
from bids_qsm.choices import method, note
from bids_qsm.clinical.case import Case, Finding, NamedImage, NamedTable
from bids_qsm.clinical.nuclei import ATLASES, GPE, GPI, RN, SIDES, SN, STN, Nuclei, structures_with
from bids_qsm.errors import UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import voxel_sizes_mm
from bids_qsm.job import Job, digest
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import aligned_to_t1w, usable_image
from bids_qsm.numerics.contrast import UNLABELLED, WEAKEST, Nucleus, contrast_table, surround
from bids_qsm.numerics.geometry import Bool, Float32

T1W, T2W, CHI, HYBRID = "T1w", "T2w", "Chimap", "hybrid"
NEIGHBOURS: Mapping[str, str | None] = {GPI: GPE, STN: SN, SN: STN, RN: None}
"""The nuclei that are measured, and the neighbour that each must be told apart from."""
MARGIN_MM = 12.0
FLUID_SHARE = 0.6
"""Of the T1w image's median signal in the brain: what is darker is taken for fluid."""
REGION_OPTIONS = ("gap_mm", "shell_mm")


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
class Around:
    """The nuclei and what lies around them, a box of the T1w image's grid.

    Attributes
    ----------
    labels : ndarray of int, shape (x, y, z)
    usable : ndarray of bool, shape (x, y, z)
        Brain with susceptibility, without fluid, and without veins where these were found.
    images : mapping of str to ndarray of float32, shape (x, y, z)
        By contrast; χ in ppm.
    nuclei : Nuclei
    voxel_mm : tuple of float
    """

    labels: NDArray[np.integer]
    usable: Bool
    images: Mapping[str, Float32]
    nuclei: Nuclei
    voxel_mm: tuple[float, float, float]

    def nucleus(self, name: str, side: str) -> Nucleus:
        """Return a nucleus, and where its neighbour and what has no label are."""
        parts = {UNLABELLED: (self.labels == 0) & self.usable}
        neighbour = NEIGHBOURS[name]
        if neighbour is not None:
            parts[neighbour] = self.nuclei.mask(self.labels, neighbour, side) & self.usable
        return Nucleus(self.nuclei.mask(self.labels, name, side) & self.usable, parts)

    def with_hybrid(self, k: float) -> Around:
        """Return this with the hybrid contrast."""
        hybrid = self.images[T1W] + np.float32(k) * self.images[CHI]
        return replace(self, images={**self.images, HYBRID: hybrid})


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
    t1w = anatomy.t1w.image
    images = contrasts_on_t1w(job, maps, anatomy)
    unit = float(np.median(t1w.data[anatomy.t1w.brain.data]))
    usable = usable_voxels(maps, anatomy, images[CHI], unit)
    around = cropped_around(structures, nuclei, images, usable)

    def weigh(_: object) -> Hybrid:
        sides = [around.nucleus(GPI, side) for side in SIDES]
        own = around.images
        return Hybrid(function(own[T1W], own[CHI], sides, around.voxel_mm, unit, **options), unit)

    seen = (around.labels, around.usable, around.images[T1W], around.images[CHI])
    parameters = {"method": function.__name__, "seen": [digest(a) for a in seen], **options}
    try:
        hybrid = job.steps.run("hybrid", Hybrid, weigh, parameters)
    except ValueError as error:
        job.journal.warn(f"No hybrid contrast was made: {error}.")
        return None
    note(job, "hybrid", options, job.steps.seconds("hybrid"))
    around = around.with_hybrid(hybrid.k)
    table = measure_contrasts(around, **{name: options[name] for name in REGION_OPTIONS})
    image = t1w.like((t1w.data + np.float32(hybrid.k) * images[CHI]).astype(np.float32))
    from bids_qsm.clinical.hybrid_pictures import draw_hybrid

    return Finding(
        images=(NamedImage("hybrid", image, "T1w", sidecar(job, hybrid, structures)),),
        tables=(NamedTable("contrast_to_noise", table),),
        draw=partial(
            draw_hybrid, {**images, HYBRID: image.data}, structures.t1w_labels, nuclei, hybrid.k
        ),
        facts={"Hybrid contrast": f"T1w {hybrid.k:+.4g} χ (χ in ppm)"},
    )


def contrasts_on_t1w(job: Job, maps: Maps, anatomy: Anatomy) -> dict[str, Float32]:
    """Bring χ (ppm; zero where it is not known), and T2w where there is one, to the T1w's grid."""
    images = {T1W: anatomy.t1w.image.data}
    try:
        t2w = usable_image(job, job.series.t2w)
    except UnreadableInputError as error:
        job.journal.warn(f"{error} The T2w image was left out.")
        t2w = None
    if t2w is not None:
        images[T2W] = aligned_to_t1w(job, anatomy, "t2w", t2w).data
        job.journal.step("t2w", "rigid", {}, job.steps.seconds("t2w"))
    chi = maps.magnitude.like(maps.chi[0].result.chi_ppm)
    known = maps.brain if maps.local is None else maps.local.mask
    return {**images, CHI: anatomy.map_in("T1w", chi, known).data}


def usable_voxels(maps: Maps, anatomy: Anatomy, chi_ppm: Float32, unit: float) -> Bool:
    """Return the T1w image's brain where χ is known, without fluid and veins."""
    usable: Bool = anatomy.t1w.brain.data & (chi_ppm != 0)
    usable &= anatomy.t1w.image.data > FLUID_SHARE * unit
    if maps.veins is not None:
        usable &= ~anatomy.mask_in("T1w", maps.veins.mask).data
    return usable


def cropped_around(
    structures: Structures, nuclei: Nuclei, images: Mapping[str, Float32], usable: Bool
) -> Around:
    """Return the box that holds the nuclei and what lies around them."""
    labels = structures.t1w_labels
    voxel_mm = voxel_sizes_mm(labels.affine)
    wanted = [i for (name, _), own in nuclei.labels.items() if name in NEIGHBOURS for i in own]
    there = np.nonzero(np.isin(labels.data, wanted))
    margins = (int(np.ceil(MARGIN_MM / voxel)) for voxel in voxel_mm)
    box = tuple(
        slice(max(0, int(at.min(initial=0)) - margin), int(at.max(initial=0)) + margin + 1)
        if at.size
        else slice(0, 1)
        for at, margin in zip(there, margins, strict=True)
    )
    own = {name: np.ascontiguousarray(image[box]) for name, image in images.items()}
    return Around(labels.data[box], usable[box], own, nuclei, voxel_mm)


def measure_contrasts(around: Around, *, gap_mm: float, shell_mm: float) -> pd.DataFrame:
    """Return the contrast-to-noise ratio of each nucleus and side in each image.

    Against each part of the surround, and the least of these.
    """
    parts = []
    for name in NEIGHBOURS:
        for side in SIDES:
            own = around.nucleus(name, side)
            outsides = surround(own, around.voxel_mm, gap_mm=gap_mm, shell_mm=shell_mm)
            rows = contrast_table(around.images, own.inside, outsides)
            if rows.empty:
                continue
            least = rows.groupby("contrast", sort=False)["cnr"].min().reset_index()
            rows = pd.concat([rows, least.assign(surround=WEAKEST)], ignore_index=True)
            parts.append(rows.assign(structure=name, hemisphere=side))
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    in_ppm = table["contrast"] == CHI
    return table.assign(units=in_ppm.map({True: "ppm", False: "arbitrary"}))


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

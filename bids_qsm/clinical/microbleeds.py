"""Microbleeds and calcifications of a head: found, measured, placed and counted."""

from __future__ import annotations

from functools import partial

import numpy as np

from bids_qsm.choices import method, note
from bids_qsm.clinical.bleed_places import place_inclusions
from bids_qsm.clinical.case import (
    Case,
    Finding,
    NamedImage,
    NamedTable,
    warn_of_coarse_voxels,
)
from bids_qsm.clinical.nuclei import iron_rich
from bids_qsm.frames import pd
from bids_qsm.job import Job, digest
from bids_qsm.numerics.geometry import Bool, hz_per_ppm
from bids_qsm.numerics.microbleeds import BLEED, CALCIFICATION, Inclusions

STEP = "microbleeds"


def find_microbleeds(job: Job, case: Case) -> Finding | None:
    """Find microbleeds and calcifications in the susceptibility map of a series."""
    maps = case.maps
    if not maps.chi or maps.local is None:
        job.journal.warn("No microbleeds were looked for: there is no susceptibility map.")
        return None
    warn_of_coarse_voxels(
        job,
        maps.local.geometry.voxel_mm,
        "for microbleeds: small ones are missed, and pieces of vessels are taken for some",
    )
    function, options = method(job.settings.processing, STEP)
    chi_ppm, local, total_ppm = maps.chi[0].result.chi_ppm, maps.local, None
    if maps.total is not None:
        scale = np.float32(1 / hz_per_ppm(maps.b0_t))
        total_ppm = np.where(maps.total.mask, maps.total.field_hz * scale, np.float32(0))
    nuclei = iron_rich(case.structures)
    found = job.steps.run(
        STEP,
        Inclusions,
        lambda _: function(local, chi_ppm, total_ppm, nuclei, **options),
        {
            "method": function.__name__,
            "chi": digest(chi_ppm),
            "nuclei": None if nuclei is None else digest(nuclei),
            **options,
        },
        after=["background"],
    )
    note(job, STEP, options, job.steps.seconds(STEP))
    table = described(found, case)
    labels = maps.magnitude.like(found.labels)
    bleeds = np.isin(found.labels, table.loc[table["kind"] == BLEED, "index"])
    from bids_qsm.clinical.cutouts import draw_inclusions

    return Finding(
        images=(
            NamedImage("microbleed_dseg", labels),
            NamedImage("microbleed_mask", maps.magnitude.like(bleeds)),
        ),
        tables=(NamedTable("microbleeds", table),),
        draw=partial(draw_inclusions, maps, found.labels, table),
        facts=facts(table),
    )


def described(found: Inclusions, case: Case) -> pd.DataFrame:
    """Return the table of inclusions with their places and the other maps' values."""
    maps, table = case.maps, found.table()
    affine = maps.magnitude.affine
    points = table[["i", "j", "k"]].to_numpy()
    world = np.einsum("ij,nj->ni", affine[:3, :3], points) + affine[:3, 3]
    space = "series"
    if case.anatomy is not None:
        to_t1w, space = case.anatomy.rigid.gre_to_t1w, "T1w"
        world = np.einsum("ij,nj->ni", to_t1w[:3, :3], world) + to_t1w[:3, 3]
    table = table.assign(space=space, x_mm=world[:, 0], y_mm=world[:, 1], z_mm=world[:, 2])
    if case.anatomy is not None and len(table):
        table = table.join(place_inclusions(table, case.anatomy))
    regions = [found.labels == number for number in table["index"]]
    relaxation, veins = maps.relaxation, maps.veins
    r2star_per_s = None if relaxation is None else relaxation.r2star_per_s
    return table.assign(
        at_edge=table["at_edge"] > 0,
        structure=[_structure(case, region) for region in regions],
        r2star_per_s=[
            np.nan if r2star_per_s is None or not region.any() else r2star_per_s[region].mean()
            for region in regions
        ],
        vein_share=[
            np.nan if veins is None or not region.any() else veins.mask[region].mean()
            for region in regions
        ],
    )


def _structure(case: Case, region: Bool) -> str | None:
    """Return the structure of an atlas that holds most of a region that has a label."""
    for structures in case.structures:
        labels = structures.labels.data[region]
        if (labels > 0).any():
            index = int(np.bincount(labels[labels > 0]).argmax())
            names = structures.atlas.table.set_index("index")["name"]
            return str(names[index]) if index in names.index else None
    return None


def facts(table: pd.DataFrame) -> dict[str, str]:
    """Return what the report's summary says: how many, where, and how much in all."""
    bleeds = table[table["kind"] == BLEED]
    said = {"Microbleeds": str(len(bleeds))}
    if len(bleeds) and "region" in bleeds:
        counts = bleeds["region"].fillna("elsewhere").value_counts(sort=False)
        pattern = f"strictly {counts.index[0]}" if len(counts) == 1 else ""
        places = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
        said["Microbleeds"] += f" ({pattern or places})"
    if len(bleeds):
        total = bleeds["moment_ppm_mm3"].sum()
        said["Total susceptibility of microbleeds"] = f"{total:.1f} ppm mm³"
    said["Calcifications"] = str(int((table["kind"] == CALCIFICATION).sum()))
    return said

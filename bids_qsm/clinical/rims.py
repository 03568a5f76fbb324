"""Paramagnetic rims of a head's T2 lesions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bids_qsm.choices import method, note
from bids_qsm.clinical.case import Case, Finding, NamedTable, warn_of_coarse_voxels
from bids_qsm.frames import pd
from bids_qsm.job import Job, digest
from bids_qsm.maps import Maps
from bids_qsm.morphometry import Lesions
from bids_qsm.numerics.rims import Rims
from bids_qsm.report.picture import Picture

STEP = "rims"


def score_rims(job: Job, case: Case) -> Finding | None:
    """Score each T2 lesion for a paramagnetic rim."""
    maps, lesions = case.maps, case.lesions
    if not maps.chi or maps.local is None or lesions is None:
        missing = "T2 lesions (FLAIR and T1w, or a mask)" if lesions is None else "susceptibility"
        job.journal.warn(f"No paramagnetic rims were looked for: there is no map of {missing}.")
        return None
    labels = lesions.on_series.data
    if not labels.any():
        job.journal.warn(
            "No paramagnetic rims were looked for: there is no T2 lesion on the series' grid."
        )
        return None
    warn_of_coarse_voxels(job, maps.local.geometry.voxel_mm, "to show paramagnetic rims")
    function, options = method(job.settings.processing, STEP)
    chi_ppm, mask = maps.chi[0].result.chi_ppm, maps.local.mask
    voxel_mm = maps.local.geometry.voxel_mm
    veins = None if maps.veins is None else maps.veins.mask
    found = job.steps.run(
        STEP,
        Rims,
        lambda _: function(chi_ppm, labels, mask, voxel_mm, veins, **options),
        {
            "method": function.__name__,
            "chi": digest(chi_ppm),
            "lesions": digest(labels),
            "veins": None if veins is None else digest(veins),
            **options,
        },
    )
    note(job, STEP, options, job.steps.seconds(STEP))
    table = found.table()
    places = [name for name in ("index", "location", "lobe") if name in lesions.table]
    table = table.merge(lesions.table[places], on="index", how="left")
    scored = int(table["score"].notna().sum())
    with_rim = int((table["has_rim"] == True).sum())  # noqa: E712 (None is neither)
    return Finding(
        tables=(NamedTable("rims", table),),
        draw=partial(draw_rims, maps, lesions, table),
        facts={"Lesions with a paramagnetic rim": f"{with_rim} of {scored} that are large enough"},
    )


def draw_rims(maps: Maps, lesions: Lesions, table: pd.DataFrame) -> Iterator[Picture]:
    """Yield the picture of the lesions most like ones with a rim."""
    from bids_qsm.clinical.cutouts import RIM_PPM, View, cutouts, magnitude_view

    first = table[table["score"].notna()].sort_values("score", ascending=False, kind="stable")
    if not len(first):
        return
    titles = {
        int(row.index_): f"{row.index_}: score {row.score:.2f}, {100 * row.coverage:.0f} % round"
        for row in first.rename(columns={"index": "index_"}).itertuples()
    }
    views = (magnitude_view(maps), View(maps.chi[0].result.chi_ppm, RIM_PPM))
    chart = cutouts(views, lesions.on_series.data, titles, maps.magnitude.affine)
    yield Picture(
        "Paramagnetic rims",
        "rims",
        "Lesions and their rims",
        "Axial slices through each lesion, the highest score first: magnitude, and χ from −0.1 "
        "(black) to 0.15 ppm (white), the subject's left on the left. The line is the lesion's "
        "border by FLAIR.",
        (("", chart.png),),
    )

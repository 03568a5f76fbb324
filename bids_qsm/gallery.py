"""The pictures of a series' report: which maps are drawn, how, and what is said below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bids_qsm.anatomy.template import load_template
from bids_qsm.anatomy.tissues import LABELS, NAMES, NOT_GREY
from bids_qsm.clinical.case import Finding
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import Lesions, Morphometry
from bids_qsm.numerics.geometry import hz_per_ppm
from bids_qsm.report import figures
from bids_qsm.report.figures import Labels, Scale, mosaic, registration_pair
from bids_qsm.report.picture import Picture
from bids_qsm.report.scenes import lesions_scene, structures_scene
from bids_qsm.report.tables import without_side

PARAMAGNETIC = Scale("χ (ppm)", 0.0, 0.15, inside_only=True)
DIAMAGNETIC = Scale("χ (ppm)", -0.1, 0.0, "gray_r", inside_only=True)
CHI_SD = Scale("SD of χ (ppm)", lower=0.0, colours="inferno", inside_only=True)
SWI = Scale("signal (arbitrary units)", lower=0.0, inside_only=True)


def draw(
    maps: Maps,
    anatomy: Anatomy | None,
    structures: Sequence[Structures],
    lesions: Lesions | None,
    head: Morphometry | None,
    findings: Sequence[Finding],
) -> list[Picture]:
    """Return all pictures of a series, in the order of the report."""
    return [
        *_inputs(maps),
        *_fields(maps),
        *_results(maps),
        *_sources(maps),
        *_weighted(maps),
        *(_registration(maps, anatomy) if anatomy is not None else ()),
        *(
            picture
            for of_atlas in structures
            if anatomy is not None
            for picture in (*_structures(maps, anatomy, of_atlas), *_nuclei(of_atlas))
        ),
        *(_tissues(anatomy, head) if anatomy is not None and head is not None else ()),
        *(_lesions(anatomy, lesions) if anatomy is not None and lesions is not None else ()),
        *(picture for finding in findings for picture in finding.draw()),
    ]


def _inputs(maps: Maps) -> Iterator[Picture]:
    volume, affine = maps.magnitude.data, maps.magnitude.affine
    yield Picture(
        "Input",
        "magnitude",
        "Magnitude and brain mask",
        "Root sum of squares over the echoes; the line is the border of the brain mask.",
        (("", mosaic(volume, affine, figures.MAGNITUDE, region=maps.brain, outline=maps.brain)),),
    )
    if maps.first_phase is not None and maps.total is not None:
        # noise in the air says nothing, and makes a large file
        head = volume > 0.08 * np.percentile(volume, 99)
        phase = mosaic(maps.first_phase, affine, figures.PHASE, region=maps.brain, support=head)
        yield Picture(
            "Input",
            "phase",
            "Phase of the first echo",
            "As measured: wrapped, with the coils' phase offset.",
            (("", phase),),
        )
        quality = mosaic(
            maps.total.quality,
            affine,
            figures.PHASE_QUALITY,
            region=maps.brain,
            outline=maps.total.mask,
        )
        yield Picture(
            "Input",
            "quality",
            "Phase quality and the mask of the field",
            "The line is where the field is trusted: brain, less poor phase at its border.",
            (("", quality),),
        )


def _fields(maps: Maps) -> Iterator[Picture]:
    affine = maps.magnitude.affine
    if maps.total is not None:
        total = np.where(maps.total.mask, maps.total.field_hz, 0)
        yield Picture(
            "Field",
            "totalfield",
            "Total field",
            "Unwrapped and fitted over the echoes; it is ruled by air and bone around the brain.",
            (
                (
                    "",
                    mosaic(
                        total,
                        affine,
                        figures.TOTAL_FIELD,
                        region=maps.brain,
                        support=maps.total.mask,
                    ),
                ),
            ),
        )
    if maps.local is not None:
        local_hz = maps.local.field_ppm * np.float32(hz_per_ppm(maps.b0_t))
        yield Picture(
            "Field",
            "localfield",
            "Local field",
            "What is left when the background field is removed: the field of the tissue itself.",
            (
                (
                    "",
                    mosaic(
                        local_hz,
                        affine,
                        figures.LOCAL_FIELD,
                        region=maps.brain,
                        support=maps.local.mask,
                    ),
                ),
            ),
        )


def _results(maps: Maps) -> Iterator[Picture]:
    affine = maps.magnitude.affine
    if maps.chi and maps.local is not None:
        chi = maps.chi[0]
        relative = "with a free constant" if chi.region == "none" else f"relative to {chi.region}"
        yield Picture(
            "Maps",
            "chi",
            "Susceptibility χ",
            f"In ppm, {relative}; iron is bright, myelin and calcium are dark.",
            (
                (
                    "",
                    mosaic(
                        chi.result.chi_ppm,
                        affine,
                        figures.CHI,
                        region=maps.brain,
                        support=maps.local.mask,
                    ),
                ),
            ),
        )
        if maps.uncertainty is not None:
            known = maps.local.mask
            spread = mosaic(
                maps.uncertainty.sd_ppm, affine, CHI_SD, region=maps.brain, support=known
            )
            caption = "In ppm: what the noise of the field makes of it, and no other error."
            title = "Standard deviation of χ"
            yield Picture("Maps", "chisd", title, caption, (("", spread),))
    if maps.relaxation is not None:
        r2star = mosaic(maps.relaxation.r2star_per_s, affine, figures.R2STAR, region=maps.brain)
        yield Picture("Maps", "r2star", "R2*", "In 1/s, fitted to the magnitude.", (("", r2star),))


def _sources(maps: Maps) -> Iterator[Picture]:
    if maps.sources is None:
        return
    for what, title, values, scale, caption in (
        (
            "paramagnetic",
            "Paramagnetic sources (experimental)",
            maps.sources.paramagnetic_ppm,
            PARAMAGNETIC,
            "In ppm; iron, above all. Of R2* and χ, by a model: to be read with care.",
        ),
        (
            "diamagnetic",
            "Diamagnetic sources (experimental)",
            maps.sources.diamagnetic_ppm,
            DIAMAGNETIC,
            "In ppm; the more myelin or calcium, the brighter.",
        ),
    ):
        picture = mosaic(values, maps.magnitude.affine, scale, region=maps.brain)
        yield Picture("Maps", what, title, caption, (("", picture),))


def _weighted(maps: Maps) -> Iterator[Picture]:
    if maps.weighted is None:
        return
    for what, title, image, caption in (
        (
            "swi",
            "Susceptibility-weighted image",
            maps.weighted.swi,
            "Veins, iron and blood are dark.",
        ),
        (
            "minip",
            "Minimum intensity projection",
            maps.weighted.minip,
            "The darkest value of the susceptibility-weighted image in a slab around each slice.",
        ),
    ):
        picture = mosaic(image, maps.magnitude.affine, SWI, region=maps.brain)
        yield Picture("Maps", what, title, caption, (("", picture),))


def _registration(maps: Maps, anatomy: Anatomy) -> Iterator[Picture]:
    names = ("gradient echo", "T1w")
    for what, title, registered in (
        ("t1wbefore", "T1w to gradient echo, before: as the headers say", False),
        ("t1wafter", "T1w to gradient echo, after: registered", True),
    ):
        moved = anatomy.t1w_on_grid(registered).data
        pair = registration_pair(
            maps.magnitude.data, moved, maps.magnitude.affine, region=maps.brain, names=names
        )
        yield Picture(
            "Registration",
            what,
            title,
            "The two images in turn; the lines are the edges of the T1w image.",
            (("1", pair[0]), ("2", pair[1])),
        )
    template = load_template()
    pair = registration_pair(
        template.data,
        anatomy.t1w_on_template().data,
        template.affine,
        region=template.data > 0,
        names=("template", "T1w"),
    )
    yield Picture(
        "Registration",
        "template",
        "T1w to template",
        "The template and the warped T1w image in turn.",
        (("1", pair[0]), ("2", pair[1])),
    )


def _structures(maps: Maps, anatomy: Anatomy, structures: Structures) -> Iterator[Picture]:
    affine, table = maps.magnitude.affine, structures.atlas.table
    # left and right share a colour, and a line of the legend
    names = without_side(table["name"])
    labels = Labels(structures.labels.data, dict(zip(table["index"], names, strict=True)))
    region = structures.labels.data > 0
    name = structures.atlas.name
    caption = f"Labels of the atlas {name}."
    if maps.chi and maps.local is not None:
        chi, known = maps.chi[0].result.chi_ppm, maps.local.mask
        picture = mosaic(chi, affine, figures.CHI, region=region, support=known, labels=labels)
        yield Picture("Structures", f"{name}chi", "Structures on χ", caption, (("", picture),))
    t1w = anatomy.t1w_on_grid().data
    picture = mosaic(t1w, affine, figures.T1W, region=region, labels=labels)
    yield Picture("Structures", f"{name}t1w", "Structures on T1w", caption, (("", picture),))


def _nuclei(structures: Structures) -> Iterator[Picture]:
    table, image = structures.atlas.table, structures.t1w_labels
    all_names = dict(zip(table["index"], without_side(table["name"]), strict=True))
    is_nucleus = ~table["name"].str.lower().str.contains("|".join(NOT_GREY))
    is_nucleus &= table["index"].isin(structures.segmentation.indices)
    nuclei = {index: all_names[index] for index in table["index"][is_nucleus]}
    # in the colours that they have on slices
    colours = Labels(image.data, all_names).colours
    if not colours.keys() & set(nuclei.values()):
        return
    name = structures.atlas.name
    scene = structures_scene(Labels(image.data, nuclei), image.affine, colours)
    caption = f"The deep grey matter, by the atlas {name}, as it was segmented in this head."
    yield Picture("Structures", f"{name}3d", "Nuclei in three dimensions", caption, (("", scene),))


def _tissues(anatomy: Anatomy, head: Morphometry) -> Iterator[Picture]:
    t1w, brain = anatomy.t1w.image, anatomy.t1w.brain.data
    labels = Labels(head.tissues.labels, dict(zip(LABELS.values(), NAMES, strict=True)))
    picture = mosaic(t1w.data, t1w.affine, figures.T1W, region=brain, labels=labels)
    caption = "The tissue with most of each voxel."
    yield Picture("Structures", "tissues", "Tissues on T1w", caption, (("", picture),))


def _lesions(anatomy: Anatomy, lesions: Lesions) -> Iterator[Picture]:
    under, scale, name = anatomy.t1w.image, figures.T1W, "T1w"
    if lesions.flair is not None:
        under, scale, name = lesions.flair, figures.FLAIR, "FLAIR"
    kinds = (lesions.labels.data > 0).astype(np.int16)
    names = {1: "T2 lesion"}
    if lesions.enhancing is not None:
        kinds[lesions.enhancing.data > 0] = 2
        names[2] = "enhancing"
    region = kinds > 0 if kinds.any() else anatomy.t1w.brain.data
    labels = Labels(kinds, names)
    picture = mosaic(under.data, under.affine, scale, region=region, labels=labels)
    caption = "Found in FLAIR and T1w, or as given; the table of lesions has a row for each."
    yield Picture("Structures", "lesions", f"Lesions on {name}", caption, (("", picture),))
    if not kinds.any():
        return
    numbered = {names[1]: lesions.labels.data}
    if lesions.enhancing is not None:
        numbered[names[2]] = lesions.enhancing.data
    t1w_brain = anatomy.t1w.brain
    scene = lesions_scene(t1w_brain.data, numbered, t1w_brain.affine, labels.colours)
    title, caption = "Lesions in three dimensions", "Seen through the surface of the brain."
    yield Picture("Structures", "lesions3d", title, caption, (("", scene),))

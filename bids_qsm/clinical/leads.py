"""Leads for deep brain stimulation in a post-operative CT: where their contacts are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.ct import CtRegistration, brain_on_ct, ct_on_t1w, load_ct, register_ct
from bids_qsm.anatomy.resampling import map_points
from bids_qsm.bids.derivatives import find_ct, find_targets
from bids_qsm.bids.sidecars import raw_uri
from bids_qsm.choices import method, note
from bids_qsm.clinical.case import Case, Finding, NamedImage, NamedTable
from bids_qsm.errors import BidsQsmError, UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.job import Job, digest
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.numerics.lead_models import LEAD_MODELS
from bids_qsm.numerics.leads import ASSUMED_HOW, ESTIMATED, Lead, lead_mask, radial_error
from bids_qsm.reading import check_table

Float = NDArray[np.floating]

WITHIN_SKULL_MM = 4.0
"""How far within the brain's border metal is looked for: bone is bright, too."""
LEAST_COVERED = 0.9
NEAR_MM = 15.0
"""Nuclei farther than this from every contact of a lead are not listed."""
METAL_HU = 2500.0
TARGET_COLUMNS = ("hemisphere", "x_mm", "y_mm", "z_mm")
AXES = "xyz"


@dataclass(frozen=True)
class PlacedLead:
    """A lead in the world of the T1w image (RAS, mm), with its number and hemisphere."""

    number: int
    hemisphere: str
    lead: Lead

    @property
    def name(self) -> str:
        """What it is called in words."""
        return f"lead {self.number} ({self.hemisphere})"


@dataclass(frozen=True)
class Target:
    """A point of the user's table."""

    name: str
    hemisphere: str
    place_mm: Float


@dataclass(frozen=True)
class _Found:
    """All leads as arrays, in the world of the CT; ``lengths`` and so on have one entry each."""

    tips_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    paths_mm: NDArray[np.float64]
    path_ends: NDArray[np.int64]
    contacts_mm: NDArray[np.float64]
    contact_ends: NDArray[np.int64]
    models: tuple[str, ...]
    hows: tuple[str, ...]
    sizes_mm: NDArray[np.float64]

    @classmethod
    def of(cls, leads: Sequence[Lead]) -> _Found:
        nothing = np.zeros((0, 3))
        return cls(
            np.array([lead.tip_mm for lead in leads]).reshape(-1, 3),
            np.array([lead.axis for lead in leads]).reshape(-1, 3),
            np.concatenate([nothing, *(lead.path_mm for lead in leads)]),
            np.cumsum([len(lead.path_mm) for lead in leads], dtype=np.int64),
            np.concatenate([nothing, *(lead.contacts_mm for lead in leads)]),
            np.cumsum([len(lead.contacts_mm) for lead in leads], dtype=np.int64),
            tuple(lead.model for lead in leads),
            tuple(lead.how for lead in leads),
            np.array([(lead.length_mm, lead.bend_mm, lead.width_mm) for lead in leads]),
        )

    def leads(self) -> Iterator[Lead]:
        paths = np.split(self.paths_mm, self.path_ends[:-1])
        contacts = np.split(self.contacts_mm, self.contact_ends[:-1])
        for i, (model, how) in enumerate(zip(self.models, self.hows, strict=True)):
            sizes = (float(size) for size in self.sizes_mm[i])
            yield Lead(self.tips_mm[i], self.axes[i], paths[i], contacts[i], model, how, *sizes)


def find_leads(job: Job, case: Case) -> Finding | None:
    """Find leads in a post-operative CT, and what their contacts lie in and near."""
    try:
        path = find_ct(job.settings, job.series)
    except UnreadableInputError as error:
        job.journal.warn(f"{error} No leads were looked for.")
        return None
    given = job.settings.derivatives.get("ct")
    if path is None:
        if given is not None:
            job.journal.warn(
                f"{given}: there is no CT of sub-{job.series.subject}; it is named "
                f"sub-{job.series.subject}..._ct.nii.gz."
            )
        return None
    if case.anatomy is None:
        job.journal.warn(f"{path}: the CT was not used, as it needs a T1w image.")
        return None
    try:
        ct = load_ct(path)
        registration = _registered(job, case.anatomy, ct, path)
        leads = _found(job, case.anatomy, ct, registration, path)
    except (BidsQsmError, ValueError) as error:
        job.journal.warn(f"{str(error).rstrip('.')}. No leads were looked for.")
        return None
    targets = _targets(job)
    return _finding(job, case, case.anatomy, path, ct, registration, leads, targets)


def _registered(job: Job, anatomy: Anatomy, ct: Image, path: Path) -> CtRegistration:
    """Return the way from T1w to CT.

    Raises
    ------
    ValueError
        If the two images do not lie over each other.
    """
    parameters = {"ct": digest(ct.data), "t1w": digest(anatomy.t1w.image.data)}
    try:
        found = job.steps.run(
            "ct", CtRegistration, lambda _: register_ct(anatomy.t1w, ct), parameters
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    job.journal.step("ct", "rigid", {}, job.steps.seconds("ct"))
    if found.failed:
        raise ValueError(
            f"{path}: the CT could not be registered to the T1w image: {100 * found.overlap:.0f} % "
            f"of the brain is soft tissue in it, {100 * found.skull:.0f} % of what surrounds the "
            f"brain is bone, and their mutual information is {found.mutual_information:.2f}; check "
            "that it is the same head, and its orientation"
        )
    if found.covered < LEAST_COVERED:
        job.journal.warn(
            f"{path}: the CT covers {100 * found.covered:.0f} % of the brain alone: leads "
            "elsewhere are not found."
        )
    return found


def _found(
    job: Job, anatomy: Anatomy, ct: Image, registration: CtRegistration, path: Path
) -> list[PlacedLead]:
    """Return the leads in the world of the T1w image; why there are none is a warning."""
    function, options = method(job.settings.processing, "leads")
    region = brain_on_ct(anatomy.t1w.brain, ct, registration, WITHIN_SKULL_MM)
    found = job.steps.run(
        "leads",
        _Found,
        lambda _: _Found.of(function(ct.data, ct.affine, region, **options)),
        options,
        after=["ct"],
    )
    note(job, "leads", options, job.steps.seconds("leads"))
    ct_to_t1w = np.linalg.inv(registration.t1w_to_ct)
    leads = [_moved(lead, ct_to_t1w) for lead in found.leads()]
    if not leads:
        job.journal.warn(f"{path}: {_why_none(ct, region, options['threshold_hu'])}")
    middles = [lead.contacts_mm.mean(axis=0) for lead in leads]
    at_mni = map_points(np.array(middles).reshape(-1, 3), anatomy.warp.t1w_to_template)
    sides = ["L" if x < 0 else "R" for x in at_mni[:, 0]]
    order = sorted(range(len(leads)), key=lambda i: (sides[i], i))
    placed = [PlacedLead(n, sides[i], leads[i]) for n, i in enumerate(order, start=1)]
    job.journal.warn(*(text for lead in placed for text in _doubts(lead, anatomy, path)))
    return placed


def _why_none(ct: Image, region: NDArray[np.bool_], threshold_hu: float) -> str:
    """Return why no lead was found, in a sentence."""
    voxel_mm3 = ct.geometry.voxel_mm3
    bright = np.count_nonzero((ct.data > threshold_hu) & region) * voxel_mm3
    metal = np.count_nonzero(ct.data > METAL_HU) * voxel_mm3
    if bright > 5:
        return (
            f"the brain holds {bright:.0f} mm3 above {threshold_hu:.0f} HU, but nothing as long "
            "and thin as a lead."
        )
    if metal > 5:
        return "there is no metal in the brain; what the CT shows lies outside of it."
    return "the CT shows no metal: is it the one after the operation?"


def _doubts(lead: PlacedLead, anatomy: Anatomy, path: Path) -> Iterator[str]:
    own = lead.lead
    if own.how == ASSUMED_HOW:
        yield (
            f"{path}: the contacts of {lead.name} do not show singly; they are taken for those of "
            f"the model {own.model}. Say which it is by the option 'model' of 'leads'."
        )
    elif own.how == ESTIMATED and len(alike := _alike(own.model)) > 1:
        yield (
            f"{path}: by its contacts, {lead.name} is one of {', '.join(alike)}; the length of its "
            f"tip is that of {own.model}. Say which it is by the option 'model' of 'leads'."
        )
    brain = anatomy.t1w.brain
    voxel = np.linalg.inv(brain.affine) @ [*own.tip_mm, 1]
    index = np.rint(voxel[:3]).astype(int)
    there = (index >= 0).all() and (index < brain.shape).all()
    if not there or not brain.data[tuple(index)]:
        yield f"{path}: {lead.name} ends outside the brain."


def _alike(name: str) -> list[str]:
    pattern = LEAD_MODELS[name].pattern
    return [model.name for model in LEAD_MODELS.values() if model.pattern == pattern]


def _moved(lead: Lead, matrix: Float) -> Lead:
    def points(values: Float) -> Float:
        return np.asarray(np.einsum("ij,...j->...i", matrix[:3, :3], values) + matrix[:3, 3])

    return Lead(
        points(lead.tip_mm),
        np.einsum("ij,j->i", matrix[:3, :3], lead.axis),
        points(lead.path_mm),
        points(lead.contacts_mm),
        lead.model,
        lead.how,
        lead.length_mm,
        lead.bend_mm,
        lead.width_mm,
    )


def _targets(job: Job) -> tuple[Target, ...]:
    """Return the user's targets; what is wrong with them is a warning."""
    try:
        path = find_targets(job.settings, job.series)
        return () if path is None else read_targets(path)
    except UnreadableInputError as error:
        job.journal.warn(f"{error} No lead was compared with a target.")
        return ()


def read_targets(path: Path) -> tuple[Target, ...]:
    """Return the targets of a table (RAS, mm, in the world of the T1w image).

    Raises
    ------
    UnreadableInputError
        If the file cannot be read, lacks a column, or a value makes no sense.
    """
    try:
        check_table(path)
        table = pd.read_csv(path, sep="\t", dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
        raise UnreadableInputError(f"{path}: the targets cannot be read ({error}).") from error
    table.columns = table.columns.str.strip()
    missing = [column for column in TARGET_COLUMNS if column not in table]
    if missing:
        raise UnreadableInputError(
            f"{path}: the table of targets lacks the column {missing[0]!r}; it needs "
            f"{', '.join(TARGET_COLUMNS)} (L or R; RAS, in mm, in the world of the T1w image), "
            "separated by tabs."
        )
    found = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        place = pd.to_numeric(pd.Series([row[c] for c in TARGET_COLUMNS[1:]]), errors="coerce")
        side = str(row["hemisphere"]).strip().upper()[:1]
        if side not in ("L", "R") or not np.isfinite(place).all():
            raise UnreadableInputError(
                f"{path}: row {number} of the targets needs a hemisphere (L or R) and three "
                "numbers."
            )
        name = row.get("name")
        name = name.strip() if isinstance(name, str) else f"target {number}"
        found.append(Target(name, side, place.to_numpy(float)))
    return tuple(found)


def _finding(
    job: Job,
    case: Case,
    anatomy: Anatomy,
    path: Path,
    ct: Image,
    registration: CtRegistration,
    leads: Sequence[PlacedLead],
    targets: Sequence[Target],
) -> Finding:
    t1w = anatomy.t1w.image
    moved = ct_on_t1w(ct, t1w, registration)
    mask = lead_mask(t1w.shape, t1w.affine, {lead.number: lead.lead.path_mm for lead in leads})
    sources = [raw_uri(t1w_path, job.settings.bids_dir) for t1w_path in _t1w(job)]
    fields = {"Sources": [*sources, _uri(path, job.settings.bids_dir)]}
    contacts, distances = contact_tables(leads, anatomy, case.structures)
    from bids_qsm.clinical.lead_pictures import draw_leads

    return Finding(
        images=(
            NamedImage("ct", moved, "T1w", fields),
            NamedImage("lead_mask", t1w.like(mask > 0), "T1w", fields),
        ),
        tables=(
            NamedTable("leads", lead_table(leads, targets)),
            NamedTable("contacts", contacts),
            NamedTable("contact_distances", distances),
        ),
        draw=partial(draw_leads, leads, targets, moved, case, anatomy),
        facts={"Leads": ", ".join(_fact(lead) for lead in leads) or "none found"},
    )


def _t1w(job: Job) -> list[Path]:
    return [job.series.t1w] if job.series.t1w is not None else []


def _uri(path: Path, bids_dir: Path) -> str:
    """Return the URI of a file within the dataset; another one's name alone."""
    return raw_uri(path, bids_dir) if path.is_relative_to(bids_dir) else path.name


def _fact(lead: PlacedLead) -> str:
    own = lead.lead
    tip = ", ".join(f"{value:.1f}" for value in own.tip_mm)
    return f"{lead.hemisphere}: {own.model} ({own.how}), tip at ({tip}) mm"


def lead_table(leads: Sequence[PlacedLead], targets: Sequence[Target]) -> pd.DataFrame:
    """Return a row for each lead, with its hemisphere's target that is nearest to its axis."""
    rows = []
    for lead in leads:
        own = lead.lead
        entry = own.path_mm[-1]
        right, front, top = own.axis
        out = -1 if lead.hemisphere == "L" else 1
        row: dict[str, Any] = {
            "lead": lead.number,
            "hemisphere": lead.hemisphere,
            "model": own.model,
            "model_from": own.how,
            **{f"tip_{a}_mm": value for a, value in zip(AXES, own.tip_mm, strict=True)},
            **{f"entry_{a}_mm": value for a, value in zip(AXES, entry, strict=True)},
            "coronal_deg": np.degrees(np.arctan2(out * right, top)),
            "sagittal_deg": np.degrees(np.arctan2(front, top)),
            "length_mm": own.length_mm,
            "bend_mm": own.bend_mm,
            "width_mm": own.width_mm,
        }
        beside = [
            (*radial_error(own.tip_mm, own.axis, target.place_mm), target)
            for target in targets
            if target.hemisphere == lead.hemisphere
        ]
        if beside:
            radial, depth, target = min(beside, key=lambda found: found[0])
            row |= {
                "target": target.name,
                "radial_error_mm": radial,
                "depth_error_mm": depth,
                "nearest_contact": int(
                    np.linalg.norm(own.contacts_mm - target.place_mm, axis=1).argmin()
                ),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def contact_tables(
    leads: Sequence[PlacedLead], anatomy: Anatomy, structures: Sequence[Structures]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the contacts with what they lie in, for each atlas; and their distances to nuclei."""
    contacts, distances = [], []
    for lead in leads:
        points = lead.lead.contacts_mm
        at_mni = map_points(points, anatomy.warp.t1w_to_template)
        common = [
            {
                "lead": lead.number,
                "hemisphere": lead.hemisphere,
                "contact": number,
                **{f"{a}_mm": value for a, value in zip(AXES, point, strict=True)},
                **{f"mni_{a}_mm": value for a, value in zip(AXES, mni, strict=True)},
            }
            for number, (point, mni) in enumerate(zip(points, at_mni, strict=True))
        ]
        for of_atlas in structures:
            near = nuclei_near(of_atlas, lead.hemisphere, points)
            for number, row in enumerate(common):
                contacts.append(row | {"atlas": of_atlas.atlas.name} | _lies_in(near, number))
                distances += [
                    {
                        **{key: row[key] for key in ("lead", "hemisphere", "contact")},
                        "atlas": of_atlas.atlas.name,
                        "index": index,
                        "name": name,
                        "surface_mm": surface[number],
                        "centroid_mm": centroid[number],
                    }
                    for (index, name), (surface, centroid) in near.items()
                ]
        if not structures:
            contacts += common
    return pd.DataFrame(contacts), pd.DataFrame(distances)


Distances = Mapping[tuple[int, str], tuple[Float, Float]]


def _lies_in(near: Distances, number: int) -> dict[str, Any]:
    """Return the nucleus that a contact is in, and the one whose surface is nearest."""
    if not near:
        return {}
    (index, name), (surface, _) = min(near.items(), key=lambda item: item[1][0][number])
    inside = surface[number] < 0
    return {
        "index": index if inside else 0,
        "name": name if inside else "none",
        "nearest": name,
        "nearest_mm": surface[number],
    }


def nuclei_near(structures: Structures, hemisphere: str, points_mm: Float) -> Distances:
    """Return the distances (mm) of points to the surfaces and centroids of nuclei of a side.

    The distance to a surface is negative within the nucleus.
    """
    table = structures.atlas.table
    table = table[table["index"].isin(structures.segmentation.indices)]
    table = table[table["hemisphere"] == hemisphere]
    table = table[~table["name"].str.contains("ventricle", case=False)]
    labels = structures.t1w_labels
    voxel_mm = np.array(voxel_sizes_mm(labels.affine))
    inverse = np.linalg.inv(labels.affine)
    places = np.einsum("ij,nj->ni", inverse[:3, :3], points_mm) + inverse[:3, 3]
    boxes = ndimage.find_objects(labels.data, int(table["index"].max()) if len(table) else 0)
    found: dict[tuple[int, str], tuple[Float, Float]] = {}
    for row in table.itertuples(index=False):
        index = int(row.index)
        box = boxes[index - 1]
        if box is None:
            continue
        surface, centroid = _distances(labels.data == index, box, places, voxel_mm)
        if surface.min() <= NEAR_MM:
            found[index, str(row.name)] = surface, centroid
    return found


def _distances(
    mask: NDArray[np.bool_], box: tuple[slice, ...], places: Float, voxel_mm: Float
) -> tuple[Float, Float]:
    """Return the signed distances of voxel places to a mask's surface, and to its centroid."""
    centroid = np.array([p.start for p in box]) + np.argwhere(mask[box]).mean(axis=0)
    to_centroid = np.linalg.norm((places - centroid) * voxel_mm, axis=1)
    low = np.minimum(np.floor(places.min(axis=0)), [p.start for p in box]).astype(int) - 2
    high = np.maximum(np.ceil(places.max(axis=0)), [p.stop for p in box]).astype(int) + 3
    low, high = np.maximum(low, 0), np.minimum(high, mask.shape)
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    half = float(voxel_mm.mean()) / 2
    outside = ndimage.distance_transform_edt(~part, sampling=voxel_mm) - half
    inside = half - ndimage.distance_transform_edt(part, sampling=voxel_mm)
    signed = np.where(part, inside, outside)
    at = (places - low).T
    return ndimage.map_coordinates(signed, at, order=1, mode="nearest"), to_centroid

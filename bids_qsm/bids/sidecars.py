"""What the JSON sidecar of an output says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bids_qsm.bids.naming import OUTPUTS, TEMPLATE_RESOLUTION, Output
from bids_qsm.numerics.regions import WITHOUT_VEINS
from bids_qsm.settings import TEMPLATE

STATISTICS_COLUMNS = {
    "index": "Label of the structure in the atlas.",
    "name": "Name of the structure in the atlas.",
    "hemisphere": "L, R, or B for a structure of both sides.",
    "measure": "What was measured, named by the suffix of its map.",
    "units": "Units of mean, median, sd, p05 and p95.",
    "reference": "Region that susceptibility is relative to; n/a for other measures.",
    "mean": "Mean over the voxels of the structure.",
    "median": "Median over the voxels of the structure.",
    "sd": "Standard deviation over the voxels of the structure.",
    "p05": "5th percentile over the voxels of the structure.",
    "p95": "95th percentile over the voxels of the structure.",
    "n_voxels": "Number of voxels measured.",
    "volume_mm3": "Volume of the structure.",
    "coverage": "Share of the structure's voxels in which the map is known.",
    **WITHOUT_VEINS,
    "confidence": "Mean probability of the structure over its own voxels, as segmented; n/a where "
    "it came from the registration alone.",
    "agreement": "Mean Dice overlap of the structure with what each registered atlas said alone.",
}

MORPHOMETRY_COLUMNS = {
    "name": "Tissue, structure, or kind of lesion.",
    "hemisphere": "L, R, or B for both sides.",
    "measure": "volume, thickness, or number.",
    "value": "What was measured, in units.",
    "units": "Units of value and normalised.",
    "normalised": "Volume over the size of the head: what it would be in the template's head.",
    "source": "Program that measured it.",
}

QUALITY_COLUMNS = {
    "check": "What was looked at.",
    "name": "Name of the structure; a pair reads 'a - b'.",
    "hemisphere": "L, R, or B for both sides.",
    "value": "What was found.",
    "low": "Least value that is expected; n/a where there is none.",
    "high": "Largest value that is expected; n/a where there is none.",
    "units": "Units of value, low and high.",
    "passed": "Whether the value is as expected.",
    "sentence": "The same in words.",
}

SERIES_QUALITY_COLUMNS = {
    "check": "What was measured.",
    "name": "Part of the data that it was measured in.",
    "value": "What was found; n/a where it cannot be measured.",
    "low": "Least value that is expected; n/a where there is none.",
    "high": "Largest value that is expected; n/a where there is none.",
    "units": "Units of value, low and high.",
    "direction": "Which values are bad: high, low or both.",
    "passed": "Whether the value is as expected; n/a where it cannot be measured.",
    "sentence": "The same in words.",
}

GROUP_QUALITY_COLUMNS = {
    "participant_id": "Participant.",
    "session_id": "Session; n/a where there is none.",
    "series": "Name of the series.",
    "comparable": "What the scan was made with: scans with the same text are compared.",
    "atlas": "Atlas whose labels were checked; n/a for what was measured in images and maps.",
    **{name: text for name, text in QUALITY_COLUMNS.items() if name != "sentence"},
    "direction": "Which values are bad: high, low or both.",
    "n_comparable": "Comparable scans that have a value; 0 where the scan was not compared.",
    "median": "Their median.",
    "robust_z": "Robust SD from the median (the SD is 1.4826 times the median absolute deviation; "
    "of logarithms where all values are above zero); n/a where the scan was not compared, or half "
    "of the scans have one value.",
    "z_cutoff": "What robust_z exceeds by chance in one usual scan of 100, in any metric.",
    "is_outlier": "Whether robust_z, or a robust distance, is beyond its cutoff on the bad side.",
}

EXCLUSION_COLUMNS = {
    "participant_id": "Participant.",
    "session_id": "Session; n/a where there is none.",
    "series": "Name of the series.",
    "exclude": "Whether the scan is proposed to be left out; edit it, and give the file to the "
    "group level by --exclude.",
    "reasons": "What was found.",
}

GROUP_TABLE_COLUMNS = {"quality": GROUP_QUALITY_COLUMNS, "exclusions": EXCLUSION_COLUMNS}
"""What the columns of tables over all scans hold."""

LESION_COLUMNS = {
    "index": "Number of the lesion in the labels of lesions, the largest first.",
    "volume_mm3": "Volume.",
    "x_mm": "Centre of mass in the world of the T1w image, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    "location": "periventricular, juxtacortical, infratentorial or deep white matter.",
    "lobe": "Lobe that holds most of it, or the nearest one.",
    "ventricle_distance_mm": "Least distance to a ventricle.",
    "chi_ppm_mean": "Mean susceptibility, relative to the reference region, in ppm.",
    "chi_ppm_sd": "Standard deviation of susceptibility over its voxels, in ppm.",
    "chi_ppm_n_voxels": "Number of voxels with susceptibility.",
    "r2star_per_s_mean": "Mean R2* in 1/s.",
    "r2star_per_s_sd": "Standard deviation of R2* over its voxels in 1/s.",
    "r2star_per_s_n_voxels": "Number of voxels with R2*.",
}

TRACKED_COLUMNS = {
    "index": "Number of the lesion in the labels of lesions.",
    "volume_mm3": "Volume.",
    "x_mm": "Centre of mass in the world of the series, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    **{name: text for name, text in LESION_COLUMNS.items() if name.startswith(("chi_", "r2star_"))},
}

TRACKING_COLUMNS = {
    "lesion": "Number of the lesion, one over all sessions.",
    "session_id": "Session; n/a where there is none.",
    "series": "Name of the series.",
    "state": "found: among the session's own lesions; not found: the region was measured, and no "
    "lesion was seen in it; outside: susceptibility is not known there.",
    "acq_time": "When the series was made; n/a where the dataset does not say.",
    "years": "Years since the first session.",
    "reference": "Region that susceptibility is relative to.",
    "x_mm": "Centre of the region in the world of the series, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    "region_mm3": "Volume of the lesion's region: all that belongs to it in any session.",
    "coverage": "Share of the region in which susceptibility is known.",
    "chi_ppm_mean": "Mean susceptibility in the region, in ppm.",
    "chi_ppm_sd": "Its standard deviation over the region, in ppm.",
    "chi_ppm_p99": "99th percentile of susceptibility in the region, in ppm.",
    "chi_ppm_around": "Median susceptibility in a shell around the region, in ppm.",
    "moment_ppm_mm3": "Susceptibility less that around, summed up over the region and what is "
    "within 2 mm of it, times the volume of a voxel.",
    "r2star_per_s_mean": "Mean R2* in the region, in 1/s.",
    "own_chi_ppm_mean": "Mean susceptibility in the lesion as this session alone has it, in ppm.",
    "own_volume_mm3": "Volume of the lesion as this session alone has it.",
    "change_percent": "Change of chi_ppm_mean since the session before that has a value.",
    "change_percent_per_year": "The same for a year.",
    "total_change_percent": "Change of chi_ppm_mean since the first session that has a value.",
    "contrast_change_percent": "Change of chi_ppm_mean less chi_ppm_around since the session "
    "before: what the zero of susceptibility does not touch.",
    "moment_change_percent": "Change of moment_ppm_mm3 since the session before.",
    "exceeds_threshold": "Whether change_percent is as large as the threshold.",
    "brain_overlap": "Dice overlap of the brain mask with that of the first session, registered.",
}

MICROBLEED_COLUMNS = {
    "index": "Number in the labels, the surest first.",
    "kind": "microbleed (paramagnetic) or calcification (diamagnetic).",
    "confidence": "Probability, 0 to 1, that it is one, calibrated on simulated heads.",
    "space": "World of the place: that of the T1w image, or of the series where there is none.",
    "x_mm": "Place, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    "region": "lobar, deep or infratentorial.",
    "lobe": "Lobe of a lobar one.",
    "structure": "Structure of an atlas that it lies in.",
    "usual_place": "Where calcification is usual in health: pineal gland, choroid plexus or falx.",
    "moment_ppm_mm3": "Total susceptibility above the surroundings, in ppm mm3: summed over its "
    "voxels and their rim; at the edge that of the dipole.",
    "dipole_ppm_mm3": "The same by the dipole that fits the field around it, whatever the map "
    "says.",
    "dipole_sd_ppm_mm3": "Standard error of that fit, if the errors of voxels were independent.",
    "peak_ppm": "Susceptibility farthest from that of the surroundings, less that, in ppm.",
    "diameter_mm": "Of a ball of the volume of its voxels: those of more than half the peak, or at "
    "the edge those of the void.",
    "r2star_per_s": "Mean R2* in its voxels in 1/s.",
    "vein_share": "Share of its voxels that the vein mask holds.",
    "at_edge": "Whether it is a void at the edge of the mask, measured by the total field.",
    "explained": "Share of the field's variation around it that the dipole explains.",
    "saddle": "Highest level, over the peak, from which one need not go down to leave it: high "
    "along a vessel.",
    "edge_mm": "Distance to the edge of the mask.",
    "in_nucleus": "Share of its voxels in an iron-rich nucleus of an atlas.",
}

RIM_COLUMNS = {
    "index": "Number of the lesion in the labels of lesions.",
    "location": "As in the table of lesions.",
    "lobe": "As in the table of lesions.",
    "volume_mm3": "Volume on the grid of the series.",
    "score": "How much it looks like a lesion with a paramagnetic rim, 0 to 1; n/a if too small.",
    "has_rim": "Whether the score is as high as the limit.",
    "coverage": "Share of the border, by direction, along which the rim is brighter than core and "
    "surroundings.",
    "rim_to_core_ppm": "Susceptibility of the rim less that of the core, in ppm.",
    "rim_to_outside_ppm": "Susceptibility of the rim less that 2 to 5 mm outside, in ppm.",
    "core_type": "Core against the surroundings: hyperintense, isointense or hypointense.",
    "core_to_outside_ppm": "Susceptibility of the core less that outside, in ppm.",
    "core_ppm": "Median susceptibility of the core, in ppm.",
    "rim_ppm": "Mean susceptibility of the rim, in ppm.",
    "outside_ppm": "Median susceptibility 2 to 5 mm outside, in ppm.",
    "rim_offset_mm": "Where the rim is brightest: distance to the border, negative inside.",
}

CONTRAST_COLUMNS = {
    "structure": "Nucleus.",
    "hemisphere": "L or R.",
    "contrast": "Image: T1w, T2w, Chimap, or hybrid (T1w + k times Chimap).",
    "surround": "What it is compared with: the part of a shell around the nucleus that is its "
    "neighbour (by name), or that is unlabelled, without fluid and veins; weakest is the part with "
    "the least ratio.",
    "cnr": "Contrast-to-noise ratio: size of the difference of the means, over the root of the "
    "mean of the two variances.",
    "mean": "Mean over the nucleus, in units.",
    "sd": "Standard deviation over the nucleus, in units.",
    "n_voxels": "Number of voxels of the nucleus.",
    "surround_mean": "Mean over the surround, in units.",
    "surround_sd": "Standard deviation over the surround, in units.",
    "surround_n_voxels": "Number of voxels of the surround.",
    "units": "Units of means and standard deviations.",
}

TRAJECTORY_COLUMNS = {
    "trajectory": "Name of the trajectory.",
    "index": "Label of the structure in the atlas.",
    "name": "Name of the structure in the atlas.",
    "hemisphere": "L, R, or B for a structure of both sides.",
    "entry_mm": "Where the line enters the structure: distance to the target along the line, "
    "positive before it (towards the entry), negative beyond it; n/a where it does not meet it.",
    "exit_mm": "Where it leaves it, in the same way.",
    "span_mm": "Length of the line within the structure, 0 where it does not meet it.",
    "span_mean_mm": "Mean of the span over lines and borders drawn at random within their errors.",
    "span_sd_mm": "Standard deviation of the span over these.",
    "span_low_mm": "2.5th percentile of the span over these.",
    "span_high_mm": "97.5th percentile of the span over these.",
    "entry_sd_mm": "Standard deviation of the entry over those that meet the structure.",
    "exit_sd_mm": "Standard deviation of the exit over those that meet the structure.",
    "chance": "Share of the drawn lines that meet the structure.",
    "n_pieces": "Number of times that the line enters it.",
    "chi_ppm_mean": "Mean susceptibility along the line within the structure, in ppm.",
    "chi_ppm_sd": "Standard deviation of it along the line, in ppm.",
    "recorded_entry_mm": "Where the user says that cells of the structure were first recorded.",
    "recorded_exit_mm": "Where they were last recorded.",
    "recorded_span_mm": "Length over which they were recorded.",
    "difference_mm": "span_mm less recorded_span_mm.",
}

PROFILE_COLUMNS = {
    "trajectory": "Name of the trajectory.",
    "depth_mm": "Distance to the target along the line: positive before it, negative beyond it.",
    "x_mm": "Place in the world of the T1w image, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    "chi_ppm": "Susceptibility in ppm, interpolated linearly in the map of the series.",
    "chi_sd_ppm": "Its standard deviation in ppm, where `--with uncertainty` was given.",
    "index": "Label of the structure in the atlas; 0 is none.",
    "name": "Name of the structure.",
    "hemisphere": "L, R, or B for a structure of both sides.",
    "score": "Probability of the likeliest structure over the sum of it and its strongest rival: "
    "above 0.5 the point is in it.",
}

LEAD_COLUMNS = {
    "lead": "Number of the lead: the left ones first.",
    "hemisphere": "L or R: the side of its contacts in the template.",
    "model": "Number of the lead's model.",
    "model_from": "given by the user, estimated from the contacts' brightness (models with the "
    "same contacts cannot be told apart), or assumed where they do not show singly.",
    "tip_x_mm": "End of the lead in the world of the T1w image, to the right.",
    "tip_y_mm": "The same, to the front.",
    "tip_z_mm": "The same, to the top.",
    "entry_x_mm": "Where it comes within 4 mm of the brain's border, to the right.",
    "entry_y_mm": "The same, to the front.",
    "entry_z_mm": "The same, to the top.",
    "coronal_deg": "Angle of the axis at the contacts to the vertical, seen from the front: "
    "positive where it goes outwards to the top.",
    "sagittal_deg": "The same, seen from the side: positive where it goes to the front.",
    "length_mm": "Length from tip to entry.",
    "bend_mm": "Largest distance of the lead from the straight line through tip and entry.",
    "width_mm": "Full width of the artefact at half of its height.",
    "target": "Name of the user's target on the same side that is nearest to the axis.",
    "radial_error_mm": "Distance of the target from the axis, in the plane perpendicular to it.",
    "depth_error_mm": "How far the tip lies beyond that plane, along the axis; negative where it "
    "stops short.",
    "nearest_contact": "The contact that is nearest to the target.",
}

CONTACT_COLUMNS = {
    "lead": "Number of the lead.",
    "hemisphere": "L or R.",
    "contact": "Number of the contact or ring of segments, from the lowest, 0.",
    "x_mm": "Middle of the contact in the world of the T1w image, to the right.",
    "y_mm": "The same, to the front.",
    "z_mm": "The same, to the top.",
    "mni_x_mm": "The same in MNI152NLin2009cAsym, to the right.",
    "mni_y_mm": "The same, to the front.",
    "mni_z_mm": "The same, to the top.",
    "atlas": "Atlas of the structures.",
    "index": "Label of the nucleus that the contact's middle is in; 0 is none.",
    "name": "Name of this nucleus.",
    "nearest": "Nucleus whose surface is nearest, or that it is deepest in.",
    "nearest_mm": "Distance to that surface; negative within the nucleus.",
}

CONTACT_DISTANCE_COLUMNS = {
    **{name: CONTACT_COLUMNS[name] for name in ("lead", "hemisphere", "contact", "atlas")},
    "index": "Label of the nucleus in the atlas.",
    "name": "Name of the nucleus.",
    "surface_mm": "Distance of the contact's middle to its surface; negative within it.",
    "centroid_mm": "Distance to its centre of mass.",
}

TABLE_COLUMNS = {
    "stats": STATISTICS_COLUMNS,
    "quality": QUALITY_COLUMNS,
    "series_quality": SERIES_QUALITY_COLUMNS,
    "morphometry": MORPHOMETRY_COLUMNS,
    "lesion_table": LESION_COLUMNS,
    "microbleeds": MICROBLEED_COLUMNS,
    "rims": RIM_COLUMNS,
    "contrast_to_noise": CONTRAST_COLUMNS,
    "leads": LEAD_COLUMNS,
    "contacts": CONTACT_COLUMNS,
    "contact_distances": CONTACT_DISTANCE_COLUMNS,
    "trajectories": TRAJECTORY_COLUMNS,
    "trajectory_profiles": PROFILE_COLUMNS,
    "tracked_lesions": TRACKED_COLUMNS,
    "tracking": TRACKING_COLUMNS,
}
"""What the columns of each table hold, by its row of :data:`OUTPUTS`."""


class Step(Protocol):
    """A step as it was run: what :class:`bids_qsm.report.record.StepRecord` holds."""

    name: str
    method: str
    parameters: Mapping[str, Any]


class Reference(Protocol):
    """A reference region: what :class:`bids_qsm.report.record.ReferenceRecord` holds."""

    region: str
    mean_ppm: float
    sd_ppm: float
    n_voxels: int


def sidecar_for(
    key: str,
    *,
    space: str | None = None,
    sources: Sequence[str] = (),
    spatial_reference: str | None = None,
    steps: Iterable[Step] = (),
    reference: Reference | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what the JSON sidecar of an output says.

    Parameters
    ----------
    key : str
        Row of :data:`OUTPUTS`.
    space : str or None
        As in :func:`output_path`.
    sources : sequence of str
        BIDS URIs of the files that it was made from (see :func:`raw_uri`).
    spatial_reference : str or None
        BIDS URI of the image whose grid it has, for spaces that are no standard template.
    steps : iterable of Step
        All steps of the run; those that decide the output's values are named in the sidecar.
    reference : Reference or None
        What susceptibility is relative to.
    warnings : sequence of str
        What was guessed, substituted or left out on the way to it.
    """
    row = OUTPUTS[key]
    fields: dict[str, Any] = {"Description": row.description, "Sources": list(sources)}
    if row.units is not None:
        fields["Units"] = row.units
    if row.skull_stripped is not None:
        fields["SkullStripped"] = row.skull_stripped
    if row.mask_type is not None:
        fields["Type"] = row.mask_type
    if spatial_reference is not None:
        fields["SpatialReference"] = spatial_reference
    if space == TEMPLATE and row.extension == ".nii.gz":
        fields["Resolution"] = TEMPLATE_RESOLUTION[1]
    fields |= _method_fields(row, steps)
    if row.referenced and reference is not None:
        fields["ReferenceRegion"] = {
            "Name": reference.region,
            "MeanBeforeReferencing": reference.mean_ppm,
            "StandardDeviationBeforeReferencing": reference.sd_ppm,
            "Units": "ppm",
            "NumberOfVoxels": reference.n_voxels,
        }
    columns = TABLE_COLUMNS.get(key, {})
    fields |= {name: {"Description": text} for name, text in columns.items()}
    if warnings:
        fields["Warnings"] = list(warnings)
    return fields


def raw_uri(path: Path, bids_dir: Path) -> str:
    """Return the BIDS URI of a file of the input dataset."""
    return f"bids:raw:{path.absolute().relative_to(bids_dir.absolute()).as_posix()}"


def output_uri(path: Path) -> str:
    """Return the BIDS URI of an output, given relative to the output folder."""
    return f"bids::{path.as_posix()}"


def _method_fields(row: Output, steps: Iterable[Step]) -> dict[str, Any]:
    taken = [step for step in steps if step.name in row.steps]
    if not taken:
        return {}
    return {
        "EstimationAlgorithm": "; ".join(f"{step.name}: {step.method}" for step in taken),
        "EstimationParameters": {step.name: dict(step.parameters) for step in taken},
    }

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

TABLE_COLUMNS = {
    "stats": STATISTICS_COLUMNS,
    "quality": QUALITY_COLUMNS,
    "series_quality": SERIES_QUALITY_COLUMNS,
    "morphometry": MORPHOMETRY_COLUMNS,
    "lesion_table": LESION_COLUMNS,
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

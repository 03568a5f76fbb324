"""A BIDS dataset of simulated heads, with its truth in ``derivatives/truth``."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bids_qsm
from bids_qsm.errors import UnwritableOutputError
from bids_qsm.images import Image, encode_image
from bids_qsm.phantom.breakage import SeriesFile, broken, high_pass_filtered
from bids_qsm.phantom.cavernomas import Cavernoma, draw_cavernomas, with_cavernomas
from bids_qsm.phantom.ct import SimulatedCt, simulate_ct
from bids_qsm.phantom.head import Phantom, simulate_head
from bids_qsm.phantom.options import Acquisition, DatasetOptions, HeadOptions
from bids_qsm.phantom.signal import Megre, simulate_megre
from bids_qsm.phantom.structural import Structural, simulate_structural
from bids_qsm.phantom.tissues import LESION_LABEL, is_brain
from bids_qsm.phantom.vendors import stored_parts

BIDS_VERSION = "1.10.0"
COMPRESSLEVEL, MASKED_SHARE = 6, 0.15
REPETITION_TIME_S, FLIP_ANGLE_DEG = 0.045, 15.0
MANUFACTURERS = {
    "siemens": "Siemens",
    "siemens-signed": "Siemens",
    "philips": "Philips",
    "ge": "GE",
}
FIRST_YEAR = 2020
IGNORED_CT = "**/ct"
STRUCTURAL_SUFFIXES = {"t1w": "T1w", "flair": "FLAIR"}


def write_dataset(out_dir: Path, labels: Image, options: DatasetOptions) -> list[str]:
    """Simulate participants and write them, adding to what the dataset has.

    Parameters
    ----------
    out_dir : Path
        The dataset; made if it does not exist.
    labels : Image
        Whole-head label map.
    options : DatasetOptions

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    UnwritableOutputError
        If a participant is there already, or the folder cannot be written.
    """
    names = [f"sub-{options.first + i:02d}" for i in range(options.participants)]
    there = [name for name in names if (out_dir / name).exists()]
    if there:
        raise UnwritableOutputError(
            f"{out_dir}: {', '.join(there)} is there already; "
            "choose another folder or first participant."
        )
    warnings: list[str] = []
    try:
        _write_frame(out_dir)
        if options.ct is not None:
            _ignore_ct(out_dir)
        for name in names:
            breakage = options.breakage if name == names[-1] else None
            head = _head(labels, options, int(name.removeprefix("sub-")))
            warnings += [w for w in head.warnings if w not in warnings]
            _write_participant(out_dir, name, head, options, breakage)
    except OSError as error:
        raise UnwritableOutputError(f"{out_dir}: cannot be written ({error}).") from error
    return warnings


def subvoxels(voxel_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return how many of the simulation's voxels make one: at least two, of 1 mm at most."""
    x, y, z = (max(int(np.ceil(v - 1e-6)), 2) for v in voxel_mm)
    return x, y, z


def _seed(options: DatasetOptions, *keys: int) -> int:
    """Return a seed for one purpose: a participant (and a session, and an image)."""
    return int(np.random.SeedSequence([options.seed, *keys]).generate_state(1)[0])


def _head(labels: Image, options: DatasetOptions, number: int) -> Phantom:
    x, y, z = (v / n for v, n in zip(options.voxel_mm, subvoxels(options.voxel_mm), strict=True))
    wanted = HeadOptions(
        seed=_seed(options, number),
        sampling_mm=(x, y, z),
        tilt_deg=options.tilt_deg,
        deformation_mm=options.deformation_mm,
        group=options.group,
        lesions=options.lesions,
        rims=options.rims,
        microbleeds=options.microbleeds,
        calcifications=options.calcifications,
    )
    return simulate_head(labels, wanted)


def _write_participant(
    out_dir: Path, name: str, plain_head: Phantom, options: DatasetOptions, breakage: str | None
) -> None:
    number = int(name.removeprefix("sub-"))
    rng = np.random.default_rng(_seed(options, number, 99))
    row = [name, str(int(rng.integers(20, 66))), str(rng.choice(["F", "M"])), options.group]
    _append_row(out_dir / "participants.tsv", ["participant_id", "age", "sex", "group"], row)
    cavernomas = draw_cavernomas(
        plain_head, options.cavernomas, options.growth_percent, _seed(options, number)
    )
    sessions = [str(i + 1) for i in range(options.sessions)] if options.sessions > 1 else [None]
    for index, session in enumerate(sessions):
        head = with_cavernomas(plain_head, cavernomas, years=index)
        folder = Path(name) / (f"ses-{session}" if session else "") / "anat"
        stem = f"{name}_ses-{session}" if session else name
        acquisition = Acquisition(
            seed=_seed(options, number, index, 0),
            subvoxels=subvoxels(options.voxel_mm),
            te_s=options.te_s,
            b0_t=options.b0_t,
            snr=options.snr,
            repetition_time_s=max(REPETITION_TIME_S, round(options.te_s[-1] + 0.005, 3)),
            flip_angle_deg=FLIP_ANGLE_DEG,
            repositioned=index > 0,
        )
        megre = simulate_megre(head, acquisition)
        _write_series(out_dir / folder, stem, megre, acquisition, options, breakage)
        truth = out_dir / "derivatives" / "truth" / folder
        _write_truth(truth, stem, head, megre, options.group)
        if cavernomas:
            table = _tsv(_cavernoma_rows(cavernomas, megre.pose, index))
            _write(truth / f"{stem}_cavernomas.tsv", table)
        for contrast, wanted in (("t1w", options.has_t1w), ("flair", options.has_flair)):
            if wanted:
                seed = _seed(options, number, index, 1 + list(STRUCTURAL_SUFFIXES).index(contrast))
                image = simulate_structural(
                    head,
                    contrast,
                    seed,
                    options.anatomy_voxel_mm,
                    megre.pose,
                    mask_air=options.mask_air,
                    white_matter_units=2.0 ** (options.stored_bits - 2),
                )
                _write_structural(out_dir / folder, truth, stem, contrast, image, options.b0_t)
                if contrast == "t1w" and options.ct is not None:
                    ct = simulate_ct(head, options.ct, _seed(options, number, index, 50))
                    _write_ct(out_dir / folder.with_name("ct"), truth, stem, ct, image.pose)
        if session:
            table = out_dir / name / f"{name}_sessions.tsv"
            row = {"session_id": f"ses-{session}"}
            if cavernomas:
                row["acq_time"] = f"{FIRST_YEAR + index}-06-01T12:00:00"
            _append_row(table, list(row), list(row.values()))


def _write_series(
    folder: Path,
    stem: str,
    megre: Megre,
    acquisition: Acquisition,
    options: DatasetOptions,
    breakage: str | None,
) -> None:
    signal = high_pass_filtered(megre.signal) if breakage == "swi-filtered" else megre.signal
    if options.mask_air:
        has_signal = np.abs(signal[..., :1]) > MASKED_SHARE * megre.brain_mean
        signal = np.where(has_signal, signal, np.complex64(0))
    sidecar: dict[str, Any] = {
        "Manufacturer": MANUFACTURERS.get(options.vendor, "Simulated"),
        "MagneticFieldStrength": acquisition.b0_t,
        "RepetitionTime": acquisition.repetition_time_s,
        "FlipAngle": acquisition.flip_angle_deg,
        "MRAcquisitionType": "3D",
        "ScanningSequence": "GR",
    }
    files = []
    for part in stored_parts(signal, options.vendor, options.stored_bits):
        common = (megre.affine, part.slope, part.intercept)
        sidecar = {**sidecar, "Units": part.units}
        if options.stacked:
            fields = {**sidecar, "EchoTime": list(acquisition.te_s)}
            name = f"{stem}_part-{part.name}_T2starw"
            files.append(SeriesFile(name, part.name, 0, part.data, *common, fields))
            continue
        for echo, te_s in enumerate(acquisition.te_s):
            name = f"{stem}_echo-{echo + 1}_part-{part.name}_MEGRE"
            fields = {**sidecar, "EchoTime": te_s}
            files.append(
                SeriesFile(name, part.name, echo + 1, part.data[..., echo], *common, fields)
            )
    for file in broken(files, breakage) if breakage else files:
        content = _packed(file.data, file.affine, file.slope, file.intercept)
        _write(folder / f"{file.stem}.nii.gz", content[: int(len(content) * file.share_kept)])
        _write_json(folder / f"{file.stem}.json", file.sidecar)


def _packed(data: NDArray, affine: NDArray, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Return a file's bytes, packed by zlib: the same ones on every machine."""
    return encode_image(Image(data, affine), slope, intercept, COMPRESSLEVEL)


def _write_structural(
    folder: Path, truth: Path, stem: str, contrast: str, image: Structural, b0_t: float
) -> None:
    suffix = STRUCTURAL_SUFFIXES[contrast]
    _write(folder / f"{stem}_{suffix}.nii.gz", _packed(image.data, image.affine))
    _write_json(folder / f"{stem}_{suffix}.json", {"MagneticFieldStrength": b0_t})
    space = f"{stem}_space-{suffix}"
    brain = np.where(is_brain(image.labels), image.labels, 0).astype(np.int16)
    _write(truth / f"{space}_dseg.nii.gz", _packed(brain, image.affine))
    lesions = image.labels == LESION_LABEL
    _write(truth / f"{space}_label-lesion_mask.nii.gz", _packed(lesions, image.affine))
    _write_json(truth / f"{space}_dseg.json", {"HeadPose": image.pose.tolist()})


def _write_ct(folder: Path, truth: Path, stem: str, ct: SimulatedCt, t1w_pose: NDArray) -> None:
    """Write a CT, and where its leads are in the worlds of the T1w image and of the CT."""
    _write(folder / f"{stem}_ct.nii.gz", _packed(ct.data, ct.affine))
    _write_json(folder / f"{stem}_ct.json", {"Modality": "CT", "Units": "HU"})
    rows = [
        ["hemisphere", "model", "point", "x_mm", "y_mm", "z_mm", "ct_x_mm", "ct_y_mm", "ct_z_mm"]
    ]
    for lead in ct.leads:
        worlds = lead.moved(t1w_pose), lead.moved(ct.pose)
        points = [np.stack([own.path_mm[0], *own.contacts_mm(), own.path_mm[-1]]) for own in worlds]
        names = ["tip", *(f"contact {i}" for i in range(lead.model.n_levels)), "skull"]
        for name, *places in zip(names, *points, strict=True):
            numbers = [f"{value:.3f}" for place in places for value in place]
            rows.append([lead.side, lead.model.name, name, *numbers])
    _write(truth / f"{stem}_leads.tsv", _tsv(rows))
    t1w_to_ct = ct.pose @ np.linalg.inv(t1w_pose)
    _write_json(truth / f"{stem}_leads.json", {"T1wToCt": t1w_to_ct.tolist()})


def _ignore_ct(out_dir: Path) -> None:
    """BIDS has no CT yet: the validator is told to pass over it."""
    ignore = out_dir / ".bidsignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    if IGNORED_CT not in lines:
        _write(ignore, "".join(f"{line}\n" for line in (*lines, IGNORED_CT)).encode())


def _write_truth(folder: Path, stem: str, head: Phantom, megre: Megre, group: str) -> None:
    maps: tuple[tuple[str, NDArray], ...] = (
        ("Chimap", megre.chi_ppm),
        ("R2starmap", megre.r2star_per_s),
        ("dseg", np.where(megre.brain, megre.labels, 0).astype(np.int16)),
        ("label-brain_mask", megre.brain),
        ("label-lesion_mask", megre.labels == LESION_LABEL),
        ("desc-total_fieldmap", megre.total_field_hz),
        ("desc-local_fieldmap", megre.local_field_hz),
    )
    for name, data in maps:
        _write(folder / f"{stem}_{name}.nii.gz", _packed(data, megre.affine))
    voxel_ml = float(np.prod(head.voxel_mm)) / 1000
    facts = {
        "Group": group,
        "LesionVolume_ml": round(float((head.labels == LESION_LABEL).sum()) * voxel_ml, 4),
        "NoiseSD": megre.noise_sd,
        "HeadPose": megre.pose.tolist(),
        "Nuclei": [dataclasses.asdict(nucleus) for nucleus in head.nuclei],
    }
    _write_json(folder / f"{stem}_truth.json", facts)
    names = dict(zip(head.label_values, (t.name for t in head.tissues), strict=True))
    brain = [v for v in head.label_values if is_brain(np.array(v))]
    rows = [["index", "name"], *([str(v), names[v]] for v in brain)]
    _write(folder / f"{stem}_dseg.tsv", _tsv(rows))
    for name, table in (
        ("inclusions", _inclusion_rows(head, megre.pose)),
        ("lesions", _lesion_rows(head, megre.pose)),
    ):
        if len(table) > 1:
            _write(folder / f"{stem}_{name}.tsv", _tsv(table))


def _inclusion_rows(head: Phantom, pose: NDArray) -> list[list[str]]:
    """Return the table of microbleeds and calcifications: where the head lies, in mm."""
    values = ("diameter_mm", "chi_ppm", "r2star_per_s", "moment_ppm_mm3")
    rows = [["index", "kind", "place", "x_mm", "y_mm", "z_mm", *values]]
    for number, inclusion in enumerate(head.inclusions, start=1):
        place = [f"{c:.3f}" for c in _moved(pose, inclusion.centre_mm)]
        numbers = [f"{getattr(inclusion, name):.5g}" for name in values]
        rows.append([str(number), inclusion.kind, inclusion.place, *place, *numbers])
    return rows


def _lesion_rows(head: Phantom, pose: NDArray) -> list[list[str]]:
    """Return the table of lesions, likewise."""
    rows = [["index", "x_mm", "y_mm", "z_mm", *(f"radius_{a}_mm" for a in "ijk"), "rim_ppm"]]
    for number, lesion in enumerate(head.lesions, start=1):
        voxel = np.array(lesion.centre_mm) / np.array(head.voxel_mm)
        world = head.affine[:3, :3] @ voxel + head.affine[:3, 3]
        numbers = (*_moved(pose, world), *lesion.radii_mm, lesion.rim_ppm)
        rows.append([str(number), *(f"{value:.3f}" for value in numbers)])
    return rows


def _moved(pose: NDArray, point_mm: Sequence[float] | NDArray) -> NDArray:
    return np.asarray(pose[:3, :3] @ np.asarray(point_mm) + pose[:3, 3])


def _write_frame(out_dir: Path) -> None:
    """Write the files that every dataset has, where they are not there yet."""
    made_by = [{"Name": "bids-qsm-phantom", "Version": bids_qsm.__version__}]
    raw = {
        "Name": "Simulated heads",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": made_by,
    }
    readme = (
        "# Simulated heads\n\nMulti-echo gradient-echo, T1w and FLAIR images of digital heads, "
        "made by bids-qsm-phantom.\nThe true maps are in derivatives/truth: susceptibility (ppm, "
        "relative to water),\nR2* (1/s), fields (Hz).\n"
    )
    columns = {
        "age": {"Description": "Age, drawn at random", "Units": "year"},
        "sex": {"Description": "Sex, drawn at random", "Levels": {"F": "female", "M": "male"}},
        "group": {
            "Description": "Group",
            "Levels": {"control": "control", "patient": "more iron in the deep nuclei"},
        },
    }
    truth = out_dir / "derivatives" / "truth"
    derived = {**raw, "Name": "Truth of the simulated heads", "DatasetType": "derivative"}
    for path, content in (
        (out_dir / "dataset_description.json", raw),
        (truth / "dataset_description.json", derived),
        (out_dir / "participants.json", columns),
    ):
        if not path.exists():
            _write_json(path, content)
    if not (out_dir / "README.md").exists():
        _write(out_dir / "README.md", readme.encode())


def _cavernoma_rows(
    cavernomas: Sequence[Cavernoma], pose: NDArray, years: float
) -> list[list[str]]:
    """Return the table of cavernomas, likewise."""
    radii = [f"radius_{a}_mm" for a in "ijk"]
    values = ("chi_ppm", "growth_percent_per_year")
    rows = [["index", "x_mm", "y_mm", "z_mm", *radii, *values]]
    for own in cavernomas:
        place = [f"{c:.3f}" for c in (*_moved(pose, own.centre_mm), *own.radii_mm)]
        numbers = [f"{own.chi_after(years):.5g}", f"{own.growth_percent_per_year:g}"]
        rows.append([str(own.label), *place, *numbers])
    return rows


def _append_row(path: Path, header: Sequence[str], row: Sequence[str]) -> None:
    if not path.exists():
        _write(path, _tsv([header]))
    with path.open("ab") as file:
        file.write(_tsv([row]))


def _tsv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

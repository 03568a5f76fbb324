"""A record, its tables and its volumes, for the tests of the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_qsm.images import Image, encode_image
from bids_qsm.report.figures import MAGNITUDE, mosaic
from bids_qsm.report.record import (
    FigureRecord,
    InputRecord,
    ReferenceRecord,
    RunRecord,
    SeriesRecord,
    StepRecord,
    TableRecord,
)

STEPS = (
    StepRecord("relaxometry", "arlo", {"noise_floor": True}, 0.9),
    StepRecord("offset", "mcpc3ds", {"smoothing_mm": 8.0}, 2.1),
    StepRecord("unwrapping", "romeo", {}, 3.9),
    StepRecord("field", "nonlinear", {"offset": "smooth"}, 1.7),
    StepRecord("brain", "T1w", {}, 0.0),
    StepRecord("mask", "brain-and-quality", {"quality_threshold": 0.37}, 0.6),
    StepRecord("background", "pdf", {"tolerance": 1e-3, "margin_mm": 41.0}, 65.4),
    StepRecord("inversion", "tv", {"regularisation": 35.5, "weights": (1, 2)}, 8.1),
    StepRecord("reference", "lateral ventricles", {}, 0.1),
    StepRecord("template", "SyN", {"template": "MNI152NLin2009cAsym"}, 84.0),
)

TABLE = """\
index,name,hemisphere,measure,units,reference,mean,median,sd,p05,p95,n_voxels,volume_mm3,coverage
11,Caudate,L,R2starmap,1/s,n/a,21.44,21,2.04,18,25,100,3500.4,1.0
50,Caudate,R,R2starmap,1/s,n/a,22.0,21,2.0,18,25,100,3400,0.95
16,Brain-Stem,B,R2starmap,1/s,n/a,20.0,21,2.0,18,25,100,20000,0.5
11,Caudate,L,Chimap,ppm,lateral ventricles,0.0456,0.04,0.0123,0,0.1,100,3500.4,1.0
50,Caudate,R,Chimap,ppm,lateral ventricles,n/a,n/a,n/a,n/a,n/a,0,3400,0.0
16,Brain-Stem,B,Chimap,ppm,lateral ventricles,-0.0098,0,0.015,0,0,100,20000,0.5
11,Caudate,L,Chimap,ppm,whole brain,0.9,0.04,0.0123,0,0.1,100,3500.4,1.0
50,Caudate,R,Chimap,ppm,whole brain,0.9,0.04,0.0123,0,0.1,100,3400,1.0
16,Brain-Stem,B,Chimap,ppm,whole brain,0.9,0,0.015,0,0,100,20000,0.5
""".replace(",", "\t")

LESIONS = """\
index,volume_mm3,x_mm,y_mm,z_mm,location,lobe,ventricle_distance_mm,chi_ppm_mean,chi_ppm_sd,\
chi_ppm_n_voxels,r2star_per_s_mean,r2star_per_s_sd,r2star_per_s_n_voxels
1,1250.4,19.6,-23.1,22.1,periventricular,insula,2.5,-0.0567,0.0012,20,20.01,3.88,20
2,62.6,-25.8,0.2,20.9,deep white,frontal,6.12,n/a,n/a,0,n/a,n/a,0
3,20,1,2,3,n/a,parietal,16.0,0.031,n/a,1,18,n/a,1
""".replace(",", "\t")

MORPHOMETRY = """\
name,hemisphere,measure,value,units,normalised,source
grey matter,B,volume,640.25,mL,701.5,bids-qsm
white matter,B,volume,505.75,mL,554.1,bids-qsm
cortex,B,thickness,2.512,mm,n/a,bids-qsm
frontal,L,thickness,2.6,mm,n/a,bids-qsm
T2 lesions,B,volume,1.333,mL,1.46,bids-qsm
T2 lesions,B,number,3,1,n/a,bids-qsm
enhancing lesions,B,volume,0.05,mL,0.0548,bids-qsm
enhancing lesions,B,number,1,1,n/a,bids-qsm
thalamus,L,volume,7.04,mL,7.5,FreeSurfer
cortex,B,thickness,2.45,mm,n/a,FreeSurfer
""".replace(",", "\t")

CHECKS = """\
check;name;hemisphere;value;low;high;units;passed;sentence
volume;caudate;L;3.52;1.8;6.5;mL;True;Left caudate: volume 3.52 mL, as expected.
volume;caudate;R;0.9;1.8;6.5;mL;False;Right caudate: volume 0.9 mL, expected 1.8 to 6.5: small.
voxels at the edge;caudate;L;0;0;0;;True;Left caudate: voxels at the edge 0, as expected.
volume asymmetry;caudate;B;-0.162;-0.4;0.4;;True;Caudate: volume asymmetry -0.162, as expected.
right beyond left;caudate;B;27.392;2;n/a;mm;True;Caudate: right beyond left 27.4 mm, as expected.
R2*;lateral ventricle;L;1234.5;n/a;12;1/s;False;Left lateral ventricle: R2* 1.23e+03 1/s: tissue.
""".replace(";", "\t")

FILES = {
    "stats.tsv": TABLE,
    "lesions.tsv": LESIONS,
    "morphometry.tsv": MORPHOMETRY,
    "quality.tsv": CHECKS,
}


def complete_record() -> SeriesRecord:
    """Return a complete record; its files are those of :func:`fill`."""
    return SeriesRecord(
        subject="01",
        session="1",
        name="sub-01_ses-1",
        version="1.2.3",
        facts={"Field strength": "3 T", "Echo times": "4, 8, 12 ms"},
        steps=STEPS,
        warnings=("The phase scale was guessed.",),
        figures=(
            FigureRecord("Maps", "Susceptibility", "In ppm.", ("figures/chi.png",)),
            FigureRecord("Registration", "T1w", "In turn.", ("figures/a.png", "figures/b.png")),
            FigureRecord("Maps", "R2*", "In 1/s.", ("figures/r2star.png",)),
        ),
        reference=ReferenceRecord("lateral ventricles", 0.0041, 0.0183, 8120),
        tables=(
            TableRecord("stats", "stats.tsv", "DesikanKilliany"),
            TableRecord("quality", "quality.tsv", "DesikanKilliany"),
            TableRecord("lesion_table", "lesions.tsv"),
            TableRecord("morphometry", "morphometry.tsv"),
        ),
        has_t1w=True,
        has_phase=True,
        seconds=141.2,
        peak_mib=3320.0,
        key="abc",
        outputs=("sub-01/ses-1/anat/sub-01_ses-1_Chimap.nii.gz",),
        run=RunRecord(
            command=("bids-qsm", "BIDS_DIR", "OUTPUT_DIR"),
            settings={"processing": {"reference": "auto"}, "output_spaces": ("orig", "T1w")},
            versions={"Python": "3.11.9"},
            code="abc",
            inputs=(InputRecord("bids:raw:sub-01/anat/sub-01_T1w.nii.gz", 3, "ba7816bf"),),
            reused=("t1w",),
        ),
    )


def magnitude_record() -> SeriesRecord:
    """Return a series with nothing but magnitude."""
    series_record = complete_record()
    return dataclasses.replace(
        series_record,
        name="sub-01_ses-2",
        session="2",
        steps=series_record.steps[:1],
        warnings=(),
        figures=(),
        reference=None,
        tables=(),
        has_t1w=False,
        has_phase=False,
    )


def fill(folder: Path) -> Path:
    """Make an output folder with the pictures and the tables of a record."""
    (folder / "figures").mkdir()
    png = mosaic(np.eye(8, dtype=np.float32)[..., None] * np.ones(8), np.eye(4), MAGNITUDE)
    for name in ("chi", "a", "b", "r2star"):
        (folder / "figures" / f"{name}.png").write_bytes(png)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def record_with_volumes() -> SeriesRecord:
    """Return a record of series whose volumes are those of :func:`fill_with_volumes`."""
    names = (
        "Chimap",
        "desc-preproc_T1w",
        "space-T1w_Chimap",
        "space-T1w_R2starmap",
        "space-T1w_desc-preproc_FLAIR",
        "space-T1w_atlas-DesikanKilliany_dseg",
        "space-T1w_desc-lesions_dseg",
        "space-T1w_label-brain_mask",
    )
    outputs = tuple(f"sub-01/ses-1/anat/sub-01_ses-1_{name}.nii.gz" for name in names)
    return dataclasses.replace(complete_record(), outputs=outputs)


def fill_with_volumes(folder: Path) -> Path:
    """Make an output folder with volumes: a slightly turned head, stored from right to left."""
    fill(folder)
    shape = (44, 48, 40)
    turn = nib.eulerangles.euler2mat(0.1, 0.05, -0.07)
    affine = nib.affines.from_matvec(turn @ np.diag((-3.0, 3.0, 3.0)))
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2 - 0.5)
    mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    x, y, z = np.moveaxis(mm, -1, 0)

    def ball(*centre_mm: float, radius_mm: float = 9.0) -> NDArray[np.bool_]:
        return ((mm - centre_mm) ** 2).sum(axis=-1) < radius_mm**2

    brain = (x / 45) ** 2 + (y / 52) ** 2 + (z / 40) ** 2 < 1
    labels = 11 * ball(-15, 8, 5) + 50 * ball(15, 8, 5) + 16 * ball(0, -15, -20)
    lesions = 1 * ball(-20, -20, 15, radius_mm=6) + 2 * ball(25, 20, 10, radius_mm=5)
    noise = np.random.default_rng(7).normal(size=shape)
    chi = brain * (0.03 * noise + 0.1 * (labels > 0))
    volumes = {
        "Chimap": chi,
        "R2starmap": brain * (20 + 3 * noise),
        "T1w": 700.0 * brain + 100 * (y > 0) * brain + 10 * np.abs(noise),
        "FLAIR": 300.0 * brain + 300 * (lesions > 0),
        "DesikanKilliany_dseg": labels.astype(np.int16),
        "lesions_dseg": lesions.astype(np.int16),
        "mask": brain,
    }
    for path in record_with_volumes().outputs:
        data = next(data for end, data in volumes.items() if path.endswith(f"{end}.nii.gz"))
        if data.dtype == np.float64:
            data = data.astype(np.float32)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode_image(Image(data, affine)))
    return folder

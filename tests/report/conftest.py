"""Records, tables and volumes that the tests of the report share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.report.figures import MAGNITUDE, mosaic
from bids_qsm.report.record import (
    FigureRecord,
    ReferenceRecord,
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


@pytest.fixture
def series_record() -> SeriesRecord:
    """A complete record; its files are those of ``output_dir``."""
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
        tables=(TableRecord("stats", "stats.tsv", "DesikanKilliany"),),
        has_t1w=True,
        has_phase=True,
        seconds=141.2,
        peak_mib=3320.0,
        key="abc",
        outputs=("sub-01/ses-1/anat/sub-01_ses-1_Chimap.nii.gz",),
    )


@pytest.fixture
def bare_record(series_record: SeriesRecord) -> SeriesRecord:
    """A series with nothing but magnitude."""
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


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    """An output folder with the pictures and the table of ``series_record``."""
    (tmp_path / "figures").mkdir()
    png = mosaic(np.eye(8, dtype=np.float32)[..., None] * np.ones(8), np.eye(4), MAGNITUDE)
    for name in ("chi", "a", "b", "r2star"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(png)
    (tmp_path / "stats.tsv").write_text(TABLE, encoding="utf-8")
    return tmp_path

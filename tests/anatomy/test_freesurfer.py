"""Tables written by hand in the format that FreeSurfer publishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.anatomy.freesurfer import find_freesurfer, read_freesurfer
from bids_qsm.anatomy.tissues import measures_table
from bids_qsm.errors import UnreadableInputError

ASEG = """\
# Title Segmentation Statistics
#
# generating_program mri_segstats
# subjectname sub-01
# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1150000.000000, mm^3
# Measure TotalGray, TotalGrayVol, Total gray matter volume, 640500.250000, mm^3
# Measure CerebralWhiteMatter, CerebralWhiteMatterVol, Total cerebral white, matter, 455000.0, mm^3
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1461079.5, mm^3
# TableCol  1 ColHeader Index
# NTableCols 10
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax Range
  1   4      8000     8001.5  Left-Lateral-Ventricle            35.0  12.0   7.0   90.0   83.0
  9  10      7300     7312.4  Left-Thalamus-Proper              88.0   9.0  40.0  110.0   70.0
 12  13      1900     1910.0  Left-Pallidum                     97.0   6.0  70.0  115.0   45.0
 28  49      7100     7105.6  Right-Thalamus                    89.0   9.0  40.0  110.0   70.0
"""


def aparc(mean: float, area: float, thicknesses: dict[str, tuple[float, float]]) -> str:
    rows = "\n".join(
        f"{name:<38}  1000  {a:7.1f}  2000  {t:.3f} 0.400 0.110 0.020  10  1.0"
        for name, (a, t) in thicknesses.items()
    )
    return (
        "# Table of FreeSurfer cortical parcellation anatomical statistics\n"
        f"# Measure Cortex, NumVert, Number of Vertices, 130000, unitless\n"
        f"# Measure Cortex, WhiteSurfArea, White Surface Total Area, {area}, mm^2\n"
        f"# Measure Cortex, MeanThickness, Mean Thickness, {mean}, mm\n"
        "# NTableCols 10\n"
        "# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv "
        f"FoldInd CurvInd\n{rows}\n"
    )


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    stats = tmp_path / "sub-01" / "stats"
    stats.mkdir(parents=True)
    (stats / "aseg.stats").write_text(ASEG)
    left = {"cuneus": (1000.0, 1.8), "lingual": (3000.0, 2.0), "insula": (2000.0, 3.0)}
    (stats / "lh.aparc.stats").write_text(aparc(2.4, 80000.0, left))
    (stats / "rh.aparc.stats").write_text(aparc(2.5, 120000.0, {"insula": (2000.0, 3.1)}))
    return stats.parent


def test_volumes_and_head_size(subject):
    found = read_freesurfer(subject)
    volumes = {(m.name, m.hemisphere): m.value for m in found.measures if m.measure == "volume"}
    assert volumes == pytest.approx(
        {
            ("grey matter", "B"): 640.50025,
            ("cerebral white matter", "B"): 455.0,
            ("intracranial", "B"): 1461.0795,
            ("thalamus", "L"): 7.3124,
            ("thalamus", "R"): 7.1056,
            ("pallidum", "L"): 1.91,
            ("lateral ventricle", "L"): 8.0015,
        }
    )
    assert found.head_scale == pytest.approx(0.75) and found.warnings == ()
    table = measures_table(found.measures, found.head_scale, "FreeSurfer")
    row = table[table["name"] == "grey matter"].iloc[0]
    assert row["normalised"] == pytest.approx(640.50025 / 0.75)
    assert (row["units"], row["source"]) == ("mL", "FreeSurfer")


def test_thickness_is_weighted_by_area(subject):
    found = {
        (m.name, m.hemisphere): m.value
        for m in read_freesurfer(subject).measures
        if m.measure == "thickness"
    }
    assert found["cortex", "L"] == 2.4 and found["cortex", "R"] == 2.5
    assert found["cortex", "B"] == pytest.approx(2.46)
    assert found["occipital lobe", "L"] == pytest.approx(1.95)
    assert found["insula", "R"] == pytest.approx(3.1)
    assert found["frontal lobe", "L"] != found["frontal lobe", "L"]  # no parcel: not a number
    table = measures_table(read_freesurfer(subject).measures, 0.75)
    thickness = table[table["measure"] == "thickness"]
    assert thickness["normalised"].isna().all() and set(thickness["units"]) == {"mm"}


def test_missing_surfaces_are_said(subject):
    (subject / "stats" / "rh.aparc.stats").unlink()
    found = read_freesurfer(subject)
    assert all(m.measure == "volume" for m in found.measures)
    assert "rh.aparc.stats is missing" in found.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("TotalGrayVol", "SomeVol", "no line '# Measure' with TotalGrayVol"),
        ("640500.250000, mm^3", "640500.250000, voxels", "TotalGrayVol is in voxels"),
        ("640500.250000, mm^3", "", "a line is cut"),
        ("Right-Thalamus ", "Right-Thalamos ", "no row Right-Thalamus"),
        ("7312.4", "7x12", "Volume_mm3 of Left-Thalamus-Proper is no number"),
        ("     7312.4  Left", "  Left", "does not fit its columns"),
        ("Volume_mm3", "Volume_mm", "no column Volume_mm3"),
        ("\n  1   4", "\n#  1   4", None),
    ],
)
def test_damaged_tables_are_refused_in_a_sentence(subject, old, new, sentence):
    assert old in ASEG
    (subject / "stats" / "aseg.stats").write_text(ASEG.replace(old, new))
    if sentence is None:
        assert read_freesurfer(subject).measures
        return
    with pytest.raises(UnreadableInputError, match=sentence) as error:
        read_freesurfer(subject)
    assert "aseg.stats" in str(error.value) and "recon-all" in str(error.value)


def test_missing_and_empty_tables_are_refused(subject):
    (subject / "stats" / "aseg.stats").write_text("# Title\n")
    with pytest.raises(UnreadableInputError, match="it has no rows"):
        read_freesurfer(subject)
    (subject / "stats" / "aseg.stats").unlink()
    with pytest.raises(UnreadableInputError, match="there is no such file"):
        read_freesurfer(subject)


def test_folder_of_a_session(tmp_path):
    def made(name: str) -> Path:
        (tmp_path / name / "stats").mkdir(parents=True)
        return tmp_path / name

    assert find_freesurfer(tmp_path, "01") is None
    whole = made("sub-01")
    assert find_freesurfer(tmp_path, "sub-01") == whole
    assert find_freesurfer(tmp_path, "01", "ses-2") == whole
    own = made("sub-01_ses-2")
    assert find_freesurfer(tmp_path, "01", "2") == own
    inside = made("sub-01/ses-2")
    assert find_freesurfer(tmp_path, "01", "2") == inside
    long = made("sub-01_ses-2.long.sub-01")
    assert find_freesurfer(tmp_path, "01", "2") == long
    assert find_freesurfer(tmp_path, "01") == whole

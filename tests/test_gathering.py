from __future__ import annotations

import dataclasses
import json
import shutil

import pandas as pd
import pytest

from bids_qsm.bids.publishing import encode_table
from bids_qsm.errors import NothingToDoError, UnreadableInputError
from bids_qsm.gathering import gather, read_table
from bids_qsm.report.record import SubjectRecord, TableRecord, record_to_json
from tests.analyses.tiny import Tiny, make


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Tiny:
    return make(tmp_path_factory.mktemp("original"), n_each=2)


@pytest.fixture
def tiny(original: Tiny, tmp_path) -> Tiny:
    """A copy that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(original.bids.parent, folder)
    return Tiny(folder / "bids", folder / "out", folder / "tiny.nii.gz", original.plan)


def change_record(tiny: Tiny, name: str, **fields: object) -> None:
    path = tiny.out / "logs" / f"{name}_record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_table(tiny: Tiny, name: str, **columns: object) -> None:
    (path,) = tiny.out.rglob(f"{name}_*regions_stats.tsv")
    table = read_table(path).assign(**columns)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def test_scans_have_susceptibility_in_ppb_and_volumes_in_ml(tiny: Tiny) -> None:
    found = gather(tiny.settings)
    rows = found.regions.query("series == 'sub-03_ses-2' and reference != 'whole brain'")
    left, right = (
        rows[(rows["name"] == f"{side} putamen")].set_index("measure") for side in ("Left", "Right")
    )
    (scan,) = found.scans[found.scans["series"] == "sub-03_ses-2"].itertuples()
    assert scan.left_putamen_Chimap == pytest.approx(1000 * left.loc["Chimap", "mean"])
    joined = (left["mean"] + right["mean"]) / 2  # the halves have as many voxels
    assert scan.putamen_Chimap == pytest.approx(1000 * joined["Chimap"])
    assert scan.putamen_R2starmap == pytest.approx(joined["R2starmap"])
    assert scan.putamen_Chimap_ref_whole_brain == pytest.approx(scan.putamen_Chimap + 30)
    volume = left.loc["Chimap", "volume_mm3"] + right.loc["Chimap", "volume_mm3"]
    assert scan.putamen_volume_mL == pytest.approx(volume / 1000)
    grey = found.morphometry.query("series == 'sub-03_ses-2' and name == 'grey matter'")
    assert scan.grey_matter_volume_mL == pytest.approx(grey["value"].iloc[0])
    assert scan.age == tiny.plan.participants["age"].iloc[2]
    assert scan.years == 1.25
    units = found.outcomes.set_index("column")["units"]
    assert units["putamen_Chimap"] == "ppb"
    assert units["putamen_volume_mL"] == "mL"
    assert set(found.outcomes["column"]) <= set(found.scans.columns)
    assert len(found.images) == 8 * 2
    assert (found.reference, found.left_out, found.warnings) == (
        "CSF of the ventricles' atria", (), (),
    )  # fmt: skip


def test_voxels_weigh_the_sides(tiny: Tiny) -> None:
    (path,) = tiny.out.rglob("sub-01_ses-1_*regions_stats.tsv")
    table = read_table(path)
    change_table(tiny, "sub-01_ses-1", n_voxels=table["n_voxels"].where(table["index"] != 51, 35))
    scan = gather(tiny.settings).scans.iloc[0]
    left, right = scan["left_putamen_Chimap"], scan["right_putamen_Chimap"]
    assert scan["putamen_Chimap"] == pytest.approx((105 * left + 35 * right) / 140)


def test_no_sessions_table_and_no_participants_table(tiny: Tiny) -> None:
    for path in tiny.bids.rglob("*.tsv"):
        path.unlink()
    found = gather(tiny.settings)
    assert len(found.scans) == 8
    assert not {"age", "years"} & set(found.scans.columns)


def test_sessions_table_of_one_subject_alone(tiny: Tiny) -> None:
    for path in sorted(tiny.bids.rglob("*_sessions.tsv"))[1:]:
        path.unlink()
    years = gather(tiny.settings).scans["years"]
    assert years.notna().tolist() == [True] * 2 + [False] * 6


def test_ids_without_their_prefix_are_said(tiny: Tiny) -> None:
    path = tiny.bids / "participants.tsv"
    path.write_text(path.read_text().replace("sub-", ""))
    (warning,) = gather(tiny.settings).warnings
    assert "participants.tsv has no row for sub-01, sub-02, sub-03, sub-04" in warning


def test_a_byte_order_mark_is_no_part_of_a_name(tiny: Tiny) -> None:
    path = tiny.bids / "participants.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = gather(tiny.settings)
    assert found.warnings == ()
    assert set(found.scans["group"]) == {"control", "patient"}


def test_sessions_without_their_prefix_are_said(tiny: Tiny) -> None:
    path = tiny.bids / "sub-02" / "sub-02_sessions.tsv"
    path.write_text(path.read_text().replace("ses-", ""))
    (warning,) = gather(tiny.settings).warnings
    assert "sessions.tsv has no row for sub-02 ses-1, sub-02 ses-2; write" in warning


def test_sessions_that_lack_their_column_are_named(tiny: Tiny) -> None:
    path = tiny.bids / "sub-01" / "sub-01_sessions.tsv"
    path.write_text(path.read_text().replace("session_id", "session"))
    with pytest.raises(UnreadableInputError, match=r"sub-01_sessions\.tsv.*'session_id'"):
        gather(tiny.settings)


def test_wanted_subjects_and_sessions(tiny: Tiny) -> None:
    chosen = dataclasses.replace(
        tiny.settings, participant_labels=("02", "03"), session_labels=("1",)
    )
    found = gather(chosen)
    assert found.scans["series"].tolist() == ["sub-02_ses-1", "sub-03_ses-1"]
    assert set(found.images["series"]) == {"sub-02_ses-1", "sub-03_ses-1"}
    assert found.left_out == ()
    with pytest.raises(NothingToDoError, match="participant level first"):
        gather(dataclasses.replace(tiny.settings, participant_labels=("77",)))


def test_who_is_missing_is_told(tiny: Tiny) -> None:
    change_record(tiny, "sub-01_ses-2", tables=[])
    for path in tiny.out.glob("logs/sub-04_*"):
        path.unlink()
    found = gather(tiny.settings)
    missing = {unit.unit: unit.reason for unit in found.left_out}
    assert missing.keys() == {"sub-04", "sub-01_ses-2"}
    assert "sub-01_ses-2" not in set(found.scans["series"])


def test_other_references_warn_and_leave_their_maps_out(tiny: Tiny) -> None:
    change_record(tiny, "sub-02_ses-1", reference=None)
    found = gather(tiny.settings)
    (warning,) = found.warnings
    assert "atria in 7 maps, but in 1 to nothing" in warning
    other = found.images[found.images["series"] == "sub-02_ses-1"]
    assert other["measure"].tolist() == ["R2starmap"]
    for path in tiny.out.glob("logs/*_record.json"):
        change_record(tiny, path.name.removesuffix("_record.json"), reference=None)
    found = gather(tiny.settings)
    assert found.warnings == ()
    assert len(found.images) == 16


def test_series_without_phase_have_no_reference_and_no_warning(tiny: Tiny) -> None:
    change_record(tiny, "sub-02_ses-1", reference=None, has_phase=False)
    assert gather(tiny.settings).warnings == ()


def test_two_atlases_have_columns_of_their_own(tiny: Tiny) -> None:
    for path in tiny.out.rglob("*atlas-tiny*regions_stats.*"):
        shutil.copy(path, path.with_name(path.name.replace("atlas-tiny", "atlas-other")))
    for path in tiny.out.glob("logs/*_record.json"):
        record = json.loads(path.read_text())
        (stats,) = (t for t in record["tables"] if t["key"] == "stats")
        second = TableRecord("stats", stats["path"].replace("atlas-tiny", "atlas-other"), "other")
        record["tables"] = [stats, vars(second), *record["tables"][1:]]
        path.write_text(json.dumps(record))
    found = gather(tiny.settings)
    assert set(found.regions["atlas"]) == {"tiny", "other"}
    assert found.atlases == ("tiny", "other")
    scan = found.scans.iloc[0]
    for outcome in ("putamen_Chimap", "putamen_Chimap_ref_whole_brain", "putamen_volume_mL"):
        assert scan[outcome] == scan[f"{outcome}_other"]


def test_what_does_not_fit_is_said(tiny: Tiny) -> None:
    change_table(tiny, "sub-01_ses-1", units="ppb")
    with pytest.raises(UnreadableInputError, match="more than one unit"):
        gather(tiny.settings)


def test_a_table_that_lacks_a_column_is_named(tiny: Tiny) -> None:
    (path,) = tiny.out.rglob("sub-01_ses-1_*regions_stats.tsv")
    pd.DataFrame({"index": [1]}).to_csv(path, sep="\t", index=False)
    with pytest.raises(UnreadableInputError, match=r"sub-01_ses-1.*no column"):
        gather(tiny.settings)


def follow(tiny: Tiny, subject: str) -> None:
    """Publish lesions of a subject as the participant level does."""
    table = pd.DataFrame(
        {
            "lesion": [1, 1],
            "session_id": ["ses-1", "ses-2"],
            "series": [f"sub-{subject}_ses-1", f"sub-{subject}_ses-2"],
            "years": [0.0, 1.25],
            "reference": "CSF",
            "region_mm3": 200.0,
            "chi_ppm_mean": [0.4, 0.44],
        }
    )
    path = f"sub-{subject}/anat/sub-{subject}_desc-tracking_stats.tsv"
    (tiny.out / path).parent.mkdir(exist_ok=True)
    (tiny.out / path).write_text(encode_table(table))
    record = SubjectRecord(
        subject, "Lesion tracking", "1", (), (), (), (TableRecord("tracking", path),), "k", (path,)
    )
    text = record_to_json(record)
    (tiny.out / "logs" / f"sub-{subject}_tracking.json").write_text(text)


def test_lesions_that_were_followed_are_gathered(tiny: Tiny) -> None:
    assert gather(tiny.settings).tracking.empty
    follow(tiny, "01")
    follow(tiny, "02")
    (tiny.out / "logs" / "sub-02_ses-2_record.json").unlink()
    found = gather(tiny.settings).tracking
    assert found["series"].tolist() == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert found["chi_ppm_mean"].tolist() == [0.4, 0.44, 0.4]
    assert found["years"].tolist() == [0.0, 1.25, 0.0]
    assert {"age", "group", "relapses"} <= set(found.columns)
    (tiny.out / "logs" / "sub-01_tracking.json").write_text("{")
    with pytest.raises(UnreadableInputError, match="sub-01_tracking"):
        gather(tiny.settings)

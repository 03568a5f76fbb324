"""Lesions followed over the sessions of a subject, from published files to table and page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_qsm import dispatch, tracking
from bids_qsm.anatomy.sessions import SessionTransform
from bids_qsm.bids.naming import output_path, record_path, tracking_record_path
from bids_qsm.bids.sidecars import TRACKING_COLUMNS
from bids_qsm.gathering import read_table
from bids_qsm.images import Image, encode_image
from bids_qsm.report.pages import subject_page
from bids_qsm.report.record import (
    ReferenceRecord,
    SeriesRecord,
    record_from_json,
    record_to_json,
    subject_record_from_json,
)
from bids_qsm.settings import Settings

SHAPE, VOXEL_MM = (34, 40, 32), 3.5
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = [-58.0, -67.0, -55.0]
LESIONS = (((20.0, 10.0, 5.0), 8.0, 0.4), ((-18.0, -20.0, 10.0), 7.0, 0.5))
"""Centre (mm), radius (mm) and susceptibility (ppm)."""
GROWTH = (0.10, 0.0)


def pose(degrees: float, shift) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    moved = np.eye(4)
    moved[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    moved[:3, 3] = shift
    return moved


POSES = (np.eye(4), pose(4, (2.0, -1.5, 1.0)), pose(-3, (-1.0, 2.5, -2.0)))


def world(at: np.ndarray) -> np.ndarray:
    """Return where each voxel is in the head that has moved."""
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    mapping = np.linalg.inv(at) @ AFFINE
    return voxels @ mapping[:3, :3].T + mapping[:3, 3]


def publish(out: Path, name: str, at: np.ndarray, years: float, **record) -> None:
    """Write what the participant level leaves of a series."""
    place = world(at)
    brain = ((place / (46, 56, 42)) ** 2).sum(axis=-1) < 1
    blobs = np.random.default_rng(7)
    s0 = np.full(SHAPE, 300.0)
    for centre, width in zip(
        blobs.uniform(-40, 40, (40, 3)), blobs.uniform(5, 12, 40), strict=True
    ):
        s0 += 120 * np.exp(-((place - centre) ** 2).sum(axis=-1) / (2 * width**2))
    chi, labels = np.zeros(SHAPE), np.zeros(SHAPE, np.int16)
    for number, ((centre, radius, ppm), growth) in enumerate(
        zip(LESIONS, GROWTH, strict=True), start=1
    ):
        away = np.sqrt(((place - centre) ** 2).sum(axis=-1))
        share = np.clip((radius - away) / VOXEL_MM + 0.5, 0, 1)
        chi += ppm * (1 + growth * years) * share
        labels[share > 0.5] = number
    session = name.partition("_ses-")[2] or None
    images = {
        "chi": chi.astype(np.float32),
        "qsm_mask": brain,
        "brain_mask": brain,
        "s0": np.where(brain, s0, 0).astype(np.float32),
        "r2star": np.where(labels > 0, 80, 20).astype(np.float32),
        "tracked_dseg": labels,
    }
    written = []
    for key, data in images.items():
        if key not in record.get("without", ()):
            path = out / output_path(name, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(Image(data, AFFINE)))
            written.append(output_path(name, key).as_posix())
    reference = ReferenceRecord(record.get("reference", "CSF"), 0.0, 0.01, 50)
    done = SeriesRecord("aa", session, name, "1", {}, (), (), (), reference, outputs=tuple(written))
    (out / "logs").mkdir(exist_ok=True)
    (out / record_path(name)).write_text(record_to_json(done))


NAMES = ["sub-aa_ses-1", "sub-aa_ses-2", "sub-aa_ses-3"]


@pytest.fixture
def settings(tmp_path) -> Settings:
    (tmp_path / "bids" / "sub-aa").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    return Settings(tmp_path / "bids", tmp_path / "out", extra_steps=("lesion-tracking",))


@pytest.fixture
def known_poses(monkeypatch) -> None:
    """Take registration and pictures off the tests that are not about them."""

    def found(first: Image, first_brain: Image, later: Image, later_brain: Image):
        return SessionTransform(np.linalg.inv(POSES[1]), 0.98)

    monkeypatch.setattr(tracking, "register_session", found)
    monkeypatch.setattr(tracking, "_write_figures", lambda *_: [])


def date(settings: Settings, *rows: str) -> None:
    text = "\n".join(("session_id\tacq_time", *rows, ""))
    (settings.bids_dir / "sub-aa" / "sub-aa_sessions.tsv").write_text(text)


def follow(settings: Settings, names=NAMES[:2]):
    key = dispatch.tracking_key("aa", names, settings)
    tracking.track_subject("aa", names, settings, key, lambda _: None)
    path = settings.output_dir / tracking_record_path("aa")
    return subject_record_from_json(path.read_text())


def table_of(settings: Settings):
    return read_table(settings.output_dir / "sub-aa/anat/sub-aa_desc-tracking_stats.tsv")


def test_three_sessions_are_registered_and_followed(settings: Settings) -> None:
    for name, at, years in zip(NAMES, POSES, (0, 1, 2), strict=True):
        publish(settings.output_dir, name, at, years)
    # written as sessions, not in their order
    date(settings, "ses-2\t2021-01-01", "ses-3\t2022-01-01T08:00:00", "ses-1\t2020-01-02")
    record = follow(settings, NAMES)
    assert record.warnings == ()
    table = table_of(settings)
    assert list(table.columns) == list(TRACKING_COLUMNS)
    assert table["brain_overlap"].min() > 0.95
    rows = table.set_index(["lesion", "session_id"])
    assert rows.loc[(1, "ses-2"), "change_percent_per_year"] == pytest.approx(10, abs=2)
    assert rows.loc[(1, "ses-3"), "total_change_percent"] == pytest.approx(20, abs=2)
    assert rows.loc[(2, "ses-3"), "total_change_percent"] == pytest.approx(0, abs=2)
    assert rows["exceeds_threshold"].astype(str).to_list()[1::3] == ["True", "False"]
    assert rows.loc[(1, "ses-3"), "years"] == pytest.approx(2, abs=0.01)
    assert set(rows["reference"]) == {"CSF"}
    for path in record.outputs:
        assert (settings.output_dir / path).exists()
    assert sum(path.endswith("desc-tracking_dseg.nii.gz") for path in record.outputs) == 3
    assert not (settings.output_dir / ".work" / "sub-aa_tracking").exists()
    series = [
        record_from_json((settings.output_dir / record_path(name)).read_text()) for name in NAMES
    ]
    page = subject_page("aa", series, settings.output_dir, [record])
    assert "All sessions together" in page and "Course of each lesion" in page
    assert page.count("data:image/png") >= 2 and "zeineddine2018" in page


def test_only_what_has_changed_is_followed_again(settings, known_poses, monkeypatch) -> None:
    for name, at in zip(NAMES[:2], POSES, strict=False):
        publish(settings.output_dir, name, at, 0)
    date(settings, "ses-1\t2020-01-01", "ses-2\t2021-01-01")
    follow(settings)
    started = []
    monkeypatch.setattr(dispatch, "run_units", lambda units, *_, **__: started.extend(units) or [])
    monkeypatch.setattr(dispatch, "planned_workers", lambda *_: dispatch.Plan(1, 1))
    series = [type("Series", (), {"subject": "aa", "name": name})() for name in NAMES[:2]]
    # one session alone may be asked for: the others are followed all the same
    for asked in (series, series[1:]):
        dispatch._track_lesions(asked, settings)
        assert started == []
    date(settings, "ses-1\t2020-01-01", "ses-2\t2022-01-01")
    dispatch._track_lesions(series, settings)
    assert [unit.name for unit in started] == ["sub-aa_tracking"]
    assert dispatch._track_lesions(series, Settings(Path(), Path())) == []


def test_sessions_without_dates_have_changes_but_no_rates(settings, known_poses) -> None:
    for name, at in zip(NAMES[:2], POSES, strict=False):
        publish(settings.output_dir, name, at, 0)
    record = follow(settings)
    assert "There are no dates" in record.warnings[0]
    table = table_of(settings)
    assert table["change_percent"].notna().sum() == 2
    assert table["change_percent_per_year"].isna().all()
    date(settings, "ses-1\tyesterday", "ses-2\t2021-01-01")
    record = follow(settings)
    assert "are not used" in record.warnings[0] and "yesterday" in record.warnings[0]


def test_dates_of_scans_and_days_are_used(settings, known_poses) -> None:
    for name, at in zip(NAMES[:2], POSES, strict=False):
        publish(settings.output_dir, name, at, 0)
    folder = settings.bids_dir / "sub-aa"
    (folder / "sub-aa_sessions.tsv").write_text("session_id\tdays\nses-1\t10\nses-2\t375.25\n")
    follow(settings)
    assert table_of(settings)["years"].tolist() == pytest.approx([0, 1, 0, 1])
    for session, day in ((1, "2020-01-01"), (2, "2020-07-01")):
        scans = folder / f"ses-{session}" / f"sub-aa_ses-{session}_scans.tsv"
        scans.parent.mkdir()
        file = f"anat/sub-aa_ses-{session}_echo-1_part-mag_MEGRE.nii.gz"
        scans.write_text(f"filename\tacq_time\n{file}\t{day}T10:00:00\n")
    follow(settings)
    assert table_of(settings)["years"].tolist() == pytest.approx([0, 0.498, 0, 0.498], abs=1e-3)


def test_what_is_missing_is_said(settings, known_poses) -> None:
    publish(settings.output_dir, NAMES[0], POSES[0], 0)
    publish(settings.output_dir, NAMES[1], POSES[1], 0, without=("chi",))
    said = " ".join(follow(settings, NAMES).warnings)
    assert "ses-2: it has no susceptibility map" in said
    assert "ses-3: it was not processed" in said
    assert "one session alone" in said
    assert len(table_of(settings)) == 2
    publish(settings.output_dir, NAMES[0], POSES[0], 0, without=("tracked_dseg",))
    record = follow(settings, NAMES[:1])
    assert any("nothing to follow" in text for text in record.warnings)
    assert table_of(settings).empty and record.figures == ()


def test_a_baseline_mask_is_enough_and_references_are_made_one(settings, known_poses) -> None:
    date(settings, "ses-1\t2020-01-01", "ses-2\t2021-01-01")
    publish(settings.output_dir, NAMES[0], POSES[0], 0)
    publish(
        settings.output_dir,
        NAMES[1],
        POSES[1],
        1,
        without=("tracked_dseg",),
        reference="whole brain",
    )
    record = follow(settings)
    assert "relative to different regions (CSF, whole brain)" in record.warnings[0]
    rows = table_of(settings).set_index(["lesion", "session_id"])
    assert rows.loc[(1, "ses-2"), "state"] == "not found"
    assert rows.loc[(1, "ses-2"), "change_percent"] == pytest.approx(10, abs=2.5)
    assert set(rows["reference"]) == {"whole brain"}

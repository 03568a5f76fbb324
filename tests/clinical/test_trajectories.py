from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.clinical import drawing
from bids_qsm.clinical.trajectories import follow_trajectories, read_trajectories
from bids_qsm.errors import UnreadableInputError
from bids_qsm.settings import Method, Processing
from tests.clinical.brainstem import AFFINE, BOXES, case, job

HEAD = "name\tentry_x_mm\tentry_y_mm\tentry_z_mm\ttarget_x_mm\ttarget_y_mm\ttarget_z_mm"
ENTRY, TARGET = np.array([-14.0, 6, 20]), np.array([-9.0, -3, -7.0])
GOOD = "left\t" + "\t".join(f"{v:g}" for v in (*ENTRY, *TARGET))


def write(folder, text: str, name: str = "sub-aa_trajectories.tsv"):
    path = folder / name
    path.write_text(text)
    return path


def within(index: int) -> tuple[float, float]:
    """Return the depths at which the line enters and leaves a box of whole voxels."""
    box = BOXES[index][2]
    low = np.array([side.start - 0.5 for side in box]) + AFFINE[:3, 3]
    high = np.array([side.stop - 0.5 for side in box]) + AFFINE[:3, 3]
    up = (ENTRY - TARGET) / np.linalg.norm(ENTRY - TARGET)
    ends = np.sort([(low - TARGET) / up, (high - TARGET) / up], axis=0)
    return float(ends[1].min()), float(ends[0].max())


def test_spans_are_those_of_the_boxes_and_the_recorded_one_is_compared(tmp_path) -> None:
    text = f"{HEAD}\trecorded_entry_mm\trecorded_exit_mm\n{GOOD}\t5.5\t-0.4\n"
    task = job(tmp_path, table=text)
    found = follow_trajectories(task, case(noise=0.1))
    spans, profile = (named.table for named in found.tables)
    assert set(spans.columns) <= set(TABLE_COLUMNS["trajectories"])
    assert set(profile.columns) == set(TABLE_COLUMNS["trajectory_profiles"])
    rows = spans.set_index("index")
    for index in (11, 31, 13):
        entry, leave = within(index)
        assert rows.loc[index, "entry_mm"] == pytest.approx(entry, abs=0.12)
        assert rows.loc[index, "exit_mm"] == pytest.approx(leave, abs=0.12)
        assert rows.loc[index, "span_mm"] == pytest.approx(entry - leave, abs=0.12)
        assert rows.loc[index, "span_low_mm"] < entry - leave < rows.loc[index, "span_high_mm"]
        assert rows.loc[index, "chance"] == 1
    stn = rows.loc[31]
    assert stn["name"] == "Left subthalamic nucleus"
    assert stn["recorded_span_mm"] == pytest.approx(5.9)
    assert stn["difference_mm"] == pytest.approx(stn["span_mm"] - 5.9)
    assert rows["recorded_span_mm"].notna().sum() == 1
    assert stn["chi_ppm_mean"] == pytest.approx(0.08, abs=0.02)
    assert spans["entry_mm"].dropna().is_monotonic_decreasing
    assert not task.journal.warnings
    assert [step.name for step in task.journal.steps] == ["trajectories"]


def test_the_profile_has_chi_and_the_label_of_each_point(tmp_path) -> None:
    profile = follow_trajectories(job(tmp_path, table=f"{HEAD}\n{GOOD}\n"), case(noise=0.1))
    table = profile.tables[1].table
    assert np.allclose(np.diff(table["depth_mm"]), -0.25)
    at_target = table.loc[table["depth_mm"] == 0, ["x_mm", "y_mm", "z_mm"]].to_numpy()
    assert np.allclose(at_target, TARGET)
    for index, chi_ppm in ((31, 0.08), (11, 0.12)):
        entry, leave = within(index)
        depth = table["depth_mm"]
        deep = table[(depth < entry - 1.5) & (depth > leave + 1.5)]
        assert len(deep) and (deep["index"] == index).all() and (deep["score"] > 0.9).all()
        assert deep["chi_ppm"].mean() == pytest.approx(chi_ppm, abs=0.01)
    none = table[table["index"] == 0]
    assert none["name"].isna().all() and none["chi_ppm"].median() == pytest.approx(-0.03, abs=0.01)


def test_the_standard_deviation_of_chi_comes_along(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(drawing, "DPI", 40)
    head = case()
    spread = np.full(head.maps.brain.shape, 0.004, np.float32)
    head.maps.uncertainty = type("Uncertainty", (), {"sd_ppm": spread})
    found = follow_trajectories(job(tmp_path, table=f"{HEAD}\n{GOOD}\n"), head)
    table = found.tables[1].table.dropna(subset="chi_ppm")
    assert table["chi_sd_ppm"].to_numpy() == pytest.approx(0.004)
    assert len(list(found.draw())) == 1


def test_a_table_with_semicolons_or_commas_and_a_mark_is_read(tmp_path) -> None:
    for separator in ",;":
        text = "\ufeff" + f"{HEAD}\n{GOOD}\n".replace("\t", separator)
        (one,), left_out = read_trajectories(write(tmp_path, text, "sub-aa_trajectories.csv"))
        assert one.entry_mm == tuple(ENTRY) and one.target_mm == tuple(TARGET) and not left_out
        assert one.structure == "subthalamic nucleus" and np.isnan(one.recorded_span_mm)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the trajectories cannot be read"),
        (f"{HEAD}\n", "the table of trajectories has no row"),
        (HEAD.replace("\ttarget_z_mm", "") + "\n", "lacks the column 'target_z_mm'; it needs name"),
        (HEAD.replace("name", "label") + "\n", "lacks the column 'name'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(tmp_path, text, sentence) -> None:
    with pytest.raises(UnreadableInputError, match=sentence):
        read_trajectories(write(tmp_path, text))
    task = job(tmp_path, table=text)
    assert follow_trajectories(task, case()) is None
    (warning,) = task.journal.warnings
    assert sentence in warning and warning.endswith("The trajectories were not followed.")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("x\t1\t2\t3\t1\t2\tabc", "'target_z_mm' is 'abc', which is no number"),
        ("x\t1\t2\t3\t1\t2\tn/a", "'target_z_mm' has no number"),
        ("x\t1\t2\t3\t1\t2\t3", "entry and target are 0 mm apart"),
        ("x\t1\t2\t3\t1\t2\t300", r"target \(1, 2, 300\) mm is outside the T1w image's field of"),
        ("x\t1\t2\t3\t4\t19.8\t3", "signs of x and y changed it lies within, as if they were LPS"),
        (GOOD, "there is another one of this name"),
    ],
)
def test_a_bad_row_is_left_out_and_the_others_stay(tmp_path, row, sentence) -> None:
    task = job(tmp_path, table=f"{HEAD}\n{GOOD}\n{row}\n")
    found = follow_trajectories(task, case())
    assert found.facts == {"Trajectories": "left"}
    (warning,) = task.journal.warnings
    assert "was left out" in warning and re.search(sentence, warning)
    assert set(found.tables[0].table["trajectory"]) == {"left"}


def test_what_is_not_there_is_said(tmp_path) -> None:
    table = f"{HEAD}\trecorded_span_mm\tstructure\n{GOOD}\t5\tSTN\n"
    assert follow_trajectories(job(tmp_path), case()) is None  # none given: nothing to say
    task = job(tmp_path, table=table)
    assert follow_trajectories(task, replace(case(), anatomy=None)) is None
    assert "as there is no T1w image" in task.journal.warnings[0]
    task = replace(task, journal=type(task.journal)())
    found = follow_trajectories(task, case(only="nigra"))
    assert "has the subthalamic nucleus" in task.journal.warnings[0]
    assert "the atlas has no structure 'STN'" in task.journal.warnings[1]
    assert "recorded_span_mm" not in found.tables[0].table
    head = case()
    head.maps.chi = ()
    task = replace(task, journal=type(task.journal)())
    found = follow_trajectories(task, head)
    assert "through labels alone: there is no χ" in task.journal.warnings[0]
    assert found.tables[1].table["chi_ppm"].isna().all()
    assert found.tables[0].table.set_index("index").loc[31, "span_mm"] > 4


def test_a_structure_that_was_recorded_and_is_not_met_has_a_row(tmp_path) -> None:
    row = "aside\t-20\t-15\t20\t-20\t-15\t0\t4.5"
    task = job(tmp_path, table=f"{HEAD}\trecorded_span_mm\n{row}\n")
    table = follow_trajectories(task, case()).tables[0].table
    (missed,) = table.to_dict("records")
    assert (missed["name"], missed["span_mm"]) == ("Left subthalamic nucleus", 0)
    assert missed["difference_mm"] == -4.5


def test_options_of_the_settings_are_used(tmp_path) -> None:
    task = job(tmp_path, table=f"{HEAD}\n{GOOD}\n")
    own = Processing(trajectories=Method("labels", {"step_mm": 1.0, "beyond_mm": 2.0}))
    task = replace(task, settings=replace(task.settings, processing=own))
    profile = follow_trajectories(task, case()).tables[1].table
    assert np.allclose(np.diff(profile["depth_mm"]), -1) and profile["depth_mm"].min() == -2


def test_two_tables_for_one_series_are_said_and_nothing_is_lost(tmp_path) -> None:
    task = job(tmp_path, table=f"{HEAD}\n{GOOD}\n")
    write(tmp_path / "given", "name", "sub-aa_run-2_trajectories.csv")
    assert follow_trajectories(task, case()) is None
    assert "there is another one" in task.journal.warnings[0]


def test_there_is_a_picture_of_each_trajectory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(drawing, "DPI", 40)
    other = GOOD.replace("left", "right & <wrong>").replace("-14", "14").replace("-9", "9")
    task = job(tmp_path, table=f"{HEAD}\n{GOOD}\n{other}\n")
    pictures = list(follow_trajectories(task, case()).draw())
    assert [picture.what for picture in pictures] == ["trajectory1", "trajectory2"]
    assert all(picture.images[0][1][:4] == b"\x89PNG" for picture in pictures)
    assert pictures[0].images[0][1] != pictures[1].images[0][1]

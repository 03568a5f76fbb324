from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bids_qsm.analyses.cohort import Cohort
from bids_qsm.images import load_image
from tests.analyses.tiny import Tiny, made, map_of, means, table_of

SESSIONS = {"sessions": ["ses-1", "ses-2"]}


def icc(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """ICC(2,1) and ICC(3,1) of two scans, from the mean squares."""
    x = np.column_stack([a, b]).astype(np.float64)
    n, k, grand = len(x), 2, x.mean()
    rows = k * ((x.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((x.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    total = ((x - grand) ** 2).sum()
    error = (total - rows * (n - 1) - columns * (k - 1)) / ((n - 1) * (k - 1))
    two = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    return two, (rows - error) / (rows + (k - 1) * error)


def test_structures_are_as_by_hand(cohort: Cohort) -> None:
    result = made(cohort, "reliability", **SESSIONS, sides="apart", voxels=False)
    table = table_of(result, "structures").set_index(["name", "measure"])
    assert len(table) == 4 * 2
    for name, measure in (("Left putamen", "Chimap"), ("Right thalamus", "R2starmap")):
        wide = means(cohort, name, measure).pivot(
            index="participant_id", columns="session_id", values="mean"
        )
        a, b = wide["ses-1"].to_numpy(), wide["ses-2"].to_numpy()
        row, d = table.loc[name, measure], b - a
        assert row["n"] == 16
        assert row["mad"] == pytest.approx(np.abs(d).mean(), rel=1e-8)
        assert row["bias"] == pytest.approx(d.mean(), rel=1e-8)
        within = np.sqrt((d**2).sum() / 2 / 16)
        assert row["sd_within"] == pytest.approx(within, rel=1e-8)
        assert row["smallest_detectable_change"] == pytest.approx(
            1.96 * np.sqrt(2) * within, rel=1e-3
        )
        assert row["mad_percent"] == pytest.approx(
            100 * (np.abs(d) / np.abs((a + b) / 2)).mean(), rel=1e-8
        )
        assert (row["icc_2_1"], row["icc_3_1"]) == pytest.approx(icc(a, b), rel=1e-8)
        assert row["loa_upper"] == pytest.approx(d.mean() + 1.96 * d.std(ddof=1), rel=1e-3)
    assert [c.name for c in result.charts] == ["Chimap_bland-altman", "R2starmap_bland-altman"]
    assert result.maps == ()


def test_voxels_are_as_by_hand(cohort: Cohort, tiny: Tiny) -> None:
    result = made(cohort, "reliability", **SESSIONS, measures=["R2starmap"])
    chosen = cohort.images[cohort.images["measure"] == "R2starmap"]
    a, b = (
        np.array([load_image(p).data for p in chosen.loc[chosen["session_id"] == s, "path"]])
        for s in SESSIONS["sessions"]
    )
    d = np.abs(b.astype(np.float64) - a).mean(axis=0)
    thalamus = np.zeros(d.shape, bool)
    thalamus[tiny.plan.mask] = tiny.plan.of_nucleus("thalamus")
    mad = map_of(result, "R2starmap_mean-absolute-difference")
    np.testing.assert_allclose(mad[thalamus], d[thalamus], rtol=1e-4)
    at = (8, 4, 5)
    found = map_of(result, "R2starmap_icc-2-1")[at]
    assert found == pytest.approx(icc(a[:, *at], b[:, *at])[0], rel=1e-4)
    within = np.sqrt(((b[:, *at] - a[:, *at]) ** 2).sum() / 2 / 16)
    assert map_of(result, "R2starmap_within-subject-sd")[at] == pytest.approx(within, rel=1e-4)
    table = table_of(result, "R2starmap_voxels").set_index("name")
    assert table.loc["Thalamus", "mad"] == pytest.approx(d[thalamus].mean(), rel=1e-4)
    assert table.loc["Thalamus", "n_voxels"] == thalamus.sum()
    assert "Lateral ventricle" not in table.index


def test_who_has_one_scan_is_said(cohort: Cohort) -> None:
    lost = cohort.scans["series"] == "sub-03_ses-2"
    fewer = dataclasses.replace(
        cohort,
        scans=cohort.scans[~lost],
        regions=cohort.regions[cohort.regions["series"] != "sub-03_ses-2"],
        images=cohort.images[cohort.images["series"] != "sub-03_ses-2"],
    )
    result = made(fewer, "reliability", structures=["putamen"])
    assert set(table_of(result, "structures")["n"]) == {15}
    assert any(note.startswith("sub-03 left out: no session_id ses-2") for note in result.notes)
    assert any("15 participants compared voxel by voxel" in note for note in result.notes)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"sessions": ["ses-1"]}, "two sessions or more"),
        ({"sessions": ["ses-1", "ses-9"]}, "'ses-9'"),
        ({"session": "ses-1"}, "two sessions or more"),
        ({"subset": "participant_id == 'sub-01'"}, "two subjects or more"),
        ({"value": "average"}, "'average'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(cohort, "reliability", **words)


def test_session_labels_stand_without_their_prefix(cohort: Cohort) -> None:
    bare = made(cohort, "reliability", sessions=["1", "2"], voxels=False)
    whole = made(cohort, "reliability", **SESSIONS, voxels=False)
    pd.testing.assert_frame_equal(table_of(bare, "structures"), table_of(whole, "structures"))


def with_rescans(cohort: Cohort, names: list) -> Cohort:
    """The cohort with the column that pairs sessions; its rows are those of the scans."""
    column = dict(zip(cohort.scans["series"], names, strict=True))
    return dataclasses.replace(
        cohort,
        scans=cohort.scans.assign(rescan_of=cohort.scans["series"].map(column)),
        regions=cohort.regions.assign(rescan_of=cohort.regions["series"].map(column)),
    )


@pytest.mark.parametrize("name", ["ses-1", "1", 1.0])
def test_sessions_are_paired_by_their_column(cohort: Cohort, name: object) -> None:
    paired = made(with_rescans(cohort, [None, name] * 16), "reliability", structures=["putamen"])
    usual = made(cohort, "reliability", **SESSIONS, structures=["putamen"])
    for table in ("structures", "Chimap_voxels"):
        columns = ["n", "mad", "icc_2_1"] if table == "structures" else ["n_voxels", "mad"]
        pd.testing.assert_frame_equal(
            table_of(paired, table)[columns], table_of(usual, table)[columns]
        )
    assert any("paired by the column 'rescan_of'" in note for note in paired.notes)
    some = made(with_rescans(cohort, [None, name] * 10 + [None] * 12), "reliability", voxels=False)
    assert set(table_of(some, "structures")["n"]) == {10}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([None] * 32, "names no session"),
        (["ses-2", "ses-1"] * 16, "pair each session once"),
    ],
)
def test_pairs_that_cannot_be_are_one_sentence(cohort: Cohort, names, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(with_rescans(cohort, names), "reliability")

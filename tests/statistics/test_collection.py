from __future__ import annotations

import pandas as pd
import pytest

from bids_qsm.statistics.collection import RegionTable, collect, with_columns


def table(value: float, units: str = "ppm") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": [11, 10],
            "name": ["Left-Caudate", "Left-Thalamus"],
            "hemisphere": ["left", "left"],
            "measure": ["Chimap", "Chimap"],
            "units": [units, units],
            "reference": ["csf", "csf"],
            "mean": [value, value + 1],
        }
    )


def series(participant: str, session: str = "n/a", **options: object) -> RegionTable:
    return RegionTable(participant, session, participant, table(1.0, **options))  # type: ignore[arg-type]


def test_rows_of_all_subjects_are_joined_and_ordered() -> None:
    joined = collect([series("sub-02"), series("sub-01")])
    assert joined["participant_id"].tolist() == ["sub-01", "sub-01", "sub-02", "sub-02"]
    assert joined["index"].tolist() == [10, 11, 10, 11]
    pd.testing.assert_frame_equal(joined, collect([series("sub-01"), series("sub-02")]))


def test_participants_and_sessions_columns_come_along() -> None:
    participants = pd.DataFrame({"participant_id": ["sub-01"], "age": [40], "name": ["x"]})
    sessions = pd.DataFrame({"participant_id": ["sub-01"], "session_id": ["ses-1"], "edss": [2.5]})
    joined = collect([series("sub-01", "ses-1"), series("sub-02", "ses-1")], participants, sessions)
    assert joined["age"].tolist()[:2] == [40, 40]
    assert joined["age"].isna().tolist() == [False, False, True, True]
    assert joined["edss"].tolist()[:2] == [2.5, 2.5]
    assert joined["name"].tolist()[0] == "Left-Thalamus"
    assert joined["name_participants"].tolist()[0] == "x"


def test_atlases_stand_apart_and_after_their_subject() -> None:
    both = [
        RegionTable("sub-01", "n/a", "sub-01", table(value), atlas)
        for atlas, value in (("tiny", 1.0), ("other", 5.0))
    ]
    joined = collect(both)
    assert list(joined.columns[:4]) == ["participant_id", "session_id", "series", "atlas"]
    assert joined["atlas"].tolist() == ["other", "other", "tiny", "tiny"]
    assert joined.query("atlas == 'tiny'")["mean"].tolist() == [2.0, 1.0]
    with pytest.raises(ValueError, match=r"stands twice \(sub-01, n/a, sub-01, tiny"):
        collect([*both, both[0]])


def test_scans_take_the_same_columns() -> None:
    scans = pd.DataFrame({"participant_id": ["sub-02", "sub-01"], "session_id": ["ses-1"] * 2})
    people = pd.DataFrame({"participant_id": ["sub-01", "sub-03"], "age": [40, 50]})
    sessions = pd.DataFrame(
        {"participant_id": ["sub-01"] * 2, "session_id": ["ses-1", "ses-2"], "age": [41, 42]}
    )
    joined = with_columns(scans, people, sessions)
    assert joined["participant_id"].tolist() == ["sub-02", "sub-01"]
    assert joined["age"].tolist()[1] == 40
    assert joined["age_sessions"].tolist()[1] == 41
    assert joined.iloc[0][["age", "age_sessions"]].isna().all()
    with pytest.raises(ValueError, match=r"sessions\.tsv: a row stands twice \(sub-01, ses-1\)"):
        with_columns(scans, None, pd.concat([sessions, sessions.iloc[:1]]))


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(ValueError, match="no per-structure tables"):
        collect([])
    with pytest.raises(ValueError, match=r"more than one unit \(ppb, ppm\)"):
        collect([series("sub-01"), series("sub-02", units="ppb")])
    with pytest.raises(ValueError, match="a row stands twice"):
        collect([series("sub-01"), series("sub-01")])
    with pytest.raises(ValueError, match=r"participants\.tsv has no column 'participant_id'"):
        collect([series("sub-01")], pd.DataFrame({"id": [1]}))
    with pytest.raises(ValueError, match=r"participants\.tsv: a row stands twice \(sub-01\)"):
        collect([series("sub-01")], pd.DataFrame({"participant_id": ["sub-01"] * 2}))

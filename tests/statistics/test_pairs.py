from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.pairs import repeats, side_by_side


def tidy(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["participant_id", "session_id", "name", "mean"])
    return table.assign(measure="Chimap", units="ppm", reference=np.nan)


COMPLETE = [
    (f"sub-{s}", f"ses-{k}", name, 10.0 * s + k + (name == "Pallidum") / 2)
    for s in (2, 1)
    for k in (2, 1)
    for name in ("Caudate", "Pallidum")
]


def test_rows_are_sorted_into_an_array() -> None:
    found = repeats(tidy(COMPLETE), ["ses-2", "ses-1"])
    assert found.participants == ["sub-1", "sub-2"]
    assert found.structures["name"].tolist() == ["Caudate", "Pallidum"]
    assert found.structures["reference"].isna().all()  # no reference is no reason to lose a row
    np.testing.assert_array_equal(found.values[..., 0], [[12, 11], [22, 21]])
    np.testing.assert_array_equal(found.values[..., 1], [[12.5, 11.5], [22.5, 21.5]])
    assert found.left_out.empty


def test_who_lacks_what_is_listed() -> None:
    rows = [*COMPLETE, ("sub-3", "ses-1", "Caudate", 1.0), ("sub-4", "ses-3", "Caudate", 1.0)]
    rows += [("sub-5", "ses-1", "Caudate", np.inf), ("sub-5", "ses-2", "Caudate", 1.0)]
    left_out = repeats(tidy(rows), ["ses-1", "ses-2"]).left_out
    listed = left_out[["participant_id", "name", "reason"]].fillna("").values.tolist()
    assert listed == [
        ["sub-3", "", "no session_id ses-2"],
        ["sub-4", "", "no session_id ses-1 nor ses-2"],
        ["sub-5", "Caudate", "no mean in ses-1"],
        ["sub-5", "Pallidum", "no mean in ses-1 and ses-2"],
    ]


def test_two_occasions_stand_side_by_side() -> None:
    table = tidy(COMPLETE[:-1])
    wide, left_out = side_by_side(table, "ses-1", "ses-2")
    assert wide[["participant_id", "name", "ses-1", "ses-2"]].values.tolist() == [
        ["sub-1", "Caudate", 11, 12],
        ["sub-2", "Caudate", 21, 22],
        ["sub-2", "Pallidum", 21.5, 22.5],
    ]
    assert left_out["reason"].tolist() == ["no mean in ses-1"]


def test_occasions_may_be_references() -> None:
    table = tidy(COMPLETE).drop(columns="reference").rename(columns={"session_id": "reference"})
    wide, _ = side_by_side(table, "ses-1", "ses-2", column="reference")
    assert len(wide) == 4
    assert "reference" not in wide


@pytest.mark.parametrize(
    ("change", "sessions", "sentence"),
    [
        (lambda t: t.drop(columns="mean"), None, "there is no column 'mean'; there are:"),
        (lambda t: t, ["ses-1", "ses-9"], "there is no session_id 'ses-9'; there are: ses-1, ses"),
        (lambda t: t, ["ses-1", "ses-1"], "at least two different values of session_id"),
        (lambda t: t[t["session_id"] == "ses-1"], None, "at least two different values"),
        (lambda t: pd.concat([t, t[:1]]), None, "sub-2 was measured twice in ses-2 .*Caudate"),
        (lambda t: t.assign(mean="high"), None, "'mean' must hold numbers"),
    ],
)
def test_bad_tables_are_refused(change, sessions, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        repeats(change(tidy(COMPLETE)), sessions)


def test_categories_change_nothing() -> None:
    text = ["participant_id", "session_id", "name"]
    found = repeats(tidy(COMPLETE).astype(dict.fromkeys(text, "category")))
    np.testing.assert_array_equal(found.values, repeats(tidy(COMPLETE)).values)
    assert found.structures["name"].tolist() == ["Caudate", "Pallidum"]

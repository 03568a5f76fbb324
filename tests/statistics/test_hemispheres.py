from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.hemispheres import (
    bilateral_means,
    outcomes_of,
    side_of,
    subject_columns,
    wide_table,
)
from tests.statistics.cohort import cohort


def one(table: pd.DataFrame, **keys: str) -> pd.Series:
    chosen = np.logical_and.reduce([(table[k] == v).to_numpy() for k, v in keys.items()])
    assert chosen.sum() == 1
    return table[chosen].iloc[0]


def test_sides_are_weighted_by_their_voxels() -> None:
    table = cohort(6)
    joined, notes = bilateral_means(table)
    who = {"participant_id": "sub-03", "measure": "Chimap"}
    left = one(table, name="Left caudate", **who)
    right = one(table, name="Right caudate", **who)
    both = one(joined, name="caudate", **who)
    weights = np.array([left["n_voxels"], right["n_voxels"]])
    expected = np.average([left["mean"], right["mean"]], weights=weights)
    assert both["mean"] == pytest.approx(expected, abs=1e-12)
    assert both["n_voxels"] == weights.sum()
    assert both["volume_mm3"] == 2 * weights.sum()
    assert both["hemisphere"] == "B"
    assert both["age"] == left["age"]
    assert notes == ()
    assert len(joined) == len(table) / 2
    plain, _ = bilateral_means(table, weighted=False)
    expected = (left["mean"] + right["mean"]) / 2
    assert one(plain, name="caudate", **who)["mean"] == pytest.approx(expected, abs=1e-12)


def test_veins_are_weighed_apart() -> None:
    table = cohort(4).assign(n_vein_voxels=lambda t: t["index"], mean_without_veins=1.0)
    table["median"] = 3.0
    joined, _ = bilateral_means(table)
    np.testing.assert_allclose(joined["mean_without_veins"], 1)
    assert (
        one(joined, name="putamen", participant_id="sub-00", measure="Chimap")["n_vein_voxels"]
        == 20 + 21
    )
    assert joined["median"].isna().all()


def test_one_sided_and_unsided_structures() -> None:
    table = cohort(4)
    table = table[~((table["participant_id"] == "sub-01") & (table["name"] == "Left caudate"))]
    middle = table[table["name"] == "Left putamen"].assign(name="brainstem", hemisphere="B")
    joined, notes = bilateral_means(pd.concat([table, middle]))
    assert notes == ("caudate has one side alone in 1 subject and is left out there: sub-01.",)
    assert (joined["name"] == "caudate").sum() == 3 * 2
    kept = joined[joined["name"] == "brainstem"].sort_values(["participant_id", "measure"])
    expected = middle.sort_values(["participant_id", "measure"])
    np.testing.assert_array_equal(kept["mean"], expected["mean"])


@pytest.mark.parametrize(
    ("left", "right", "bare"),
    [
        ("Left-Thalamus-Proper", "Right-Thalamus-Proper", "Thalamus-Proper"),
        ("thalamus_L", "thalamus_R", "thalamus"),
        ("GPi, left", "GPi, right", "GPi"),
        ("lh.STN", "rh.STN", "STN"),
        ("Lentiform", "Lentiform", "Lentiform"),
    ],
)
def test_names_lose_their_side(left: str, right: str, bare: str) -> None:
    table = pd.DataFrame(
        {"participant_id": "sub-1", "name": [left, right], "hemisphere": ["left", "R"]}
    ).assign(mean=[1.0, 3.0], n_voxels=[1, 1])
    joined, _ = bilateral_means(table)
    assert joined["name"].tolist() == [bare]
    assert joined["mean"].tolist() == [2.0]


def test_what_cannot_be_joined_is_refused() -> None:
    table = cohort(4)
    with pytest.raises(ValueError, match="no column 'hemisphere'"):
        bilateral_means(table.drop(columns="hemisphere"))
    with pytest.raises(ValueError, match="no column 'n_voxels' to weigh the sides' mean by"):
        bilateral_means(table.drop(columns="n_voxels"))
    with pytest.raises(ValueError, match="sub-00 has thalamus of side L more than once"):
        bilateral_means(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(ValueError, match="no column 'name'"):
        bilateral_means(table.drop(columns="name"))


def test_matrix_of_outcomes_holds_every_value() -> None:
    table = cohort(7).sample(frac=1, random_state=1)
    table = table[~((table["participant_id"] == "sub-02") & (table["index"] == 11))]
    values, subjects, outcomes = outcomes_of(table, "mean")
    assert values.shape == (7, 12)
    assert subjects["participant_id"].tolist() == sorted(table["participant_id"].unique())
    assert outcomes["name"].tolist()[:3] == ["Left thalamus", "Right thalamus", "Left caudate"]
    for i in range(7):
        for k in range(12):
            row = table[
                (table["participant_id"] == subjects["participant_id"][i])
                & (table["name"] == outcomes["name"][k])
                & (table["measure"] == outcomes["measure"][k])
            ]
            expected = row["mean"].iloc[0] if len(row) else np.nan
            np.testing.assert_equal(values.iloc[i, k], expected)
    assert np.isnan(values.to_numpy()).sum() == 2


def test_repeated_participants_are_refused() -> None:
    table = cohort(4)
    again = table.assign(session_id="ses-2")
    table["session_id"] = "ses-1"
    sentence = r"sub-00 has .* more than once \(ses-1, ses-2\): choose one by a subset, as session"
    with pytest.raises(ValueError, match=sentence):
        outcomes_of(pd.concat([table, again]), "mean")
    with pytest.raises(ValueError, match=r"\(the same row twice\): remove one"):
        outcomes_of(pd.concat([table, table.iloc[:1]]), "mean")
    with pytest.raises(ValueError, match="no column 'meen'; there are: participant_id"):
        outcomes_of(table, "meen")


def test_wide_table_has_names_that_stand_in_formulas() -> None:
    table = cohort(5)
    wide, legend = wide_table(table)
    assert len(wide) == 5
    assert wide["age"].tolist() == table.drop_duplicates("participant_id")["age"].tolist()
    row = one(table, participant_id="sub-04", name="Right putamen", measure="R2starmap")
    assert wide["right_putamen_R2starmap"][4] == row["mean"]
    assert legend["column"].tolist()[0] == "left_thalamus_Chimap"
    assert all(name.isidentifier() for name in legend["column"])
    assert "n_voxels" not in wide.columns
    several = pd.concat([table, table[table["measure"] == "Chimap"].assign(reference="wm")])
    names = wide_table(several)[1]["column"].tolist()
    assert "left_thalamus_Chimap_ref_csf" in names
    assert "left_thalamus_R2starmap" in names
    assert len(set(names)) == len(names) == 18
    unsided = table.assign(name=table["name"].str.split(" ").str[1])
    assert "l_thalamus_Chimap" in wide_table(unsided)[0].columns


def test_columns_of_subjects_do_not_vary_within_them() -> None:
    table = cohort(4)
    assert subject_columns(table, ["age"])["age"].nunique() == 4
    with pytest.raises(ValueError, match="'n_voxels' differs between the rows of sub-00"):
        subject_columns(table, ["n_voxels"])


def test_sides_have_many_names() -> None:
    assert [side_of(s) for s in ("L", "left", "lh", "R", "Right", "rh", "B", "n/a")] == list(
        "LLLRRRBB"
    )

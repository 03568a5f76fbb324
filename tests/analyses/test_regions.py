from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.tiny import made, means, table_of


def first_scans(cohort: Cohort, measure: str = "Chimap") -> pd.DataFrame:
    """The first scan of each participant, with the mean of both thalami, which are of one size."""
    sides = [means(cohort, f"{side} thalamus", measure) for side in ("Left", "Right")]
    left, right = (rows[rows["session_id"] == "ses-1"].reset_index(drop=True) for rows in sides)
    return left.assign(mean=(left["mean"] + right["mean"]) / 2)


def with_people(cohort: Cohort, **columns: list) -> Cohort:
    """The cohort with other columns of its participants, in their order."""
    ids = sorted(set(cohort.scans["participant_id"]))
    new = pd.DataFrame(columns, index=ids)

    def changed(table: pd.DataFrame) -> pd.DataFrame:
        return table.drop(columns=[*columns], errors="ignore").join(new, on="participant_id")

    return dataclasses.replace(cohort, regions=changed(cohort.regions), scans=changed(cohort.scans))


def test_differences_are_welchs_of_the_first_scans(cohort: Cohort) -> None:
    result = made(cohort, "regions", structures=["thalamus"])
    pairs = table_of(result, "pairs")
    assert pairs["measure"].tolist() == ["Chimap", "R2starmap"]
    for row in pairs.itertuples():
        scans = first_scans(cohort, row.measure)
        patient, control = (scans.loc[scans["group"] == g, "mean"] for g in ("patient", "control"))
        found = stats.ttest_ind(patient, control, equal_var=False)
        interval = found.confidence_interval()
        assert (row.group_a, row.group_b, row.n_a, row.n_b) == ("patient", "control", 8, 8)
        assert row.mean_a == pytest.approx(patient.mean(), rel=1e-9)
        assert row.sd_b == pytest.approx(control.std(), rel=1e-9)
        assert row.p_welch == pytest.approx(found.pvalue, rel=1e-8)
        assert row.difference_low == pytest.approx(interval.low, rel=1e-8)
        assert row.difference_high == pytest.approx(interval.high, rel=1e-8)
    assert any("first was taken; 16 scans left out" in note for note in result.notes)
    assert any("from the group 'control'" in note for note in result.notes)
    assert {chart.name for chart in result.charts} == {
        f"{m}_{what}" for m in ("Chimap", "R2starmap") for what in ("groups", "differences")
    }


def test_adjusted_differences_are_those_of_statsmodels(cohort: Cohort) -> None:
    words = {"structures": ["thalamus"], "measures": ["Chimap"], "covariates": ["age", "sex"]}
    model = smf.ols("mean ~ C(group, Treatment('control')) + age + sex", first_scans(cohort))
    name = "C(group, Treatment('control'))[T.patient]"
    for robust, fitted in ((False, model.fit()), (True, model.fit(cov_type="HC3", use_t=True))):
        (row,) = table_of(made(cohort, "regions", **words, robust=robust), "pairs").itertuples()
        low, high = fitted.conf_int().loc[name]
        assert row.adjusted_difference == pytest.approx(fitted.params[name], rel=1e-8)
        assert row.p_adjusted == pytest.approx(fitted.pvalues[name], rel=1e-8)
        assert row.adjusted_difference_low == pytest.approx(low, rel=1e-8)
        assert row.adjusted_difference_high == pytest.approx(high, rel=1e-8)


def test_sides_apart_and_both(cohort: Cohort) -> None:
    words = {"measures": ["Chimap"], "structures": ["thalamus"]}
    apart = table_of(made(cohort, "regions", **words, sides="both"), "pairs")
    assert apart["hemisphere"].tolist() == ["B", "L", "R"]
    left = table_of(
        made(cohort, "regions", measures=["Chimap"], structures=["Left thalamus"], sides="apart"),
        "pairs",
    )
    scans = means(cohort, "Left thalamus").query("session_id == 'ses-1'")
    values = [scans.loc[scans["group"] == g, "mean"] for g in ("patient", "control")]
    p = stats.ttest_ind(*values, equal_var=False).pvalue
    assert left["p_welch"].tolist() == pytest.approx([p], rel=1e-8)
    assert apart["p_welch"].iloc[1] == pytest.approx(p, rel=1e-8)


def test_reference_group_and_session_are_chosen(cohort: Cohort) -> None:
    words = {"structures": ["putamen"], "measures": ["Chimap"]}
    usual = table_of(made(cohort, "regions", **words), "pairs").iloc[0]
    turned = table_of(made(cohort, "regions", **words, reference_group="patient"), "pairs").iloc[0]
    assert turned["group_b"] == "patient"
    assert turned["difference"] == pytest.approx(-usual["difference"])
    later = made(cohort, "regions", **words, session="2")
    assert not any("left out" in note for note in later.notes)
    mean = table_of(later, "pairs").iloc[0]["mean_a"]
    assert mean - usual["mean_a"] == pytest.approx(0.0125, abs=0.001)


def test_groups_may_be_numbers_or_three(cohort: Cohort) -> None:
    words = {"structures": ["thalamus"], "measures": ["Chimap"], "covariates": ["age"]}
    usual = table_of(made(cohort, "regions", **words), "pairs").iloc[0]
    coded = with_people(cohort, group=[0] * 8 + [1] * 8)
    numbers = made(coded, "regions", **words)
    row = table_of(numbers, "pairs").iloc[0]
    assert (row["group_a"], row["group_b"]) == ("1", "0")
    assert row["p_adjusted"] == pytest.approx(usual["p_adjusted"])
    gapped = with_people(cohort, group=[0.0] * 8 + [1.0] * 7 + [None])
    row = table_of(made(gapped, "regions", **words), "pairs").iloc[0]
    assert (row["group_a"], row["group_b"], row["n_a"], row["n_b"]) == ("1", "0", 7, 8)

    three = with_people(cohort, group=["HC"] * 6 + ["RR MS"] * 5 + ['it\'s "PP" <MS>'] * 5)
    result = made(three, "regions", **words)
    scans = three.regions.query("session_id == 'ses-1' and name == 'Left thalamus'")
    assert scans["group"].nunique() == 3
    anova = table_of(result, "anova").iloc[0]
    values = first_scans(three)
    groups = [values.loc[values["group"] == g, "mean"] for g in values["group"].unique()]
    assert anova["p_anova"] == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-8)
    assert len(table_of(result, "pairs")) == 3


@pytest.mark.parametrize("name", ["study arm", "study-arm"])
def test_names_of_columns_may_have_spaces_and_hyphens(cohort: Cohort, name: str) -> None:
    words = {"structures": ["thalamus"], "measures": ["Chimap"], "covariates": ["age"]}
    usual = table_of(made(cohort, "regions", **words), "pairs").iloc[0]
    named = with_people(cohort, **{name: ["control"] * 8 + ["patient"] * 8})
    row = table_of(made(named, "regions", **words, by=name), "pairs").iloc[0]
    assert row["p_adjusted"] == pytest.approx(usual["p_adjusted"])
    aged = with_people(cohort, **{name: cohort.scans["age"].iloc[::2].tolist()})
    row = table_of(made(aged, "regions", **{**words, "covariates": [name]}), "pairs").iloc[0]
    assert row["p_adjusted"] == pytest.approx(usual["p_adjusted"])


@pytest.mark.parametrize(
    ("columns", "words", "sentence"),
    [
        ({}, {"by": "grupo"}, "'grupo', which is no column"),
        ({}, {"covariates": ["agee"]}, "'agee', which is no column"),
        ({"age": [40] * 16}, {"covariates": ["age"]}, "covariate 'age' is the same"),
        ({"group": ["a"] * 16}, {}, "one group alone"),
        ({"group": [None] * 16}, {}, "no value for any subject"),
        ({"group": ["a"] * 15 + ["b"]}, {}, r"has one subject \(sub-16\)"),
        ({"old": list(range(16)), "older": list(range(1, 17))},
         {"covariates": ["old", "older"]}, "depend on each other"),
        ({}, {"reference_group": "healthy"}, "'healthy' is none of 'group'"),
        ({}, {"value": "average"}, "no column 'average'"),
        ({}, {"value": "median"}, "no structure has a value in the column 'median'"),
        ({}, {"value": "n_voxels"}, "'n_voxels' is no value of a structure"),
        ({}, {"structures": ["thalamos"]}, "no structure 'thalamos'"),
        ({}, {"subset": "age > 99"}, "holds for none"),
        ({}, {"session": "ses-9"}, "no session 'ses-9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(cohort: Cohort, columns, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        made(with_people(cohort, **columns), "regions", **words)
    assert "\n" not in str(caught.value)


def test_a_missing_age_is_said(cohort: Cohort) -> None:
    ages = [float(a) for a in range(30, 45)] + [None]
    result = made(
        with_people(cohort, age=ages), "regions", structures=["thalamus"], covariates=["age"]
    )
    assert any("left out for want of age: sub-16" in note for note in result.notes)
    row = table_of(result, "pairs").iloc[0]
    assert (row["n_a"], row["n_adjusted"]) == (8, 15)


def test_a_subset_takes_its_rows_alone(cohort: Cohort) -> None:
    words = {"structures": ["thalamus"], "measures": ["Chimap"]}
    result = made(cohort, "regions", **words, subset="age < 45")
    scans = first_scans(cohort).query("age < 45")
    values = [scans.loc[scans["group"] == g, "mean"] for g in ("patient", "control")]
    row = table_of(result, "pairs").iloc[0]
    assert (row["n_a"], row["n_b"]) == (len(values[0]), len(values[1]))
    assert row["p_welch"] == pytest.approx(stats.ttest_ind(*values, equal_var=False).pvalue)
    assert any("are in the subset 'age < 45'" in note for note in result.notes)


def test_other_values_have_their_own_units(cohort: Cohort) -> None:
    words = {"structures": ["thalamus"], "measures": ["Chimap"], "sides": "apart"}
    median = table_of(made(cohort, "regions", **words, value="median"), "pairs")
    scans = means(cohort, "Left thalamus").query("session_id == 'ses-1' and group == 'patient'")
    assert median["mean_a"].iloc[0] == pytest.approx(scans["median"].mean())
    assert set(median["units"]) == {"ppm"}
    result = made(cohort, "regions", structures=["thalamus"], value="volume_mm3")
    (volume,) = table_of(result, "pairs").itertuples()
    assert (volume.measure, volume.units, volume.reference) == ("volume", "mm3", "n/a")
    both = cohort.scans.query("session_id == 'ses-1' and group == 'patient'")["thalamus_volume_mL"]
    assert volume.mean_a == pytest.approx(1000 * both.mean())
    assert {chart.name for chart in result.charts} == {"volume_groups", "volume_differences"}

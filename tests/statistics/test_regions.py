from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.hemispheres import bilateral_means
from bids_qsm.statistics.regions import compare_groups
from tests.statistics.cohort import cohort

KEYS = ["measure", "units", "reference", "hemisphere", "name"]


def rows_of(table: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Return the subjects' rows that a row of a result is of."""
    return table[(table["name"] == row["name"]) & (table["measure"] == row["measure"])]


@pytest.fixture
def table() -> pd.DataFrame:
    table = cohort()
    table.loc[[0, 30, 200], "mean"] = np.nan
    return table


def test_table_of_two_groups_equals_scipy(table: pd.DataFrame) -> None:
    pairs = compare_groups(table).pairs
    assert len(pairs) == 12
    assert pairs.columns.tolist()[:5] == KEYS
    for _, row in pairs.iterrows():
        values = rows_of(table, row).dropna(subset="mean").groupby("group")["mean"]
        a, b = values.get_group("patient"), values.get_group("control")
        test = stats.ttest_ind(a, b, equal_var=False)
        interval = test.confidence_interval()
        expected = {
            "group_a": "patient",
            "group_b": "control",
            "n_a": len(a),
            "n_b": len(b),
        }
        assert {k: row[k] for k in expected} == expected
        for name, value in {
            "mean_a": a.mean(),
            "sd_b": b.std(),
            "difference": a.mean() - b.mean(),
            "difference_low": interval.low,
            "difference_high": interval.high,
            "t_welch": test.statistic,
            "p_welch": test.pvalue,
        }.items():
            assert row[name] == pytest.approx(value, abs=1e-10), name


@pytest.mark.parametrize("robust", [None, "HC3"])
def test_adjusted_differences_equal_statsmodels(table: pd.DataFrame, robust: str | None) -> None:
    table.loc[table["participant_id"] == "sub-07", "age"] = np.nan
    found = compare_groups(table, covariates=["age", "sex"], robust=robust)  # type: ignore[arg-type]
    for _, row in found.pairs.iterrows():
        data = rows_of(table, row).dropna(subset=["mean", "age"])
        model = smf.ols("mean ~ group + age + sex", data).fit()
        if robust:
            model = model.get_robustcov_results(robust, use_t=True)
        test = model.t_test([0, 1, 0, 0])
        low, high = test.conf_int()[0]
        assert row["n_adjusted"] == len(data)
        for name, value in {
            "adjusted_difference": test.effect[0],
            "adjusted_difference_low": low,
            "adjusted_difference_high": high,
            "t_adjusted": test.tvalue.item(),
            "p_adjusted": test.pvalue.item(),
        }.items():
            assert row[name] == pytest.approx(value, abs=1e-9), name
    assert "in the adjusted models 1 row left out for want of age: sub-07." in found.notes


def test_adjusted_means_are_those_at_the_mean_of_the_covariates(table: pd.DataFrame) -> None:
    groups = compare_groups(table, covariates="age + sex").groups
    row = groups[(groups["name"] == "Left caudate") & (groups["group"] == "patient")].iloc[1]
    data = rows_of(table, row).dropna(subset="mean")
    model = smf.ols("mean ~ group + age + sex", data).fit()
    at = [1, 1, (data["sex"] == "M").mean(), data["age"].mean()]  # text stands before numbers
    test = model.t_test(at)
    low, high = test.conf_int()[0]
    found = row[["adjusted_mean", "adjusted_mean_low", "adjusted_mean_high"]].to_list()
    np.testing.assert_allclose(found, [test.effect[0], low, high], rtol=1e-9)


def test_three_groups_equal_scipy_and_statsmodels() -> None:
    table = cohort(45, ("MS", "HC", "NMO"))
    found = compare_groups(table, covariates="age")
    assert found.notes == ("differences are from the group 'HC' of 'group'.",)
    assert found.pairs[["group_a", "group_b"]].drop_duplicates().to_numpy().tolist() == [
        ["MS", "HC"],
        ["NMO", "HC"],
        ["NMO", "MS"],
    ]
    for _, row in found.anova.iterrows():
        data = rows_of(table, row)
        samples = [part.to_numpy() for _, part in data.groupby("group")["mean"]]
        f, p = stats.f_oneway(*samples)
        np.testing.assert_allclose([row["f_anova"], row["p_anova"]], [f, p], rtol=1e-9)
        model = smf.ols("mean ~ group + age", data).fit()
        test = model.f_test("group[T.MS] = 0, group[T.NMO] = 0")
        np.testing.assert_allclose(row["f_adjusted"], test.fvalue, rtol=1e-8)
        np.testing.assert_allclose(row["p_adjusted"], test.pvalue, rtol=1e-8)
        difference = model.t_test("group[T.NMO] - group[T.MS]")
        pairs = found.pairs[
            (found.pairs[["name", "measure"]] == row[["name", "measure"]]).all(axis=1)
        ]
        np.testing.assert_allclose(
            pairs["adjusted_difference"].iloc[2], difference.effect[0], rtol=1e-8
        )
        tukey = stats.tukey_hsd(*samples).pvalue  # in the alphabet: HC, MS, NMO
        expected = [tukey[1, 0], tukey[2, 0], tukey[2, 1]]
        np.testing.assert_allclose(pairs["p_tukey"], expected, atol=1e-9)
        q = np.abs(difference.tvalue.item()) * np.sqrt(2)
        p = stats.studentized_range.sf(q, 3, model.df_resid)
        assert pairs["p_tukey_adjusted"].iloc[2] == pytest.approx(p, abs=1e-9)


def test_corrections_are_over_the_structures_of_a_measure(table: pd.DataFrame) -> None:
    pairs = compare_groups(table, hemispheres="both", covariates="age").pairs
    assert len(pairs) == 18
    for _, family in pairs.groupby(["measure", pairs["hemisphere"] == "B"]):
        for p, q, corrected in [
            ("p_welch", "q_fdr", "p_holm"),
            ("p_adjusted", "q_fdr_adjusted", "p_holm_adjusted"),
        ]:
            expected = multipletests(family[p], method="fdr_bh")[1]
            np.testing.assert_allclose(family[q], expected, rtol=1e-12)
            expected = multipletests(family[p], method="holm")[1]
            np.testing.assert_allclose(family[corrected], expected, rtol=1e-12)


def test_means_of_both_sides_are_compared(table: pd.DataFrame) -> None:
    means, _ = bilateral_means(table)
    found = compare_groups(table, hemispheres="mean").pairs
    pd.testing.assert_frame_equal(found, compare_groups(means).pairs)
    assert found["name"].tolist()[:3] == ["thalamus", "caudate", "putamen"]


def test_order_and_names_do_not_matter(table: pd.DataFrame) -> None:
    found = compare_groups(table, covariates=["age", "sex"])
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(
        compare_groups(shuffled, covariates=["age", "sex"]).pairs, found.pairs
    )
    turned = compare_groups(table, covariates=["age", "sex"], reference_group="patient").pairs
    for name in ("difference", "adjusted_difference", "hedges_g", "t_welch"):
        np.testing.assert_allclose(turned[name], -found.pairs[name], rtol=1e-9)
    np.testing.assert_allclose(turned["p_adjusted"], found.pairs["p_adjusted"], rtol=1e-9)
    coded = table.assign(group=(table["group"] == "patient") * 1.0)
    again = compare_groups(coded, covariates=["age", "sex"]).pairs
    np.testing.assert_allclose(again["p_adjusted"], found.pairs["p_adjusted"], rtol=1e-9)
    assert again["group_a"].unique().tolist() == ["1"]


def test_effects_of_a_published_table() -> None:
    # a published table of 37 + 37: R2* of the globus pallidus 50.3 +- 4.9 and 47.5 +- 4.6 1/s, and
    # susceptibility of the caudate 104 +- 13 and 91 +- 18 ppb: p = .007 (.013 as rounded), .0005
    def sample(mean: float, sd: float) -> np.ndarray:
        z = np.random.default_rng(1).normal(size=37)
        return mean + sd * (z - z.mean()) / z.std(ddof=1)

    rows = []
    for name, measure, patient, control in [
        ("pallidum", "R2starmap", (50.3, 4.9), (47.5, 4.6)),
        ("caudate", "Chimap", (104, 13), (91, 18)),
    ]:
        for group, moments in (("patient", patient), ("control", control)):
            for i, value in enumerate(sample(*moments)):
                rows.append((f"sub-{group}{i}", name, measure, group, value))
    columns = ["participant_id", "name", "measure", "group", "mean"]
    pairs = compare_groups(pd.DataFrame(rows, columns=columns)).pairs.set_index("measure")
    assert 0.007 < pairs.loc["R2starmap", "p_welch"] < 0.014
    assert 0.0004 < pairs.loc["Chimap", "p_welch"] < 0.0007
    assert pairs.loc["Chimap", "difference"] == pytest.approx(13)


def test_several_sessions_and_lost_groups_are_told(table: pd.DataFrame) -> None:
    table["group"] = table["group"].astype(object)
    table.loc[table["participant_id"] == "sub-03", "group"] = np.nan
    found = compare_groups(table)
    assert "1 subject left out for want of group: sub-03." in found.notes
    assert found.pairs["n_b"].max() == 19


def test_structures_with_too_few_values_have_no_result(table: pd.DataFrame) -> None:
    putamen = table["name"] == "Left putamen"
    few = putamen & (table["group"] == "control") & (table["participant_id"] != "sub-01")
    table.loc[few & (table["measure"] == "Chimap"), "mean"] = np.nan
    table.loc[putamen & (table["measure"] == "R2starmap"), "mean"] = 1.0
    found = compare_groups(table, covariates="age")
    notes = " ".join(found.notes)
    assert "group 'control' has fewer than two values of Left putamen (Chimap)." in notes
    assert "group 'patient' has one value alone of Left putamen (R2starmap)." in notes
    pairs = found.pairs.set_index(["name", "measure"])
    assert pairs.loc["Left putamen", "p_welch"].isna().all()
    assert pairs["p_welch"].notna().sum() == 10
    assert pairs["q_fdr"].notna().sum() == 10


def test_subjects_with_different_references_are_told(table: pd.DataFrame) -> None:
    chi = table["measure"] == "Chimap"
    late = table["participant_id"] > "sub-19"
    table.loc[chi & late, "reference"] = "whole brain"
    found = compare_groups(table)
    assert (
        "subjects differ in the reference of Chimap (csf, whole brain): each is compared apart; "
        "process all subjects with the same reference."
    ) in found.notes
    assert len(found.pairs) == 18
    both = pd.concat([table, table[chi].assign(reference="none")])
    assert not any("differ in the reference" in note for note in compare_groups(both).notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group": "grp"}, "names 'grp', which is no column; there are: participant_id"),
        ({"covariates": "agee"}, "names 'agee', which is no column"),
        ({"covariates": "age + group"}, "'group' is the group that is compared"),
        ({"covariates": ["n_voxels"]}, "'n_voxels' differs between the rows of sub-00"),
        ({"covariates": ["same"]}, "covariate 'same' is the same"),
        ({"covariates": ["age", "months"]}, "columns age and months of the design depend"),
        ({"reference_group": "HC"}, "'HC' is none of 'group'; there are: control, patient"),
        ({"group": "alone"}, r"group 'x' of column 'alone' has one subject \(sub-00\)"),
        ({"group": "one"}, "has one group alone"),
        ({"group": "age"}, "has 40 groups"),
        ({"group": "none"}, "column 'none' has no value for any subject"),
        ({"value": "median"}, "no column 'median'"),
        ({"robust": "HC9", "covariates": "age"}, "robust errors are HC0"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    table: pd.DataFrame, options: dict[str, object], sentence: str
) -> None:
    table = table.assign(
        same=45,
        months=table["age"] * 12,
        alone=np.where(table["participant_id"] == "sub-00", "x", "y"),
        one="y",
        none=np.nan,
    )
    with pytest.raises(ValueError, match=sentence):
        compare_groups(table, **options)  # type: ignore[arg-type]

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy import log  # noqa: F401 (statsmodels finds it here)
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.linear_models import contrast_table, fit_model, outcome_values


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 95
    data = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "chi_ppb": rng.normal(-29, 11.7, n),
            "age": rng.normal(42, 10, n),
            "course": rng.choice(["PP", "RR", "SP"], n),
            "treated": rng.random(n) < 0.6,
        }
    )
    noise = rng.normal(size=n)
    data["lesion_ml"] = np.exp(0.026 * data["chi_ppb"] + 0.02 * data["age"] + noise)
    return data


@pytest.mark.parametrize("robust", [None, "HC3"])
@pytest.mark.parametrize("formula", ["chi_ppb + age + course", "chi_ppb * treated - 1"])
def test_equal_to_statsmodels(table: pd.DataFrame, formula: str, robust: str | None) -> None:
    found = fit_model(table, "log(lesion_ml)", formula, robust=robust)  # type: ignore[arg-type]
    data = table.assign(treated=table["treated"] * 1)
    theirs = smf.ols(f"log(lesion_ml) ~ {formula}", data).fit()
    summary = {
        "r2": theirs.rsquared,
        "r2_adjusted": theirs.rsquared_adj,
        "aic": theirs.aic,
        "bic": theirs.bic,
        "log_likelihood": theirs.llf,
        "sd_residual": np.sqrt(theirs.scale),
        "n": theirs.nobs,
    }
    for name, value in summary.items():
        assert found.summary[name] == pytest.approx(value, rel=1e-9), name
    if robust:
        theirs = theirs.get_robustcov_results(robust, use_t=True)
    order = [list(theirs.model.exog_names).index(name) for name in found.design.names]
    table_of = found.coefficients
    np.testing.assert_allclose(table_of["coefficient"], np.asarray(theirs.params)[order], rtol=1e-8)
    np.testing.assert_allclose(table_of["se"], np.asarray(theirs.bse)[order], rtol=1e-8)
    np.testing.assert_allclose(table_of["p"], np.asarray(theirs.pvalues)[order], rtol=1e-7)
    interval = np.asarray(theirs.conf_int())[order]
    np.testing.assert_allclose(
        table_of[["coefficient_low", "coefficient_high"]], interval, rtol=1e-8
    )


def test_terms_are_tested_together(table: pd.DataFrame) -> None:
    found = fit_model(table, "log(lesion_ml)", "chi_ppb + course").terms.set_index("term")
    theirs = smf.ols("log(lesion_ml) ~ chi_ppb + course", table).fit()
    test = theirs.f_test("course[T.RR] = 0, course[T.SP] = 0")
    assert found.loc["course", "f"] == pytest.approx(test.fvalue, rel=1e-9)
    assert found.loc["course", "p"] == pytest.approx(float(test.pvalue), rel=1e-9)
    assert found.loc["course", "df_term"] == 2
    overall = fit_model(table, "log(lesion_ml)", "chi_ppb + course").summary
    assert overall["f"] == pytest.approx(theirs.fvalue, rel=1e-9)
    assert overall["p"] == pytest.approx(theirs.f_pvalue, rel=1e-9)


def test_standardised_coefficients_are_those_of_z_scores(table: pd.DataFrame) -> None:
    found = fit_model(table, "chi_ppb", "age + lesion_ml + treated").coefficients
    z = table.copy()
    for name in ("chi_ppb", "age", "lesion_ml"):
        z[name] = (z[name] - z[name].mean()) / z[name].std()
    theirs = fit_model(z, "chi_ppb", "age + lesion_ml + treated").coefficients
    np.testing.assert_allclose(found["standardised"][1:], theirs["coefficient"][1:], rtol=1e-9)


@pytest.mark.parametrize("robust", [None, "HC3"])
def test_contrasts_on_many_outcomes_equal_statsmodels(
    table: pd.DataFrame, robust: str | None
) -> None:
    table.loc[[2, 5], "lesion_ml"] = np.nan
    outcomes = ["chi_ppb", "log(lesion_ml)"]
    contrasts = {"SP": "SP - RR", "course": "course", "slopes": "age, treated"}
    found, notes = contrast_table(
        table,
        outcomes,
        "course + age + treated",
        contrasts,
        robust=robust,  # type: ignore[arg-type]
    )
    assert notes == ("2 rows left out for want of log(lesion_ml): sub-02, sub-05.",)
    data = table.assign(treated=table["treated"] * 1)
    for outcome in outcomes:
        model = smf.ols(f"{outcome} ~ course + age + treated", data).fit()
        if robust:
            model = model.get_robustcov_results(robust, use_t=True)
        rows = found[found["outcome"] == outcome].set_index("contrast")
        test = model.t_test([0, -1, 1, 0, 0])
        low, high = test.conf_int()[0]
        expected = [test.effect.item(), low, high, test.tvalue.item(), test.pvalue.item()]
        names = ["estimate", "estimate_low", "estimate_high", "statistic", "p"]
        np.testing.assert_allclose(rows.loc["SP", names].to_list(), expected, rtol=1e-8)
        for name, weights in (("course", np.eye(5)[1:3]), ("slopes", np.eye(5)[3:])):
            joint = model.f_test(weights)
            expected = [joint.fvalue, joint.pvalue, model.df_resid]
            values = rows.loc[name, ["statistic", "p", "df_residual"]].to_list()
            np.testing.assert_allclose(values, expected, rtol=1e-8)
        if not robust:
            smaller = smf.ols(f"{outcome} ~ age + treated", data).fit()
            partial = 1 - model.ssr / smaller.ssr
            assert rows.loc["course", "partial_r2"] == pytest.approx(partial, rel=1e-8)
    for _, family in found.groupby("contrast"):
        q = multipletests(family["p"], method="fdr_bh")[1]
        np.testing.assert_allclose(family["q_fdr"], q)


def test_outcomes_that_cannot_be_fitted_are_told(table: pd.DataFrame) -> None:
    table["same"] = 2
    found, notes = contrast_table(table, ["chi_ppb", "same"], "age", "age")
    assert found["outcome"].tolist() == ["chi_ppb"]
    assert notes == ("same: the outcome 'same' is the same (2) in all 95 rows used.",)
    with pytest.raises(ValueError, match="the outcome 'same' is the same"):
        contrast_table(table, "same", "age", "age")
    with pytest.raises(ValueError, match="'sex' is no sum of the design's terms"):
        contrast_table(table, "chi_ppb", "age", "sex")
    with pytest.raises(ValueError, match="at least one outcome and one contrast"):
        contrast_table(table, [], "age", "age")


def test_rows_without_outcome_are_named(table: pd.DataFrame) -> None:
    table.loc[[4, 8], "lesion_ml"] = np.nan
    table.loc[[8, 9], "age"] = np.nan
    found = fit_model(table, "log(lesion_ml)", "age")
    assert found.notes == (
        "2 rows left out for want of age: sub-08, sub-09.",
        "1 row left out for want of log(lesion_ml): sub-04.",
    )
    assert found.summary["n"] == 92
    np.testing.assert_allclose(found.y, np.log(table["lesion_ml"][found.design.rows]))


def test_outcomes_are_columns_or_expressions(table: pd.DataFrame) -> None:
    table = table.assign(**{"my chi": table["chi_ppb"], "text": ["1", "n/a"] + ["3"] * 93})
    for written in ("chi_ppb", "`my chi`", "my chi", "Q('my chi')", "I(2 * chi_ppb / 2)"):
        np.testing.assert_array_equal(outcome_values(table, written), table["chi_ppb"])
    np.testing.assert_array_equal(outcome_values(table, "treated"), table["treated"])
    np.testing.assert_array_equal(outcome_values(table, "text")[:3], [1, np.nan, 3])


@pytest.mark.parametrize(
    ("outcome", "formula", "sentence"),
    [
        ("chi", "age", "the formula names 'chi', which is no column; there are: participant_id"),
        ("course", "age", "the outcome 'course' is text"),
        ("C(course)", "age", "is not one column of numbers"),
        ("age + chi_ppb", "treated", "is not one column of numbers"),
        ("same", "age", r"the outcome 'same' is the same \(3\) in all 95 rows"),
        ("log(zero)", "age", r"log\(zero\) is not finite in 95 rows"),
        ("chi_ppb", "agee", "names 'agee', which is no column"),
        ("__import__('os').getpid()", "age", "is not taken"),
        ("mostly", "age + chi_ppb", "the design has 3 rows for 3 columns"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    table: pd.DataFrame, outcome: str, formula: str, sentence: str
) -> None:
    few = np.where(np.arange(95) < 3, np.arange(95), np.nan)
    table = table.assign(same=3, zero=-np.arange(95), mostly=few)
    with pytest.raises(ValueError, match=sentence):
        fit_model(table, outcome, formula)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy import log  # noqa: F401 (statsmodels finds it here)
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.regression import associations


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 95
    data = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "chi_ppb": rng.normal(-29, 11.7, n),
            "age": rng.normal(42, 10, n),
            "sex": rng.choice(["F", "M"], n),
            "duration": rng.exponential(9, n),
            "enhancing": (rng.random(n) < 0.15) * 1,
            "course": rng.choice(["PP", "RR", "SP"], n),
            "volume": rng.normal(14, 2, n),
        }
    )
    noise = rng.normal(size=n)
    data["lesion_ml"] = np.exp(0.026 * data["chi_ppb"] + 0.02 * data["age"] + noise)
    return data


COVARIATES = ["age", "sex", "duration", "enhancing"]


@pytest.mark.parametrize("robust", [None, "HC1"])
def test_outcomes_on_one_predictor(table: pd.DataFrame, robust: str | None) -> None:
    found = associations(
        table,
        ["volume", "lesion_ml"],
        "chi_ppb",
        covariates=COVARIATES,
        transforms={"lesion_ml": "log"},
        robust=robust,  # type: ignore[arg-type]
    ).table
    assert found["outcome"].tolist() == ["volume", "log(lesion_ml)"]
    for _, row in found.iterrows():
        for when, formula in (
            ("before", "chi_ppb"),
            ("after", "chi_ppb + age + sex + duration + enhancing"),
        ):
            model = smf.ols(f"{row['outcome']} ~ {formula}", table).fit()
            r2 = model.rsquared
            if robust:
                model = model.get_robustcov_results(robust, use_t=True)
            place = model.model.exog_names.index("chi_ppb")
            low, high = np.asarray(model.conf_int())[place]
            for name, value in {
                f"coefficient_{when}": np.asarray(model.params)[place],
                f"coefficient_{when}_low": low,
                f"coefficient_{when}_high": high,
                f"p_{when}": np.asarray(model.pvalues)[place],
                f"r2_{when}": r2,
                f"n_{when}": 95,
            }.items():
                assert row[name] == pytest.approx(value, rel=1e-8), name
    p = found["p_after"]
    np.testing.assert_allclose(found["q_fdr_after"], multipletests(p, method="fdr_bh")[1])
    np.testing.assert_allclose(found["p_holm_after"], multipletests(p, method="holm")[1])


def test_predictors_are_adjusted_for_each_other(table: pd.DataFrame) -> None:
    predictors = [*COVARIATES, "course", "log(lesion_ml)"]
    found = associations(table, "chi_ppb", predictors, covariates=[*COVARIATES, "course"]).table
    full = smf.ols("chi_ppb ~ age + sex + duration + enhancing + course", table).fit()
    rows = found.set_index("predictor")
    for predictor, name in (("age", "age"), ("sex", "sex[T.M]"), ("enhancing", "enhancing")):
        row = rows.loc[predictor]
        assert row["coefficient_after"] == pytest.approx(full.params[name], rel=1e-9)
        assert row["p_after"] == pytest.approx(full.pvalues[name], rel=1e-9)
    assert rows.loc["age", "covariates"] == "sex + duration + enhancing + course"
    assert rows.loc["sex", ["level", "reference_level"]].tolist() == ["M", "F"]
    course = found[found["predictor"] == "course"]
    assert course["level"].tolist() == ["RR", "SP"]
    assert course["reference_level"].tolist() == ["PP", "PP"]
    test = full.f_test("course[T.RR] = 0, course[T.SP] = 0")
    np.testing.assert_allclose(course["p_term_after"], float(test.pvalue), rtol=1e-9)
    alone = smf.ols("chi_ppb ~ course", table).fit()
    np.testing.assert_allclose(course["p_term_before"], alone.f_pvalue, rtol=1e-9)
    np.testing.assert_allclose(course["coefficient_before"], alone.params.iloc[1:], rtol=1e-9)
    np.testing.assert_allclose(
        course["standardised_before"], alone.params.iloc[1:] / table["chi_ppb"].std(), rtol=1e-9
    )


def test_standardised_coefficient_of_one_predictor_is_the_correlation(
    table: pd.DataFrame,
) -> None:
    row = associations(table, "volume", "chi_ppb").table.iloc[0]
    r = np.corrcoef(table["volume"], table["chi_ppb"])[0, 1]
    assert row["standardised_before"] == pytest.approx(r, rel=1e-10)
    assert row["covariates"] == "none"
    assert row["coefficient_after"] == row["coefficient_before"]


def test_subset_is_analysed_again(table: pd.DataFrame) -> None:
    table.loc[2, "age"] = np.nan
    found = associations(table, "volume", "chi_ppb", covariates="age + sex", subset="age < 50")
    young = table[table["age"] < 50]
    model = smf.ols("volume ~ chi_ppb + age + sex", young).fit()
    row = found.table.iloc[0]
    assert row["subset"] == "age < 50"
    assert row["n_after"] == len(young)
    assert row["p_after"] == pytest.approx(model.pvalues["chi_ppb"], rel=1e-9)
    assert found.notes[:2] == (
        f"{len(young)} of 95 subjects are in the subset 'age < 50'.",
        "1 subject without a value for it: sub-02.",
    )


def test_rows_are_the_same_before_and_after_if_wanted(table: pd.DataFrame) -> None:
    table.loc[[1, 2, 3], "duration"] = np.nan
    table.loc[[3, 4], "volume"] = np.nan
    same = associations(table, "volume", "chi_ppb", covariates="duration")
    assert same.table[["n_before", "n_after"]].to_numpy().tolist() == [[91, 91]]
    assert "3 rows left out for want of duration: sub-01, sub-02, sub-03." in same.notes
    assert "1 row left out for want of volume: sub-04." in same.notes
    every = associations(table, "volume", "chi_ppb", covariates="duration", same_subjects=False)
    assert every.table[["n_before", "n_after"]].to_numpy().tolist() == [[93, 91]]


def test_scale_and_order_do_not_matter(table: pd.DataFrame) -> None:
    found = associations(table, ["volume", "age"], ["chi_ppb", "course"], covariates="sex").table
    other = table.assign(chi_ppb=table["chi_ppb"] / 1000).sample(frac=1, random_state=0)
    again = associations(other, ["volume", "age"], ["chi_ppb", "course"], covariates="sex").table
    for name in ("p_before", "p_after", "standardised_after", "r2_after", "p_term_after"):
        np.testing.assert_allclose(again[name], found[name], rtol=1e-9)
    chi = found["predictor"] == "chi_ppb"
    np.testing.assert_allclose(
        again["coefficient_after"][chi], found["coefficient_after"][chi] * 1000, rtol=1e-9
    )


def test_outcome_adjusts_not_for_itself(table: pd.DataFrame) -> None:
    found = associations(table, ["age", "volume"], "chi_ppb", covariates=["age", "sex"]).table
    assert found["covariates"].tolist() == ["sex", "age + sex"]


def test_what_cannot_be_fitted_is_told_and_the_rest_goes_on(table: pd.DataFrame) -> None:
    table["same"] = 1
    found = associations(table, ["volume", "same"], ["chi_ppb"], covariates="age")
    assert found.table["outcome"].tolist() == ["volume"]
    assert found.notes == (
        "same on chi_ppb: the outcome 'same' is the same (1) in all 95 rows used.",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"outcomes": "volum"}, "names 'volum', which is no column"),
        ({"predictors": "ch"}, "names 'ch', which is no column"),
        ({"covariates": "agee"}, "names 'agee', which is no column"),
        ({"covariates": ["age", "months"]}, "columns age and months of the design depend"),
        ({"predictors": "same"}, "covariate 'same' is the same"),
        ({"predictors": "chi_ppb * age"}, "has 3 terms .*give one for each"),
        ({"predictors": []}, "at least one outcome and one predictor"),
        ({"transforms": {"x": "log"}}, "the transforms name 'x', which is no column"),
        ({"transforms": {"chi_ppb": "cube"}}, "no transform 'cube'"),
        ({"transforms": {"chi_ppb": "log"}}, r"log\(chi_ppb\) is not finite in 9\d rows"),
        ({"subset": "age > 200"}, "holds for none of the 95 rows"),
        ({"predictors": "lone"}, r"group 'x' of column 'lone' has one subject \(sub-00\)"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    table: pd.DataFrame, options: dict[str, object], sentence: str
) -> None:
    table = table.assign(same=1, months=table["age"] * 12, lone=["x"] + ["y"] * 94)
    given = {"outcomes": "volume", "predictors": "chi_ppb"} | options
    with pytest.raises(ValueError, match=sentence):
        associations(table, **given)  # type: ignore[arg-type]

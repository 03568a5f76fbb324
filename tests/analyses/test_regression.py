from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.tiny import made, table_of


@pytest.fixture(scope="module")
def first(cohort: Cohort) -> pd.DataFrame:
    """The first scan of each participant."""
    return cohort.scans.query("session_id == 'ses-1'").reset_index(drop=True)


def test_coefficients_before_and_after_are_those_of_statsmodels(cohort, first) -> None:
    result = made(
        cohort,
        "regression",
        outcomes=["thalamus_Chimap"],
        predictors=["age", "group"],
        covariates=["sex", "grey_matter_volume_mL"],
    )
    table = table_of(result, "associations").set_index("predictor")
    for predictor, name in (("age", "age"), ("group", "group[T.patient]")):
        row = table.loc[predictor]
        for when, more in (("before", ""), ("after", " + sex + grey_matter_volume_mL")):
            fitted = smf.ols(f"thalamus_Chimap ~ {predictor}{more}", first).fit()
            low, high = fitted.conf_int().loc[name]
            assert row[f"coefficient_{when}"] == pytest.approx(fitted.params[name], rel=1e-8)
            assert row[f"p_{when}"] == pytest.approx(fitted.pvalues[name], rel=1e-6)
            assert row[f"coefficient_{when}_low"] == pytest.approx(low, rel=1e-8)
            assert row[f"coefficient_{when}_high"] == pytest.approx(high, rel=1e-8)
            assert row[f"n_{when}"] == 16
    assert table.loc["group", "level"] == "patient"
    assert {chart.name for chart in result.charts} >= {
        "coefficients", "scatter_thalamus_Chimap_age", "ladder_thalamus_Chimap",
    }  # fmt: skip


def test_robust_errors_and_transforms_and_subsets(cohort, first) -> None:
    result = made(
        cohort,
        "regression",
        outcomes=["thalamus_Chimap"],
        predictors=["T2_lesions_volume_mL"],
        covariates=["age"],
        transforms={"T2_lesions_volume_mL": "log"},
        subset="group == 'patient'",
        subsets=["age < 52"],
        robust=True,
    )
    table = table_of(result, "associations").set_index("subset")
    patients = first[first["group"] == "patient"]
    for subset, rows in (("all", patients), ("age < 52", patients.query("age < 52"))):
        model = smf.ols("thalamus_Chimap ~ np.log(T2_lesions_volume_mL) + age", rows)
        fitted = model.fit(cov_type="HC3", use_t=True)
        row, place = table.loc[subset], "np.log(T2_lesions_volume_mL)"
        assert row["n_after"] == len(rows)
        assert row["coefficient_after"] == pytest.approx(fitted.params[place], rel=1e-8)
        assert row["p_after"] == pytest.approx(fitted.pvalues[place], rel=1e-6)
    assert 3 < len(patients.query("age < 52")) < 8
    ladder = table_of(result, "ladder")
    assert set(ladder["variable"]) == {"thalamus_Chimap", "T2_lesions_volume_mL"}


def test_columns_may_have_names_with_spaces(cohort, first) -> None:
    named = dataclasses.replace(cohort, scans=cohort.scans.rename(columns={"age": "age at scan"}))
    words = {"outcomes": ["thalamus_Chimap"], "covariates": ["sex"]}
    (row,) = table_of(
        made(named, "regression", predictors=["age at scan"], **words), "associations"
    ).itertuples()
    (usual,) = table_of(
        made(cohort, "regression", predictors=["age"], **words), "associations"
    ).itertuples()
    assert row.coefficient_after == pytest.approx(usual.coefficient_after)
    words = {"outcomes": ["thalamus_Chimap"], "added": ["sex"]}
    p = [
        table_of(made(c, "nested", base=base, **words), "models")["p"].iloc[0]
        for c, base in ((named, "age at scan"), (cohort, "age"))
    ]
    assert p[0] == pytest.approx(p[1])


def test_terms_may_be_formulas(cohort, first) -> None:
    result = made(
        cohort, "regression", outcomes=["log(thalamus_Chimap)"], predictors=["I(age / 10)"]
    )
    (row,) = table_of(result, "associations").itertuples()
    slope = np.polyfit(first["age"] / 10, np.log(first["thalamus_Chimap"]), 1)[0]
    assert row.coefficient_before == pytest.approx(slope)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"predictors": ["age"]}, "needs 'outcomes'"),
        ({"outcomes": ["thalamus_Chimap"]}, "needs 'predictors'"),
        ({"outcomes": ["thalamus_chi"], "predictors": ["age"]}, "'thalamus_chi', which is no"),
        ({"outcomes": ["age"], "predictors": ["thalamus_chi"]}, "'thalamus_chi', which is no"),
        ({"outcomes": ["sex"], "predictors": ["age"]}, "'sex' is text"),
        ({"outcomes": ["age"], "predictors": ["edss"], "transforms": {"edss": "root"}}, "root"),
        ({"outcomes": ["age"], "predictors": ["edss"], "transforms": {"esdd": "log"}}, "'esdd'"),
        ({"outcomes": ["age"], "predictors": ["edss"], "subsets": ["edss > 9"]}, "holds for none"),
        ({"outcomes": ["age"], "predictors": ["edss"], "covariates": ["age2"]}, "'age2'"),
    ],
)
def test_what_cannot_be_regressed_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        made(cohort, "regression", **words)
    assert "\n" not in str(caught.value)


def test_nested_models_are_those_of_anova(cohort, first) -> None:
    result = made(
        cohort,
        "nested",
        outcomes=["edss"],
        base="age",
        added=["thalamus_Chimap", "sex"],
        subset="group == 'patient'",
    )
    table = table_of(result, "models").set_index("added")
    patients = first[first["group"] == "patient"]
    small = smf.ols("edss ~ age", patients).fit()
    for added in ("thalamus_Chimap", "sex"):
        large = smf.ols(f"edss ~ age + {added}", patients).fit()
        anova = sm.stats.anova_lm(small, large).iloc[1]
        row = table.loc[added]
        assert row["f"] == pytest.approx(anova["F"], rel=1e-8)
        assert row["p"] == pytest.approx(anova["Pr(>F)"], rel=1e-6)
        assert row["delta_r2"] == pytest.approx(large.rsquared - small.rsquared, rel=1e-8)
        assert row["delta_aic"] == pytest.approx(large.aic - small.aic, abs=1e-8)


def test_nested_logistic_models(cohort, first) -> None:
    words = {"outcomes": ["sex"], "base": "1", "added": ["thalamus_volume_mL"], "event": "M"}
    (row,) = table_of(made(cohort, "nested", **words), "models").itertuples()
    male = (first["sex"] == "M").astype(int)
    fits = [
        sm.Logit(male, columns).fit(disp=0)
        for columns in (np.ones((16, 1)), sm.add_constant(first["thalamus_volume_mL"]))
    ]
    lr = 2 * (fits[1].llf - fits[0].llf)
    assert row.lr == pytest.approx(lr, rel=1e-5)
    assert row.p == pytest.approx(stats.chi2.sf(lr, 1), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, "needs 'outcomes'"),
        ({"outcomes": ["edss"]}, "needs 'base'"),
        ({"outcomes": ["edss"], "base": "age"}, "needs 'added'"),
        ({"outcomes": ["edss"], "base": "agee", "added": ["sex"]}, "'agee', which is no column"),
        ({"outcomes": ["edss"], "base": "age", "added": ["age"]}, "age"),
    ],
)
def test_what_cannot_be_nested_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(cohort, "nested", **words)


@pytest.mark.parametrize("rank", [False, True])
def test_correlations_are_those_of_scipy(cohort, first, rank) -> None:
    found = table_of(
        made(cohort, "correlations", variables=["age", "edss"], rank=rank), "correlations"
    )
    assert len(found) == 2 * 4
    assert set(found["outcome"]) == {f"{n}_{m}" for n in ("thalamus", "putamen")
                                     for m in ("Chimap", "R2starmap")}  # fmt: skip
    for row in found.itertuples():
        pair = first[[row.outcome, row.variable]].dropna()
        expected = (stats.spearmanr if rank else stats.pearsonr)(*pair.to_numpy().T)
        assert row.n == len(pair)
        assert row.r == pytest.approx(expected.statistic, rel=1e-8)
        if not rank:
            assert row.p == pytest.approx(expected.pvalue, rel=1e-6)
            interval = expected.confidence_interval()
            assert (row.r_low, row.r_high) == pytest.approx(interval, rel=1e-6)


def test_partial_correlations_are_those_of_residuals(cohort, first) -> None:
    words = {"variables": ["edss"], "covariates": ["age"], "outcomes": ["putamen_Chimap"]}
    (row,) = table_of(made(cohort, "correlations", **words), "correlations").itertuples()
    rows = first.dropna(subset=["edss"])
    left = [smf.ols(f"{y} ~ age", rows).fit().resid for y in ("putamen_Chimap", "edss")]
    assert row.r == pytest.approx(np.corrcoef(left)[0, 1], rel=1e-8)
    t = row.r * np.sqrt(5 / (1 - row.r**2))
    assert row.p == pytest.approx(2 * stats.t.sf(abs(t), 5), rel=1e-6)


def test_sides_apart_are_correlated_by_their_columns(cohort) -> None:
    words = {"variables": ["age"], "structures": ["putamen"], "measures": ["Chimap"]}
    found = table_of(made(cohort, "correlations", sides="apart", **words), "correlations")
    assert found["outcome"].tolist() == ["left_putamen_Chimap", "right_putamen_Chimap"]
    other = made(cohort, "correlations", reference="whole brain", **words)
    assert table_of(other, "correlations")["outcome"].tolist() == ["putamen_Chimap_ref_whole_brain"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, "needs 'variables'"),
        ({"variables": ["agee"]}, "'agee'"),
        ({"variables": ["age"], "outcomes": ["x"]}, "'x'"),
        ({"variables": ["age"], "covariates": ["x"]}, "'x'"),
    ],
)
def test_what_cannot_be_correlated_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(cohort, "correlations", **words)


def test_one_predictor_that_fails_leaves_the_others(cohort: Cohort) -> None:
    scans = cohort.scans.assign(constant=1.0)
    result = made(
        dataclasses.replace(cohort, scans=scans),
        "regression",
        outcomes=["thalamus_Chimap"],
        predictors=["age", "constant"],
        covariates=["sex"],
    )
    assert table_of(result, "associations")["predictor"].tolist() == ["age"]
    assert any("constant" in note and "is the same" in note for note in result.notes)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.datasets import longley
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.outliers_influence import variance_inflation_factor

from bids_qsm.statistics.designs import build_design
from bids_qsm.statistics.diagnostics import (
    condition_indices,
    diagnose,
    generalised_vif,
    residual_tests,
)
from bids_qsm.statistics.linear_models import fit_model


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 60
    data = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "age": rng.normal(42, 10, n),
            "course": rng.choice(["PP", "RR", "SP"], n),
            "sex": rng.choice(["F", "M"], n),
        }
    )
    data["dose"] = 0.1 * data["age"] + rng.normal(size=n)
    data["chi"] = rng.normal(size=n) + 0.1 * data["dose"]
    return data


FORMULA = "age + course + sex + dose"


def test_influence_equals_statsmodels(table: pd.DataFrame) -> None:
    found = diagnose(fit_model(table, "chi", FORMULA), table)
    fitted = smf.ols(f"chi ~ {FORMULA}", table).fit()
    theirs = fitted.get_influence()
    subjects = found.subjects
    for name, values in {
        "fitted": fitted.fittedvalues,
        "residual": fitted.resid,
        "leverage": theirs.hat_matrix_diag,
        "standardised_residual": theirs.resid_studentized_internal,
        "studentised_residual": theirs.resid_studentized_external,
        "cooks_distance": theirs.cooks_distance[0],
        "dffits": theirs.dffits[0],
    }.items():
        np.testing.assert_allclose(subjects[name], values, rtol=1e-8, atol=1e-12, err_msg=name)
    names = list(fitted.model.exog_names)
    order = [names.index(name) for name in found.dfbetas.columns[1:]]
    np.testing.assert_allclose(found.dfbetas.iloc[:, 1:], theirs.dfbetas[:, order], rtol=1e-8)
    p = np.minimum(2 * stats.t.sf(np.abs(theirs.resid_studentized_external), 53) * 60, 1)
    np.testing.assert_allclose(subjects["p_outlier"], p, rtol=1e-7)


def test_residual_tests_equal_statsmodels_and_scipy(table: pd.DataFrame) -> None:
    table["chi"] *= 1 + (table["age"] > 45)
    model = fit_model(table, "chi", FORMULA)
    found = residual_tests(model.fit).set_index("test")
    fitted = smf.ols(f"chi ~ {FORMULA}", table).fit()
    lm, p, _, _ = het_breuschpagan(fitted.resid, fitted.model.exog)
    np.testing.assert_allclose(found.loc["breusch_pagan", ["statistic", "p"]].tolist(), [lm, p])
    for name, test in (("shapiro_wilk", stats.shapiro), ("dagostino", stats.normaltest)):
        expected = test(fitted.resid)
        np.testing.assert_allclose(
            found.loc[name, ["statistic", "p"]].tolist(), expected, rtol=1e-8
        )


def test_vif_equals_statsmodels(table: pd.DataFrame) -> None:
    found = generalised_vif(build_design(table, "age + dose + sex"))
    exog = smf.ols("chi ~ age + dose + sex", table).fit().model
    for term, name in (("age", "age"), ("dose", "dose"), ("sex", "sex[T.M]")):
        expected = variance_inflation_factor(exog.exog, exog.exog_names.index(name))
        assert found[term] == pytest.approx(expected, rel=1e-9)


def test_generalised_vif_does_not_depend_on_the_reference(table: pd.DataFrame) -> None:
    first = generalised_vif(build_design(table, FORMULA))
    other = generalised_vif(
        build_design(table, FORMULA.replace("course", "C(course, Treatment('SP'))"))
    )
    np.testing.assert_allclose(list(first.values()), list(other.values()), rtol=1e-9)
    terms = diagnose(fit_model(table, "chi", FORMULA), table).terms.set_index("term")
    assert terms.loc["course", "vif"] == pytest.approx(np.sqrt(first["course"]))


def test_published_collinearity_of_longley() -> None:
    # variance inflation factors of Longley's data as in Chatterjee and Hadi, Regression Analysis
    # by Example; condition number 43,275 as in Belsley, Kuh and Welsch 1980
    data = longley.load_pandas().data
    design = build_design(data, "GNPDEFL + GNP + UNEMP + ARMED + POP + YEAR")
    published = [135.53, 1788.51, 33.62, 3.59, 399.15, 758.98]
    np.testing.assert_allclose(list(generalised_vif(design).values()), published, atol=0.006)
    indices = condition_indices(design)
    assert indices["condition_index"].iloc[-1] == pytest.approx(43275, rel=1e-4)
    shares = indices.filter(like="share_")
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-9)
    assert shares.iloc[-1]["share_YEAR"] > 0.99


def test_scale_and_order_do_not_matter(table: pd.DataFrame) -> None:
    found = diagnose(fit_model(table, "chi", FORMULA), table)
    other = table.assign(age=table["age"] * 365, chi=table["chi"] * 1e-3)
    other = other.sample(frac=1, random_state=1)
    again = diagnose(fit_model(other, "chi", FORMULA), other)
    again_subjects = again.subjects.sort_values("subject", ignore_index=True)
    for name in ("leverage", "cooks_distance", "studentised_residual", "influential"):
        np.testing.assert_allclose(
            again_subjects[name].astype(float), found.subjects[name].astype(float), rtol=1e-7
        )
    np.testing.assert_allclose(
        again.collinearity["condition_index"], found.collinearity["condition_index"], rtol=1e-9
    )


def test_what_is_wrong_is_told(table: pd.DataFrame) -> None:
    rng = np.random.default_rng(2)
    table["age2"] = table["age"] + rng.normal(0, 0.1, 60)
    table.loc[7, "chi"] = 30
    found = diagnose(fit_model(table, "chi", "age + age2 + sex"), table)
    assert found.subjects.loc[found.subjects["outlier"], "subject"].tolist() == ["sub-07"]
    assert found.terms["collinear"].tolist() == [True, True, False]
    assert (found.terms["largest_by"] == "sub-07").all()
    text = "\n".join(found.sentences)
    assert "age is nearly a sum of the other terms (VIF " in text
    assert "age, age2 harm each other: condition index" in text
    assert "an outlier by the studentised residual (Bonferroni): sub-07." in text
    assert "the most first: sub-07" in text
    assert "the residuals are not normal" in text


def test_unequal_variance_is_told_and_nothing_where_all_is_well(table: pd.DataFrame) -> None:
    rng = np.random.default_rng(5)
    table["chi"] = rng.normal(size=60) * np.exp((table["age"] - 42) / 10)
    found = diagnose(fit_model(table, "chi", "age"), table)
    assert any("use robust errors (HC3)" in sentence for sentence in found.sentences)
    spread = stats.norm.ppf(np.arange(1, 61) / 61)
    even = table.assign(x=np.tile([0, 1], 30), chi=spread)
    calm = diagnose(fit_model(even, "chi", "x"), even, alpha=0.01)
    assert not any("residuals" in s for s in calm.sentences)


def test_row_that_alone_carries_a_column_has_no_residual(table: pd.DataFrame) -> None:
    table["spike"] = np.where(np.arange(60) == 5, 1.0, np.where(np.arange(60) == 6, 0.5, 0.0))
    table["half"] = (np.arange(60) == 6) * 0.5 + table["spike"] * 0
    table.loc[8, "half"] = 1e-9
    found = diagnose(fit_model(table, "chi", "spike + half"), table)
    assert np.isnan(found.subjects.loc[5, "studentised_residual"])
    assert not found.subjects.loc[5, "outlier"]
    assert found.subjects.loc[5, "leverage"] == pytest.approx(1)


def test_subjects_are_named_by_the_rows_used(table: pd.DataFrame) -> None:
    table.loc[[0, 3], "age"] = np.nan
    found = diagnose(fit_model(table, "chi", "age"), table)
    assert found.subjects["subject"].tolist()[:3] == ["sub-01", "sub-02", "sub-04"]
    assert found.subjects["row"].tolist()[:3] == [1, 2, 4]

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.nested import Question, compare_models


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 120
    data = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "age": rng.normal(45, 10, n),
            "sex": rng.choice(["F", "M"], n),
            "course": rng.choice(["PP", "RR", "SP"], n),
            "volume": rng.normal(14, 2, n),
            "chi": rng.normal(60, 12, n),
        }
    )
    noise = rng.normal(0, 2, n)
    data["edss"] = 2 + 0.05 * (data["chi"] - 60) - 0.2 * (data["volume"] - 14) + noise
    data["walks"] = np.where(data["edss"] + rng.normal(0, 2, n) > 2, "impaired", "free")
    return data


QUESTION = Question("edss", "volume + age + sex", "chi", "thalamus")


def test_linear_models_equal_statsmodels(table: pd.DataFrame) -> None:
    row = compare_models(table, Question("edss", "volume + age", "chi + course")).table.iloc[0]
    base = smf.ols("edss ~ volume + age", table).fit()
    full = smf.ols("edss ~ volume + age + chi + course", table).fit()
    f, p, df = full.compare_f_test(base)
    lr, p_lr, _ = full.compare_lr_test(base)
    for name, value in {
        "f": f,
        "p": p,
        "df_added": df,
        "lr": lr,
        "p_lr": p_lr,
        "r2_base": base.rsquared,
        "r2_full": full.rsquared,
        "delta_r2": full.rsquared - base.rsquared,
        "partial_r2": 1 - full.ssr / base.ssr,
        "aic_base": base.aic,
        "aic_full": full.aic,
        "bic_base": base.bic,
        "bic_full": full.bic,
        "delta_aic": full.aic - base.aic,
        "delta_bic": full.bic - base.bic,
    }.items():
        assert row[name] == pytest.approx(value, rel=1e-8), name


def test_robust_test_equals_statsmodels(table: pd.DataFrame) -> None:
    row = compare_models(table, QUESTION, robust="HC3").table.iloc[0]
    full = smf.ols("edss ~ volume + age + sex + chi", table).fit()
    test = full.get_robustcov_results("HC3", use_t=True).f_test([0, 0, 0, 0, 1])
    assert row["f"] == pytest.approx(float(test.fvalue), rel=1e-8)
    assert row["p"] == pytest.approx(float(test.pvalue), rel=1e-8)


def test_interval_is_that_of_the_noncentral_f(table: pd.DataFrame) -> None:
    row = compare_models(table, QUESTION, level=0.9).table.iloc[0]
    for name, tail in (("partial_r2_low", 0.95), ("partial_r2_high", 0.05)):
        noncentrality = 120 * row[name] / (1 - row[name])
        below = stats.ncf.cdf(row["f"], 1, row["df_residual"], noncentrality)
        assert below == pytest.approx(tail, abs=1e-6)
    scale = 1 - row["r2_base"]
    assert row["delta_r2_low"] == pytest.approx(scale * row["partial_r2_low"])
    assert row["delta_r2"] == pytest.approx(scale * row["partial_r2"])


def test_base_without_predictors_gives_the_whole_r2(table: pd.DataFrame) -> None:
    row = compare_models(table, Question("edss", "1", "volume + chi")).table.iloc[0]
    theirs = smf.ols("edss ~ volume + chi", table).fit()
    assert row["f"] == pytest.approx(theirs.fvalue, rel=1e-10)
    assert row["partial_r2"] == pytest.approx(theirs.rsquared, rel=1e-10)
    assert row["r2_base"] == pytest.approx(0, abs=1e-12)


def test_bootstrap_agrees_with_the_noncentral_f_and_repeats(table: pd.DataFrame) -> None:
    first = compare_models(table, QUESTION, bootstrap=400, seed=1).table.iloc[0]
    again = compare_models(table, QUESTION, bootstrap=400, seed=1).table.iloc[0]
    assert first["delta_r2_low"] == again["delta_r2_low"]
    other = compare_models(table, QUESTION).table.iloc[0]
    assert first["delta_r2_low"] == pytest.approx(other["delta_r2_low"], abs=0.04)
    assert first["delta_r2_high"] == pytest.approx(other["delta_r2_high"], abs=0.04)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 120, 120)
    sample = table.iloc[rows]
    delta = [smf.ols(f"edss ~ volume + age + sex{more}", sample).fit() for more in ("", " + chi")]
    one = compare_models(table, QUESTION, bootstrap=1, seed=1).table.iloc[0]
    assert one["delta_r2_low"] == pytest.approx(delta[1].rsquared - delta[0].rsquared, rel=1e-8)


def test_logistic_models_equal_statsmodels(table: pd.DataFrame) -> None:
    row = compare_models(table, Question("walks", "volume + age", "chi + course")).table.iloc[0]
    assert row["family"] == "logistic"
    assert row["event"] == "impaired"
    y = (table["walks"] == "impaired") * 1
    data = table.assign(y=y)
    base = smf.logit("y ~ volume + age", data).fit(disp=0)
    full = smf.logit("y ~ volume + age + chi + course", data).fit(disp=0)
    lr = 2 * (full.llf - base.llf)

    def area(p: pd.Series) -> float:
        u = stats.mannwhitneyu(p[y == 1], p[y == 0]).statistic
        return float(u / (y.sum() * (1 - y).sum()))

    def nagelkerke(fit: object) -> float:
        shrunk = 1 - np.exp(2 / 120 * (fit.llnull - fit.llf))  # type: ignore[attr-defined]
        return float(shrunk / (1 - np.exp(2 / 120 * fit.llnull)))  # type: ignore[attr-defined]

    for name, value in {
        "n_events": y.sum(),
        "lr": lr,
        "p": stats.chi2.sf(lr, 3),
        "aic_base": base.aic,
        "bic_full": full.bic,
        "auc_base": area(base.predict(data)),
        "auc_full": area(full.predict(data)),
        "r2_base": nagelkerke(base),
        "delta_r2": nagelkerke(full) - nagelkerke(base),
    }.items():
        assert row[name] == pytest.approx(value, rel=1e-6), name
    assert row["delta_auc_low"] < row["delta_auc"] < row["delta_auc_high"]


def test_event_turns_nothing_but_its_name(table: pd.DataFrame) -> None:
    question = Question("walks", "volume", "chi")
    first = compare_models(table, question).table.iloc[0]
    other = compare_models(table, question, event="free").table.iloc[0]
    assert other["n_events"] == 120 - first["n_events"]
    for name in ("lr", "auc_full", "delta_auc", "delta_auc_low"):
        assert other[name] == pytest.approx(first[name], rel=1e-6), name
    coded = table.assign(walks=(table["walks"] == "impaired") * 1)
    number = compare_models(coded, question, family="logistic").table.iloc[0]
    assert number["lr"] == pytest.approx(first["lr"], rel=1e-9)
    assert number["event"] == "1"
    assert compare_models(coded, question).table["family"].tolist() == ["linear"]


def test_models_are_compared_on_the_same_subjects(table: pd.DataFrame) -> None:
    table.loc[[1, 2], "chi"] = np.nan
    table.loc[3, "edss"] = np.nan
    found = compare_models(table, QUESTION)
    assert found.table["n"].tolist() == [117]
    assert found.notes == (
        "2 rows left out for want of chi: sub-001, sub-002.",
        "1 row left out for want of edss: sub-003.",
    )
    base = smf.ols("edss ~ volume + age + sex", table.dropna(subset=["chi", "edss"])).fit()
    assert found.table["r2_base"][0] == pytest.approx(base.rsquared, rel=1e-9)


def test_many_questions_are_corrected_together(table: pd.DataFrame) -> None:
    table["same"] = 1
    added = ["chi", "volume", "same", "age"]
    found = compare_models(table, [Question("edss", "sex", name) for name in added])
    assert found.table["label"].tolist() == ["chi", "volume", "age"]
    p = found.table["p"]
    np.testing.assert_allclose(found.table["q_fdr"], multipletests(p, method="fdr_bh")[1])
    np.testing.assert_allclose(found.table["p_holm"], multipletests(p, method="holm")[1])
    assert found.notes == (
        "same: covariate 'same' is the same (1) in all 120 rows used: leave it out of the formula.",
    )


def test_scale_and_order_do_not_matter(table: pd.DataFrame) -> None:
    questions = [QUESTION, Question("walks", "volume", "chi")]
    first = compare_models(table, questions).table
    other = table.assign(chi=table["chi"] * 1e-3, volume=table["volume"] * 1e3)
    again = compare_models(other.sample(frac=1, random_state=1), questions).table
    for name in ("p", "delta_r2", "delta_auc", "delta_aic"):
        np.testing.assert_allclose(again[name], first[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("question", "options", "sentence"),
    [
        (Question("ed", "age", "chi"), {}, "names 'ed', which is no column"),
        (Question("edss", "agee", "chi"), {}, "names 'agee', which is no column"),
        (Question("edss", "age + chi", "chi"), {}, "'chi' adds nothing to 'age \\+ chi'"),
        (Question("edss", "age", "months"), {}, "columns age and months of the design depend"),
        (Question("course", "age", "chi"), {}, "has 3 levels \\(PP, RR, SP\\): two are needed"),
        (Question("walks", "age", "chi"), {"event": "no"}, "the event 'no' is none of 'walks'"),
        (Question("walks", "age", "chi"), {"family": "linear"}, "the outcome 'walks' is text"),
        (Question("edss", "age", "chi"), {"family": "logistic"}, "levels .*two are needed"),
        (Question("rare", "age", "chi"), {}, r"group 'x' of column 'rare' has one subject"),
        (Question("split", "age", "chi"), {}, "separate the two levels"),
        ([], {}, "has no question"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    table: pd.DataFrame, question: Question, options: dict[str, str], sentence: str
) -> None:
    table = table.assign(
        months=table["age"] * 12,
        rare=["x"] + ["y"] * 119,
        split=np.where(table["chi"] > 60, "high", "low"),
    )
    with pytest.raises(ValueError, match=sentence):
        compare_models(table, question, **options)  # type: ignore[arg-type]

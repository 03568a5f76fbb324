from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.correlations import correlate


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 80
    data = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "age": rng.normal(45, 10, n),
            "sex": rng.choice(["F", "M"], n),
            "course": rng.choice(["PP", "RR", "SP"], n),
            "duration": rng.exponential(9, n),
            "edss": rng.integers(0, 14, n) / 2,
        }
    )
    for name in ("caudate", "putamen", "thalamus"):
        data[name] = rng.normal(size=n) + 0.1 * data["edss"] + 0.02 * data["age"]
    return data


STRUCTURES = ["caudate", "putamen", "thalamus"]


def test_pearson_equals_scipy(table: pd.DataFrame) -> None:
    table.loc[3, "edss"] = np.nan
    found = correlate(table, STRUCTURES, ["edss", "log(duration)"]).table
    assert len(found) == 6
    for _, row in found.iterrows():
        x = np.log(table["duration"]) if "log" in row["variable"] else table[row["variable"]]
        known = x.notna()
        theirs = stats.pearsonr(x[known], table[row["outcome"]][known])
        low, high = theirs.confidence_interval(0.95)
        expected = [known.sum(), theirs.statistic, theirs.pvalue, low, high]
        np.testing.assert_allclose(
            row[["n", "r", "p", "r_low", "r_high"]].to_list(), expected, rtol=1e-9
        )
    for _, family in found.groupby("variable"):
        expected = multipletests(family["p"], method="fdr_bh")[1]
        np.testing.assert_allclose(family["q_fdr"], expected)
        np.testing.assert_allclose(family["p_holm"], multipletests(family["p"], method="holm")[1])


def test_spearman_equals_scipy(table: pd.DataFrame) -> None:
    row = correlate(table, "caudate", "edss", method="spearman").table.iloc[0]
    theirs = stats.spearmanr(table["caudate"], table["edss"])
    np.testing.assert_allclose([row["r"], row["p"]], [theirs.statistic, theirs.pvalue], rtol=1e-9)
    half = 1.959963984540054 * np.sqrt((1 + row["r"] ** 2 / 2) / 77)
    assert row["r_low"] == pytest.approx(np.tanh(np.arctanh(row["r"]) - half))


def test_partial_correlation_is_that_of_the_residuals(table: pd.DataFrame) -> None:
    row = correlate(table, "caudate", "edss", covariates=["age", "course"]).table.iloc[0]
    residuals = [smf.ols(f"{y} ~ age + course", table).fit().resid for y in ("caudate", "edss")]
    assert row["r"] == pytest.approx(stats.pearsonr(*residuals).statistic, rel=1e-9)
    model = smf.ols("caudate ~ edss + age + course", table).fit()
    assert row["p"] == pytest.approx(model.pvalues["edss"], rel=1e-8)
    assert row["t"] == pytest.approx(model.tvalues["edss"], rel=1e-8)
    assert row["df"] == 75
    half = 1.959963984540054 / np.sqrt(80 - 3 - 3)
    assert row["r_high"] == pytest.approx(np.tanh(np.arctanh(row["r"]) + half))


def test_partial_spearman_is_pearson_of_ranks(table: pd.DataFrame) -> None:
    row = correlate(table, "caudate", "edss", covariates="age", method="spearman").table.iloc[0]
    r = {
        pair: stats.spearmanr(table[pair[0]], table[pair[1]]).statistic
        for pair in (("caudate", "edss"), ("caudate", "age"), ("edss", "age"))
    }
    a, b, c = r.values()
    assert row["r"] == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)), rel=1e-9)


def test_published_interval() -> None:
    # Fisher's z for r = .5, n = 28 (Altman, Practical Statistics: z +- 1.96 / sqrt(25))
    z = np.arange(28.0)
    x = (z - z.mean()) / z.std()
    rng = np.random.default_rng(1)
    noise = rng.normal(size=28)
    noise -= noise.mean() + x * np.mean(noise * x)
    y = 0.5 * x + np.sqrt(0.75) * noise / noise.std()
    row = correlate(pd.DataFrame({"x": x, "y": y}), "y", "x").table.iloc[0]
    assert row["r"] == pytest.approx(0.5, abs=1e-12)
    assert row["r_low"] == pytest.approx(np.tanh(0.549306 - 0.391993), abs=1e-6)
    assert row["r_high"] == pytest.approx(np.tanh(0.549306 + 0.391993), abs=1e-6)


def test_two_words_count_as_zero_and_one(table: pd.DataFrame) -> None:
    found = correlate(table, "caudate", "sex")
    theirs = stats.pointbiserialr(table["sex"] == "M", table["caudate"])
    assert found.table["r"][0] == pytest.approx(theirs.statistic, rel=1e-9)
    assert found.notes == ("sex: F counts as 0, M as 1.",)


def test_scale_and_order_do_not_matter(table: pd.DataFrame) -> None:
    first = correlate(table, STRUCTURES, "edss", covariates="age").table
    other = table.assign(edss=table["edss"] * -7, caudate=table["caudate"] * 1e-9 + 4)
    again = correlate(
        other.sample(frac=1, random_state=2), STRUCTURES, "edss", covariates="age"
    ).table
    np.testing.assert_allclose(again["r"], -first["r"], rtol=1e-5)


def test_perfect_correlation_has_p_zero() -> None:
    data = pd.DataFrame({"x": np.arange(8.0), "y": -2 * np.arange(8.0)})
    row = correlate(data, "y", "x").table.iloc[0]
    assert (row["r"], row["r_low"], row["r_high"]) == (-1, -1, -1)
    assert row["p"] == pytest.approx(0, abs=1e-30)


def test_what_cannot_be_correlated_is_told_and_the_rest_goes_on(table: pd.DataFrame) -> None:
    found = correlate(table.assign(same=1.0), ["caudate", "same"], "edss")
    assert found.table["outcome"].tolist() == ["caudate"]
    assert found.notes == ("same with edss: same is the same (1) in all subjects.",)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"outcomes": "caudat"}, "names 'caudat', which is no column"),
        ({"variables": "eds"}, "names 'eds', which is no column"),
        ({"covariates": "agee"}, "names 'agee', which is no column"),
        ({"variables": "course"}, r"column 'course' has 3 groups \(PP, RR, SP\): compare groups"),
        ({"variables": "same"}, r"same is the same \(1\) in all subjects"),
        ({"variables": "few"}, "caudate and few are known together in 3 subjects"),
        ({"covariates": "edss"}, "the covariates say all of edss or caudate"),
        ({"method": "kendall"}, "'pearson' or 'spearman', not 'kendall'"),
        ({"outcomes": []}, "at least one outcome and one variable"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    table: pd.DataFrame, options: dict[str, object], sentence: str
) -> None:
    few = np.where(np.arange(80) < 3, np.arange(80), np.nan)
    table = table.assign(same=1.0, few=few)
    given = {"outcomes": "caudate", "variables": "edss"} | options
    with pytest.raises(ValueError, match=sentence):
        correlate(table, **given)  # type: ignore[arg-type]

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_qsm.statistics.designs import build_design
from bids_qsm.statistics.transforms import LADDER, expression, ladder, ladder_quantiles

# fuel economy of 74 cars of 1978 (Consumer Reports), the example of Stata's manual
MPG = [22, 17, 22, 20, 15, 18, 26, 20, 16, 19, 14, 14, 21, 29, 16, 22, 22, 24, 19, 30, 18, 16, 17]
MPG += [28, 21, 12, 12, 14, 22, 14, 15, 18, 14, 20, 21, 19, 19, 18, 19, 24, 16, 28, 34, 25, 26, 18]
MPG += [18, 18, 19, 19, 19, 24, 17, 23, 25, 23, 35, 24, 21, 21, 25, 28, 30, 14, 26, 35, 18, 31, 18]
MPG += [23, 41, 25, 25, 17]


def test_published_ladder() -> None:
    # Stata Base Reference Manual, ladder: chi2(2) of each transform of mpg
    found = ladder(MPG, "mpg")
    published = [43.59, 27.03, 10.95, 4.94, 0.87, 0.20, 2.36, 11.99, 24.30]
    np.testing.assert_allclose(found.table["chi2"], published, atol=0.005)
    p = [0, 0, 0.004, 0.084, 0.647, 0.905, 0.307, 0.002, 0]
    np.testing.assert_allclose(found.table["p_chi2"], p, atol=5e-4)
    assert found.suggested == "1/sqrt"
    assert found.reason == (
        "mpg is not normal (chi2 10.95, p = 0.0042); 1/sqrt is nearest (chi2 0.20, p = 0.91)."
    )
    assert found.table.loc[found.table["suggested"], "transform"].tolist() == ["1/sqrt"]


def test_tests_equal_scipy() -> None:
    x = np.random.default_rng(0).lognormal(size=95)
    found = ladder(x).table.set_index("transform")
    for transform, (function, _, _) in LADDER.items():
        y = function(x)
        row = found.loc[transform]
        np.testing.assert_allclose([row["k2"], row["p_k2"]], stats.normaltest(y), rtol=1e-8)
        shapiro = stats.shapiro((y - y.mean()) / y.std())
        np.testing.assert_allclose([row["shapiro_w"], row["p_shapiro"]], shapiro, rtol=1e-8)
        np.testing.assert_allclose(row["skewness"], stats.skew(y), rtol=1e-8)


def test_log_is_found_for_a_lognormal_variable() -> None:
    x = np.random.default_rng(1).lognormal(2, 1.2, 300)
    found = ladder(x, "lesion_ml")
    assert found.suggested == "log"
    assert found.boxcox_low < 0 < found.boxcox_high
    power, (low, high) = stats.boxcox(x, alpha=0.05)[1:]
    assert found.boxcox == pytest.approx(power, abs=0.005)
    assert (found.boxcox_low, found.boxcox_high) == pytest.approx((low, high), abs=0.011)
    assert found.notes == ()


def test_unit_does_not_matter() -> None:
    first, other = ladder(MPG), ladder(np.array(MPG) * 1e-60)
    for name in ("chi2", "shapiro_w"):
        np.testing.assert_allclose(first.table[name], other.table[name], rtol=1e-6)
    assert other.boxcox == pytest.approx(first.boxcox)


def test_normal_variable_stays() -> None:
    x = stats.norm.ppf(np.arange(1, 100) / 100) + 10
    found = ladder(x, "thickness")
    assert found.suggested == "identity"
    assert found.reason.startswith("thickness can stay as it is")


def test_extreme_values_are_not_normal() -> None:
    found = ladder(np.r_[np.linspace(0.01, 1, 3000), np.logspace(3, 20, 800)])
    assert np.isfinite(found.table["chi2"]).all()
    assert "though not normal either" in found.reason


def test_values_that_are_not_positive_are_told() -> None:
    x = np.r_[0, np.random.default_rng(2).lognormal(size=60), np.nan]
    found = ladder(x, "lesion_ml")
    assert found.notes == (
        "1 value of lesion_ml missing and left out.",
        "1 value of lesion_ml zero or below: log, 1/sqrt, inverse, 1/square, 1/cubic cannot be "
        "had; add a constant, as in log(x + 1), or leave these rows out by a subset.",
    )
    assert found.table["chi2"].notna().tolist() == [True] * 4 + [False] * 5
    assert np.isnan(found.boxcox)
    negative = ladder(-x[1:-1]).table.set_index("transform")["chi2"]
    assert negative.notna().tolist() == [True, False, True] + [False] * 6
    assert set(ladder_quantiles(x)["transform"]) == {"cubic", "square", "identity", "sqrt"}


def test_bad_input_is_told_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="age has 3 values: tests of normality need at least 8"):
        ladder([1, 2, 3, np.nan], "age")
    with pytest.raises(ValueError, match=r"age is the same \(4\) in all rows"):
        ladder([4] * 10, "age")
    assert "below 20" in ladder(MPG[:12], "mpg").notes[0]
    with pytest.raises(ValueError, match="no transform 'cube'; there are: cubic, square"):
        expression("age", "cube")


def test_quantiles_lie_on_a_line_for_a_normal_variable() -> None:
    z = stats.norm.ppf(np.arange(1, 51) / 51)
    table = ladder_quantiles(100 + 3 * z[::-1])
    plain = table[table["transform"] == "identity"]
    np.testing.assert_allclose(plain["z"], z)
    slope = np.std(100 + 3 * z, ddof=1)
    np.testing.assert_allclose(plain["expected"], 100 + slope * z)
    np.testing.assert_allclose(plain["observed"], 100 + 3 * z)
    assert plain["order"].tolist() == list(range(1, 51))


@pytest.mark.parametrize("column", ["mpg", "miles per gallon"])
def test_expressions_stand_in_formulas(column: str) -> None:
    data = pd.DataFrame({column: np.array(MPG, float)})
    for transform, (function, _, _) in LADDER.items():
        design = build_design(data, expression(column, transform))
        np.testing.assert_allclose(design.matrix[:, 1], function(data[column].to_numpy()))

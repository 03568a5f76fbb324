from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy import log, sqrt  # noqa: F401 (statsmodels finds them here)

from bids_qsm.statistics.designs import (
    Design,
    build_design,
    contrast,
    dependent_columns,
    restrict,
)


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 30
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "group": ["patient", "control", "other"] * 10,
            "sex": ["M", "F"] * 15,
            "treated": [True, False] * 15,
            "age": rng.normal(50, 9, n),
            "dose": rng.exponential(3, n),
            "my col": rng.normal(size=n),
            "y": rng.normal(size=n),
        }
    )


FORMULAS = [
    "group + age + sex",
    "group * age",
    "log(dose) + group:sex",
    "C(group, Treatment('other')) + I(age ** 2)",
    "center(age) + scale(dose) + treated",
    "sqrt(dose) + age - 1",
    "(group + sex) ** 2 + bs(age, df=4)",
    "1",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_design_spans_what_statsmodels_fits(table: pd.DataFrame, formula: str) -> None:
    design = build_design(table, formula)
    theirs = smf.ols(f"y ~ {formula}", table).fit()
    fit = design.matrix @ np.linalg.lstsq(design.matrix, table["y"], rcond=None)[0]
    np.testing.assert_allclose(fit, theirs.fittedvalues, atol=1e-8)
    assert len(design.names) == design.matrix.shape[1] == len(theirs.params)


def test_ordered_categories_have_their_first_as_the_reference(table: pd.DataFrame) -> None:
    order = ["patient", 'it\'s "x"', "control", "nobody"]
    named = table["group"].replace({"other": order[1]})
    ordered = table.assign(**{"an arm": pd.Categorical(named, order, ordered=True)})
    design = build_design(ordered, "`an arm` + age")
    assert design.names[1:3] == ('an arm[T.it\'s "x"]', "an arm[T.control]")
    assert design.levels == {"an arm": tuple(order[:3])}
    np.testing.assert_array_equal(design.matrix[:, 2], table["group"] == "control")
    found = contrast(design, "control - patient").weights
    np.testing.assert_array_equal(found, [[0, 0, 1, 0]])


def test_polynomial_spans_the_powers(table: pd.DataFrame) -> None:
    design = build_design(table, "poly(age, 2)")
    powers = build_design(table, "age + I(age ** 2)").matrix
    fit = design.matrix @ np.linalg.lstsq(design.matrix, powers, rcond=None)[0]
    np.testing.assert_allclose(fit, powers, rtol=1e-10)


def test_columns_and_terms_are_named(table: pd.DataFrame) -> None:
    design = build_design(table, "group + age + sex")
    assert design.names == ("Intercept", "group[T.other]", "group[T.patient]", "age", "sex[T.M]")
    assert design.terms == {"group": (1, 2), "age": (3,), "sex": (4,)}
    assert design.levels == {"group": ("control", "other", "patient"), "sex": ("F", "M")}
    np.testing.assert_array_equal(design.matrix[:, 2], table["group"] == "patient")
    np.testing.assert_array_equal(design.rows, np.arange(30))
    assert design.left_out == ()
    other = build_design(table, "C(group, Treatment('other'))")
    assert other.levels == {"C(group, Treatment('other'))": ("other", "control", "patient")}


def test_rows_without_values_are_left_out_and_named(table: pd.DataFrame) -> None:
    table.loc[[3, 7], "age"] = np.nan
    table.loc[[7, 9], "y"] = np.inf
    table["sex"] = table["sex"].astype(object)
    table.loc[11, "sex"] = "n/a"
    design = build_design(table, "group + age + sex", complete=["y"])
    assert set(range(30)) - set(design.rows) == {3, 7, 9, 11}
    assert design.left_out == (
        "2 rows left out for want of age: sub-03, sub-07.",
        "1 row left out for want of sex: sub-11.",
        "2 rows left out for want of y: sub-07, sub-09.",
    )
    np.testing.assert_array_equal(design.matrix[:, 3], table["age"][design.rows])


def test_design_follows_the_rows(table: pd.DataFrame) -> None:
    order = np.random.default_rng(1).permutation(30)
    shuffled = build_design(table.iloc[order], "group * age + sex")
    design = build_design(table, "group * age + sex")
    np.testing.assert_array_equal(shuffled.matrix, design.matrix[order])
    assert shuffled.names == design.names


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        ("agee", "the formula names 'agee', which is no column; there are: participant_id, group"),
        ("same + age", r"covariate 'same' is the same \(45\) in all 30 rows used"),
        ("site + age", r"column 'site' has one group alone \('a'\) in all 30 rows"),
        ("lone", r"group 'x' of column 'lone' has one subject \(sub-04\): at least two"),
        ("once + age", r"group '1.0' of column 'once' has one subject \(sub-05\)"),
        ("months + age", "columns months and age of the design depend on each other"),
        ("age + later", "columns Intercept, age and later of the design depend"),
        ("group + copy", r"columns group\[T.other\] and copy\[T.other\] of the design"),
        ("mess", r"'mess' should hold numbers, but holds '4 y' \(sub-29\)"),
        ("empty + age", "column 'empty' has no value in any of the 30 rows"),
        ("half + otherhalf", "no row has values for all of half, otherhalf"),
        ("log(zero)", r"log\(zero\) is not finite in 2 rows.*log\(x \+ 1\)"),
        ("center(sex)", "cannot be worked out with these columns"),
        ("C(group, Treatment('zz'))", "cannot be worked out with these columns"),
        ("C(thirds, Sum) * bs(age, df=20)", "the design has 30 rows for 84 columns"),
        ("0", "has no column"),
    ],
)
def test_bad_input_is_told_in_a_sentence(table: pd.DataFrame, formula: str, sentence: str) -> None:
    n = np.arange(30)
    table = table.assign(
        same=45,
        site="a",
        lone=np.where(n == 4, "x", "y"),
        once=(n == 5) * 1.0,
        months=table["age"] * 12,
        later=table["age"] + 2,
        copy=table["group"],
        mess=[str(i) for i in n[:-1]] + ["4 y"],
        empty=np.nan,
        half=np.where(n < 15, n, np.nan),
        otherhalf=np.where(n < 15, np.nan, n),
        zero=np.where(n < 2, 0, n),
        thirds=[str(i // 8) for i in n],
    )
    with pytest.raises(ValueError, match=sentence):
        build_design(table, formula)


def test_unknown_outcome_and_too_few_rows_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="the model names 'chi', which is no column"):
        build_design(table, "age", complete=["chi"])
    with pytest.raises(ValueError, match="the design has 3 rows for 3 columns"):
        build_design(table.iloc[:3], "age + dose")


def test_fewer_rows_are_checked_again(table: pd.DataFrame) -> None:
    design = build_design(table, "group + age")
    keep = np.arange(30) % 2 == 0
    fewer = restrict(design, keep, "half are left out.")
    np.testing.assert_array_equal(fewer.matrix, design.matrix[::2])
    assert fewer.left_out == ("half are left out.",)
    assert restrict(design, np.ones(30, bool)) is design
    with pytest.raises(ValueError, match=r"column group\[T.other\] of the design is zero"):
        restrict(design, (table["group"] != "other").to_numpy())


def test_dependence_is_found_at_any_scale() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(2020, 1, (2, 50))
    full = np.column_stack([np.ones(50), a * 1e6, b * 1e-6])
    assert dependent_columns(full, "iab") == []
    assert dependent_columns(np.column_stack([full, a - b]), "iabc") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("group", [[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]),
        ("age", [[0, 0, 0, 1, 0, 0]]),
        ("sex", [[0, 0, 0, 0, 1, 0]]),
        ("group[T.patient]", [[0, 0, 1, 0, 0, 0]]),
        ("age - 0", [[0, 0, 0, 1, 0, 0]]),
        ("2*age = my col", [[0, 0, 0, 2, 0, -1]]),
        ("group[T.patient] = group[T.other]", [[0, -1, 1, 0, 0, 0]]),
        ("patient - control", [[0, 0, 1, 0, 0, 0]]),
        ("control - patient", [[0, 0, -1, 0, 0, 0]]),
        ("group[patient] - group[other]", [[0, -1, 1, 0, 0, 0]]),
        ("(patient + other) / 2 - control", [[0, 0.5, 0.5, 0, 0, 0]]),
        ("age, sex", [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]),
        (["age", "M - F"], [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]),
        ("-`my col`/4", [[0, 0, 0, 0, 0, -0.25]]),
    ],
)
def test_contrasts_are_read(
    table: pd.DataFrame, text: str | list[str], rows: list[list[float]]
) -> None:
    found = contrast(build_design(table, "group + age + sex + `my col`"), text)
    np.testing.assert_array_equal(found.weights, rows)
    assert found.kind == ("t" if len(rows) == 1 else "F")


def test_contrast_does_not_depend_on_the_reference(table: pd.DataFrame) -> None:
    estimates = []
    for formula in ("group + age", "C(group, Treatment('other')) + age", "group + age - 1"):
        design = build_design(table, formula)
        coefficients = np.linalg.lstsq(design.matrix, table["y"], rcond=None)[0]
        estimates.append(contrast(design, "patient - control").weights @ coefficients)
    np.testing.assert_allclose(estimates[1:], estimates[:1] * 2, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("foo", "'foo' is no sum of the design's terms and columns; there are: group, age"),
        ("", "is empty"),
        ("age - age", "is empty"),
        ("age + 1", "adds a number"),
        ("M - 2", "adds a number"),
        ("patient", "do not add up to zero: write a difference, as 'patient - control'"),
        ("age * sex", "is no sum"),
        ("age ** 2", "is no sum"),
        ("__import__('os').getpid()", "is no sum"),
        ("age, 2*age", "depend on each other"),
    ],
)
def test_bad_contrast_is_told_in_a_sentence(table: pd.DataFrame, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        contrast(build_design(table, "group + age + sex"), text)


def test_levels_in_an_interaction_are_refused(table: pd.DataFrame) -> None:
    design: Design = build_design(table, "group * age")
    with pytest.raises(ValueError, match="stands in an interaction"):
        contrast(design, "patient - control")
    assert contrast(design, "group:age").kind == "F"
    assert contrast(design, "group[T.patient]:age").kind == "t"

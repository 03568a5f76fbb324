from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.expressions import formula_columns, row_names, subset, typed_column


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(10)],
            "index": np.arange(10),
            "group": ["patient", "control"] * 5,
            "age": ["1", "2.5", "n/a", "4", "5", "6", "7", "8", "9", "10"],
            "treated": [True, False] * 5,
            "my col": np.arange(10.0),
        }
    )


@pytest.mark.parametrize(
    ("formula", "columns", "groups"),
    [
        ("group + age", ["group", "age"], set()),
        ("log(age) * group", ["age", "group"], set()),
        ("C(group, Treatment('control')) - 1", ["group"], {"group"}),
        ("C(index, Sum)", ["index"], {"index"}),
        ("Q('my col') + `my col`", ["my col"], set()),
        ("I(age ** 2 / 10) + poly(age, degree=3)", ["age"], set()),
        ("(age + group) ** 2 + scale(index)", ["age", "group", "index"], set()),
        ("I(group == 'patient'):age + I(age > -3)", ["group", "age"], set()),
    ],
)
def test_formula_names_its_columns(
    table: pd.DataFrame, formula: str, columns: list[str], groups: set[str]
) -> None:
    assert formula_columns(formula, list(table.columns)) == (columns, groups)


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').getpid()",
        "age.mean()",
        "{age.mean()}",
        "I(9**9**9)",
        "I((9**9)**9)",
        "I('a' * 1000000000)",
        "I([i for i in age])",
        "I((lambda: age)())",
        "I(age[0])",
        "hashed(age)",
        "lag(age)",
        "C(age, contr.treatment('1'))",
        "log(age, out=age)",
        "log(*age)",
        "poly(age, 1000000)",
        "bs(age, df=10000)",
        "Q(age)",
        "I(age if group else 2)",
        "I(f'{age}')",
        "group @ age",
        "age % group",
        "open('/etc/passwd')",
        "I(1e999 * age)",
    ],
)
def test_formula_runs_no_python(table: pd.DataFrame, formula: str) -> None:
    with pytest.raises(ValueError, match=r"^the formula .*(is not taken|cannot be read)"):
        formula_columns(formula, list(table.columns))


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        ("", "the formula is empty"),
        ("age + agee", r"names 'agee', which is no column; there are: participant_id, index"),
        ("log(agee)", "names 'agee', which is no column"),
        ("np.log(age)", r"says np.log\(\): write log\(\)"),
        ("age | group", "write the predictors alone"),
        ("age ~ group", "write the predictors alone"),
        ("(age + group) ** 20", "says '20' where only 2 or 3"),
        ("age + 3", r"says '3' where only 0 or 1 can stand; arithmetic goes into I\( \)"),
        ("log(age", "cannot be read"),
        ("log(`my col`)", "cannot be read"),
        ("+".join(["age"] * 41), "is too large"),
        ("age*age*age*age*age*age*age", "is too large"),
        ("age + " * 200 + "age", "has more than 1000 characters"),
    ],
)
def test_formula_that_cannot_be_is_told_in_a_sentence(
    table: pd.DataFrame, formula: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        formula_columns(formula, list(table.columns))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("age < 5", [0, 1, 3]),
        ("group == 'patient' and age > 4", [4, 6, 8]),
        ("`my col` >= 8 | index == 2", [2, 8, 9]),
        ("group in ['control', 'other']", [1, 3, 5, 7, 9]),
        ("group not in ('control',)", [0, 2, 4, 6, 8]),
        ("2 < age <= 5", [1, 3, 4]),
        ("not treated", [1, 3, 5, 7, 9]),
        ("~treated & (index > 4)", [5, 7, 9]),
        ("index > 2 * 4 - 1", [8, 9]),
        ("treated", [0, 2, 4, 6, 8]),
    ],
)
def test_subset_keeps_the_rows(table: pd.DataFrame, condition: str, kept: list[int]) -> None:
    part, sentences = subset(table, condition)
    assert part["index"].tolist() == kept
    assert sentences[0].startswith(f"{len(kept)} of 10 subjects are in the subset")


def test_subset_says_whose_value_is_missing(table: pd.DataFrame) -> None:
    _, sentences = subset(table, "age < 50")
    assert sentences[1:] == ("1 subject without a value for it: sub-02.",)
    _, sentences = subset(table.drop(columns="participant_id"), "age < 5")
    assert sentences == (
        "3 of 10 rows are in the subset 'age < 5'.",
        "1 row without a value for it: row 2.",
    )


@pytest.mark.parametrize(
    "condition",
    [
        "@index > 2",
        "age.mean() > 1",
        "__import__('os')",
        "group.str.contains('a')",
        "len(age) > 2",
        "age[0] > 1",
        "(lambda: 1)() < age",
        "9**9**9 > age",
        "'a' * 10**9 == group",
        "f'{age}' == '1'",
        "age > (",
        "log(age) > 2",
        "[x for x in age]",
    ],
)
def test_subset_runs_no_python(table: pd.DataFrame, condition: str) -> None:
    with pytest.raises(ValueError, match=r"^the subset .*(is not taken|cannot be read)"):
        subset(table, condition)


def test_subset_that_cannot_be_is_told_in_a_sentence(table: pd.DataFrame) -> None:
    for condition, sentence in [
        ("agee < 5", "names 'agee', which is no column; there are"),
        ("`my cow` < 5", "names 'my cow', which is no column"),
        ("index > 99", "holds for none of the 10 rows"),
        ("group > 3", "does not fit its columns"),
        ("1 < 2", "names no column"),
        ("", "is empty or too long"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            subset(table, condition)


def test_columns_read_as_numbers_or_text(table: pd.DataFrame) -> None:
    np.testing.assert_array_equal(
        typed_column(table, "age"), [1, 2.5, np.nan, 4, 5, 6, 7, 8, 9, 10]
    )
    assert typed_column(table, "group").tolist() == table["group"].tolist()
    assert typed_column(table, "age", as_levels=True).iloc[0] == "1"
    infinite = pd.DataFrame({"x": [1.0, np.inf, 3.0]})
    assert typed_column(infinite, "x").isna().tolist() == [False, True, False]
    flags = pd.DataFrame({"x": pd.Series([True, None, False], dtype=object)})
    assert typed_column(flags, "x").isna().tolist() == [False, True, False]


def test_text_among_numbers_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"'age' should hold numbers, but holds '7y' \(sub-06\)"):
        typed_column(table.assign(age=[*table["age"][:6], "7y", *table["age"][7:]]), "age")
    with pytest.raises(ValueError, match="'day' holds dates"):
        typed_column(pd.DataFrame({"day": pd.to_datetime(["2020-01-01"])}), "day")
    with pytest.raises(ValueError, match="more than one column 'x'"):
        typed_column(pd.DataFrame([[1, 2]], columns=["x", "x"]), "x")


def test_rows_are_called_by_participant_and_session(table: pd.DataFrame) -> None:
    assert row_names(table)[:2] == ["sub-00", "sub-01"]
    sessions = ["ses-1", "n/a"] * 5
    assert row_names(table.assign(session_id=sessions))[:2] == ["sub-00 ses-1", "sub-01"]
    assert row_names(pd.DataFrame({"x": [1]}, index=[7])) == ["row 7"]

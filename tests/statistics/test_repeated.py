from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM

from bids_qsm.statistics.repeated import paired_tests, repeated_measures, sphericity

VALUES = np.array(
    [
        [2.1, 3.4, 5.0, 5.6],
        [1.7, 2.2, 4.1, 6.3],
        [2.9, 3.0, 3.8, 4.9],
        [1.2, 2.8, 5.5, 5.1],
        [2.4, 2.7, 4.4, 7.0],
        [0.8, 3.1, 3.9, 4.2],
    ]
)
CONDITIONS = ["T1w", "T2w", "Chimap", "hybrid"]


def test_f_is_that_of_statsmodels() -> None:
    table = pd.DataFrame(VALUES, columns=CONDITIONS).reset_index(names="subject")
    tidy = table.melt(id_vars="subject")
    row = AnovaRM(tidy, "value", "subject", within=["variable"]).fit().anova_table.iloc[0]
    found = repeated_measures(VALUES)
    assert found["f_repeated"] == pytest.approx(row["F Value"], rel=1e-10)
    assert (found["df_conditions"], found["df_error"]) == (row["Num DF"], row["Den DF"])
    assert found["p_repeated"] == pytest.approx(row["Pr > F"], rel=1e-8)


def test_epsilon_is_that_of_its_bounds_and_of_another_program() -> None:
    # pingouin 0.7.0: rm_anova(..., correction=True)
    assert sphericity(VALUES) == pytest.approx(0.7105821689871051, abs=1e-6)
    assert repeated_measures(VALUES)["p_greenhouse_geisser"] == pytest.approx(
        3.7583563050654816e-05, rel=1e-6
    )
    random = np.random.default_rng(0)
    alike = random.standard_normal((20000, 4)) + random.standard_normal((20000, 1))
    assert sphericity(alike) == pytest.approx(1, abs=2e-3)
    one_direction = np.einsum("n,i->ni", random.standard_normal(50), (1, 2, 4, 0))
    assert sphericity(one_direction) == pytest.approx(1 / 3)


def test_two_conditions_give_the_paired_t_test() -> None:
    found = repeated_measures(VALUES[:, :2])
    test = stats.ttest_rel(VALUES[:, 1], VALUES[:, 0])
    assert found["f_repeated"] == pytest.approx(test.statistic**2)
    assert found["p_repeated"] == pytest.approx(test.pvalue)
    assert found["epsilon"] == pytest.approx(1)
    (row,) = paired_tests(VALUES[:, :2], CONDITIONS[:2]).itertuples()
    assert (row.group_a, row.group_b, row.n_pairs) == ("T2w", "T1w", 6)
    assert row.t_paired == pytest.approx(test.statistic)
    interval = test.confidence_interval(0.95)
    assert row.paired_difference_low == pytest.approx(interval.low)
    assert row.d_z == pytest.approx(test.statistic / np.sqrt(6))


def test_what_subjects_have_in_common_does_not_matter() -> None:
    shifted = VALUES + np.array([0, 10, -5, 3, 100, 7])[:, None]
    for name, value in repeated_measures(VALUES).items():
        assert repeated_measures(shifted)[name] == pytest.approx(value)


def test_subjects_with_gaps_are_left_out_and_too_few_give_nothing() -> None:
    gaps = np.vstack([VALUES, [1, np.nan, 2, 3]])
    assert repeated_measures(gaps) == repeated_measures(VALUES)
    few = repeated_measures(VALUES[:2])
    assert few["n_subjects"] == 2 and np.isnan(few["f_repeated"])
    same = paired_tests(np.ones((5, 2)), ["a", "b"])
    assert same["p_paired"].isna().all() and same["p_paired_holm"].isna().all()


def test_holm_is_over_all_pairs() -> None:
    table = paired_tests(VALUES, CONDITIONS)
    assert len(table) == 6
    smallest = table["p_paired"].min()
    assert table["p_paired_holm"].min() == pytest.approx(min(1, 6 * smallest))

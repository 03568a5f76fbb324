from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_qsm.statistics.intervals import deviation, poisson_rate, student, wilson


def test_wilson_equals_scipy() -> None:
    for count, total in ((0, 10), (5, 16), (10, 10), (333, 850)):
        expected = stats.binomtest(count, total).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson(count, total), tuple(expected), atol=1e-12)
    assert np.isnan(wilson(0, 0)).all()


def test_poisson_limits_give_the_tails_asked_for() -> None:
    low, high = poisson_rate(5, 22.0)
    assert stats.poisson.sf(4, 22 * low) == pytest.approx(0.025)
    assert stats.poisson.cdf(5, 22 * high) == pytest.approx(0.025)
    assert poisson_rate(0, 2.0) == (0, pytest.approx(-np.log(0.025) / 2))


@pytest.mark.parametrize(("count", "time"), [(-1, 2.0), (1, 0.0)])
def test_a_negative_rate_is_refused(count, time) -> None:
    with pytest.raises(ValueError, match="a rate needs"):
        poisson_rate(count, time)


def test_a_standard_deviation_is_covered(rng) -> None:
    sd = rng.normal(0, 3, (20000, 8)).std(axis=1, ddof=1)
    low, high = deviation(sd, 7)
    assert np.mean((low <= 3) & (high >= 3)) == pytest.approx(0.95, abs=0.005)


def test_student_equals_a_t_test(rng) -> None:
    values = rng.normal(0.4, 1, 12)
    test = stats.ttest_1samp(values, 0)
    low, high, p = student(values.mean(), stats.sem(values), 11, 0.9)
    assert p == pytest.approx(test.pvalue)
    assert (low, high) == pytest.approx(tuple(test.confidence_interval(0.9)))

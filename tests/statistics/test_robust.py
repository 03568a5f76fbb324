from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_qsm.statistics.robust import robust_z, tail_cutoff

NO_BOUND = np.array([np.nan])


def one_column(values, low=np.nan, high=np.nan) -> np.ndarray:
    column = np.asarray(values, float)[:, None]
    return robust_z(column, np.array([low]), np.array([high])).z[:, 0]


def test_a_score_is_the_distance_from_the_median_in_scaled_mad() -> None:
    values = np.array([-4.0, -1, 0, 1, 2, 3, 50])
    expected = (values - 1) / (1.4826 * np.median(np.abs(values - 1)))
    np.testing.assert_allclose(one_column(values), expected)
    mad = stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(one_column(values), (values - 1) / mad, rtol=1e-4)


def test_values_above_zero_are_scored_by_their_logarithms(rng) -> None:
    values = np.exp(rng.normal(3, 0.5, 51))
    scores = robust_z(values[:, None], NO_BOUND, NO_BOUND)
    assert scores.is_log.tolist() == [True]
    assert scores.median[0] == pytest.approx(np.median(values))
    np.testing.assert_allclose(one_column(7 * values), scores.z[:, 0], atol=1e-9)
    logs = np.log(values)
    np.testing.assert_allclose(one_column(logs - logs.mean()), scores.z[:, 0], atol=1e-9)


def test_half_of_one_value_has_no_scores() -> None:
    assert np.isnan(one_column([0, 0, 0, 0, 0, 1e-5, 3e-5])).all()
    assert np.isnan(one_column([5.0, 5, 5, 5, 9])).all()


def test_what_is_not_known_counts_for_nothing() -> None:
    with_gaps = one_column([-2, np.nan, 0, 1, np.nan, 5])
    assert np.isnan(with_gaps[[1, 4]]).all()
    np.testing.assert_allclose(with_gaps[[0, 2, 3, 5]], one_column([-2, 0, 1, 5]))
    assert np.isnan(one_column([np.nan] * 3)).all()


def test_a_deviation_counts_an_sd_for_each_hundredth_of_the_way_to_the_bound() -> None:
    values = np.array([-2e-5, -1e-5, 0, 1e-5, 2e-5, 3e-4, -3e-4])
    assert one_column(values)[5] == pytest.approx(3e-4 / 1.4826e-5 / 2, rel=0.5)
    bounded = one_column(values, high=0.03)
    assert bounded[5] == pytest.approx(1.0)
    assert bounded[6] == one_column(values)[6]  # there is no bound on that side


def test_few_scans_need_a_larger_score() -> None:
    assert tail_cutoff(10_000, 0.001) == pytest.approx(stats.norm.isf(0.001), rel=1e-3)
    assert tail_cutoff(8, 0.001) > 2 * tail_cutoff(100, 0.001)


@pytest.mark.parametrize("n", [10, 30, 120])
def test_normal_values_exceed_the_cutoff_as_often_as_asked(n, rng) -> None:
    values = rng.normal(0, 1, (n, 60_000 // n))
    bounds = np.full(values.shape[1], np.nan)
    share = (robust_z(values, bounds, bounds).z > tail_cutoff(n, 0.01)).mean()
    assert 0.004 < share < 0.014

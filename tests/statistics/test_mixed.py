from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from bids_qsm.statistics.mixed import fit_mixed


def cohort(rng, n=24, k=4, sd_slope=1.5):
    """Values, times and subjects of a cohort in which one in four scans is missing."""
    subject = np.repeat(np.arange(n), k)
    time = np.tile(np.arange(k), n) + rng.normal(0, 0.1, n * k)
    values = 100 + 8 * rng.normal(size=n)[subject] + 2 * rng.normal(size=n * k)
    values += (1.2 + sd_slope * rng.normal(size=n)[subject]) * time
    keep = (np.arange(n * k) % 4 != 2) | (subject % 2 == 0)
    return values[keep], time[keep], subject[keep]


def statsmodels_fit(values, time, subject, design, random):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM(values, design, groups=subject, exog_re=random)
        return model.fit(reml=True, method=["bfgs", "lbfgs", "powell"])


def test_random_slopes_equal_statsmodels(rng) -> None:
    values, time, subject = cohort(rng)
    design = np.column_stack([np.ones_like(time), time])
    found = fit_mixed(values, time, subject)
    other = statsmodels_fit(values, time, subject, design, design)
    assert found.random == "intercept and slope"
    np.testing.assert_allclose(found.beta, other.fe_params, rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), other.bse_fe, rtol=1e-3)
    sds = (found.sd_intercept, found.sd_slope)
    np.testing.assert_allclose(sds, np.sqrt(np.diag(other.cov_re)), rtol=2e-3)
    assert found.sd_residual == pytest.approx(np.sqrt(other.scale), rel=1e-3)
    assert found.log_likelihood == pytest.approx(other.llf, abs=1e-4)


def test_random_intercepts_equal_statsmodels(rng) -> None:
    values, time, subject = cohort(rng, k=2, sd_slope=0.0)
    design = np.column_stack([np.ones_like(time), time])
    found = fit_mixed(values, time, subject)
    other = statsmodels_fit(values, time, subject, design, design[:, :1])
    assert found.random == "intercept"
    assert found.note.startswith("two scans of each subject")
    np.testing.assert_allclose(found.beta, other.fe_params, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), other.bse_fe, rtol=1e-4)
    assert found.log_likelihood == pytest.approx(other.llf, abs=1e-4)


def test_a_difference_of_groups_equals_statsmodels(rng) -> None:
    values, time, subject = cohort(rng)
    group = (subject % 3 == 0).astype(float)
    design = np.column_stack([np.ones_like(time), time, group, group * time])
    found = fit_mixed(values, time, subject, design)
    other = statsmodels_fit(values, time, subject, design, design[:, :2])
    np.testing.assert_allclose(found.beta, other.fe_params, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), other.bse_fe, rtol=1e-3)


def test_two_scans_of_all_equal_a_paired_t_test(rng) -> None:
    first = rng.normal(50, 5, 15)
    second = first + rng.normal(1, 2, 15)
    found = fit_mixed(
        np.concatenate([first, second]), np.repeat([0.0, 2.0], 15), np.tile(np.arange(15), 2)
    )
    difference = (second - first) / 2
    assert found.beta[1] == pytest.approx(difference.mean())
    assert np.sqrt(found.covariance[1, 1]) == pytest.approx(stats.sem(difference), rel=1e-4)
    assert found.freedom == 14


def test_units_and_a_large_mean_scale_through(rng) -> None:
    values, time, subject = cohort(rng)
    plain, other = fit_mixed(values, time, subject), fit_mixed(1e6 + values / 1e3, time, subject)
    assert other.beta[1] == pytest.approx(plain.beta[1] / 1e3, rel=1e-4)
    assert other.sd_slope == pytest.approx(plain.sd_slope / 1e3, rel=1e-3)
    assert other.covariance[1, 1] == pytest.approx(plain.covariance[1, 1] / 1e6, rel=1e-3)


def test_the_slope_is_covered(rng) -> None:
    hits = 0
    for _ in range(250):
        fit = fit_mixed(*cohort(rng, n=12))
        half = stats.t.ppf(0.975, fit.freedom) * np.sqrt(fit.covariance[1, 1])
        hits += abs(fit.beta[1] - 1.2) <= half
    assert hits / 250 == pytest.approx(0.95, abs=0.04)


def test_slopes_that_do_not_vary_are_said(rng) -> None:
    subject, time = np.repeat(np.arange(12), 3), np.tile([0.0, 1.0, 2.0], 12)
    noise = np.tile([1.0, -2.0, 1.0], 12)  # residuals of a line that all subjects share
    found = fit_mixed(rng.normal(50, 5, 12)[subject] + 2 * time + noise, time, subject)
    assert found.note == "slopes do not vary"
    assert found.random == "intercept"
    assert found.beta[1] == pytest.approx(2)


def test_what_cannot_be_fitted(rng) -> None:
    values, time, subject = cohort(rng)
    with pytest.raises(ValueError, match="two times or more"):
        fit_mixed(values, np.zeros_like(time), subject)
    with pytest.raises(ValueError, match="two times or more"):
        fit_mixed(values, time, np.arange(values.size))
    with pytest.raises(ValueError, match="on one line without any noise"):
        fit_mixed(3 + 2 * time, time, subject)
    with pytest.raises(ValueError, match="collinear"):
        fit_mixed(values, time, subject, np.column_stack([time, 2 * time]))

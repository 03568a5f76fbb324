from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from bids_qsm.statistics.anova import (
    GroupMoments,
    games_howell,
    group_moments,
    hedges_g,
    mean_half_width,
    one_way,
    studentized_range_ppf,
    studentized_range_sf,
    tukey,
    welch_t,
)

LABELS = ("a", "b", "c")


@pytest.fixture
def samples() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(m, s, n) for m, s, n in ((0, 1, 12), (0.8, 2, 20), (1.5, 1, 9))]


def moments_of(samples: list[np.ndarray]) -> GroupMoments:
    groups = np.repeat(LABELS[: len(samples)], [len(s) for s in samples])
    outcomes = np.concatenate(samples)[:, None]
    return group_moments(outcomes, groups, LABELS[: len(samples)])


def test_moments_leave_out_what_is_missing(samples: list[np.ndarray]) -> None:
    groups = np.repeat(LABELS, [12, 20, 9])
    outcomes = np.column_stack([np.concatenate(samples)] * 2)
    outcomes[[0, 5, 40], 1] = [np.nan, np.inf, np.nan]
    found = group_moments(outcomes, groups, LABELS)
    np.testing.assert_array_equal(found.n, [[12, 10], [20, 20], [9, 8]])
    np.testing.assert_allclose(found.mean[:, 0], [s.mean() for s in samples])
    np.testing.assert_allclose(found.variance[:, 0], [s.var(ddof=1) for s in samples])
    np.testing.assert_allclose(found.mean[0, 1], np.delete(samples[0], [0, 5]).mean())


def test_welch_equals_scipy(samples: list[np.ndarray]) -> None:
    found = welch_t(moments_of(samples), 1, 0, level=0.9)
    theirs = stats.ttest_ind(samples[1], samples[0], equal_var=False)
    interval = theirs.confidence_interval(0.9)
    for name, expected in {
        "difference": samples[1].mean() - samples[0].mean(),
        "t_welch": theirs.statistic,
        "df_welch": theirs.df,
        "p_welch": theirs.pvalue,
        "difference_low": interval.low,
        "difference_high": interval.high,
    }.items():
        np.testing.assert_allclose(found[name], [expected], rtol=1e-10)
    half = mean_half_width(moments_of(samples), 0.95)[0, 0]
    low, high = stats.t.interval(0.95, 11, samples[0].mean(), stats.sem(samples[0]))
    np.testing.assert_allclose(half, (high - low) / 2)


def test_hedges_g_is_unbiased_and_its_interval_noncentral(samples: list[np.ndarray]) -> None:
    found = hedges_g(moments_of(samples), 1, 0)
    a, b = samples[1], samples[0]
    df = len(a) + len(b) - 2
    pooled = np.sqrt((a.var(ddof=1) * 19 + b.var(ddof=1) * 11) / df)
    d = (a.mean() - b.mean()) / pooled
    np.testing.assert_allclose(found["hedges_g"], d * (1 - 3 / (4 * df - 1)), rtol=1e-3)
    size = np.sqrt(20 * 12 / 32)
    correction = found["hedges_g"] / d
    for name, tail in (("hedges_g_low", 0.975), ("hedges_g_high", 0.025)):
        bound = float((found[name] / correction)[0])
        np.testing.assert_allclose(stats.nct.cdf(d * size, df, bound * size), tail, rtol=1e-8)
    turned = hedges_g(moments_of(samples), 0, 1)
    np.testing.assert_allclose(turned["hedges_g_low"], -found["hedges_g_high"], rtol=1e-9)


def test_interval_of_hedges_g_in_large_samples() -> None:
    moments = GroupMoments(np.full((2, 1), 425.0), np.array([[0.3], [0]]), np.ones((2, 1)))
    found = hedges_g(moments, 0, 1)
    se = np.sqrt(2 / 425 + 0.3**2 / (2 * 850))
    np.testing.assert_allclose(found["hedges_g_low"], 0.3 - 1.96 * se, atol=1e-3)
    np.testing.assert_allclose(found["hedges_g_high"], 0.3 + 1.96 * se, atol=1e-3)


def test_one_way_equals_scipy_and_statsmodels(samples: list[np.ndarray]) -> None:
    found = one_way(moments_of(samples))
    f, p = stats.f_oneway(*samples)
    np.testing.assert_allclose([found["f_anova"][0], found["p_anova"][0]], [f, p], rtol=1e-10)
    theirs = anova_oneway(samples, use_var="unequal", welch_correction=True)
    np.testing.assert_allclose(
        [found["f_welch"][0], found["df_welch"][0], found["p_welch"][0]],
        [theirs.statistic, theirs.df_denom, theirs.pvalue],
        rtol=1e-10,
    )
    total = np.concatenate(samples)
    between = sum(len(s) * (s.mean() - total.mean()) ** 2 for s in samples)
    np.testing.assert_allclose(found["eta2"], between / ((total - total.mean()) ** 2).sum())


def test_one_way_of_two_groups_is_the_t_test(samples: list[np.ndarray]) -> None:
    moments = moments_of(samples[:2])
    found, welch = one_way(moments), welch_t(moments, 1, 0)
    np.testing.assert_allclose(found["p_welch"], welch["p_welch"], rtol=1e-10)
    np.testing.assert_allclose(found["f_anova"], stats.ttest_ind(*samples[:2]).statistic ** 2)


def test_tukey_equals_scipy(samples: list[np.ndarray]) -> None:
    theirs = stats.tukey_hsd(*samples)
    interval = theirs.confidence_interval(0.95)
    for (a, b), found in tukey(moments_of(samples)).items():
        assert a > b
        np.testing.assert_allclose(found["p_tukey"], theirs.pvalue[a, b], atol=1e-9)
        np.testing.assert_allclose(found["tukey_low"], interval.low[a, b], atol=1e-6)
        np.testing.assert_allclose(found["tukey_high"], interval.high[a, b], atol=1e-6)


def test_games_howell_is_welch_with_the_studentized_range(samples: list[np.ndarray]) -> None:
    for (a, b), found in games_howell(moments_of(samples)).items():
        test = stats.ttest_ind(samples[a], samples[b], equal_var=False)
        p = stats.studentized_range.sf(abs(test.statistic) * np.sqrt(2), 3, test.df)
        np.testing.assert_allclose(found["p_games_howell"], p, atol=1e-9)
        difference = samples[a].mean() - samples[b].mean()
        width = stats.studentized_range.ppf(0.95, 3, test.df) / np.sqrt(2)
        half = width * abs(difference / test.statistic)
        np.testing.assert_allclose(found["games_howell_low"], difference - half, atol=1e-6)
        np.testing.assert_allclose(found["games_howell_high"], difference + half, atol=1e-6)


@pytest.mark.parametrize(
    ("groups", "df", "critical"),
    [(3, 10, 3.877), (3, 60, 3.399), (5, 20, 4.232), (4, 5, 5.218), (2, 120, 2.800)],
)
def test_studentized_range_as_tabulated(groups: int, df: int, critical: float) -> None:
    # upper 5 % points, Pearson and Hartley, Biometrika Tables for Statisticians, table 29
    assert studentized_range_ppf(0.95, groups, df) == pytest.approx(critical, abs=6e-4)


@pytest.mark.parametrize(
    ("q", "groups", "df"), [(3.0, 3, 80.5), (1.2, 2, 5), (8, 5, 20), (0.1, 9, 100), (6, 3, 2)]
)
def test_studentized_range_equals_scipy(q: float, groups: int, df: float) -> None:
    theirs = stats.studentized_range.sf(q, groups, df)
    assert studentized_range_sf(q, groups, df) == pytest.approx(theirs, abs=1e-10)


def test_scale_and_shift_do_not_matter(samples: list[np.ndarray]) -> None:
    first, other = moments_of(samples), moments_of([s * 1e-3 + 5 for s in samples])
    for test in (one_way, lambda m: welch_t(m, 2, 0), lambda m: hedges_g(m, 2, 0)):
        a, b = test(first), test(other)
        for name in a:
            if not name.startswith("difference"):
                np.testing.assert_allclose(a[name], b[name], rtol=1e-7)


def test_groups_without_spread_have_no_p_value() -> None:
    moments = moments_of([np.ones(4), np.ones(5), np.ones(6)])
    for found in (one_way(moments), welch_t(moments, 1, 0), tukey(moments)[1, 0]):
        assert all(np.isnan(v).all() for k, v in found.items() if k.startswith("p_"))
    assert np.isnan(hedges_g(moments, 1, 0)["hedges_g"]).all()

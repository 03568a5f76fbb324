from __future__ import annotations

import numpy as np
import pytest
from scipy import odr

from bids_qsm.statistics.deming import deming, passing_bablok


def measured(rng, n=40, slope=1.3, noise=0.4):
    truth = rng.normal(10, 2, n)
    first = truth + rng.normal(0, noise, n)
    return first, slope * truth - 2 + rng.normal(0, noise, n)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 9.0])
def test_deming_equals_orthogonal_distance_regression(ratio, rng) -> None:
    x, y = measured(rng)
    model = odr.Model(lambda b, v: b[0] + b[1] * v)
    data = odr.RealData(x, y, sx=1.0, sy=np.sqrt(ratio))
    fit = odr.ODR(data, model, beta0=[0.0, 1.0], sstol=1e-15, partol=1e-15, maxit=500).run()
    found = deming(x, y, variance_ratio=ratio)
    assert (found.intercept, found.slope) == pytest.approx(tuple(fit.beta), rel=1e-6)


def test_the_jackknife_equals_leaving_out_each_in_turn(rng) -> None:
    x, y = measured(rng, 12)
    slopes = [deming(np.delete(x, i), np.delete(y, i)).slope for i in range(12)]
    intercepts = [deming(np.delete(x, i), np.delete(y, i)).intercept for i in range(12)]
    found = deming(x, y)
    for value, others, low, high in (
        (found.slope, slopes, found.slope_low, found.slope_high),
        (found.intercept, intercepts, found.intercept_low, found.intercept_high),
    ):
        pseudo = 12 * value - 11 * np.array(others)
        half = 2.2281388519649385 * pseudo.std(ddof=1) / np.sqrt(12)  # t, 10 degrees of freedom
        assert (low, high) == pytest.approx((value - half, value + half), rel=1e-9)


def naive_passing_bablok(x, y, half_width):
    """As Passing & Bablok 1983 write it, with ranks from one."""
    slopes = []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if x[i] == x[j] and y[i] == y[j]:
                continue
            if x[i] == x[j]:
                slopes.append(np.inf if y[j] > y[i] else -np.inf)
            elif (y[j] - y[i]) / (x[j] - x[i]) != -1:
                slopes.append((y[j] - y[i]) / (x[j] - x[i]))
    slopes = [-np.inf, *sorted(slopes)]  # S_(1) is slopes[1]
    n, shift = len(slopes) - 1, sum(s < -1 for s in slopes) - 1
    if n % 2:
        slope = slopes[(n + 1) // 2 + shift]
    else:
        slope = (slopes[n // 2 + shift] + slopes[n // 2 + 1 + shift]) / 2
    m1 = round((n - half_width) / 2)
    low, high = slopes[m1 + shift], slopes[n - m1 + 1 + shift]
    return slope, low, high, *(np.median(y - b * x) for b in (slope, high, low))


@pytest.mark.parametrize("rounded", [False, True])
def test_passing_bablok_equals_the_paper(rounded, rng) -> None:
    for n in (11, 14):
        x, y = measured(rng, n, noise=1.5)
        if rounded:
            x, y = np.round(x), np.round(y)
        half_width = 1.959963984540054 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
        found = passing_bablok(x, y)
        parts = (found.slope, found.slope_low, found.slope_high)
        parts += (found.intercept, found.intercept_low, found.intercept_high)
        assert parts == pytest.approx(naive_passing_bablok(x, y, half_width))


def test_exchanged_measurements_give_the_inverse_line(rng) -> None:
    x, y = measured(rng, 15, noise=1.0)  # 105 pairs: an odd number has one median
    one, other = passing_bablok(x, y), passing_bablok(y, x)
    assert other.slope == pytest.approx(1 / one.slope)
    assert (other.slope_low, other.slope_high) == pytest.approx(
        (1 / one.slope_high, 1 / one.slope_low)
    )
    assert deming(y, x).slope == pytest.approx(1 / deming(x, y).slope)


def test_outliers_move_deming_but_not_passing_bablok(rng) -> None:
    x, y = measured(rng, 41)
    spoilt = y.copy()
    spoilt[:2] += 60
    assert abs(passing_bablok(x, spoilt).slope - passing_bablok(x, y).slope) < 0.1
    assert abs(deming(x, spoilt).slope - deming(x, y).slope) > 1


@pytest.mark.parametrize("fit", [deming, passing_bablok])
def test_the_slope_is_covered(fit, rng) -> None:
    lines = [fit(*measured(rng, 30, slope=1.0, noise=0.5)) for _ in range(800)]
    covered = np.mean([line.slope_low <= 1 <= line.slope_high for line in lines])
    assert covered == pytest.approx(0.95, abs=0.025)


def test_cusum_finds_a_bend_and_no_more(rng) -> None:
    x = np.linspace(0, 10, 60)
    assert passing_bablok(x, x**2 + rng.normal(0, 1, 60)).p_linearity < 0.01
    p = [passing_bablok(*measured(rng, 40)).p_linearity for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) < 0.08


@pytest.mark.parametrize("fit", [deming, passing_bablok])
def test_what_cannot_be_had(fit) -> None:
    x = np.arange(6.0)
    with pytest.raises(ValueError, match="is constant"):
        fit(x, np.ones(6))
    with pytest.raises(ValueError, match="needs 4 subjects with both"):
        fit(x[:3], x[:3])
    with pytest.raises(ValueError, match="finite"):
        fit(x, np.where(x == 2, np.nan, x))


def test_measurements_that_do_not_grow_together() -> None:
    x = np.array([-1.0, 1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="do not vary together"):
        deming(x, np.array([1.0, 1.0, -1.0, -1.0]))
    with pytest.raises(ValueError, match="do not grow together"):
        passing_bablok(np.arange(6.0), -0.5 * np.arange(6.0))
    with pytest.raises(ValueError, match="do not grow together"):
        passing_bablok(np.arange(6.0), -3.0 * np.arange(6.0))
    with pytest.raises(ValueError, match="must be above 0"):
        deming(np.arange(6.0), np.arange(6.0), variance_ratio=0)

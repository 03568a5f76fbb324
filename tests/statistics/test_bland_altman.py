from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import statsmodels.api as sm

from bids_qsm.statistics.bland_altman import bland_altman

# Bland & Altman 1986, 10.1016/S0140-6736(86)90837-8: peak flow, large and mini meter
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_peak_flow_as_published() -> None:
    found = bland_altman(np.array(MINI), np.array(LARGE))
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert found.sd_difference == pytest.approx(38.8, abs=0.05)
    assert (found.bias_low, found.bias_high) == pytest.approx((-22.0, 17.8), abs=0.1)
    assert found.loa_upper - found.loa_lower == pytest.approx(2 * 1.96 * 38.765, abs=0.01)


def test_swapping_turns_the_signs() -> None:
    found = bland_altman(np.array(MINI), np.array(LARGE))
    swapped = bland_altman(np.array(LARGE), np.array(MINI))
    assert swapped.bias == -found.bias
    assert swapped.loa_upper_high == pytest.approx(-found.loa_lower_low)
    assert swapped.p_proportional == pytest.approx(found.p_proportional)


def test_the_slope_equals_a_regression(rng) -> None:
    truth = rng.normal(10, 2, 30)
    first, second = truth + rng.normal(0, 0.3, 30), 1.2 * truth + rng.normal(0, 0.3, 30)
    found = bland_altman(first, second, 0.9)
    fit = sm.OLS(second - first, sm.add_constant((first + second) / 2)).fit()
    assert found.proportional_slope == pytest.approx(fit.params[1])
    assert found.p_proportional == pytest.approx(fit.pvalues[1])
    limits = (found.proportional_slope_low, found.proportional_slope_high)
    assert limits == pytest.approx(tuple(fit.conf_int(0.1)[1]))


def test_limits_are_covered(rng) -> None:
    hits = 0
    for _ in range(1500):
        difference = rng.normal(0.5, 2, 12)
        found = bland_altman(np.zeros(12), difference)
        hits += found.loa_upper_low <= 0.5 + 1.96 * 2 <= found.loa_upper_high
    assert hits / 1500 == pytest.approx(0.95, abs=0.017)


def test_one_subject_and_equal_measurements() -> None:
    with pytest.raises(ValueError, match="two subjects or more, not 1"):
        bland_altman(np.ones(1), np.ones(1))
    found = asdict(bland_altman(np.arange(4.0), np.arange(4.0)))
    assert found["bias"] == found["loa_upper"] == found["loa_lower_low"] == 0

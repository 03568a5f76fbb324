from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from bids_qsm.statistics.power_simulation import simulate_trial
from bids_qsm.statistics.trials import (
    Trial,
    endpoint,
    trial_detectable,
    trial_power,
    trial_sample_size,
    trial_table,
    variance_factor,
)

ONCE = Trial(measurements=1, alpha=0.05)


def test_the_formula_by_hand() -> None:
    trial = Trial(measurements=2, correlation=0.8, alpha=0.1)
    of = endpoint("mean", 7.93, 0.7 * 7.93, trial, sd=12)
    z = stats.norm.isf(0.05) + stats.norm.isf(0.1)
    by_hand = 2 * z**2 * 12**2 * (1 + 0.8) / 2 / (0.3 * 7.93) ** 2
    assert trial_sample_size(of, trial) == (np.ceil(by_hand),) * 2
    share = endpoint("share", 0.62, 0.31, trial)
    pooled = stats.norm.isf(0.05) * np.sqrt(2 * 0.465 * 0.535)
    own = stats.norm.isf(0.1) * np.sqrt(0.62 * 0.38 + 0.31 * 0.69)
    assert trial_sample_size(share, trial)[0] == np.ceil(0.9 * (pooled + own) ** 2 / 0.31**2)


def test_single_measurements_equal_statsmodels() -> None:
    share = endpoint("share", 0.31, 0.2, ONCE)
    expected = power_proportions_2indep(0.31 - 0.2, 0.2, 120, ratio=1, alpha=0.05).power
    assert trial_power(120, share, ONCE) == pytest.approx(expected, abs=2e-4)  # + the other tail
    mean = endpoint("mean", 1.0, 0.6, ONCE, sd=0.8)
    expected = TTestIndPower().power(0.5, 40, 0.05, alternative="two-sided")
    assert trial_power(40, mean, ONCE, method="t") == pytest.approx(expected, abs=1e-4)


def test_repeats_of_nothing_new_do_not_help() -> None:
    of = endpoint("mean", 1.0, 0.5, ONCE)
    wholly = Trial(measurements=5, correlation=1.0, alpha=0.05)
    assert trial_sample_size(of, wholly) == trial_sample_size(of, ONCE)
    apart = Trial(measurements=5, correlation=0.0, alpha=0.05)
    assert trial_power(20, of, apart) == pytest.approx(trial_power(100, of, ONCE))


def test_a_rate_depends_on_time_not_on_how_it_is_cut() -> None:
    cuts = [Trial(measurements=k, correlation=0.0, years=2.0) for k in (1, 2, 8)]
    sizes = {trial_sample_size(endpoint("rate", 0.3, 0.2, t), t) for t in cuts}
    assert len(sizes) == 1
    longer = Trial(measurements=2, correlation=0.0, years=4.0)
    half = trial_sample_size(endpoint("rate", 0.3, 0.2, longer), longer)[0]
    assert half == pytest.approx(sizes.pop()[0] / 2, abs=1)


@pytest.mark.parametrize("trial", [Trial(), Trial(4, 0.3, ratio=2.0), Trial(3, 0.0, 0.05, False)])
@pytest.mark.parametrize(("kind", "control"), [("mean", 1.0), ("share", 0.5), ("rate", 0.8)])
def test_the_formulas_by_monte_carlo(kind, control, trial) -> None:
    of = endpoint(kind, control, 0.7 * control, trial, sd=0.7)
    n_a, _ = trial_sample_size(of, trial)
    found = simulate_trial(kind, n_a, of, trial, simulations=5000, seed=2)
    # for events the normal distribution of the formula is itself not exact
    slack = 0.0 if kind == "mean" else 0.01
    assert found.power == pytest.approx(trial_power(n_a, of, trial), abs=slack + 3 * found.power_se)


def test_without_an_effect_alpha_is_kept() -> None:
    for kind in ("mean", "share", "rate"):
        of = endpoint(kind, 0.4, 0.4 - 1e-12, Trial())
        found = simulate_trial(kind, 100, of, Trial(), simulations=5000, seed=4)
        assert found.power == pytest.approx(0.05, abs=0.012)  # one of two sides of 0.1


def test_baselines_by_monte_carlo() -> None:
    trial = Trial(measurements=3, correlation=0.6, ratio=0.5, baselines=2)
    factor = (1 + 2 * 0.6) / 3 - 2 * 0.36 / 1.6
    assert variance_factor(trial) == pytest.approx(factor)
    of = endpoint("mean", 1.0, 0.5, trial, sd=0.7)
    for method in ("normal", "t"):
        n_a, _ = trial_sample_size(of, trial, method=method)
        found = simulate_trial("mean", n_a, of, trial, method=method, simulations=10_000, seed=1)
        expected = trial_power(n_a, of, trial, method=method)
        assert found.power == pytest.approx(expected, abs=0.003 + 3 * found.power_se)


@pytest.mark.parametrize(("kind", "control"), [("mean", 1.0), ("share", 0.5), ("rate", 0.8)])
def test_the_detectable_reduction_is_found(kind, control) -> None:
    trial = Trial(ratio=1.5)
    share = trial_detectable(kind, 150, trial, control=control, sd=0.7)
    of = endpoint(kind, control, control * (1 - share), trial, sd=0.7)
    assert trial_power(150, of, trial) == pytest.approx(0.9)


def test_the_table_of_effects() -> None:
    found = trial_table("share", controls=[0.31, 0.62], dropout=0.1)
    assert found["reduction_percent"].tolist() == [20, 30, 50] * 2
    assert (found["alpha"] == 0.1).all()
    assert (found["correlation"] == 0.8).all()
    assert found["n_a"].tolist() == [805, 345, 113, 246, 110, 39]
    assert found["n_enrolled"].tolist()[5] == 2 * 44  # 39 / 0.9 = 43.3 in each arm
    assert (found["power_reached"] >= 0.9).all()
    mean = trial_table("mean", controls=[7.93], sd=12, trials=[Trial(), Trial(baselines=1)])
    assert (mean["n_a_t"] >= mean["n_a"]).all()
    assert (mean["n_a"][3:].to_numpy() < mean["n_a"][:3].to_numpy() / 3).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Trial(measurements=0), "one measurement or more"),
        (lambda: Trial(measurements=3, correlation=-0.6), "lies between -0.5 and 1"),
        (lambda: Trial(correlation=1.1), "correlation is 1.1"),
        (lambda: Trial(alpha=10), "alpha is 10"),
        (lambda: Trial(years=0), "follow-up must be above 0 years"),
        (lambda: Trial(ratio=0), "ratio of group sizes"),
        (lambda: endpoint("hazard", 1, 2, Trial()), "no endpoint 'hazard'; there are: share"),
        (lambda: endpoint("rate", -0.1, 0.2, Trial()), "rates are not negative: -0.1"),
        (lambda: endpoint("share", 1.1, 0.2, Trial()), "shares lie between 0 and 1, not 1.1"),
        (lambda: endpoint("mean", 1, 0.2, Trial(), sd=0), "SD must be above 0"),
        (lambda: endpoint("mean", 1, 1, Trial()), "no effect to find"),
        (lambda: endpoint("share", 0.5, 0.2, Trial(baselines=1)), "only means can be adjusted"),
        (lambda: trial_table("share", controls=[0.5], powers=[1.0]), "power must lie between"),
        (lambda: trial_table("share", controls=[0.5], dropout=1.0), "share of dropouts"),
        (lambda: trial_detectable("share", 3, Trial(), control=0.1), "no effect up to 1 is found"),
        (
            lambda: trial_power(9, endpoint("share", 0.5, 0.2, ONCE), ONCE, method="t"),
            "the t method is for means",
        ),
        (
            lambda: simulate_trial(
                "rate", 9, endpoint("rate", 1, 0.5, Trial()), Trial(correlation=-0.1)
            ),
            "correlations from 0 to below 1",
        ),
    ],
)
def test_bad_requests_are_refused(call, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()

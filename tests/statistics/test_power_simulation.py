from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.statistics import power_simulation
from bids_qsm.statistics.power_simulation import simulate_correlation, simulate_trial
from bids_qsm.statistics.trials import Trial, endpoint, variance_factor


@pytest.mark.parametrize("trial", [Trial(), Trial(5, 0.3, years=1.0), Trial(3, 0.0)])
@pytest.mark.parametrize(("kind", "value"), [("mean", 3.0), ("share", 0.3), ("rate", 0.7)])
def test_patients_have_the_variance_of_the_formula(kind, value, trial, rng) -> None:
    of = endpoint(kind, value, value / 2, trial, sd=1.7)
    drawn = power_simulation._patients(kind, value, of.variance_a, trial, (400, 500), rng)[0]
    assert drawn.mean() == pytest.approx(value, rel=0.02)
    assert drawn.var() == pytest.approx(of.variance_a * variance_factor(trial), rel=0.03)


def test_baselines_are_correlated_with_what_follows(rng) -> None:
    trial = Trial(3, 0.6, baselines=2)
    after, before = power_simulation._patients("mean", 0.0, 1.0, trial, (400, 500), rng)
    assert before.var() == pytest.approx((1 + 0.6) / 2, rel=0.02)
    assert np.mean(after * before) == pytest.approx(0.6, rel=0.02)


def test_a_seed_gives_one_answer_in_pieces_of_any_size(monkeypatch) -> None:
    found = simulate_correlation(20, 0.5, simulations=4000, seed=9)
    assert found == simulate_correlation(20, 0.5, simulations=4000, seed=9)
    assert found.power_se == pytest.approx(np.sqrt(found.power * (1 - found.power) / 4000))
    monkeypatch.setattr(power_simulation, "DRAWS_AT_ONCE", 10_000)
    pieces = simulate_correlation(20, 0.5, simulations=4000, seed=9)
    assert pieces.simulations == 4000
    assert pieces.power == pytest.approx(found.power, abs=4 * found.power_se)


def test_correlations_that_cannot_be_drawn() -> None:
    trial = Trial(correlation=1.0)
    of = endpoint("share", 0.5, 0.2, trial)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        simulate_trial("share", 10, of, trial)

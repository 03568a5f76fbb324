from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from bids_qsm.statistics.power import (
    METHODS,
    correlation_detectable,
    correlation_power,
    correlation_sample_size,
    paired_detectable,
    paired_power,
    paired_sample_size,
    sample_size_table,
    two_sample_detectable,
    two_sample_power,
    two_sample_sample_size,
)
from bids_qsm.statistics.power_simulation import (
    simulate_correlation,
    simulate_paired,
    simulate_two_sample,
)

PUBLISHED = {"exact": 97, "fisher_z_corrected": 97, "fisher_z": 98, "regression": 95}


def test_a_correlation_of_28_hundredths() -> None:
    sizes = {m: correlation_sample_size(0.28, method=m) for m in METHODS}
    assert sizes == PUBLISHED
    # Fisher's formula by hand: ((1.96 + 0.8416) / artanh 0.28)^2 + 3
    assert ((1.959964 + 0.841621) / np.arctanh(0.28)) ** 2 + 3 == pytest.approx(97.84, abs=0.01)


def test_sizes_that_tables_give() -> None:
    # Hulley et al., Designing clinical research, table 6C (Fisher z); Cohen 1988, table 2.4.1
    assert correlation_sample_size(0.3, method="fisher_z") == 85
    assert correlation_sample_size(0.5, method="fisher_z") == 30
    assert [two_sample_sample_size(d)[0] for d in (0.2, 0.5, 0.8)] == [394, 64, 26]
    assert paired_sample_size(0.5) == 34


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(("n_a", "n_b", "effect"), [(37, 37, 0.5), (10, 25, -0.9), (4, 3, 1.2)])
def test_t_tests_equal_statsmodels(two_sided, n_a, n_b, effect) -> None:
    side = "two-sided" if two_sided else "larger"
    expected = TTestIndPower().power(abs(effect), n_a, 0.05, n_b / n_a, alternative=side)
    found = two_sample_power(n_a, effect, n_b=n_b, two_sided=two_sided)
    assert found == pytest.approx(expected, abs=1e-10)
    expected = TTestPower().power(abs(effect), n_a, 0.05, alternative=side)
    assert paired_power(n_a, effect, two_sided=two_sided) == pytest.approx(expected, abs=1e-10)


def test_pairs_with_a_correlation() -> None:
    expected = paired_power(20, 0.3 / np.sqrt(0.4))
    assert paired_power(20, 0.3, correlation=0.8) == pytest.approx(expected)
    assert paired_sample_size(0.5, correlation=0.5) == paired_sample_size(0.5)


def test_the_size_is_the_least_and_the_effect_is_found() -> None:
    n = correlation_sample_size(0.28, power=0.9, alpha=0.01)
    options = {"alpha": 0.01}
    assert correlation_power(n, 0.28, **options) >= 0.9 > correlation_power(n - 1, 0.28, **options)
    assert correlation_power(n, correlation_detectable(n, power=0.9, **options), **options) == (
        pytest.approx(0.9)
    )
    n_a, n_b = two_sample_sample_size(0.6, ratio=2.5)
    assert n_b == np.ceil(2.5 * n_a)
    assert two_sample_power(n_a, two_sample_detectable(n_a, n_b=n_b), n_b=n_b) == (
        pytest.approx(0.8)
    )
    assert paired_power(16, paired_detectable(16)) == pytest.approx(0.8)


@pytest.mark.parametrize(("n", "r"), [(4, 0.8), (12, 0.5), (97, 0.28), (40, -0.4)])
@pytest.mark.parametrize("two_sided", [True, False])
def test_the_exact_correlation_by_monte_carlo(n, r, two_sided) -> None:
    found = simulate_correlation(n, r, two_sided=two_sided, simulations=30_000, seed=3)
    expected = correlation_power(n, r, two_sided=two_sided)
    assert found.power == pytest.approx(expected, abs=3.5 * found.power_se)


def test_t_tests_by_monte_carlo() -> None:
    found = simulate_two_sample(12, 0.9, n_b=30, alpha=0.1, seed=5)
    expected = two_sample_power(12, 0.9, n_b=30, alpha=0.1)
    assert found.power == pytest.approx(expected, abs=3.5 * found.power_se)
    found = simulate_paired(14, 0.4, correlation=0.8, seed=6)
    expected = paired_power(14, 0.4, correlation=0.8)
    assert found.power == pytest.approx(expected, abs=3.5 * found.power_se)
    assert found == simulate_paired(14, 0.4, correlation=0.8, seed=6)
    assert found.power != simulate_paired(14, 0.4, correlation=0.8, seed=8).power


def test_the_power_of_nothing_is_alpha() -> None:
    for method in METHODS:
        assert correlation_power(50, 1e-7, method=method) == pytest.approx(0.05, abs=1e-4)
    assert two_sample_power(9, 1e-9) == pytest.approx(0.05)


def test_tables() -> None:
    found = sample_size_table("correlation", [0.28, 0.5], powers=[0.8])
    assert found["n_total"].tolist()[:4] == [PUBLISHED[m] for m in METHODS]
    assert (found["power_reached"] >= 0.8).all()
    groups = sample_size_table("two_sample", [0.5], alphas=[0.05, 0.1], ratio=2)
    assert (groups["n_b"] == 2 * groups["n_a"]).all()
    assert len(groups) == 4
    assert sample_size_table("paired", [0.5], powers=[0.8])["n_total"].tolist() == [34]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: correlation_power(3, 0.5), "four subjects or more, not 3"),
        (lambda: correlation_power(30, 0.0), "between -1 and 1 and not be 0: 0"),
        (lambda: correlation_power(30, 1.2), "between -1 and 1 and not be 0: 1.2"),
        (lambda: correlation_power(30, 0.2, method="z"), "no method 'z'; there are: exact"),
        (lambda: correlation_sample_size(0.2, power=1.0), "power must lie between alpha"),
        (lambda: correlation_sample_size(0.2, alpha=5), "alpha is 5: give a share"),
        (lambda: two_sample_sample_size(0.0), "effect must be a number other than 0"),
        (lambda: two_sample_sample_size(0.5, ratio=-1), "ratio of group sizes must be above 0"),
        (lambda: two_sample_sample_size(1e-9), "100 million subjects"),
        (lambda: paired_power(1, 0.5), "two pairs or more, not 1"),
        (lambda: paired_power(9, 0.5, correlation=1.0), "within pairs must be below 1"),
        (lambda: sample_size_table("anova", [0.5]), "no design 'anova'; there are: correlation"),
        (lambda: simulate_paired(9, 0.5, simulations=5), "100 simulations or more, not 5"),
    ],
)
def test_bad_requests_are_refused(call, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()

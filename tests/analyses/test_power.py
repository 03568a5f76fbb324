from __future__ import annotations

import math

import pytest

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.tiny import made, table_of


def test_sample_sizes_of_a_correlation_of_028(cohort: Cohort) -> None:
    result = made(cohort, "power")
    table = table_of(result, "sample-sizes")
    at_80 = table[table["power"] == 0.8].set_index("method")["n_total"]
    assert at_80.to_dict() == {
        "exact": 97, "fisher_z_corrected": 97, "fisher_z": 98, "regression": 95,
    }  # fmt: skip
    assert [chart.name for chart in result.charts] == ["power"]


@pytest.mark.parametrize(
    ("design", "n_a"),
    [("two_sample", 64), ("paired", 34)],  # G*Power: d = .5, two-sided .05, power .8
)
def test_sample_sizes_of_means(cohort: Cohort, design: str, n_a: int) -> None:
    words = {"design": design, "effects": [0.5], "powers": [0.8]}
    table = table_of(made(cohort, "power", **words), "sample-sizes")
    assert table["n_a"].iloc[0] == n_a


def test_simulated_power_is_that_of_the_formula(cohort: Cohort) -> None:
    words = {"design": "paired", "effects": [0.8], "powers": [0.9], "simulate": True}
    table = table_of(made(cohort, "power", **words), "sample-sizes")
    row = table.iloc[0]
    assert row["power_simulated"] == pytest.approx(row["power_reached"], abs=0.01)


def test_trial_sizes_are_those_of_the_formula(cohort: Cohort) -> None:
    words = {"controls": [0.3], "reductions": [0.5], "powers": [0.9], "measurements": 2}
    row = table_of(made(cohort, "trial", **words), "sample-sizes").iloc[0]
    # Diggle: (z.95 sqrt(2 p q) + z.9 sqrt(p1 q1 + p2 q2))^2 (1 + (m - 1) rho) / m / (p1 - p2)^2
    z = 1.6448536 * (2 * 0.225 * 0.775) ** 0.5 + 1.2815516 * (0.3 * 0.7 + 0.15 * 0.85) ** 0.5
    assert row["n_a"] == math.ceil(z**2 * (1 + 0.8) / 2 / 0.15**2) == 118
    lossy = table_of(made(cohort, "trial", **words, dropout=0.2), "sample-sizes").iloc[0]
    assert lossy["n_enrolled"] == pytest.approx(row["n_total"] / 0.8, abs=2)


def test_trial_of_means_and_its_simulation(cohort: Cohort) -> None:
    words = {"endpoint_kind": "mean", "controls": [1.0], "reductions": [0.5], "sd": 1.0}
    table = table_of(made(cohort, "trial", **words, simulate=True), "sample-sizes")
    row = table.iloc[0]
    assert row["power_simulated"] == pytest.approx(row["power_reached"], abs=0.015)


@pytest.mark.parametrize(
    ("kind", "words", "sentence"),
    [
        ("power", {"design": "crossed"}, "crossed"),
        ("power", {"effects": [1.5]}, "1.5"),
        ("power", {"effects": []}, "effects"),
        ("power", {"powers": []}, "powers"),
        ("power", {"alphas": []}, "alphas"),
        ("power", {"powers": [1.0]}, "power"),
        ("power", {"effects": [0.0]}, "0"),
        ("trial", {"endpoint_kind": "median"}, "median"),
        ("trial", {"controls": [1.3]}, "1.3"),
        ("trial", {"correlation": 2.0}, "correlation"),
        ("trial", {"controls": []}, "controls"),
        ("trial", {"powers": []}, "powers"),
        ("trial", {"reductions": [0.0]}, "no effect to find"),
        ("trial", {"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(cohort: Cohort, kind, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        made(cohort, kind, **words)
    assert "\n" not in str(caught.value)

from __future__ import annotations

import math

import pytest

from bids_qsm.report.numbers import (
    common_decimals,
    interval_text,
    number_text,
    p_statement,
    p_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (37, "37"),
        (-12.0, "−12"),
        (0.045612, "0.0456"),
        (-28.64, "−28.6"),
        (171.9, "172"),
        (1234.5, "1234"),
        (0.00001234, "1.23×10⁻⁵"),
        (12345678.0, "1.23×10⁷"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1.000"),
        (0.0234, "0.023"),
        (0.00096, "0.001"),
        (0.00052, "0.0005"),
        (0.000042, "0.00004"),
        (0.000009, "< 0.00001"),
        (0.0, "< 0.00001"),
        (math.nan, "–"),
    ],
)
def test_p(p: float, text: str) -> None:
    assert p_text(p) == text


def test_p_in_a_sentence() -> None:
    assert p_statement(0.012) == "p = 0.012"
    assert p_statement(1e-9) == "p < 0.00001"


def test_intervals_have_the_decimals_that_are_asked_for() -> None:
    assert common_decimals([0.1, -21.3, math.nan]) == 1
    assert common_decimals([0.00213]) == 5
    assert common_decimals([5000.0]) == 0
    assert common_decimals([0.0, math.nan]) == 0
    assert interval_text(-1.26, 2.0, 1) == "[−1.3, 2.0]"

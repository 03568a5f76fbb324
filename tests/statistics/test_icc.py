from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.statistics.icc import icc, interval, intraclass, mean_squares

# Shrout & Fleiss 1979, table 2: six targets, four judges
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
SCANS = [
    [0.0912, 0.0940],
    [0.0783, 0.0768],
    [0.1127, 0.1111],
    [0.0655, 0.0691],
    [0.1034, 0.1029],
    [0.0871, 0.0902],
    [0.1210, 0.1188],
    [0.0590, 0.0603],
]
# pingouin 0.7.0 on the same data: ICC(1,1), (2,1), (3,1) with low, high, F and p
PINGOUIN = [
    (
        JUDGES,
        [
            (0.1657417684054755, -0.132932324875, 0.722560062328, 1.79467848, 0.16476880834),
            (0.28976377952755916, 0.018786513375, 0.761084369649, 11.0272479, 0.00013456651648),
            (0.7148407148407154, 0.342464765034, 0.945858259955, 11.0272479, 0.00013456651648),
        ],
    ),
    (
        SCANS,
        [
            (0.994177140881106, 0.973898960761, 0.998808741116, 342.473877551, 2.85182859578e-9),
            (0.9941761604495531, 0.973458457731, 0.998812569551, 323.753440514, 2.99964967448e-8),
            (0.9938414817196963, 0.96961256704, 0.998763996996, 323.753440514, 2.99964967448e-8),
        ],
    ),
]


@pytest.mark.parametrize(("values", "expected"), PINGOUIN)
def test_equals_pingouin(values, expected) -> None:
    found = icc(values)
    assert found["kind"].tolist() == ["ICC(1,1)", "ICC(2,1)", "ICC(3,1)"]
    columns = ["icc", "icc_low", "icc_high", "f", "p"]
    np.testing.assert_allclose(found[columns], expected, rtol=1e-8, atol=1e-11)


def test_as_published() -> None:
    assert icc(JUDGES)["icc"].round(2).tolist() == [0.17, 0.29, 0.71]


def test_a_shift_costs_agreement_but_not_consistency() -> None:
    first = np.array([1.0, 2.0, 4.0, 7.0])
    found = icc(np.column_stack([first, first + 3])).set_index("kind")
    assert found.loc["ICC(3,1)", ["icc", "icc_low", "icc_high"]].tolist() == [1, 1, 1]
    assert found.loc["ICC(2,1)", "icc"] < 0.7
    same = icc(np.column_stack([first, first]))
    assert (same[["icc", "icc_low", "icc_high"]] == 1).all(axis=None)


def test_many_cases_at_once_equal_single_ones(rng) -> None:
    values = rng.normal(0, 1, (9, 3, 5)) + 2 * rng.normal(0, 1, (9, 1, 5))
    values[2, 1, 4] = np.nan
    squares = mean_squares(values)
    for kind in ("1_1", "2_1", "3_1"):
        low, high = interval(squares, kind, 0.9)
        for case in range(5):
            one = icc(values[:, :, case], 0.9).set_index("kind").loc[f"ICC({kind[0]},1)"]
            assert intraclass(squares, kind)[case] == pytest.approx(one["icc"], rel=1e-12)
            assert low[case] == pytest.approx(one["icc_low"], rel=1e-9)
            assert high[case] == pytest.approx(one["icc_high"], rel=1e-9)
    assert squares.n.tolist() == [9, 9, 9, 9, 8]


@pytest.mark.parametrize(("kind", "shift_sd"), [("1_1", 0.0), ("2_1", 0.6), ("3_1", 0.6)])
def test_intervals_cover_the_truth(kind, shift_sd, rng) -> None:
    cases, n, k = 4000, 15, 4
    subjects, errors = rng.normal(0, 1, (n, 1, cases)), rng.normal(0, 0.7, (n, k, cases))
    squares = mean_squares(subjects + errors + shift_sd * rng.normal(0, 1, (1, k, cases)))
    shift = shift_sd**2 if kind == "2_1" else 0
    truth = 1 / (1 + 0.7**2 + shift)
    low, high = interval(squares, kind)
    # that of agreement is an approximation (Satterthwaite)
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.015)


def test_what_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="two subjects with all measurements, not 1"):
        icc([[1.0, 2.0], [np.nan, 3.0]])
    with pytest.raises(ValueError, match="two measurements of each"):
        icc([[1.0], [2.0]])
    assert icc(np.ones((4, 2)))["icc"].isna().all()

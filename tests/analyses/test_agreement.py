from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.tiny import made, table_of

PAIR = {"first": "left_putamen_Chimap", "second": "right_putamen_Chimap"}


def test_bias_limits_and_shares_are_as_by_hand(cohort: Cohort) -> None:
    result = made(cohort, "agreement", **PAIR, tolerances=[1.0, 3.0], units="ppb")
    d = (cohort.scans[PAIR["second"]] - cohort.scans[PAIR["first"]]).to_numpy()
    (row,) = table_of(result, "agreement").itertuples()
    assert row.n == 32
    assert row.bias == pytest.approx(d.mean(), rel=1e-8)
    assert row.loa_upper == pytest.approx(d.mean() + 1.96 * d.std(ddof=1), rel=1e-3)
    r = np.corrcoef(cohort.scans[[*PAIR.values()]].T)[0, 1]
    assert row.pearson_r == pytest.approx(r, rel=1e-8)
    shares = table_of(result, "shares")
    for tolerance in (1.0, 3.0):
        share = shares.loc[shares["tolerance"] == tolerance, "share"].iloc[0]
        assert share == pytest.approx((np.abs(d) <= tolerance).mean())
    assert [c.name for c in result.charts] == ["bland-altman", "lines", "tolerances"]


def test_without_tolerances_there_is_no_chart_of_shares(cohort: Cohort) -> None:
    result = made(cohort, "agreement", **PAIR, tolerances=[])
    assert [c.name for c in result.charts] == ["bland-altman", "lines"]


def test_levels_are_compared_apart_and_gaps_are_said(cohort: Cohort) -> None:
    apart = made(cohort, "agreement", **PAIR, by=["group"])
    table = table_of(apart, "agreement").set_index("group")
    patient = cohort.scans.query("group == 'patient'")
    d = patient[PAIR["second"]] - patient[PAIR["first"]]
    assert table.loc["patient", "bias"] == pytest.approx(d.mean(), rel=1e-8)
    assert table.loc["control", "n"] == 16
    gaps = made(cohort, "agreement", first="edss", second="age")
    assert any(note.startswith("16 scans left out for want of one") for note in gaps.notes)
    assert table_of(gaps, "agreement")["n"].tolist() == [16]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"first": "age"}, "needs 'first' and 'second'"),
        ({"first": "age", "second": "agee"}, "'agee'"),
        ({"first": "age", "second": "sex"}, "'sex'"),
        ({**PAIR, "by": ["grupo"]}, "'grupo'"),
        ({**PAIR, "tolerances": [-1.0]}, "tolerance"),
        ({**PAIR, "normalise": "log"}, "'log'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(cohort, "agreement", **words)

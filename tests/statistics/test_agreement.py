from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.agreement import agreement, concordance
from bids_qsm.statistics.bland_altman import bland_altman
from bids_qsm.statistics.deming import deming, passing_bablok
from bids_qsm.statistics.icc import icc


@pytest.fixture
def spans(rng) -> pd.DataFrame:
    """Span of a nucleus in mm, by image and by electrode, on two sides."""
    truth = rng.normal(5.5, 1, 60)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i // 2:02d}" for i in range(60)],
            "side": ["L", "R"] * 30,
            "qsm_mm": truth + rng.normal(0, 0.4, 60),
            "mer_mm": truth + 0.3 + rng.normal(0, 0.5, 60),
        }
    )


def test_each_group_has_what_the_functions_give(spans) -> None:
    spans.loc[4, "mer_mm"] = np.nan
    found = agreement(spans, "qsm_mm", "mer_mm", by=["side"], variance_ratio=1.5)
    assert found.table["side"].tolist() == ["L", "R"]
    assert found.table["n"].tolist() == [29, 30]
    assert found.table["n_left_out"].tolist() == [1, 0]
    assert found.left_out[["participant_id", "reason"]].values.tolist() == [["sub-02", "no mer_mm"]]
    right = spans[spans["side"] == "R"]
    x, y = right["qsm_mm"].to_numpy(), right["mer_mm"].to_numpy()
    row = found.table.iloc[1]
    assert row["bias_low"] == bland_altman(x, y).bias_low
    assert row["deming_slope_high"] == deming(x, y, variance_ratio=1.5).slope_high
    assert row["passing_bablok_intercept"] == passing_bablok(x, y).intercept
    assert row["passing_bablok_p_linearity"] == passing_bablok(x, y).p_linearity
    assert row["icc_2_1"] == pytest.approx(icc(np.column_stack([x, y]))["icc"][1])
    assert row["pearson_r"] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_shares_within_tolerances(spans) -> None:
    shares = agreement(spans, "qsm_mm", "mer_mm").shares
    difference = (spans["mer_mm"] - spans["qsm_mm"]).abs()
    assert shares["tolerance"].tolist() == [0.1, 0.5, 1, 2]
    assert shares["n_within"].tolist() == [(difference <= t).sum() for t in (0.1, 0.5, 1, 2)]
    assert ((shares["share_low"] < shares["share"]) & (shares["share"] <= 1)).all()
    decimals = pd.DataFrame({"a": [0.2, 0.7, 1.0, 5.0], "b": [0.3, 0.8, 1.1, 9.0]})
    within = agreement(decimals, "a", "b", tolerances=[0.1]).shares
    assert within["n_within"].tolist() == [3]  # 0.3 - 0.2 is within 0.1, also in binary


def test_normalised_values(spans) -> None:
    by_mean = agreement(spans, "qsm_mm", "mer_mm", normalise="mean").table.iloc[0]
    assert by_mean["bias"] == pytest.approx(0, abs=1e-12)
    assert by_mean["mean_first"] == pytest.approx(1)
    z = agreement(spans, "qsm_mm", "mer_mm", normalise="z").table.iloc[0]
    plain = agreement(spans, "qsm_mm", "mer_mm").table.iloc[0]
    assert z["concordance"] == pytest.approx(plain["pearson_r"])
    assert z["deming_slope"] == pytest.approx(1)


def test_concordance_as_defined_and_as_published() -> None:
    # Bland & Altman 1986, peak flow; concordance by Lin's definition with moments over n
    large = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178.0])
    mini = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259.0])
    found = concordance(large, mini)
    covariance = np.cov(large, mini, ddof=0)
    spread = np.trace(covariance) + (large.mean() - mini.mean()) ** 2
    assert found["concordance"] == pytest.approx(2 * covariance[0, 1] / spread)
    r = np.corrcoef(large, mini)[0, 1]
    assert found["concordance"] == pytest.approx(r * found["concordance_accuracy"])
    same = concordance(large, large)
    assert (same["concordance"], same["concordance_low"]) == pytest.approx((1, 1))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.3), (-0.8, 0.8)])
def test_concordance_is_covered(shift, scale, rng) -> None:
    r, hits = 0.8, 0
    truth = 2 * r * scale / (1 + scale**2 + shift**2)
    for _ in range(2000):
        x = rng.normal(size=60)
        y = shift + scale * (r * x + 0.6 * rng.normal(size=60))
        found = concordance(x, y)
        hits += found["concordance_low"] <= truth <= found["concordance_high"]
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_group_that_cannot_be_compared_is_noted(spans) -> None:
    spans.loc[spans["side"] == "R", "mer_mm"] = 3.0
    extra = pd.DataFrame({"participant_id": ["sub-90"], "side": ["B"], "qsm_mm": [1.0]})
    found = agreement(pd.concat([spans, extra]), "qsm_mm", "mer_mm", by=["side"])
    assert found.table["note"].tolist() == [
        "",
        "one of the measurements is constant: no line can be found.",
        "fewer than 4 rows with both",
    ]
    assert found.table["deming_slope"].isna().tolist() == [False, True, True]
    assert found.shares["n"].tolist() == [30] * 8 + [0] * 4


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        (("qsm_mm", "ct_mm"), {}, "there is no column 'ct_mm'; there are: participant_id, side"),
        (("qsm_mm", "side"), {}, "'side' must hold numbers"),
        (("qsm_mm", "qsm_mm"), {}, "compared with itself"),
        (("qsm_mm", "mer_mm"), {"tolerances": [0.0]}, "tolerances must be above 0"),
        (("qsm_mm", "mer_mm"), {"normalise": "sd"}, "one of none, mean, z, not 'sd'"),
        (("qsm_mm", "mer_mm"), {"by": ["atlas"]}, "there is no column 'atlas'"),
        (("qsm_mm", "mer_mm"), {"confidence": 95}, "a share such as 0.95"),
    ],
)
def test_bad_requests_are_refused(columns, options, sentence, spans) -> None:
    with pytest.raises(ValueError, match=sentence):
        agreement(spans, *columns, **options)
    with pytest.raises(ValueError, match="needs 4 rows with both"):
        agreement(spans[:3], "qsm_mm", "mer_mm")

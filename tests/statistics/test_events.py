from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from bids_qsm.statistics.events import ANY, event_agreement, event_rates


@pytest.fixture
def epochs() -> pd.DataFrame:
    """Sixteen patients as in the published cohort: 22 years, 5 with an event, 10 over 6 %."""
    years = np.r_[np.ones(10), np.full(6, 2.0)]
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(16)],
            "years": years,
            "exceeds_threshold": np.arange(16) < 10,
            "bleeding": (np.arange(16) < 3).astype(float),
            "growth": np.isin(np.arange(16), [3, 4]) * 2,
        }
    )


def test_the_published_cohort(epochs) -> None:
    found = event_agreement(epochs, ["bleeding", "growth"]).set_index("event")
    row = found.loc[ANY]
    counts = row[["n_both", "n_event_only", "n_threshold_only", "n_neither"]]
    assert counts.tolist() == [5, 0, 5, 6]
    assert row["sensitivity"] == 1  # no event without a rise
    assert row["specificity"] == pytest.approx(6 / 11)
    assert row["positive_predictive"] == 0.5
    assert row["p_fisher"] == pytest.approx(stats.fisher_exact([[5, 5], [0, 6]]).pvalue)
    assert row["sensitivity_low"] == pytest.approx(0.566, abs=0.001)  # Wilson, 5 of 5
    kappa = cohens_kappa(np.array([[5, 5], [0, 6]]))
    assert row["kappa"] == pytest.approx(kappa.kappa)
    assert (row["kappa_low"], row["kappa_high"]) == pytest.approx(
        (kappa.kappa_low, kappa.kappa_upp)
    )
    assert found.loc["bleeding", "n_both"] == 3


def test_rates_per_patient_year(epochs) -> None:
    found = event_rates(epochs, ["bleeding", "growth"]).set_index("event")
    assert (found["patient_years"] == 22).all()
    assert found.loc["threshold", "rate_per_year"] == pytest.approx(10 / 22)
    assert found.loc["threshold", "share_subjects"] == pytest.approx(0.625)  # published: 62 %
    assert found.loc["growth", "n_events"] == 4
    assert found.loc["growth", "n_subjects_with"] == 2
    assert found.loc[ANY, "share_subjects"] == pytest.approx(5 / 16)  # published: 31 %
    high = stats.chi2.ppf(0.975, 2 * 11) / 2 / 22
    assert found.loc["threshold", "rate_per_year_high"] == pytest.approx(high)
    assert event_rates(epochs)["event"].tolist() == ["threshold"]


def test_what_is_not_known_is_left_out_and_counted(epochs) -> None:
    epochs["exceeds_threshold"] = epochs["exceeds_threshold"].astype(object)
    epochs.loc[15, "exceeds_threshold"] = np.nan
    epochs.loc[[0, 9], "bleeding"] = np.nan
    epochs.loc[0, "growth"] = 1
    found = event_agreement(epochs, ["bleeding", "growth"]).set_index("event")
    assert found["n_unknown"].to_dict() == {"bleeding": 3, "growth": 1, ANY: 2}
    assert found.loc[ANY, "n_both"] == 5  # growth is known at sub-00, and so that there was any
    rates = event_rates(epochs, ["bleeding"]).set_index("event")
    assert rates.loc["threshold", "patient_years"] == 20
    assert rates.loc["bleeding", "n_unknown"] == 2


def test_structures_stand_apart(epochs) -> None:
    two = pd.concat([epochs.assign(name="a"), epochs.assign(name="b", exceeds_threshold=False)])
    found = event_agreement(two, ["bleeding"])
    assert found["name"].tolist() == ["a", "b"]
    assert found["sensitivity"].tolist() == [1, 0]
    assert found["kappa"].tolist()[1] == 0
    assert event_rates(two)["n_events"].tolist() == [10, 0]
    assert event_rates(two)["rate_per_year_low"].tolist()[1] == 0


def test_nothing_happened(epochs) -> None:
    row = event_agreement(epochs.assign(bleeding=0, exceeds_threshold=False), ["bleeding"]).iloc[0]
    assert np.isnan(row["sensitivity"])
    assert np.isnan(row["kappa"])
    assert row["specificity"] == 1


def test_bad_requests_are_refused(epochs) -> None:
    with pytest.raises(ValueError, match="name at least one column of events"):
        event_agreement(epochs, [])
    with pytest.raises(ValueError, match="there is no column 'sh'; there are: participant_id"):
        event_rates(epochs, ["sh"])
    with pytest.raises(ValueError, match="must hold numbers"):
        event_rates(epochs.assign(sh="often"), ["sh"])

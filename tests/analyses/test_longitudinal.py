from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.test_regions import with_people
from tests.analyses.tiny import RATE_PPM, YEARS, made, means, table_of

PUTAMEN = {"structures": ["putamen"], "measures": ["Chimap"]}


def test_the_planted_rate_and_epochs_beyond_the_threshold(cohort: Cohort) -> None:
    result = made(cohort, "longitudinal", measures=["Chimap"], sides="apart")
    rates = table_of(result, "rates").set_index("name")
    for name in ("Left putamen", "Right thalamus"):
        wide = means(cohort, name).pivot(
            index="participant_id", columns="session_id", values="mean"
        )
        change = wide["ses-2"] - wide["ses-1"]
        row = rates.loc[name]
        assert row["mixed_per_year"] == pytest.approx(change.mean() / YEARS, rel=1e-4)
        assert row["pooled_per_year"] == pytest.approx(change.sum() / (16 * YEARS), rel=1e-8)
        assert row["patient_years"] == pytest.approx(16 * YEARS)
        assert row["n_exceeding"] == (change / wide["ses-1"].abs() >= 0.06).sum()
    assert rates.loc["Left putamen", "mixed_per_year"] == pytest.approx(RATE_PPM, rel=0.1)
    assert rates.loc["Left putamen", "n_exceeding"] > 12
    assert rates.loc["Left putamen", "p_mixed"] < 1e-6
    assert rates.loc["Right thalamus", "n_exceeding"] < 4
    assert any(chart.name == "Chimap_courses" for chart in result.charts)


def test_dates_are_years(cohort: Cohort) -> None:
    dated = table_of(made(cohort, "longitudinal", time="acq_time", **PUTAMEN), "rates").iloc[0]
    years = table_of(made(cohort, "longitudinal", **PUTAMEN), "rates").iloc[0]
    ratio = years["pooled_per_year"] / dated["pooled_per_year"]
    assert ratio == pytest.approx(1, abs=0.01)
    assert ratio != 1


def test_events_are_counted_beside_changes(cohort: Cohort) -> None:
    result = made(cohort, "longitudinal", events=["relapses"], **PUTAMEN)
    epochs = table_of(result, "epochs")
    assert len(epochs) == 16
    assert epochs["relapses"].sum() == 8
    (row,) = table_of(result, "event-agreement").itertuples()
    both = (epochs["exceeds_threshold"].astype(float) * (epochs["relapses"] > 0)).sum()
    assert row.sensitivity == pytest.approx(both / 8)


@pytest.mark.parametrize("labels", [["control"] * 8 + ["patient"] * 8, [0.0] * 8 + [1.0] * 8])
def test_rates_of_two_groups(cohort: Cohort, labels: list) -> None:
    named = with_people(cohort, group=labels)
    (row,) = table_of(made(named, "longitudinal", by="group", **PUTAMEN), "rates").itertuples()
    assert (row.group_a, row.group_b) == (("0", "1") if labels[0] == 0 else ("control", "patient"))
    change = {}
    for name in ("Left putamen", "Right putamen"):
        wide = means(cohort, name).pivot(
            index="participant_id", columns="session_id", values="mean"
        )
        change[name] = (wide["ses-2"] - wide["ses-1"]).to_numpy() / YEARS
    rate = np.mean([*change.values()], axis=0)
    difference = rate[8:].mean() - rate[:8].mean()
    assert row.difference_per_year == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"time": "when"}, "'when'"),
        ({"time": "sex"}, "years, or dates"),
        ({"session": "ses-1"}, "two scans or more"),
        ({"events": ["bleeds"]}, "'bleeds'"),
        ({"by": "grupo"}, "'grupo'"),
        ({"by": "participant_id"}, "has 16"),
        ({"time": "age"}, "at the same age"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(cohort, "longitudinal", **{**PUTAMEN, **words})


@pytest.fixture
def followed(cohort: Cohort) -> Cohort:
    """The cohort with two lesions each; the larger one gains 8 % of 0.4 ppm a year."""
    rows = [
        {
            "participant_id": scan.participant_id,
            "session_id": scan.session_id,
            "series": scan.series,
            "lesion": lesion,
            "years": scan.years,
            "relapses": scan.relapses,
            "reference": "CSF",
            "region_mm3": 300.0 if lesion == 2 else 100.0,
            "chi_ppm_mean": 0.4 * (1 + 0.08 * scan.years * (lesion == 2)),
            "moment_ppm_mm3": 120.0,
        }
        for scan in cohort.scans.itertuples()
        for lesion in (1, 2)
    ]
    return replace(cohort, tracking=pd.DataFrame(rows))


def test_the_largest_lesion_of_each_participant_is_followed(followed: Cohort) -> None:
    result = made(followed, "longitudinal", lesions="largest", events=["relapses"])
    (row,) = table_of(result, "rates").itertuples()
    assert row.pooled_percent_per_year == pytest.approx(8.0)
    assert (row.n_subjects, row.n_exceeding) == (16, 16)  # 10 % in 1.25 years
    (agreement,) = table_of(result, "event-agreement").itertuples()
    assert agreement.sensitivity == 1.0
    assert any("largest" in note for note in result.notes)


def test_all_lesions_are_followed_and_a_subset_of_scans_holds_for_them(followed: Cohort) -> None:
    words = {"lesions": "all", "subset": "group == 'patient'"}
    result = made(followed, "longitudinal", **words)
    (row,) = table_of(result, "rates").itertuples()
    assert (row.n_subjects, row.n_exceeding) == (16, 8)
    assert row.pooled_percent_per_year == pytest.approx(4.0)
    assert any("not independent" in note for note in result.notes)
    moments = made(followed, "longitudinal", value="moment_ppm_mm3", **words)
    assert table_of(moments, "rates")["units"].tolist() == ["ppm mm3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"lesions": "first"}, "must be 'largest' or 'all'"),
        ({"lesions": "all", "value": "median"}, "have no value 'median'"),
    ],
)
def test_lesions_are_refused_in_a_sentence(followed: Cohort, words: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(followed, "longitudinal", **words)
    with pytest.raises(ValueError, match="no lesions were followed"):
        made(replace(followed, tracking=None), "longitudinal", lesions="all")


def test_a_trial_is_planned_from_lesions_that_were_followed(followed: Cohort) -> None:
    sizes = table_of(made(followed, "trial", lesions="all"), "sample-sizes")
    assert set(sizes["control"]) == {0.5}  # of 32 epochs
    rates = table_of(made(followed, "trial", lesions="all", endpoint_kind="rate"), "sample-sizes")
    assert rates["control"].iloc[0] == pytest.approx(0.5 / YEARS)
    steady = followed.tracking.assign(chi_ppm_mean=0.4)
    with pytest.raises(ValueError, match="set 'controls'"):
        made(replace(followed, tracking=steady), "trial", lesions="all")

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_qsm.statistics.longitudinal import longitudinal, time_in_years


def scans(rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["participant_id", "session_id", "years", "mean"])
    return table.assign(measure="Chimap", units="ppb", reference=np.nan, name="Lesion")


SMALL = [
    ("sub-1", "ses-1", 3.0, 100.0),
    ("sub-1", "ses-2", 4.0, 106.0),
    ("sub-1", "ses-3", 6.0, 110.0),
    ("sub-2", "ses-2", 1.5, 190.0),  # the order of rows does not matter
    ("sub-2", "ses-1", 1.0, 200.0),
    ("sub-3", "ses-1", 0.0, 50.0),
    ("sub-3", "ses-2", 2.0, 60.0),
]


def cohort(rng, n=60, rate=4.0, groups=False) -> pd.DataFrame:
    subject, session = np.indices((n, 3)).reshape(2, -1)
    years = session + rng.uniform(0, 0.3, 3 * n) * (session > 0)
    late = (subject % 2) * 3.0 if groups else 0.0
    mean = 100 + 15 * rng.normal(size=n)[subject] + 2 * rng.normal(size=3 * n)
    mean += (rate + late + 1.5 * rng.normal(size=n)[subject]) * years
    rows = [(f"sub-{s:02d}", f"ses-{k}", y, m) for s, k, y, m in zip(subject, session, years, mean)]  # noqa: B905
    return scans(rows).assign(group=np.where(subject % 2, "patient", "control"))


def test_epochs_and_subjects_by_hand() -> None:
    found = longitudinal(scans(SMALL))
    epochs = found.epochs
    assert epochs["participant_id"].tolist() == ["sub-1", "sub-1", "sub-2", "sub-3"]
    assert epochs["session_b"].tolist() == ["ses-2", "ses-3", "ses-2", "ses-2"]
    np.testing.assert_allclose(epochs["years"], [1, 2, 0.5, 2])
    np.testing.assert_allclose(epochs["start_years"], [0, 1, 0, 0])
    np.testing.assert_allclose(epochs["percent_change"], [6, 400 / 106, -5, 20])
    assert epochs["exceeds_threshold"].tolist() == [True, False, False, True]
    subjects = found.subjects.set_index("participant_id")
    np.testing.assert_allclose(subjects["change_per_year"], [10 / 3, -20, 5])
    np.testing.assert_allclose(subjects["percent_per_year"], [10 / 3, -10, 10])
    rates = found.rates.iloc[0]
    assert rates["patient_years"] == pytest.approx(5.5)
    assert rates["mean_per_year"] == pytest.approx((10 / 3 - 20 + 5) / 3)
    assert rates["pooled_per_year"] == pytest.approx(10 / 5.5)
    assert rates["pooled_percent_per_year"] == pytest.approx((10 - 5 + 20) / 5.5)
    assert rates[["n_subjects", "n_scans", "n_epochs", "n_exceeding"]].tolist() == [3, 7, 4, 2]


def test_a_known_rate_comes_back(rng) -> None:
    row = longitudinal(cohort(rng, n=300)).rates.iloc[0]
    for name in ("mean_per_year", "pooled_per_year", "mixed_per_year"):
        assert row[f"{name}_low"] < 4.0 < row[f"{name}_high"]
    assert row["mixed_percent_per_year"] == pytest.approx(4.0, abs=0.4)
    assert row["sd_slope"] == pytest.approx(1.5, abs=0.3)
    assert row["sd_residual"] == pytest.approx(2.0, abs=0.2)
    assert row["p_mixed"] < 1e-10


def test_simple_means_equal_scipy(rng) -> None:
    found = longitudinal(cohort(rng, n=20), confidence=0.9)
    test = stats.ttest_1samp(found.subjects["change_per_year"], 0).confidence_interval(0.9)
    row = found.rates.iloc[0]
    assert (row["mean_per_year_low"], row["mean_per_year_high"]) == pytest.approx(tuple(test))


def test_pooled_rates_are_covered(rng) -> None:
    cases, n = 120, 20  # each case is a structure of its own
    years = rng.uniform(0.5, 4, (cases, n))
    change = years * rng.normal(3, 2, (cases, n)) + rng.normal(0, 1, (cases, n))
    case, subject = np.indices((cases, n)).reshape(2, -1)
    start = pd.DataFrame({"name": case, "participant_id": subject, "years": 0.0, "mean": 100.0})
    end = start.assign(years=years.ravel(), mean=100 + change.ravel())
    table = pd.concat([start.assign(session_id="1"), end.assign(session_id="2")])
    rates = longitudinal(table).rates
    hits = (rates["pooled_per_year_low"] <= 3) & (rates["pooled_per_year_high"] >= 3)
    assert hits.mean() == pytest.approx(0.945, abs=0.053)


def test_two_groups_are_compared(rng) -> None:
    table = cohort(rng, n=200, groups=True)
    row = longitudinal(table, group="group").rates.iloc[0]
    assert (row["group_a"], row["group_b"], row["n_a"], row["n_b"]) == (
        ("control", "patient", 100, 100)
    )
    assert row["difference_per_year_low"] < 3.0 < row["difference_per_year_high"]
    assert row["p_difference"] < 1e-6
    none = longitudinal(cohort(rng, n=200), group="group").rates.iloc[0]
    assert none["p_difference"] > 0.01
    own = longitudinal(table, by=["name", "group"]).rates
    assert own["group"].tolist() == ["control", "patient"]
    np.testing.assert_allclose(own["mixed_per_year"], [4, 7], atol=0.8)


def test_events_of_a_scan_that_is_left_out_are_kept() -> None:
    table = scans(SMALL).assign(bled=[1, 1, 0, "n/a", "no", 0, "yes"], grew=[0, 0, 2, 0, 0, 0, 0])
    whole = longitudinal(table, events=["bled", "grew"]).epochs
    np.testing.assert_array_equal(whole["bled"], [1, 0, np.nan, 1])
    assert whole["grew"].tolist() == [0, 2, 0, 0]
    table.loc[1, "mean"] = np.nan
    gap = longitudinal(table, events=["bled", "grew"])
    assert gap.epochs["years"].tolist()[0] == 3
    assert gap.epochs[["bled", "grew"]].iloc[0].tolist() == [1, 2]
    assert gap.left_out[["participant_id", "session_id", "reason"]].values.tolist() == [
        ["sub-1", "ses-2", "no mean"]
    ]


def test_dates_are_years() -> None:
    dates = pd.DataFrame({"acq_time": ["1925-01-01T12:00:00", "1926-01-01T18:00:00.5", "n/a"]})
    years = time_in_years(dates, "acq_time")
    assert years[1] - years[0] == pytest.approx(1, abs=1e-6)
    assert np.isnan(years[2])
    table = scans(SMALL[:2] + SMALL[3:5]).drop(columns="years")
    table["acq_time"] = ["2020-02-01", "2021-02-01", "2020-09-01", "2020-03-02T08:30:00"]
    found = longitudinal(table, time="acq_time")
    np.testing.assert_allclose(found.epochs["years"], [366 / 365.25, 0.5], atol=2e-3)


def test_categories_and_any_row_numbers_change_nothing() -> None:
    table = scans(SMALL).assign(group=list("aaaccbb"), hemisphere="L")
    plain = longitudinal(table)
    text = ["participant_id", "session_id", "name", "hemisphere"]
    other = table.astype(dict.fromkeys(text, "category")).set_index(np.zeros(len(table)))
    other["name"] = other["name"].cat.add_categories("Absent")
    found = longitudinal(other)
    pd.testing.assert_frame_equal(found.rates, plain.rates, check_dtype=False)
    pd.testing.assert_frame_equal(
        found.epochs.astype(object), plain.epochs.astype(object), check_dtype=False
    )


def test_who_is_left_out_is_listed() -> None:
    rows = [*SMALL, ("sub-4", "ses-1", 0.0, 1.0), ("sub-5", "ses-1", np.nan, 1.0)]
    rows += [("sub-5", "ses-2", 1.0, np.nan)]
    listed = longitudinal(scans(rows)).left_out
    assert listed[["participant_id", "session_id", "reason"]].values.tolist() == [
        ["sub-4", "ses-1", "one scan only"],
        ["sub-5", "ses-2", "no mean"],
        ["sub-5", "ses-1", "no years"],
    ]


def test_baselines_near_zero_give_no_percentage() -> None:
    row = longitudinal(scans(SMALL), least_baseline=60.0)
    assert row.rates["n_near_zero"].tolist() == [1]
    assert row.epochs["exceeds_threshold"].isna().tolist() == [False, False, False, True]
    assert row.rates["pooled_percent_per_year"][0] == pytest.approx((10 - 5) / 3.5)
    falls = longitudinal(scans(SMALL), threshold_percent=-5).epochs
    assert falls["exceeds_threshold"].tolist() == [False, False, True, False]


def test_small_and_constant_cohorts_are_noted() -> None:
    one = longitudinal(scans(SMALL[:3])).rates.iloc[0]
    assert one["note"] == "one subject: no mixed model."
    assert one["pooled_per_year"] == pytest.approx(10 / 3)
    assert np.isnan(one["pooled_per_year_low"])
    same = scans(SMALL)
    same["mean"] = 7.0
    row = longitudinal(same).rates.iloc[0]
    assert row["note"] == "all subjects lie on one line without any noise: no mixed model."
    assert row["mean_per_year"] == 0


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda t: t, {"time": "age"}, "there is no column 'age'; there are:"),
        (lambda t: t, {"events": ["sh"]}, "there is no column 'sh'"),
        (lambda t: t.assign(years="soon"), {}, "'years' must hold years, or dates such as"),
        (lambda t: t.assign(years=1.0), {}, "sub-1 has two scans of one structure at the same"),
        (lambda t: pd.concat([t, t[:1]]), {}, "sub-1 has two scans of one structure"),
        (lambda t: t[t["session_id"] == "ses-1"], {}, "no subject has mean and years at two scans"),
        (lambda t: t.assign(bled=-1), {"events": ["bled"]}, "'bled' must not be below 0"),
        (lambda t: t.assign(g="a"), {"group": "g"}, "two groups; 'g' has 1: a"),
        (lambda t: t.assign(g=list("abaabab")), {"group": "g"}, "belongs to both groups of 'g'"),
    ],
)
def test_bad_tables_are_refused(change, options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        longitudinal(change(scans(SMALL)), **options)

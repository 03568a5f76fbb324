from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.report.group_agreement_charts import agreement
from bids_qsm.report.group_charts import Interval, forest
from bids_qsm.report.group_course_charts import courses
from bids_qsm.report.group_frames import fitted_lines, mean_courses, stacked_estimates
from bids_qsm.report.group_style import Quantity
from bids_qsm.statistics import agreement as agreement_of


def test_estimates_are_stacked_and_drawn() -> None:
    wide = pd.DataFrame(
        {
            "outcome": ["a", "b"],
            "coefficient_before": [1.0, 2.0],
            "coefficient_before_low": [0.0, 1.0],
            "coefficient_before_high": [2.0, 3.0],
            "coefficient_after": [0.5, 1.5],
            "coefficient_after_low": [-0.5, 0.5],
            "coefficient_after_high": [1.5, 2.5],
            "p_before": [0.01, 0.02],
            "p_after": [0.03, 0.04],
        }
    )
    p = {"before adjustment": "p_before", "after adjustment": "p_after"}
    long = stacked_estimates(wide, p=p)
    assert long["series"].tolist() == ["before adjustment"] * 2 + ["after adjustment"] * 2
    assert long["estimate"].tolist() == [1.0, 2.0, 0.5, 1.5]
    assert long["ci_low"].tolist() == [0.0, 1.0, -0.5, 0.5]
    assert long["p"].tolist() == [0.01, 0.02, 0.03, 0.04]
    columns = Interval(estimate="estimate")
    assert forest(long, Quantity("b"), label="outcome", columns=columns, series="series").png
    with pytest.raises(ValueError, match="'coefficient_after'"):
        stacked_estimates(wide.drop(columns="coefficient_after"))


def test_lines_of_an_agreement_are_drawn() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=30)
    table = pd.DataFrame({"structure": "x", "first": first, "second": first + rng.normal(size=30)})
    found = agreement_of.agreement(table, "first", "second", by=["structure"])
    lines = fitted_lines(found.table, keep=["structure"])
    assert lines["method"].tolist() == ["Deming", "Passing-Bablok"]
    assert lines["slope"].tolist() == found.table[
        ["deming_slope", "passing_bablok_slope"]
    ].iloc[0].tolist()  # fmt: skip
    assert agreement(table, lines, "first", "second", Quantity("a"), Quantity("b")).png
    unknown = found.table.assign(deming_slope=np.nan)
    assert fitted_lines(unknown)["method"].tolist() == ["Passing-Bablok"]


def test_courses_of_a_constant_rate() -> None:
    rates = pd.DataFrame(
        {
            "group": ["a", "b"],
            "baseline": [10.0, 20.0],
            "r": [1.0, -1.0],
            "r_low": 0.0,
            "r_high": 2.0,
        }
    )
    means = mean_courses(rates, start="baseline", rate="r", until=4.0, keep=["group"])
    last = means[means["years"] == 4.0]
    assert last["group"].tolist() == ["a", "b"]
    assert last["mean"].tolist() == [14.0, 16.0]
    assert last["ci_low"].tolist() == [10.0, 20.0]
    assert last["ci_high"].tolist() == [18.0, 28.0]
    scans = pd.DataFrame(
        {"participant_id": ["p", "p"], "years": [0.0, 1.0], "mean": [10.0, 11.0], "group": "a"}
    )
    assert courses(scans, Quantity("v"), group="group", means=means).png

"""Change over time: rates per patient-year, epochs beyond a threshold, and events."""

from __future__ import annotations

import pandas as pd

from bids_qsm.analyses.cohort import Cohort, with_labels, with_value
from bids_qsm.analyses.result import Result, ResultChart, ResultTable
from bids_qsm.report.group_course_charts import courses
from bids_qsm.report.group_frames import mean_courses
from bids_qsm.report.group_style import quantity_of, structure_labels
from bids_qsm.statistics.events import event_agreement, event_rates
from bids_qsm.statistics.expressions import listed
from bids_qsm.statistics.longitudinal import Longitudinal, time_in_years
from bids_qsm.statistics.longitudinal import longitudinal as changes

STRUCTURE = ("name", "hemisphere", "measure", "units", "reference")
RATES = ("n_subjects", "n_scans", "patient_years", "mixed_per_year", "mixed_per_year_low")
RATES += ("mixed_per_year_high", "p_mixed", "mixed_percent_per_year")
RATES += ("pooled_percent_per_year", "pooled_percent_per_year_low")
RATES += ("pooled_percent_per_year_high", "n_epochs", "n_exceeding", "p_difference")


def longitudinal(
    cohort: Cohort,
    *,
    time: str = "years",
    value: str = "mean",
    by: str = "",
    events: tuple[str, ...] = (),
    threshold_percent: float = 6.0,
    least_baseline: float = 0.0,
) -> Result:
    """Describe how structures change over the sessions.

    Parameters
    ----------
    cohort : Cohort
    time : str
        Column of sessions.tsv: years, age, or dates such as ``acq_time``.
    value : str
        Column of the regions' table.
    by : str
        Column of two groups whose rates are compared.
    events : tuple of str
        Columns of sessions.tsv: how many events there were since the session before.
    threshold_percent : float
        Change between two sessions that is counted.
    least_baseline : float
        No percentages of values nearer to zero.
    """
    cohort = with_value(with_labels(cohort, by), value)
    found = changes(
        cohort.regions,
        time=time,
        value=value,
        group=by or None,
        events=events,
        threshold_percent=threshold_percent,
        least_baseline=least_baseline,
    )
    tables = list(_tables(found, events))
    left = [
        f"{participant} left out: {reason}."
        for participant, reason in found.left_out[["participant_id", "reason"]]
        .drop_duplicates()
        .itertuples(index=False)
    ]
    return Result(
        f"Change of each structure over {time}; changes of {threshold_percent:g} % or more are "
        "counted.",
        (*cohort.notes, *left),
        tables=tuple(tables),
        charts=tuple(_charts(cohort, found, time, value, by)),
        methods=(
            "Change per patient-year was estimated by a linear mixed model with random intercepts "
            "and, where they could be estimated, slopes, and as all change over all "
            f"patient-years. Epochs with a change of {threshold_percent:g} % or more were counted"
            + (f" and compared with {listed(events)}." if events else ".")
        ),
    )


def _tables(found: Longitudinal, events: tuple[str, ...]) -> list[ResultTable]:
    shown = [c for c in (*STRUCTURE, *RATES) if c in found.rates.columns]
    in_units = tuple(c for c in shown if c.startswith("mixed_per_year"))
    by = [c for c in STRUCTURE if c in found.epochs.columns and c != "units"]
    tables = [
        ResultTable(
            "rates",
            "Rates of change",
            found.rates,
            "Per year, by the mixed model; in per cent of the baseline; epochs beyond the "
            "threshold.",
            dict.fromkeys(shown, ""),
            in_units,
        ),
        ResultTable(
            "subjects",
            "By participant",
            found.subjects,
            in_units=("baseline", "last", "change", "change_per_year"),
            is_folded=True,
        ),
        ResultTable(
            "epochs",
            "By epoch",
            found.epochs,
            in_units=("value_a", "value_b", "change"),
            is_folded=True,
        ),
        ResultTable(
            "event-rates",
            "How often",
            event_rates(found.epochs, events, by=by),
            "Per patient-year, with exact Poisson intervals.",
            is_folded=not events,
        ),
    ]
    if events:
        agreeing = event_agreement(found.epochs, events, by=by)
        title = "Changes beyond the threshold, and events"
        tables.append(ResultTable("event-agreement", title, agreeing))
    return tables


def _charts(
    cohort: Cohort, found: Longitudinal, time: str, value: str, by: str
) -> list[ResultChart]:
    rows = cohort.regions.assign(years_since=time_in_years(cohort.regions, time))
    rows["years_since"] -= rows.groupby("participant_id", observed=True)["years_since"].transform(
        "min"
    )
    rows = rows.dropna(subset=["years_since", value])
    rows["structure"] = structure_labels(rows["name"], rows["hemisphere"])
    charts = []
    for (measure, units), part in rows.groupby(["measure", "units"], sort=False, observed=True):
        quantity = quantity_of(str(measure), str(units))
        chart = courses(
            part[part[by].notna()] if by else part,
            quantity,
            time="years_since",
            value=value,
            panel="structure",
            group=by or None,
            means=None if by else _means(found, part, value),
        )
        title = f"{quantity.name} over time"
        charts.append(
            ResultChart(
                f"{measure}_courses", title, chart, "A line a participant; the mixed model."
            )
        )
    return charts


def _means(found: Longitudinal, rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the mixed model's course of each structure, from the mean of the first scans."""
    keys = [c for c in STRUCTURE if c in found.rates.columns and c in found.subjects.columns]
    baseline = found.subjects.groupby(keys, observed=True)["baseline"].mean().reset_index()
    rates = found.rates.merge(baseline, on=keys)
    rates = rates[rates["measure"] == rows["measure"].iloc[0]]
    rates["structure"] = structure_labels(rates["name"], rates["hemisphere"])
    until = float(rows["years_since"].max())
    means = mean_courses(
        rates, start="baseline", rate="mixed_per_year", until=until, keep=["structure"]
    )
    return means.rename(columns={"years": "years_since", "mean": value})

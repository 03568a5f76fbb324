"""Change over time: rates per patient-year, epochs beyond a threshold, and events."""

from __future__ import annotations

from dataclasses import replace

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

LESION_VALUES = {
    "mean": ("chi_ppm_mean", "Chimap", "ppm"),
    "chi_ppm_p99": ("chi_ppm_p99", "Chimap", "ppm"),
    "own_chi_ppm_mean": ("own_chi_ppm_mean", "Chimap", "ppm"),
    "moment_ppm_mm3": ("moment_ppm_mm3", "moment", "ppm mm3"),
    "own_volume_mm3": ("own_volume_mm3", "volume", "mm3"),
    "r2star_per_s_mean": ("r2star_per_s_mean", "R2starmap", "1/s"),
}
"""Columns of the table of tracking, with their measure and units."""
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
    lesions: str = "",
) -> Result:
    """Describe how structures, or lesions that were followed, change over the sessions.

    Parameters
    ----------
    cohort : Cohort
    time : str
        Column of sessions.tsv: years, age, or dates such as ``acq_time``.
    value : str
        Column of the regions' table; of lesions ``mean`` (of susceptibility) or a column of the
        table of tracking, such as ``moment_ppm_mm3``.
    by : str
        Column of two groups whose rates are compared.
    events : tuple of str
        Columns of sessions.tsv: how many events there were since the session before.
    threshold_percent : float
        Change between two sessions that is counted.
    least_baseline : float
        No percentages of values nearer to zero.
    lesions : str
        Of lesions that were followed (``--with lesion-tracking``) in place of structures:
        ``largest`` of each participant, or ``all``, each as if it were a participant.
    """
    if lesions:
        cohort, value = with_lesions(cohort, lesions, value), "mean"
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


def with_lesions(cohort: Cohort, which: str, value: str) -> Cohort:
    """Return the cohort with lesions that were followed in the place of structures.

    Raises
    ------
    ValueError
        If there are none, or the words are not known.
    """
    table = cohort.tracking
    if table is None or table.empty:
        raise ValueError(
            "no lesions were followed in these scans; run the participant level with "
            "'--with lesion-tracking'."
        )
    column, measure, units = LESION_VALUES.get(value, ("", "", ""))
    if not column:
        raise ValueError(f"lesions have no value {value!r}; there are: {listed(LESION_VALUES)}.")
    if which == "largest":
        largest = table.sort_values("region_mm3", ascending=False, kind="stable")
        largest = largest.drop_duplicates("participant_id")[["participant_id", "lesion"]]
        table = table.merge(largest, on=["participant_id", "lesion"])
    elif which == "all":
        table = table.assign(
            participant_id=table["participant_id"] + " lesion " + table["lesion"].astype(str)
        )
    else:
        raise ValueError(f"'lesions' must be 'largest' or 'all', got {which!r}.")
    reference = table["reference"] if measure == "Chimap" else "n/a"
    regions = table.assign(
        name="lesion",
        hemisphere="B",
        measure=measure,
        units=units,
        reference=reference,
        mean=table[column],
    )
    note = (
        "Each lesion is taken for a participant: lesions of one participant are not independent, "
        "and intervals are too narrow where some have several."
        if which == "all"
        else "Of each participant the largest lesion is taken."
    )
    regions = regions.sort_values(["participant_id", "session_id"], kind="stable")
    return replace(cohort, regions=regions.reset_index(drop=True), notes=(*cohort.notes, note))


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

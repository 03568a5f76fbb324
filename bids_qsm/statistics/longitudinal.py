"""Change over time: per patient-year, per epoch, and by a mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics.intervals import Float64, checked_confidence, student
from bids_qsm.statistics.mixed import fit_mixed
from bids_qsm.statistics.pairs import numbers, require_columns, structure_columns

DAYS_A_YEAR = 365.25
THRESHOLD_PERCENT = 6.0
"""Rise that goes with new bleeding of a cavernous malformation (Zeineddine 2018)."""
YES = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True)
class Longitudinal:
    """Change of each structure in all.

    ``rates`` has one row for each structure; ``subjects`` for each subject in it; ``epochs`` for
    each interval between two scans; ``left_out`` says which scans were not used, and why.
    """

    rates: pd.DataFrame
    subjects: pd.DataFrame
    epochs: pd.DataFrame
    left_out: pd.DataFrame


def longitudinal(
    table: pd.DataFrame,
    *,
    time: str = "years",
    value: str = "mean",
    by: Sequence[str] | None = None,
    group: str | None = None,
    events: Sequence[str] = (),
    threshold_percent: float = THRESHOLD_PERCENT,
    least_baseline: float = 0.0,
    confidence: float = 0.95,
) -> Longitudinal:
    """Describe how structures change over time.

    Parameters
    ----------
    table : DataFrame
        The tidy table: ``participant_id``, ``session_id``, time, the structure, values.
    time : str
        Column with years (such as ``years`` or ``age``), or dates as ISO 8601 (``acq_time``);
        years count from the first scan of each subject.
    value, by
        As in :func:`bids_qsm.statistics.pairs.repeats`.
    group : str, optional
        Column with two groups of subjects whose rates are to be compared.  (With the column in
        ``by`` each group has rates of its own.)
    events : sequence of str
        Columns that say at a scan how many events there were since the scan before it (0/1,
        counts, yes/no; empty if not known); carried into ``epochs``.
    threshold_percent : float
        Epochs whose change is at least this are flagged (at most this, if it is negative).
    least_baseline : float
        Percentages of values whose size is not above this are NaN, and counted.
    confidence : float
        Coverage of all intervals.

    Returns
    -------
    Longitudinal
        ``rates``: the columns of the structure, ``n_subjects, n_scans, patient_years``;
        ``mean_per_year`` (of the subjects' (last - first) / years; Student's *t*);
        ``pooled_per_year`` (all change over all patient-years, so that long follow-up counts
        more; interval by linearisation over subjects) and ``pooled_percent_per_year`` (of each
        subject's baseline), ``n_near_zero``; ``mixed_per_year`` with ``p_mixed`` and
        ``mixed_percent_per_year`` (of the fitted value at the first scan; delta method),
        ``sd_intercept, sd_slope, sd_residual, random_effects``; ``n_epochs, n_exceeding``;
        ``note``.  Intervals end in ``_low, _high``.  With ``group`` also ``group_a, group_b, n_a,
        n_b`` and ``difference_per_year`` (b - a, of the mixed model) with ``p_difference``.
        ``subjects``: ``participant_id, n_scans, years, baseline, last, change, change_per_year,
        percent_change, percent_per_year`` (of the size of the baseline).
        ``epochs``: ``participant_id, session_a, session_b, start_years, years, value_a, value_b,
        change, percent_change`` (of ``value_a``), ``exceeds_threshold`` and the events.

    Raises
    ------
    ValueError
        If a column is missing, times are no numbers or dates, two scans are at one time, or no
        subject was scanned twice.

    References
    ----------
    Zeineddine et al. 2018, 10.1002/jmri.25831 (change per patient-year, threshold); Cochran 1977,
    Sampling techniques, chapter 6 (interval of a ratio).
    """
    checked_confidence(confidence)
    wanted = [column for column in (time, value, group, *events) if column is not None]
    require_columns(table, ["participant_id", "session_id", *wanted])
    table = table.reset_index(drop=True)
    by = [c for c in structure_columns(table, by) if c not in (time, "session_id")]
    scans = table[["participant_id", "session_id", *by]].copy()
    scans["_time"], scans["_value"] = time_in_years(table, time), numbers(table, value)
    for event in events:
        scans[event] = _counts(table, event)
    if group is not None:
        scans["_group"] = _two_groups(table, group)
    groups = table.groupby(by, dropna=False, sort=False, observed=True).ngroup() if by else 0
    scans["_structure"] = groups
    scans, left_out = _usable(_summed(scans, events), by, time, value)
    if scans.empty:
        raise ValueError(f"no subject has {value} and {time} at two scans or more.")
    epochs = _epochs(scans, by, events, least_baseline, threshold_percent)
    subjects = _subjects(scans, by, least_baseline)
    rows = []
    for code, of_structure in scans.groupby("_structure", sort=True):
        mine = subjects[subjects["_structure"] == code]
        flags = epochs.loc[epochs["_structure"] == code, "exceeds_threshold"]
        row = {
            **{str(k): v for k, v in of_structure.iloc[0][by].items()},
            **_simple(mine, confidence),
            **_mixed(of_structure, least_baseline, confidence),
            **_difference(of_structure, confidence),
            "n_epochs": len(flags),
            "n_exceeding": int(flags.fillna(0).sum()),
        }
        row["note"] = row.pop("note")
        rows.append(row)
    rates = pd.DataFrame(rows)
    drop = ["_structure"]
    return Longitudinal(rates, subjects.drop(columns=drop), epochs.drop(columns=drop), left_out)


def time_in_years(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of years, or of ISO dates as years since 1970; NaN where it is empty.

    Raises
    ------
    ValueError
        If it holds neither numbers nor dates.
    """
    require_columns(table, [column])
    values = table[column].replace({"n/a": None, "": None})
    as_numbers = pd.to_numeric(values, errors="coerce")
    if as_numbers.notna().sum() == values.notna().sum() and not _are_dates(values):
        return as_numbers.astype(np.float64)
    try:
        dates = pd.to_datetime(values, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the column {column!r} must hold years, or dates such as 2024-05-31 ({error})."
        ) from error
    since = dates - pd.Timestamp("1970-01-01", tz="UTC")
    return since.dt.total_seconds() / (86400 * DAYS_A_YEAR)


def _are_dates(values: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(values))


def _counts(table: pd.DataFrame, column: str) -> pd.Series:
    words = table[column].map(lambda v: YES.get(v.lower(), v) if isinstance(v, str) else v)
    counts = numbers(pd.DataFrame({column: words}), column)
    if (counts < 0).any():
        raise ValueError(f"the events in column {column!r} must not be below 0.")
    return counts


def _two_groups(table: pd.DataFrame, column: str) -> pd.Series:
    levels = sorted(str(level) for level in table[column].dropna().unique())
    if len(levels) != 2:
        raise ValueError(
            f"rates are compared between two groups; {column!r} has {len(levels)}: "
            f"{', '.join(levels)}."
        )
    per_subject = table.groupby("participant_id", observed=True)[column].nunique()
    if (per_subject > 1).any():
        raise ValueError(f"{per_subject.idxmax()} belongs to both groups of {column!r}.")
    return table[column].map(lambda level: np.nan if pd.isna(level) else str(level))


def _summed(scans: pd.DataFrame, events: Sequence[str]) -> pd.DataFrame:
    """Return scans in order of time, with all events (and unknown ones) of a subject so far.

    An epoch's events are differences of these, so that none is lost with a scan that is left out.
    """
    scans = scans.sort_values(["_structure", "participant_id", "_time"], kind="stable")
    keys = [scans["_structure"], scans["participant_id"]]
    for event in events:
        scans[f"_unknown_{event}"] = scans[event].isna().groupby(keys, observed=True).cumsum()
        scans[event] = scans[event].fillna(0).groupby(keys, observed=True).cumsum()
    return scans


def _usable(
    scans: pd.DataFrame, by: Sequence[str], time: str, value: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scans with time and value of subjects with two or more, sorted; and the others."""
    no_time, no_value = scans["_time"].isna(), ~np.isfinite(scans["_value"])
    reason = pd.Series("", index=scans.index)
    reason[no_value] = f"no {value}"
    reason[no_time] = f"no {time}"
    keys = ["participant_id", "_structure"]
    usable = scans[reason == ""]
    twice = usable[usable.duplicated([*keys, "_time"], keep=False)]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"{row['participant_id']} has two scans of one structure at the same {time} "
            f"(session {row['session_id']}): choose one series, or correct the {time}."
        )
    single = usable.groupby(keys, observed=True)["_time"].transform("size") < 2
    reason[single.index[single]] = "one scan only"
    left_out = scans.loc[reason != "", ["participant_id", "session_id", *by]]
    left_out = left_out.assign(reason=reason[reason != ""])
    return usable[~single].reset_index(drop=True), left_out.reset_index(drop=True)


def _percent(change: pd.Series, of: pd.Series, least: float) -> pd.Series:
    return 100 * change / of.abs().where(of.abs() > least)


def _epochs(
    scans: pd.DataFrame,
    by: Sequence[str],
    events: Sequence[str],
    least: float,
    threshold: float,
) -> pd.DataFrame:
    keys = ["_structure", "participant_id"]
    groups = scans.groupby(keys, sort=False, observed=True)
    counts = [name for event in events for name in (event, f"_unknown_{event}")]
    before = groups[["session_id", "_time", "_value", *counts]].shift()
    first = groups["_time"].transform("first")
    later = before["_time"].notna()
    here, before, first = scans[later], before[later], first[later]
    result = here[["participant_id", *by, "_structure"]].assign(
        session_a=before["session_id"],
        session_b=here["session_id"],
        start_years=before["_time"] - first,
        years=here["_time"] - before["_time"],
        value_a=before["_value"],
        value_b=here["_value"],
        change=here["_value"] - before["_value"],
    )
    result["percent_change"] = _percent(result["change"], result["value_a"], least)
    # a rise of exactly the threshold counts, whatever its last binary digit
    over = np.sign(threshold or 1.0) * (result["percent_change"] - threshold) >= -1e-9
    result["exceeds_threshold"] = over.astype(object).where(result["percent_change"].notna())
    for event in events:
        unknown = here[f"_unknown_{event}"] - before[f"_unknown_{event}"]
        result[event] = (here[event] - before[event]).where(unknown == 0)
    return result.reset_index(drop=True)


def _subjects(scans: pd.DataFrame, by: Sequence[str], least: float) -> pd.DataFrame:
    groups = scans.groupby(["_structure", "participant_id"], sort=False, observed=True)
    ends = groups.agg(first=("_time", "first"), last_time=("_time", "last"))
    result = groups[[*by]].first() if by else pd.DataFrame(index=ends.index)
    values = groups["_value"]
    result["n_scans"] = values.size()
    result["years"] = ends["last_time"] - ends["first"]
    result["baseline"], result["last"] = values.first(), values.last()
    result["change"] = result["last"] - result["baseline"]
    result["change_per_year"] = result["change"] / result["years"]
    result["percent_change"] = _percent(result["change"], result["baseline"], least)
    result["percent_per_year"] = result["percent_change"] / result["years"]
    return result.reset_index()


def _simple(subjects: pd.DataFrame, confidence: float) -> dict[str, Any]:
    years = subjects["years"].to_numpy(np.float64)
    row: dict[str, Any] = {
        "n_subjects": len(subjects),
        "n_scans": int(subjects["n_scans"].sum()),
        "patient_years": years.sum(),
    }
    rates = subjects["change_per_year"].to_numpy(np.float64)
    row |= _with_limits("mean_per_year", *_pooled(rates, np.ones_like(rates)), confidence)
    change = subjects["change"].to_numpy(np.float64)
    row |= _with_limits("pooled_per_year", *_pooled(change, years), confidence)
    percent = subjects["percent_change"].to_numpy(np.float64)
    known = np.isfinite(percent)
    pooled = _pooled(percent[known], years[known])
    row |= _with_limits("pooled_percent_per_year", *pooled, confidence)
    row["n_near_zero"] = int((~known).sum())
    return row


def _pooled(change: Float64, years: Float64) -> tuple[float, float, int]:
    """Return the ratio of both sums, its standard error over subjects, and its freedom."""
    n = change.size
    if n == 0:
        return np.nan, np.nan, 0
    rate = float(change.sum() / years.sum())
    if n == 1:
        return rate, np.nan, 0
    spread = ((change - rate * years) ** 2).sum() * n / (n - 1)
    return rate, float(np.sqrt(spread) / years.sum()), n - 1


def _with_limits(
    name: str, value: float, error: float, freedom: int, confidence: float
) -> dict[str, float]:
    if freedom < 1:
        low, high = np.nan, np.nan
    else:
        low, high, _ = student(value, error, freedom, confidence)
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


_MIXED = ("sd_intercept", "sd_slope", "sd_residual")


def _since_first(scans: pd.DataFrame) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Return values, years since the first scan and number of the subject."""
    first = scans.groupby("participant_id", observed=True)["_time"].transform("first")
    subject = np.asarray(pd.factorize(scans["participant_id"])[0], np.int64)
    values = scans["_value"].to_numpy(np.float64)
    return values, (scans["_time"] - first).to_numpy(np.float64), subject


def _difference(scans: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Return how much faster group b changes than group a, or nothing where no groups are."""
    if "_group" not in scans:
        return {}
    known = scans[scans["_group"].notna()]
    sizes = known.groupby("_group")["participant_id"].nunique().sort_index()
    row: dict[str, Any] = {}
    for letter, (level, n) in zip("ab", sizes.items(), strict=False):
        row |= {f"group_{letter}": level, f"n_{letter}": int(n)}
    empty = _with_limits("difference_per_year", np.nan, np.nan, 0, confidence)
    empty |= {"p_difference": np.nan}
    if len(sizes) < 2 or sizes.min() < 2:
        return {**row, **empty}
    values, time, subject = _since_first(known)
    b = (known["_group"] == row["group_b"]).to_numpy(np.float64)
    design = np.column_stack([np.ones_like(b), time, b, b * time])
    try:
        fit = fit_mixed(values, time, subject, design)
    except ValueError:  # the note says why, as there is then no model of all subjects either
        return {**row, **empty}
    slope, error = float(fit.beta[3]), float(np.sqrt(fit.covariance[3, 3]))
    row |= _with_limits("difference_per_year", slope, error, fit.freedom - 1, confidence)
    row["p_difference"] = float(student(slope, error, fit.freedom - 1, confidence)[2])
    return row


def _mixed(scans: pd.DataFrame, least: float, confidence: float) -> dict[str, Any]:
    values, time, subject = _since_first(scans)
    empty = _with_limits("mixed_per_year", np.nan, np.nan, 0, confidence) | {"p_mixed": np.nan}
    empty |= _with_limits("mixed_percent_per_year", np.nan, np.nan, 0, confidence)
    empty |= dict.fromkeys(_MIXED, np.nan)
    try:
        if subject.max() < 1:
            raise ValueError("one subject: no mixed model.")
        fit = fit_mixed(values, time, subject)
    except ValueError as reason:
        return {**empty, "random_effects": "", "note": str(reason)}
    base, slope = fit.beta
    error = float(np.sqrt(fit.covariance[1, 1]))
    row: dict[str, Any] = _with_limits("mixed_per_year", slope, error, fit.freedom, confidence)
    row["p_mixed"] = float(student(slope, error, fit.freedom, confidence)[2])
    gradient = (
        np.array([-slope / base, 1.0]) / abs(base) if abs(base) > least else np.full(2, np.nan)
    )
    variance = np.einsum("i,ij,j->", gradient, fit.covariance, gradient)
    percent, percent_error = 100 * slope * gradient[1], 100 * float(np.sqrt(variance))
    row |= _with_limits("mixed_percent_per_year", percent, percent_error, fit.freedom, confidence)
    row |= {name: getattr(fit, name) for name in _MIXED}
    return {**row, "random_effects": fit.random, "note": fit.note}

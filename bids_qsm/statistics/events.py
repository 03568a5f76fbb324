"""Agreement of changes over a threshold with clinical events, and rates of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.intervals import checked_confidence, poisson_rate, wilson
from bids_qsm.statistics.pairs import numbers, require_columns, structure_columns

ANY = "any event"
"""Stands for all events together where there is more than one kind."""
FLAG = "exceeds_threshold"


def event_agreement(
    epochs: pd.DataFrame,
    events: Sequence[str],
    *,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare changes over the threshold with events in the same epochs.

    Parameters
    ----------
    epochs : DataFrame
        Of :func:`bids_qsm.statistics.longitudinal.longitudinal`, called with these events.
    events : sequence of str
        Columns with numbers of events; with two or more, :data:`ANY` is added.
    by : sequence of str, optional
        Columns that tell structures from each other.
    confidence : float
        Coverage of the intervals; epochs count as independent, though patients have several.

    Returns
    -------
    DataFrame
        One row for each structure and event: ``n_epochs, n_unknown`` (left out: change or event
        not known), ``n_both, n_event_only, n_threshold_only, n_neither``; ``sensitivity`` (of the
        threshold for events), ``specificity``, ``positive_predictive``, ``negative_predictive``
        (Wilson), ``kappa`` (Fleiss, Cohen and Everitt) and ``p_fisher``.

    Raises
    ------
    ValueError
        If no event is named, or a column is missing.

    References
    ----------
    Fleiss, Cohen & Everitt 1969, 10.1037/h0028106 (standard error of kappa).
    """
    checked_confidence(confidence)
    rows = []
    for key, part, names in _parts(epochs, events, by):
        flag = part[FLAG]
        for name in names:
            known = np.isfinite(flag) & np.isfinite(part[name])
            over, event = flag[known] > 0, part.loc[known, name] > 0
            counts = np.array(
                [
                    [(over & event).sum(), (over & ~event).sum()],
                    [(~over & event).sum(), (~over & ~event).sum()],
                ]
            )
            n_unknown = int((~known).sum())
            row = {**key, "event": name, "n_epochs": int(known.sum()), "n_unknown": n_unknown}
            rows.append({**row, **_table(counts, confidence)})
    return pd.DataFrame(rows)


def event_rates(
    epochs: pd.DataFrame,
    events: Sequence[str] = (),
    *,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return how often there were events, and changes over the threshold, per patient-year.

    Parameters
    ----------
    epochs, events, by, confidence
        As in :func:`event_agreement`; no events are needed.

    Returns
    -------
    DataFrame
        One row for each structure and ``event`` (``threshold``, then the others): ``n_epochs,
        n_unknown, n_events, patient_years, rate_per_year`` (exact Poisson), ``n_subjects,
        n_subjects_with`` and ``share_subjects`` (Wilson).
    """
    checked_confidence(confidence)
    rows = []
    for key, part, names in _parts(epochs, events, by, needed=False):
        counted = part.rename(columns={FLAG: "threshold"})
        for name in ("threshold", *names):
            known = counted[np.isfinite(counted[name])]
            n_events, years = float(known[name].sum()), float(known["years"].sum())
            rates = [np.nan] * 3
            if years > 0:
                rates = [n_events / years, *poisson_rate(n_events, years, confidence)]
            per_subject = known.groupby("participant_id", observed=True)[name].sum()
            n, n_with = len(per_subject), int((per_subject > 0).sum())
            low, high = wilson(n_with, n, confidence)
            rows.append(
                {
                    **key,
                    "event": name,
                    "n_epochs": len(known),
                    "n_unknown": len(counted) - len(known),
                    "n_events": int(n_events),
                    "patient_years": years,
                    "rate_per_year": float(rates[0]),
                    "rate_per_year_low": float(rates[1]),
                    "rate_per_year_high": float(rates[2]),
                    "n_subjects": n,
                    "n_subjects_with": n_with,
                    "share_subjects": n_with / n if n else np.nan,
                    "share_subjects_low": float(low),
                    "share_subjects_high": float(high),
                }
            )
    return pd.DataFrame(rows)


def _parts(
    epochs: pd.DataFrame,
    events: Sequence[str],
    by: Sequence[str] | None,
    needed: bool = True,
) -> list[tuple[dict[str, Any], pd.DataFrame, list[str]]]:
    """Return each structure: what it is, its epochs as numbers, and the names of its events."""
    if needed and not events:
        raise ValueError("name at least one column of events.")
    require_columns(epochs, ["participant_id", "years", FLAG, *events])
    by = structure_columns(epochs, by)
    names = list(events)
    counts = pd.DataFrame({name: numbers(epochs, name) for name in [FLAG, *events]})
    if len(names) > 1:
        # one known event is enough to know that there was any; else all must be known
        total = counts[names].sum(axis=1)
        counts[ANY] = total.where(counts[names].notna().all(axis=1) | (total > 0))
        names.append(ANY)
    counts = counts.assign(participant_id=epochs["participant_id"], years=epochs["years"])
    if not by:
        return [({}, counts, names)]
    codes = epochs.groupby(by, dropna=False, sort=False, observed=True).ngroup()
    return [
        ({str(k): v for k, v in epochs[codes == code].iloc[0][by].items()}, part, names)
        for code, part in counts.groupby(codes)
    ]


def _table(counts: NDArray[np.int64], confidence: float) -> dict[str, float]:
    both, over_only, event_only, neither = (int(count) for count in counts.ravel())
    row: dict[str, float] = {
        "n_both": both,
        "n_event_only": event_only,
        "n_threshold_only": over_only,
        "n_neither": neither,
    }
    shares = {
        "sensitivity": (both, both + event_only),
        "specificity": (neither, neither + over_only),
        "positive_predictive": (both, both + over_only),
        "negative_predictive": (neither, neither + event_only),
    }
    for name, (count, total) in shares.items():
        low, high = wilson(count, total, confidence)
        row[name] = count / total if total else np.nan
        row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    kappa, error = _kappa(counts)
    half = stats.norm.ppf(0.5 + confidence / 2) * error
    row |= {"kappa": kappa, "kappa_low": kappa - half, "kappa_high": min(kappa + half, 1.0)}
    row["p_fisher"] = float(stats.fisher_exact(counts).pvalue) if counts.any() else np.nan
    return row


def _kappa(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return Cohen's kappa of a 2 x 2 table, and its standard error."""
    n = counts.sum()
    if n == 0:
        return np.nan, np.nan
    p = counts / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    agree, chance = p[0, 0] + p[1, 1], float((rows * columns).sum())
    if chance == 1:
        return np.nan, np.nan
    kappa = float((agree - chance) / (1 - chance))
    own = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    other = sum(p[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = own + (1 - kappa) ** 2 * other - (kappa - chance * (1 - kappa)) ** 2
    return kappa, float(np.sqrt(max(variance, 0)) / (1 - chance) / np.sqrt(n))

"""Means of several conditions in the same subjects: repeated-measures analysis of variance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.intervals import student
from bids_qsm.statistics.multiplicity import holm

Float64 = NDArray[np.float64]

FEWEST = 3


def repeated_measures(values: Float64) -> dict[str, float]:
    """Return the analysis of variance of conditions within subjects.

    Parameters
    ----------
    values : ndarray, shape (subjects, conditions)
        A subject without all of them is left out.

    Returns
    -------
    dict
        ``n_subjects, f_repeated, df_conditions, df_error, p_repeated, eta2_partial``,
        Greenhouse and Geisser's ``epsilon``, and ``p_greenhouse_geisser``, which allows for
        differences between conditions that do not vary alike.  NaN with fewer than three subjects
        or two conditions.

    References
    ----------
    Greenhouse and Geisser 1959, 10.1007/BF02289823.
    """
    complete = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    n, k = complete.shape
    names = ("f_repeated", "df_conditions", "df_error", "p_repeated", "eta2_partial", "epsilon")
    if n < FEWEST or k < 2:
        nothing = dict.fromkeys((*names, "p_greenhouse_geisser"), np.nan)
        return {"n_subjects": n, **nothing}
    centred = complete - complete.mean()
    of_subjects, of_conditions = centred.mean(axis=1), centred.mean(axis=0)
    between = n * float((of_conditions**2).sum())
    error = float(((centred - of_subjects[:, None] - of_conditions) ** 2).sum())
    df_1, df_2 = k - 1, (k - 1) * (n - 1)
    f = between / df_1 / (error / df_2) if error > 0 else np.nan
    epsilon = sphericity(complete)
    return {
        "n_subjects": n,
        "f_repeated": f,
        "df_conditions": df_1,
        "df_error": df_2,
        "p_repeated": float(stats.f.sf(f, df_1, df_2)),
        "eta2_partial": between / (between + error) if error > 0 else np.nan,
        "epsilon": epsilon,
        "p_greenhouse_geisser": float(stats.f.sf(f, epsilon * df_1, epsilon * df_2)),
    }


def sphericity(values: Float64) -> float:
    """Return Greenhouse and Geisser's epsilon: 1 where all differences vary alike.

    Parameters
    ----------
    values : ndarray, shape (subjects, conditions)
        Without gaps.
    """
    k = values.shape[1]
    centred = values - values.mean(axis=0)
    covariance = np.einsum("ni,nj->ij", centred, centred) / (len(values) - 1)
    double = covariance - covariance.mean(axis=0) - covariance.mean(axis=1)[:, None]
    double += covariance.mean()
    squares = float((double**2).sum())
    return float(np.trace(double) ** 2 / ((k - 1) * squares)) if squares > 0 else np.nan


def paired_tests(values: Float64, labels: list[str], confidence: float = 0.95) -> pd.DataFrame:
    """Compare each pair of conditions by the paired t test, with Holm's correction.

    Parameters
    ----------
    values : ndarray, shape (subjects, conditions)
        A subject counts for the pairs of which it has both.
    labels : list of str
        Of the conditions.
    confidence : float

    Returns
    -------
    DataFrame
        ``group_a, group_b, n_pairs, paired_difference`` (a - b) with its interval, ``t_paired,
        p_paired, p_paired_holm``, and ``d_z``, the mean difference over the SD of the differences.
    """
    rows = []
    for b, a in combinations(range(len(labels)), 2):
        difference = values[:, a] - values[:, b]
        difference = difference[np.isfinite(difference)]
        n = difference.size
        mean = difference.mean() if n else np.nan
        sd = difference.std(ddof=1) if n > 1 else np.nan
        known = bool(sd > 0)
        error = sd / np.sqrt(n) if known else np.nan
        low, high, p = student(mean, error, max(n - 1, 1), confidence)
        rows.append(
            {
                "group_a": labels[a],
                "group_b": labels[b],
                "n_pairs": n,
                "paired_difference": mean,
                "paired_difference_low": low,
                "paired_difference_high": high,
                "t_paired": mean / error if known else np.nan,
                "p_paired": float(p),
                "d_z": mean / sd if known else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(p_paired_holm=holm(table["p_paired"].to_numpy()))

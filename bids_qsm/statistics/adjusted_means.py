"""Groups compared with covariates held fixed, for many outcomes at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics.designs import Design, build_design, restrict
from bids_qsm.statistics.expressions import counted
from bids_qsm.statistics.leastsquares import Robust, estimates, joint_test, least_squares

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Groups compared with covariates held fixed, for k outcomes.

    Attributes
    ----------
    means : dict of ndarray, shape (groups, k)
        ``adjusted_mean, adjusted_mean_low, adjusted_mean_high``.
    pairs : dict of dict of ndarray, shape (k,)
        For each pair (a, b) with a > b: ``adjusted_difference, adjusted_difference_low,
        adjusted_difference_high, t_adjusted, p_adjusted``.
    f, p, df, n : ndarray, shape (k,)
        F test of all groups, its residual degrees of freedom, and the number of subjects.
    """

    means: dict[str, Float64]
    pairs: dict[tuple[int, int], dict[str, Float64]]
    f: Float64
    p: Float64
    df: Float64
    n: Float64


def adjust(
    people: pd.DataFrame,
    matrix: Float64,
    group: str,
    labels: list[str],
    formula: str,
    robust: Robust | None,
    level: float,
) -> tuple[Adjusted, tuple[str, ...]]:
    """Fit ``group + covariates`` to all outcomes, those with the same subjects at once.

    Parameters
    ----------
    people : DataFrame, n rows
        The subjects, with the groups as text and the covariates.
    matrix : ndarray, shape (n, k)
        The outcomes; NaN where they are missing.
    group : str
        Column of the groups.
    labels : list of str
        The groups, the reference first.
    formula : str
        The covariates.
    robust, level
        As in :func:`bids_qsm.statistics.regions.compare_groups`.

    Returns
    -------
    Adjusted
        NaN for outcomes that cannot be fitted.
    tuple of str
        Sentences on them, and on subjects that were left out.

    Raises
    ------
    ValueError
        As in :func:`bids_qsm.statistics.designs.build_design`.
    """
    coded = people.assign(**{group: pd.Series(people[group], dtype=object).map(labels.index)})
    coded[group] = coded[group].map("g{:02d}".format)  # sorts as the labels stand
    design = build_design(coded, f"`{group}` + {formula}")
    outcomes = matrix[design.rows]
    result = _empty(len(labels), matrix.shape[1])
    notes = [f"in the adjusted models {sentence}" for sentence in design.left_out]
    known = np.isfinite(outcomes)
    patterns, of = np.unique(known, axis=1, return_inverse=True)
    for number, keep in enumerate(patterns.T):
        columns = np.flatnonzero(of.reshape(-1) == number)
        try:
            part = restrict(design, keep)
        except ValueError as error:
            notes.append(
                f"{counted(len(columns), 'outcome')} with {counted(int(keep.sum()), 'subject')} "
                f"could not be adjusted: {error}"
            )
            continue
        _fill(result, part, outcomes[np.ix_(keep, columns)], columns, group, robust, level)
    return result, tuple(notes)


def _empty(groups: int, k: int) -> Adjusted:
    names = ("adjusted_mean", "adjusted_mean_low", "adjusted_mean_high")
    means = {name: np.full((groups, k), np.nan) for name in names}
    keys = ("adjusted_difference", "adjusted_difference_low", "adjusted_difference_high")
    pairs = {
        (a, b): {name: np.full(k, np.nan) for name in (*keys, "t_adjusted", "p_adjusted")}
        for b, a in combinations(range(groups), 2)
    }
    return Adjusted(means, pairs, *(np.full(k, np.nan) for _ in range(4)))


def _fill(
    result: Adjusted,
    design: Design,
    outcomes: Float64,
    columns: NDArray[np.intp],
    group: str,
    robust: Robust | None,
    level: float,
) -> None:
    fit = least_squares(design.matrix, outcomes)
    groups, p = len(result.means["adjusted_mean"]), design.matrix.shape[1]
    places = design.terms[group]
    coding = np.zeros((groups, p))
    coding[np.arange(1, groups), places] = 1
    at_mean = design.matrix.mean(axis=0)
    at_mean[list(places)] = 0
    found = estimates(fit, coding + at_mean, robust=robust, level=level)
    for name, values in zip(result.means, (found.value, found.low, found.high), strict=True):
        result.means[name][:, columns] = values
    for (a, b), cells in result.pairs.items():
        pair = estimates(fit, (coding[a] - coding[b])[None], robust=robust, level=level)
        for name, values in zip(
            cells, (pair.value, pair.low, pair.high, pair.t, pair.p), strict=True
        ):
            cells[name][columns] = values[0]
    result.f[columns], result.p[columns] = joint_test(fit, coding[1:], robust=robust)
    result.df[columns], result.n[columns] = fit.df, len(outcomes)

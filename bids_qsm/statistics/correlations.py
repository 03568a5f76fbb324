"""Correlations of many outcomes with clinical variables, plain and with covariates held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.designs import build_design, restrict
from bids_qsm.statistics.expressions import counted, listed, typed_column
from bids_qsm.statistics.leastsquares import least_squares
from bids_qsm.statistics.linear_models import outcome_values
from bids_qsm.statistics.multiplicity import fdr, holm

Float64 = NDArray[np.float64]
Method = Literal["pearson", "spearman"]

_FEWEST = 4


@dataclass(frozen=True, eq=False)
class Correlations:
    """Result of :func:`correlate`: its table, and sentences for the user."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def correlate(
    table: pd.DataFrame,
    outcomes: str | Sequence[str],
    variables: str | Sequence[str],
    *,
    covariates: str | Sequence[str] = (),
    method: Method = "pearson",
    level: float = 0.95,
) -> Correlations:
    """Correlate each outcome with each variable.

    Parameters
    ----------
    table : DataFrame
        One row for each subject.
    outcomes : str or sequence of str
        Columns or expressions, such as the values of structures.
    variables : str or sequence of str
        Columns or expressions, such as disability and duration; words of two levels are counted
        as 0 and 1.
    covariates : str or sequence of str
        Terms of a formula that are held fixed: the correlation is then partial.
    method : {'pearson', 'spearman'}
        Spearman's is Pearson's of the ranks, also with covariates (whose columns are ranked too).
    level : float
        Of the intervals.

    Returns
    -------
    Correlations
        One row for each outcome and variable: ``outcome, variable, method, covariates, n, r,
        r_low, r_high, t, df, p`` and ``q_fdr, p_holm`` over the outcomes of a variable, or over the
        variables if there is one outcome.  Intervals are by Fisher's z, for ranks with the variance
        of Bonett and Wright 2000, 10.1007/BF02294183.

    Raises
    ------
    ValueError
        With one sentence: for an unknown column, a variable of more than two words, one that is
        the same for all, or fewer than four subjects beside the covariates.
    """
    if method not in ("pearson", "spearman"):
        raise ValueError(f"the correlation is 'pearson' or 'spearman', not {method!r}.")
    wanted = [outcomes] if isinstance(outcomes, str) else list(outcomes)
    tried = [variables] if isinstance(variables, str) else list(variables)
    if not wanted or not tried:
        raise ValueError("the correlation needs at least one outcome and one variable.")
    formula = covariates if isinstance(covariates, str) else " + ".join(covariates)
    values = {name: outcome_values(table, name) for name in wanted}
    notes: list[str] = []
    others = {name: _variable(table, name, notes) for name in tried}
    design = build_design(table, formula) if formula.strip() else None
    if design is not None:
        notes += design.left_out
    inside = np.ones(len(table), bool)
    if design is not None:
        inside = np.isin(np.arange(len(table)), design.rows)
    rows: list[dict[str, Any]] = []
    for (variable, x), (outcome, y) in product(others.items(), values.items()):
        known = np.isfinite(x) & np.isfinite(y) & inside
        try:
            _check(x[known], y[known], variable, outcome)
            held = None if design is None else restrict(design, known[design.rows]).matrix
            found = _correlation(x[known], y[known], held, method, level, (variable, outcome))
        except ValueError as error:
            if len(wanted) * len(tried) == 1:
                raise
            notes.append(f"{outcome} with {variable}: {error}")
            continue
        row = {"outcome": outcome, "variable": variable, "method": method}
        rows.append(row | {"covariates": formula.strip() or "none"} | found)
    if not rows:
        raise ValueError(notes[-1])
    result = pd.DataFrame(rows)
    groups = result.groupby("variable" if len(wanted) > 1 else "outcome", sort=False)["p"]
    result["q_fdr"] = groups.transform(lambda p: fdr(p.to_numpy()))
    result["p_holm"] = groups.transform(lambda p: holm(p.to_numpy()))
    return Correlations(result, tuple(dict.fromkeys(notes)))


def _variable(table: pd.DataFrame, name: str, notes: list[str]) -> Float64:
    """Return a variable as numbers; the first of two words in the alphabet is zero."""
    if name not in table.columns:
        return outcome_values(table, name)
    column = typed_column(table, name)
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return np.asarray(column, dtype=np.float64)
    levels = sorted(map(str, column.dropna().unique()))
    if len(levels) != 2:
        raise ValueError(
            f"column {name!r} has {counted(len(levels), 'group')} ({listed(levels, 5)}): compare "
            "groups instead of correlating them."
        )
    notes.append(f"{name}: {levels[0]} counts as 0, {levels[1]} as 1.")
    return np.asarray(column.map({levels[0]: 0.0, levels[1]: 1.0}), dtype=np.float64)


def _check(x: Float64, y: Float64, variable: str, outcome: str) -> None:
    if len(x) < _FEWEST:
        raise ValueError(
            f"{outcome} and {variable} are known together in {counted(len(x), 'subject')}: at "
            f"least {_FEWEST} are needed."
        )
    for name, values in ((variable, x), (outcome, y)):
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            raise ValueError(f"{name} is the same ({values[0]:g}) in all subjects.")


def _correlation(
    x: Float64,
    y: Float64,
    held: Float64 | None,
    method: Method,
    level: float,
    names: tuple[str, str],
) -> dict[str, float]:
    if method == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
        if held is not None:
            held = _ranked(held)
    pair = np.column_stack([x, y]).astype(np.float64)
    largest = np.abs(pair).max(axis=0)
    n, k = len(x), 0
    if held is not None:
        k = held.shape[1] - 1
        pair = least_squares(held, pair).residuals
    pair = pair - pair.mean(axis=0)
    df = n - 2 - k
    if df < 2:
        raise ValueError(
            f"{names[1]} and {names[0]} are known in {counted(n, 'subject')}, too few for "
            f"{counted(k, 'column')} of covariates."
        )
    squares = np.einsum("nk,nk->k", pair, pair)
    if (squares <= n * (1e-12 * largest) ** 2).any():
        raise ValueError(f"the covariates say all of {names[0]} or {names[1]}: nothing is left.")
    r = float(np.einsum("n,n->", pair[:, 0], pair[:, 1]) / np.sqrt(squares.prod()))
    r = min(max(r, -1.0), 1.0)
    t = r * np.sqrt(df / (1 - r * r)) if abs(r) < 1 else np.inf * np.sign(r)
    spread = (1 + r * r / 2 if method == "spearman" else 1) / (df - 1)
    with np.errstate(divide="ignore"):
        z, half = np.arctanh(r), stats.norm.ppf(0.5 + level / 2) * np.sqrt(spread)
    return {
        "n": n,
        "r": r,
        "r_low": float(np.tanh(z - half)),
        "r_high": float(np.tanh(z + half)),
        "t": float(t),
        "df": df,
        "p": float(2 * stats.t.sf(abs(t), df)),
    }


def _ranked(matrix: Float64) -> Float64:
    """Rank the columns that have more than two values."""
    ranked = matrix.copy()
    for place, column in enumerate(matrix.T):
        if len(np.unique(column)) > 2:
            ranked[:, place] = stats.rankdata(column)
    return ranked

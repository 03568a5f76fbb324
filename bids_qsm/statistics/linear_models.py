"""Linear models of one formula: all of one model, or contrasts on many outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics.designs import Contrast, Design, build_design, contrast, restrict
from bids_qsm.statistics.expressions import (
    counted,
    formula_columns,
    listed,
    row_names,
    typed_column,
)
from bids_qsm.statistics.leastsquares import Fit, Robust, estimates, joint_test, least_squares
from bids_qsm.statistics.multiplicity import fdr, holm

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model of one outcome.

    Attributes
    ----------
    outcome : str
    design : Design
    y : ndarray, shape (n,)
        The outcome in the rows of the design.
    fit : Fit
    coefficients : DataFrame
        One row for each column: ``outcome, name, term, coefficient, coefficient_low,
        coefficient_high, se, t, p, standardised``.
    terms : DataFrame
        One row for each term: ``outcome, term, f, df_term, df_residual, p``.
    summary : dict
        ``n, df_model, df_residual, r2, r2_adjusted, f, p, sd_residual, log_likelihood, aic, bic``.
    notes : tuple of str
        Sentences on rows that were left out.
    """

    outcome: str
    design: Design
    y: Float64
    fit: Fit
    coefficients: pd.DataFrame
    terms: pd.DataFrame
    summary: dict[str, float]
    notes: tuple[str, ...]


def fit_model(
    table: pd.DataFrame,
    outcome: str,
    formula: str,
    *,
    robust: Robust | None = None,
    level: float = 0.95,
) -> Model:
    """Regress an outcome on a formula.

    Parameters
    ----------
    table : DataFrame
        One row for each subject.
    outcome : str
        A column, or an expression as ``log(lesion_ml)``.
    formula : str
        Right-hand side, as in :func:`bids_qsm.statistics.designs.build_design`.
    robust : {'HC0', 'HC1', 'HC2', 'HC3'}, optional
        Errors that allow for unequal variances.
    level : float
        Of the intervals.

    Raises
    ------
    ValueError
        With one sentence, as in :func:`bids_qsm.statistics.designs.build_design`.
    """
    values = outcome_values(table, outcome)
    whole = build_design(table, formula)
    design = restrict(
        whole, np.isfinite(values[whole.rows]), without(table, whole, values, outcome)
    )
    y = values[design.rows]
    check_outcome(y, outcome)
    fit = least_squares(design.matrix, y)
    return Model(
        outcome,
        design,
        y,
        fit,
        _coefficients(outcome, design, y, fit, robust, level),
        _terms(outcome, design, fit, robust),
        _summary(design, y, fit, robust),
        design.left_out,
    )


def contrast_table(
    table: pd.DataFrame,
    outcomes: str | Sequence[str],
    formula: str,
    contrasts: Mapping[str, str] | Sequence[str] | str,
    *,
    robust: Robust | None = None,
    level: float = 0.95,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Test contrasts of one formula on many outcomes.

    Parameters
    ----------
    table : DataFrame
        One row for each subject.
    outcomes : str or sequence of str
        Columns or expressions, such as the values of structures.
    formula : str
        Right-hand side.
    contrasts : mapping of str to str, or sequence of str
        Contrasts as in :func:`bids_qsm.statistics.designs.contrast`, by their names.
    robust, level
        As in :func:`fit_model`.

    Returns
    -------
    DataFrame
        One row for each outcome and contrast: ``outcome, contrast, kind, n, estimate,
        estimate_low, estimate_high, se, statistic`` (t or F), ``df_contrast, df_residual, p,
        partial_r2``, and ``q_fdr, p_holm`` over the outcomes; no estimate for F.
    tuple of str
        Sentences on rows that were left out, and on outcomes that could not be fitted.

    Raises
    ------
    ValueError
        With one sentence, as in :func:`bids_qsm.statistics.designs.build_design`.
    """
    wanted = [outcomes] if isinstance(outcomes, str) else list(outcomes)
    given = [contrasts] if isinstance(contrasts, str) else contrasts
    asked = dict(given) if isinstance(given, Mapping) else {text: text for text in given}
    if not wanted or not asked:
        raise ValueError("the model needs at least one outcome and one contrast.")
    whole = build_design(table, formula)
    hypotheses = {name: contrast(whole, text) for name, text in asked.items()}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for outcome in wanted:
        values = outcome_values(table, outcome)
        known = np.isfinite(values[whole.rows])
        lost = "" if known.all() else without(table, whole, values, outcome)
        try:
            design = restrict(whole, known, lost)
            check_outcome(values[design.rows], outcome)
        except ValueError as error:
            if len(wanted) == 1:
                raise
            notes.append(f"{outcome}: {error}")
            continue
        notes += design.left_out
        fit = least_squares(design.matrix, values[design.rows])
        for name, hypothesis in hypotheses.items():
            first = {"outcome": outcome, "contrast": name}
            rows.append(first | _tested(fit, hypothesis, robust, level))
    if not rows:
        raise ValueError(notes[-1])
    result = pd.DataFrame(rows)
    groups = result.groupby("contrast", sort=False)["p"]
    result["q_fdr"] = groups.transform(lambda p: fdr(p.to_numpy()))
    result["p_holm"] = groups.transform(lambda p: holm(p.to_numpy()))
    return result, tuple(dict.fromkeys(notes))


def _tested(fit: Fit, hypothesis: Contrast, robust: Robust | None, level: float) -> dict[str, Any]:
    q = len(hypothesis.weights)
    f, p = joint_test(fit, hypothesis.weights, robust=robust)
    row: dict[str, Any] = {"kind": hypothesis.kind, "n": len(fit.matrix)}
    row |= dict.fromkeys(["estimate", "estimate_low", "estimate_high", "se"], np.nan)
    row |= {"statistic": float(f[0]), "df_contrast": q, "df_residual": fit.df, "p": float(p[0])}
    row["partial_r2"] = float(f[0] * q / (f[0] * q + fit.df))
    if hypothesis.kind == "t":
        found = estimates(fit, hypothesis.weights, robust=robust, level=level)
        row |= {
            "estimate": found.value.item(),
            "estimate_low": found.low.item(),
            "estimate_high": found.high.item(),
            "se": found.se.item(),
            "statistic": found.t.item(),
        }
    return row


def outcome_values(table: pd.DataFrame, outcome: str) -> Float64:
    """Return a column or an expression as numbers, NaN where it is missing.

    Raises
    ------
    ValueError
        If it is no column and no expression of one, is text, or is not finite where its columns
        are known.
    """
    columns = [str(column) for column in table.columns]
    name = outcome.strip()
    if name not in columns:
        used, _ = formula_columns(name, columns)
        name = used[0] if name in (f"`{used[0]}`", f"Q({used[0]!r})") else name
    if name in columns:
        values = typed_column(table, name)
        if not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)):
            raise ValueError(f"the outcome {name!r} is text: it must be numbers.")
        return values.to_numpy(dtype=np.float64)
    design = build_design(table, f"{name} - 1")
    if design.matrix.shape[1] != 1 or design.levels:
        raise ValueError(f"the outcome {name!r} is not one column of numbers.")
    result = np.full(len(table), np.nan)
    result[design.rows] = design.matrix[:, 0]
    return result


def check_outcome(y: Float64, outcome: str) -> None:
    """Refuse an outcome that is the same in all rows."""
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise ValueError(
            f"the outcome {outcome!r} is the same ({y[0]:g}) in all {counted(len(y), 'row')} used."
        )


def without(table: pd.DataFrame, design: Design, values: Float64, outcome: str) -> str:
    """Return the sentence on the design's rows that have no outcome."""
    lost = design.rows[~np.isfinite(values[design.rows])]
    names = listed(row_names(table.iloc[lost]), 5)
    return f"{counted(len(lost), 'row')} left out for want of {outcome}: {names}."


def _coefficients(
    outcome: str, design: Design, y: Float64, fit: Fit, robust: Robust | None, level: float
) -> pd.DataFrame:
    found = estimates(fit, np.eye(len(design.names)), robust=robust, level=level)
    terms = {place: term for term, places in design.terms.items() for place in places}
    return pd.DataFrame(
        {
            "outcome": outcome,
            "name": design.names,
            "term": [terms.get(place, "Intercept") for place in range(len(design.names))],
            "coefficient": found.value[:, 0],
            "coefficient_low": found.low[:, 0],
            "coefficient_high": found.high[:, 0],
            "se": found.se[:, 0],
            "t": found.t[:, 0],
            "p": found.p[:, 0],
            "standardised": found.value[:, 0] * steps(design) / y.std(ddof=1),
        }
    )


def steps(design: Design) -> Float64:
    """Return what a step of each column is: a standard deviation, or one where it is 0 and 1."""
    scales = design.matrix.std(axis=0, ddof=1)
    for place, column in enumerate(design.matrix.T):
        if np.isin(column, (0, 1)).all():
            scales[place] = 1 if scales[place] else np.nan
    return scales


def _terms(outcome: str, design: Design, fit: Fit, robust: Robust | None) -> pd.DataFrame:
    rows = []
    for term, places in design.terms.items():
        f, p = joint_test(fit, np.eye(len(design.names))[list(places)], robust=robust)
        rows.append((outcome, term, float(f[0]), len(places), fit.df, float(p[0])))
    return pd.DataFrame(rows, columns=["outcome", "term", "f", "df_term", "df_residual", "p"])


def _summary(design: Design, y: Float64, fit: Fit, robust: Robust | None) -> dict[str, float]:
    n, p = design.matrix.shape
    residual = float(fit.variance[0]) * fit.df
    intercept = "Intercept" in design.names or _holds_a_constant(design.matrix)
    total = float(((y - y.mean() * intercept) ** 2).sum())
    df_model = p - intercept
    f, p_value = np.nan, np.nan
    if df_model and "Intercept" in design.names:
        tests = joint_test(fit, np.eye(p)[1:], robust=robust)
        f, p_value = (float(x[0]) for x in tests)
    likelihood = -n / 2 * float(np.log(2 * np.pi * residual / n) + 1)
    return {
        "n": n,
        "df_model": df_model,
        "df_residual": fit.df,
        "r2": 1 - residual / total,
        "r2_adjusted": 1 - residual / fit.df / (total / (n - intercept)),
        "f": f,
        "p": p_value,
        "sd_residual": float(np.sqrt(fit.variance[0])),
        "log_likelihood": likelihood,
        "aic": 2 * p - 2 * likelihood,
        "bic": float(np.log(n)) * p - 2 * likelihood,
    }


def _holds_a_constant(matrix: Float64) -> bool:
    fit = least_squares(matrix, np.ones(len(matrix)))
    return bool(np.abs(fit.residuals).max() < 1e-8)

"""Nested models: whether some predictors tell more of an outcome than others do already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

from bids_qsm.statistics.designs import Design, build_design, restrict
from bids_qsm.statistics.expressions import (
    counted,
    listed,
    row_names,
    typed_column,
)
from bids_qsm.statistics.leastsquares import Robust, joint_test, least_squares, orthogonal
from bids_qsm.statistics.linear_models import check_outcome, outcome_values, without
from bids_qsm.statistics.logistic import LogisticFit, fit_logistic, roc_area
from bids_qsm.statistics.multiplicity import fdr, holm

Float64 = NDArray[np.float64]
Family = Literal["auto", "linear", "logistic"]


@dataclass(frozen=True)
class Question:
    """Whether the terms ``added`` tell more of ``outcome`` than the formula ``base`` does."""

    outcome: str
    base: str
    added: str
    label: str = ""


@dataclass(frozen=True, eq=False)
class NestedComparison:
    """Result of :func:`compare_models`: its table, and sentences for the user."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def compare_models(
    table: pd.DataFrame,
    questions: Question | Sequence[Question],
    *,
    family: Family = "auto",
    event: str | None = None,
    bootstrap: int = 0,
    robust: Robust | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> NestedComparison:
    """Compare each base model with the same and more terms, on the same subjects.

    Parameters
    ----------
    table : DataFrame
        One row for each subject.
    questions : Question or sequence of Question
        Such as ``Question("edss", "volume + age + sex", "chi")``: does susceptibility tell more of
        disability than volume does.
    family : {'auto', 'linear', 'logistic'}
        With ``auto``, outcomes of two words or of true and false are logistic.
    event : str, optional
        Level of a logistic outcome whose odds are modelled; else the last in the alphabet.
    bootstrap : int
        Number of resamplings of subjects for the interval of the difference in R2; none by
        default: then it is from the noncentral F distribution, which takes the R2 of the base
        model as known.
    robust : {'HC0', 'HC1', 'HC2', 'HC3'}, optional
        Errors of the F test that allow for unequal variances.
    level : float
        Of the intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    NestedComparison
        One row for each question: ``label, outcome, base, added, family, n, df_added,
        aic_base, aic_full, delta_aic, bic_base, bic_full, delta_bic`` (full less base: below zero,
        the added terms pay), ``lr, p_lr`` (likelihood ratio).
        Linear: ``r2_base, r2_full, delta_r2, delta_r2_low, delta_r2_high, partial_r2,
        partial_r2_low, partial_r2_high, cohens_f2, f, df_residual, p``.
        Logistic: ``event, n_events, r2_base, r2_full, delta_r2`` (Nagelkerke's), ``auc_base,
        auc_full, delta_auc, delta_auc_low, delta_auc_high`` (DeLong's; of the fitted subjects, so
        flattering), and ``p``, that of the likelihood ratio.
        ``q_fdr`` and ``p_holm`` are over the questions.

    Raises
    ------
    ValueError
        With one sentence, as in :func:`bids_qsm.statistics.designs.build_design`; if added terms
        stand in the base model, or the two levels are separated.

    References
    ----------
    Steiger 2004, 10.1037/1082-989X.9.2.164 (intervals); Nagelkerke 1991, 10.1093/biomet/78.3.691.
    """
    asked = [questions] if isinstance(questions, Question) else list(questions)
    if not asked:
        raise ValueError("the comparison of models has no question.")
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for question in asked:
        try:
            pair = _pair(table, question, family, event)
            notes += pair.full.left_out
            if pair.event is None:
                row = _linear(pair, robust, bootstrap, level, seed)
            else:
                row = _logistic(pair, level)
        except ValueError as error:
            if len(asked) == 1:
                raise
            notes.append(f"{question.label or question.added}: {error}")
            continue
        first = {"label": question.label or question.added, "outcome": question.outcome}
        rows.append(first | {"base": question.base, "added": question.added} | row)
    if not rows:
        raise ValueError(notes[-1])
    result = pd.DataFrame(rows)
    result["q_fdr"], result["p_holm"] = fdr(result["p"]), holm(result["p"])
    return NestedComparison(result, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True, eq=False)
class _Pair:
    base: Design
    full: Design
    y: Float64
    event: str | None


def _pair(table: pd.DataFrame, question: Question, family: Family, event: str | None) -> _Pair:
    """Return both designs and the outcome in the rows that have all of them."""
    full = build_design(table, f"{question.base} + {question.added}")
    base = build_design(table, question.base)
    values, level = _outcome(table, question.outcome, family, event)
    known = np.isfinite(values[full.rows])
    lost = "" if known.all() else without(table, full, values, question.outcome)
    full = restrict(full, known, lost)
    base = restrict(base, np.isin(base.rows, full.rows))
    if len(full.names) <= len(base.names):
        raise ValueError(
            f"{question.added!r} adds nothing to {question.base!r}: its terms stand there already."
        )
    y = values[full.rows]
    check_outcome(y, question.outcome)
    return _Pair(base, full, y, level)


def _outcome(
    table: pd.DataFrame, outcome: str, family: Family, event: str | None
) -> tuple[Float64, str | None]:
    """Return the outcome as numbers, and the level that is one if it is logistic."""
    if family == "linear" or outcome not in table.columns:
        return outcome_values(table, outcome), None
    column = typed_column(table, outcome, as_levels=family == "logistic")
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if number and family == "auto":
        return outcome_values(table, outcome), None
    known = column.dropna()
    text = known.map(lambda v: f"{v:g}" if isinstance(v, float) else str(v))
    levels = sorted(text.unique())
    if len(levels) != 2:
        raise ValueError(
            f"the outcome {outcome!r} has {counted(len(levels), 'level')} "
            f"({listed(levels, 5)}): two are needed, or numbers."
        )
    if event is not None and event not in levels:
        raise ValueError(f"the event {event!r} is none of {outcome!r}: {listed(levels)}.")
    chosen = event or levels[-1]
    sizes = text.value_counts()
    if sizes.min() < 2:
        alone = str(sizes.idxmin())
        who = row_names(table.loc[text.index[text == alone]])[0]
        raise ValueError(f"group {alone!r} of column {outcome!r} has one subject ({who}).")
    values = np.full(len(table), np.nan)
    values[column.notna().to_numpy()] = text == chosen
    return values, chosen


def _linear(
    pair: _Pair, robust: Robust | None, bootstrap: int, level: float, seed: int
) -> dict[str, Any]:
    n, p = pair.full.matrix.shape
    added = p - len(pair.base.names)
    full, base = (least_squares(d.matrix, pair.y) for d in (pair.full, pair.base))
    left_full, left_base = (float(fit.variance[0]) * fit.df for fit in (full, base))
    total = float(((pair.y - pair.y.mean()) ** 2).sum())
    f = (left_base - left_full) / added / float(full.variance[0])
    f_test, p_value = f, float(stats.f.sf(f, added, full.df))
    if robust is not None:
        tests = joint_test(full, _added_rows(pair), robust=robust)
        f_test, p_value = (float(values[0]) for values in tests)
    delta, partial = (left_base - left_full) / total, 1 - left_full / left_base
    low, high = (nc / (nc + n) for nc in _noncentrality(f, added, full.df, level))
    bounds = [low * left_base / total, high * left_base / total]
    if bootstrap:
        resampled = _resampled_delta(pair, bootstrap, seed)
        bounds = list(np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2]))
    lr = n * np.log(left_base / left_full)
    row = {"family": "linear", "n": n, "df_added": added}
    row |= _criteria(n, len(pair.base.names), added, _likelihood(left_base, n), lr)
    return row | {
        "r2_base": 1 - left_base / total,
        "r2_full": 1 - left_full / total,
        "delta_r2": delta,
        "delta_r2_low": float(bounds[0]),
        "delta_r2_high": float(bounds[1]),
        "partial_r2": partial,
        "partial_r2_low": low,
        "partial_r2_high": high,
        "cohens_f2": partial / (1 - partial),
        "f": f_test,
        "df_residual": full.df,
        "p": p_value,
    }


def _likelihood(left: float, n: int) -> float:
    return -n / 2 * float(np.log(2 * np.pi * left / n) + 1)


def _criteria(n: int, p: int, added: int, likelihood: float, lr: float) -> dict[str, float]:
    """Return the information criteria of both models, and the likelihood-ratio test."""
    more = likelihood + lr / 2
    aic = (2 * p - 2 * likelihood, 2 * (p + added) - 2 * more)
    bic = (np.log(n) * p - 2 * likelihood, np.log(n) * (p + added) - 2 * more)
    return {
        "aic_base": aic[0],
        "aic_full": aic[1],
        "delta_aic": aic[1] - aic[0],
        "bic_base": float(bic[0]),
        "bic_full": float(bic[1]),
        "delta_bic": float(bic[1] - bic[0]),
        "lr": float(lr),
        "p_lr": float(stats.chi2.sf(lr, added)),
    }


def _added_rows(pair: _Pair) -> Float64:
    """Return the contrast that the added columns are zero."""
    places = [i for i, name in enumerate(pair.full.names) if name not in pair.base.names]
    if len(places) != len(pair.full.names) - len(pair.base.names):
        raise ValueError(
            "robust errors cannot be had where the added terms change the coding of the base "
            "model: write its main effects first."
        )
    return np.eye(len(pair.full.names))[places]


def _noncentrality(f: float, df_1: int, df_2: int, level: float) -> tuple[float, float]:
    """Return the interval of the noncentrality of an F statistic."""
    bounds = []
    for tail in (0.5 + level / 2, 0.5 - level / 2):

        def excess(nc: float, tail: float = tail) -> float:
            below = float(special.ncfdtr(df_1, df_2, nc, f))
            return (0.0 if np.isnan(below) else below) - tail  # NaN far in the upper tail

        if f <= 0 or float(stats.f.cdf(f, df_1, df_2)) <= tail:
            bounds.append(0.0)
            continue
        reach = 10.0
        while excess(reach) > 0:
            reach *= 2
        bounds.append(float(brentq(excess, 0, reach, xtol=1e-10)))
    return bounds[0], bounds[1]


def _resampled_delta(pair: _Pair, number: int, seed: int) -> Float64:
    """Return the difference in R2 in resamplings of the subjects."""
    rng = np.random.default_rng(seed)
    n = len(pair.y)
    bases = [orthogonal(design.matrix)[0] for design in (pair.base, pair.full)]
    result = np.full(number, np.nan)
    for i in range(number):
        times = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        mean = np.einsum("n,n->", times, pair.y) / n
        total = float(np.einsum("n,n->", times, (pair.y - mean) ** 2))
        left = [_left_over(basis, pair.y, times) for basis in bases]
        result[i] = (left[0] - left[1]) / total if total > 0 else np.nan
    return result[np.isfinite(result)]


def _left_over(basis: Float64, y: Float64, times: Float64) -> float:
    """Return the sum of squares of the residuals where each row stands so many times."""
    gram = np.einsum("np,n,nr->pr", basis, times, basis)
    cross = np.einsum("np,n,n->p", basis, times, y)
    # a resampling may lack a group altogether
    coefficients = np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ cross
    residual = y - np.einsum("np,p->n", basis, coefficients)
    return float(np.einsum("n,n,n->", times, residual, residual))


def _logistic(pair: _Pair, level: float) -> dict[str, Any]:
    event = pair.y > 0
    n, p = pair.full.matrix.shape
    added = p - len(pair.base.names)
    base, full = (fit_logistic(d.matrix, event) for d in (pair.base, pair.full))
    areas, covariance = roc_area(np.stack([base.probability, full.probability]), event)
    change = np.array([-1.0, 1.0])
    se = float(np.sqrt(max(change @ covariance @ change, 0)))
    half = stats.norm.ppf(0.5 + level / 2) * se
    lr = 2 * (full.log_likelihood - base.log_likelihood)
    row = {"family": "logistic", "n": n, "df_added": added}
    row |= _criteria(n, len(pair.base.names), added, base.log_likelihood, lr)
    r2 = [_nagelkerke(fit, event) for fit in (base, full)]
    return row | {
        "event": pair.event,
        "n_events": int(event.sum()),
        "r2_base": r2[0],
        "r2_full": r2[1],
        "delta_r2": r2[1] - r2[0],
        "auc_base": float(areas[0]),
        "auc_full": float(areas[1]),
        "delta_auc": float(areas[1] - areas[0]),
        "delta_auc_low": float(areas[1] - areas[0] - half),
        "delta_auc_high": float(areas[1] - areas[0] + half),
        "p": row["p_lr"],
    }


def _nagelkerke(fit: LogisticFit, event: NDArray[np.bool_]) -> float:
    n, share = len(event), float(event.mean())
    null = n * (share * np.log(share) + (1 - share) * np.log(1 - share))
    cox_snell = 1 - np.exp(2 / n * (null - fit.log_likelihood))
    return float(cox_snell / (1 - np.exp(2 / n * null)))

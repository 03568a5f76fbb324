"""Tables of regressions before and after adjustment for covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics import expressions
from bids_qsm.statistics.designs import Design, build_design, restrict
from bids_qsm.statistics.leastsquares import Robust, estimates, joint_test, least_squares
from bids_qsm.statistics.linear_models import check_outcome, outcome_values, steps, without
from bids_qsm.statistics.multiplicity import fdr, holm
from bids_qsm.statistics.transforms import expression

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Associations:
    """Result of :func:`associations`: its table, and sentences on what was left out."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def associations(
    table: pd.DataFrame,
    outcomes: str | Sequence[str],
    predictors: str | Sequence[str],
    *,
    covariates: str | Sequence[str] = (),
    transforms: Mapping[str, str] | None = None,
    subset: str | None = None,
    same_subjects: bool = True,
    robust: Robust | None = None,
    level: float = 0.95,
) -> Associations:
    """Regress each outcome on each predictor, before and after adjustment for covariates.

    Parameters
    ----------
    table : DataFrame
        One row for each subject.
    outcomes, predictors, covariates : str or sequence of str
        Columns, or terms as ``log(lesion_ml)`` and ``C(site)``.  A covariate that is the
        predictor, or is made of the outcome, is left out of its models.
    transforms : mapping of str to str, optional
        Transform of the ladder for columns among them, as ``{"lesion_ml": "log"}``.
    subset : str, optional
        Condition on the rows, as ``age < 50``.
    same_subjects : bool
        Use the rows with all covariates before adjustment too, so that the change is due to the
        covariates alone.
    robust : {'HC0', 'HC1', 'HC2', 'HC3'}, optional
        Errors that allow for unequal variances.
    level : float
        Of the intervals.

    Returns
    -------
    Associations
        One row for each outcome and column of a predictor (a group has one for each level but the
        reference): ``outcome, predictor, level, reference_level, covariates, subset`` and, with
        ``_before`` and ``_after``: ``n, coefficient, coefficient_low, coefficient_high, p, p_term``
        (F test of all columns of the predictor), ``standardised`` (in standard deviations of the
        outcome per standard deviation of the predictor, or per level), ``r2``, and ``q_fdr`` and
        ``p_holm`` over the outcomes, or over the predictors if there is one outcome.

    Raises
    ------
    ValueError
        With one sentence, as in :func:`bids_qsm.statistics.designs.build_design`.
    """
    notes: list[str] = []
    if subset is not None:
        table, said = expressions.subset(table, subset)
        notes += said
    lists = [
        _terms_of(terms, table, transforms or {}) for terms in (outcomes, predictors, covariates)
    ]
    wanted, tried, adjusting = lists
    if not wanted or not tried:
        raise ValueError("the regression needs at least one outcome and one predictor.")
    values = {outcome: outcome_values(table, outcome) for outcome in wanted}
    designs = _Designs(table)
    rows: list[dict[str, Any]] = []
    for outcome in wanted:
        for predictor in tried:
            others = _adjusting(outcome, predictor, adjusting, table)
            try:
                _check_predictor(designs.of(predictor), predictor)
                before, after = _pair(
                    designs, (predictor, others), (outcome, values[outcome]), same_subjects, notes
                )
            except ValueError as error:
                if len(wanted) * len(tried) == 1:
                    raise
                notes.append(f"{outcome} on {predictor}: {error}")
                continue
            rows += _rows(outcome, predictor, others, before, after, robust, level)
    if not rows:
        raise ValueError(notes[-1])
    result = pd.DataFrame(rows)
    result.insert(5, "subset", subset or "all")
    return Associations(_with_corrections(result, len(wanted) > 1), tuple(dict.fromkeys(notes)))


def _terms_of(
    terms: str | Sequence[str], table: pd.DataFrame, transforms: Mapping[str, str]
) -> list[str]:
    """Return the terms, split at plus signs outside brackets, and transformed."""
    unknown = [name for name in transforms if name not in table.columns]
    if unknown:
        raise ValueError(
            f"the transforms name {unknown[0]!r}, which is no column; there are: "
            f"{expressions.listed(table.columns, 40)}."
        )
    parts: list[str] = []
    for text in [terms] if isinstance(terms, str) else terms:
        if text in table.columns:
            parts.append(text)
            continue
        parts += expressions.split(text, "+")
    stripped = [part.strip() for part in parts if part.strip()]
    written = []
    for part in stripped:
        bare = part.strip("`")
        if bare in table.columns:
            part = expression(bare, transforms.get(bare, "identity"))
        written.append(part)
    return list(dict.fromkeys(written))


def _adjusting(
    outcome: str, predictor: str, covariates: list[str], table: pd.DataFrame
) -> list[str]:
    """Return the covariates that are neither the predictor nor made of the outcome."""
    columns = [str(column) for column in table.columns]
    own = set(expressions.formula_columns(outcome, columns)[0])
    tried = set(expressions.formula_columns(predictor, columns)[0])
    kept = []
    for covariate in covariates:
        used = set(expressions.formula_columns(covariate, columns)[0])
        if covariate != predictor and not used & own and used != tried:
            kept.append(covariate)
    return kept


class _Designs:
    """The designs of a table, each made once."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.made: dict[str, Design | ValueError] = {}

    def of(self, formula: str) -> Design:
        if formula not in self.made:
            try:
                self.made[formula] = build_design(self.table, formula)
            except ValueError as error:
                self.made[formula] = error
        made = self.made[formula]
        if isinstance(made, ValueError):
            raise made
        return made


def _pair(
    designs: _Designs,
    terms: tuple[str, list[str]],
    outcome: tuple[str, Float64],
    same_subjects: bool,
    notes: list[str],
) -> tuple[tuple[Design, Float64], tuple[Design, Float64]]:
    """Return design and outcome before and after adjustment."""
    predictor, others = terms
    name, values = outcome
    pair = []
    after = designs.of(" + ".join([predictor, *others]))
    before = designs.of(predictor)
    if same_subjects:
        before = restrict(before, np.isin(before.rows, after.rows))
    for design in (before, after):
        known = np.isfinite(values[design.rows])
        lost = "" if known.all() else without(designs.table, design, values, name)
        design = restrict(design, known, lost)
        y = values[design.rows]
        check_outcome(y, name)
        notes += design.left_out
        pair.append((design, y))
    return pair[0], pair[1]


def _check_predictor(design: Design, predictor: str) -> None:
    if len(design.terms) != 1:
        raise ValueError(
            f"the predictor {predictor!r} has {expressions.counted(len(design.terms), 'term')} "
            f"({expressions.listed(design.terms)}): give one for each, or fit a single model."
        )


def _rows(
    outcome: str,
    predictor: str,
    others: list[str],
    before: tuple[Design, Float64],
    after: tuple[Design, Float64],
    robust: Robust | None,
    level: float,
) -> list[dict[str, Any]]:
    """Return one row for each column of the predictor."""
    term = next(iter(before[0].terms))
    names = [before[0].names[place] for place in before[0].terms[term]]
    levels = before[0].levels.get(term)
    rows: list[dict[str, Any]] = [
        {
            "outcome": outcome,
            "predictor": predictor,
            "level": levels[i + 1] if levels else (name if len(names) > 1 else "n/a"),
            "reference_level": levels[0] if levels else "n/a",
            "covariates": " + ".join(others) or "none",
        }
        for i, name in enumerate(names)
    ]
    for when, (design, y) in (("before", before), ("after", after)):
        fit = least_squares(design.matrix, y)
        weights = np.eye(len(design.names))[list(design.terms[term])]
        found = estimates(fit, weights, robust=robust, level=level)
        _, p_term = joint_test(fit, weights, robust=robust)
        scales = steps(design)[list(design.terms[term])] / y.std(ddof=1)
        r2 = 1 - float(fit.variance[0]) * fit.df / float(((y - y.mean()) ** 2).sum())
        for i, row in enumerate(rows):
            row |= {
                f"n_{when}": len(y),
                f"coefficient_{when}": found.value[i, 0],
                f"coefficient_{when}_low": found.low[i, 0],
                f"coefficient_{when}_high": found.high[i, 0],
                f"p_{when}": found.p[i, 0],
                f"p_term_{when}": float(p_term[0]),
                f"standardised_{when}": found.value[i, 0] * scales[i],
                f"r2_{when}": r2,
            }
    return rows


def _with_corrections(table: pd.DataFrame, over_outcomes: bool) -> pd.DataFrame:
    keys = ["predictor", "level"] if over_outcomes else ["outcome"]
    for when in ("before", "after"):
        groups = table.groupby(keys, sort=False)[f"p_{when}"]
        table[f"q_fdr_{when}"] = groups.transform(lambda p: fdr(p.to_numpy()))
        table[f"p_holm_{when}"] = groups.transform(lambda p: holm(p.to_numpy()))
    return table

"""What may be wrong with a linear model: collinearity, influence, unequal variances, normality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.designs import Design
from bids_qsm.statistics.expressions import counted, listed, name_of_each_row
from bids_qsm.statistics.leastsquares import Fit, least_squares
from bids_qsm.statistics.linear_models import Model

Float64 = NDArray[np.float64]

VIF_LIMIT = 10.0
CONDITION_LIMIT = 30.0
_LARGE_SHARE = 0.5
_EXACT = 1 - 1e-10


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Diagnostics of a model; see :func:`diagnose` for the columns of its tables.

    Attributes
    ----------
    terms : DataFrame
        One row for each term.
    collinearity : DataFrame
        Belsley's condition indices, one row for each dimension of the design.
    subjects : DataFrame
        One row for each subject.
    dfbetas : DataFrame
        One row for each subject and a column for each column of the design.
    tests : DataFrame
        ``test, statistic, p`` of the residuals.
    sentences : tuple of str
        What was found, for the user.
    """

    terms: pd.DataFrame
    collinearity: pd.DataFrame
    subjects: pd.DataFrame
    dfbetas: pd.DataFrame
    tests: pd.DataFrame
    sentences: tuple[str, ...]


def diagnose(model: Model, table: pd.DataFrame, *, alpha: float = 0.05) -> Diagnostics:
    """Look for collinear terms, influential subjects, and residuals that break the assumptions.

    Parameters
    ----------
    model : Model
        From :func:`bids_qsm.statistics.linear_models.fit_model`.
    table : DataFrame
        What the model was fitted to; it names the subjects.
    alpha : float
        Level of the sentences.

    Returns
    -------
    Diagnostics
        ``terms``: ``term, df_term, gvif, vif`` (generalised VIF ** (1 / df), which is the VIF for
        one column) and ``collinear`` (above 10), ``influential`` (number of subjects whose DFBETAS
        of one of its columns is beyond 2 / sqrt(n)), ``largest_dfbetas`` and ``largest_by``.
        ``collinearity``: ``dimension, condition_index`` and ``share_<column>``, the share of each
        coefficient's variance; an index above 30 with two shares above 0.5 tells which columns
        harm each other.
        ``subjects``: ``row, subject, observed, fitted, residual, standardised_residual,
        studentised_residual, p_outlier`` (Bonferroni), ``leverage, cooks_distance, dffits`` and
        ``high_leverage`` (above 2 p / n), ``outlier`` (p_outlier below alpha), ``high_cook``
        (above 4 / n), ``high_dffits`` (above 2 sqrt(p / n)), ``influential`` (Cook's distance
        above 4 / n, or an outlier, or DFFITS too high with high leverage).
        ``tests``: Breusch-Pagan in Koenker's form, Shapiro-Wilk and D'Agostino's on the residuals.

    References
    ----------
    Belsley, Kuh and Welsch 1980, 10.1002/0471725153; Fox and Monette 1992,
    10.1080/01621459.1992.10475190; Cook 1977, 10.1080/00401706.1977.10489493; Koenker 1981,
    10.1016/0304-4076(81)90062-2.
    """
    design, fit = model.design, model.fit
    names = name_of_each_row(table.iloc[design.rows])
    subjects, dfbetas = _subjects(model, names, alpha)
    terms = _terms(design, dfbetas)
    collinearity = condition_indices(design)
    tests = residual_tests(fit)
    sentences = [*_of_collinearity(terms, collinearity, design), *_of_influence(subjects)]
    sentences += _of_residuals(tests, alpha)
    return Diagnostics(terms, collinearity, subjects, dfbetas, tests, tuple(sentences))


def generalised_vif(design: Design) -> dict[str, float]:
    """Return the generalised variance inflation factor of each term: the VIF for one column.

    Without an intercept it is of the columns as they are, not of their deviations from the mean.
    """
    columns = [place for places in design.terms.values() for place in places]
    matrix = design.matrix[:, columns]
    if "Intercept" in design.names:
        matrix = matrix - matrix.mean(axis=0)
    unit = matrix / np.sqrt(np.einsum("np,np->p", matrix, matrix))
    correlation = np.einsum("np,nr->pr", unit, unit)
    whole = np.linalg.slogdet(correlation)[1]
    result, start = {}, 0
    for term, places in design.terms.items():
        own = np.arange(start, start + len(places))
        rest = np.setdiff1d(np.arange(len(columns)), own)
        start += len(places)
        inside = np.linalg.slogdet(correlation[np.ix_(own, own)])[1]
        outside = np.linalg.slogdet(correlation[np.ix_(rest, rest)])[1] if len(rest) else 0.0
        result[term] = float(np.exp(inside + outside - whole))
    return result


def condition_indices(design: Design) -> pd.DataFrame:
    """Return Belsley's condition indices and shares of variance, of columns scaled to length one.

    The intercept is among the columns, and nothing is centred.
    """
    lengths = np.sqrt(np.einsum("np,np->p", design.matrix, design.matrix))
    _, singular, vectors = np.linalg.svd(design.matrix / lengths, full_matrices=False)
    parts = (vectors / singular[:, None]) ** 2
    shares = parts / parts.sum(axis=0)
    table = pd.DataFrame(
        {
            "dimension": np.arange(1, len(singular) + 1),
            "condition_index": singular[0] / singular,
        }
    )
    columns = {f"share_{name}": shares[:, i] for i, name in enumerate(design.names)}
    return table.assign(**columns)


def _subjects(model: Model, names: list[str], alpha: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    fit = model.fit
    n, p = fit.matrix.shape
    residual, leverage = fit.residuals[:, 0], np.minimum(fit.leverage, 1.0)
    # a row that alone carries a column has no residual of its own
    free = np.where(leverage < _EXACT, 1 - leverage, np.nan)
    variance = float(fit.variance[0])
    standardised = residual / np.sqrt(variance * free)
    left = (fit.df * variance - residual**2 / free) / (fit.df - 1) if fit.df > 1 else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        studentised = residual / np.sqrt(np.maximum(left, 0) * free)
    p_outlier = np.minimum(2 * stats.t.sf(np.abs(studentised), fit.df - 1) * n, 1)
    cook = standardised**2 * leverage / free / p
    dffits = studentised * np.sqrt(leverage / free)
    changes = np.einsum("pr,nr->np", fit.inverse, fit.matrix) * (residual / free)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        dfbetas = changes / np.sqrt(np.maximum(left, 0)[:, None] * np.diag(fit.inverse))
    high_leverage = leverage > 2 * p / n
    outlier = p_outlier < alpha
    high_cook, high_dffits = cook > 4 / n, np.abs(dffits) > 2 * np.sqrt(p / n)
    table = pd.DataFrame(
        {
            "row": model.design.rows,
            "subject": names,
            "observed": model.y,
            "fitted": model.y - residual,
            "residual": residual,
            "standardised_residual": standardised,
            "studentised_residual": studentised,
            "p_outlier": p_outlier,
            "leverage": leverage,
            "cooks_distance": cook,
            "dffits": dffits,
            "high_leverage": high_leverage,
            "outlier": outlier,
            "high_cook": high_cook,
            "high_dffits": high_dffits,
            "influential": high_cook | outlier | (high_dffits & high_leverage),
        }
    )
    columns = pd.DataFrame(dfbetas, columns=list(model.design.names))
    columns.insert(0, "subject", names)
    return table, columns


def _terms(design: Design, dfbetas: pd.DataFrame) -> pd.DataFrame:
    factors = generalised_vif(design)
    limit = 2 / np.sqrt(len(dfbetas))
    rows = []
    for term, places in design.terms.items():
        sizes = np.abs(dfbetas.iloc[:, [place + 1 for place in places]].to_numpy())
        largest = np.nan_to_num(sizes).max(axis=1)
        vif = factors[term] ** (1 / len(places))
        rows.append(
            {
                "term": term,
                "df_term": len(places),
                "gvif": factors[term],
                "vif": vif,
                "collinear": vif > VIF_LIMIT,
                "influential": int((largest > limit).sum()),
                "largest_dfbetas": float(largest.max()),
                "largest_by": dfbetas["subject"].iloc[int(largest.argmax())],
            }
        )
    return pd.DataFrame(rows)


def residual_tests(fit: Fit) -> pd.DataFrame:
    """Test the residuals of a model of one outcome for unequal variance and for normality.

    Returns
    -------
    DataFrame
        ``test, statistic, df, p`` with the rows ``breusch_pagan`` (Koenker's studentised form),
        ``shapiro_wilk`` and ``dagostino`` (NaN below 20 rows).
    """
    residual = fit.residuals[:, 0]
    n, p = fit.matrix.shape
    squares = residual**2
    auxiliary = least_squares(fit.matrix, squares)
    spread = float(((squares - squares.mean()) ** 2).sum())
    left = float((auxiliary.residuals**2).sum())
    share = n * (1 - left / spread) if spread else np.nan
    rows = [("breusch_pagan", share, p - 1, stats.chi2.sf(share, p - 1) if p > 1 else np.nan)]
    shapiro = stats.shapiro(residual / np.sqrt(squares.mean()))
    rows.append(("shapiro_wilk", float(shapiro.statistic), np.nan, float(shapiro.pvalue)))
    k2, p_k2 = stats.normaltest(residual) if n >= 20 else (np.nan, np.nan)
    rows.append(("dagostino", float(k2), 2, float(p_k2)))
    return pd.DataFrame(rows, columns=["test", "statistic", "df", "p"])


def _of_collinearity(terms: pd.DataFrame, collinearity: pd.DataFrame, design: Design) -> list[str]:
    sentences = [
        f"{row.term} is nearly a sum of the other terms (VIF {row.vif:.1f}): its coefficient is "
        "uncertain; leave one of them out."
        for row in terms[terms["collinear"]].itertuples()
    ]
    worst = collinearity.iloc[-1]
    if worst["condition_index"] > CONDITION_LIMIT:
        shares = {name: worst[f"share_{name}"] for name in design.names if name != "Intercept"}
        together = [name for name, share in shares.items() if share > _LARGE_SHARE]
        if len(together) > 1:
            sentences.append(
                f"{listed(together)} harm each other: condition index "
                f"{worst['condition_index']:.0f}, above {CONDITION_LIMIT:.0f}."
            )
    return sentences


def _of_influence(subjects: pd.DataFrame) -> list[str]:
    sentences = []
    out = subjects.loc[subjects["outlier"], "subject"]
    if len(out):
        what = "an outlier" if len(out) == 1 else "outliers"
        sentences.append(f"{what} by the studentised residual (Bonferroni): {listed(out, 5)}.")
    strong = subjects[subjects["influential"]].sort_values("cooks_distance", ascending=False)
    if len(strong):
        sentences.append(
            f"{counted(len(strong), 'subject')} of {len(subjects)} with much influence, the most "
            f"first: {listed(strong['subject'], 5)}; see whether the result stays without."
        )
    return sentences


def _of_residuals(tests: pd.DataFrame, alpha: float) -> list[str]:
    p = tests.set_index("test")["p"]
    sentences = []
    if p["breusch_pagan"] < alpha:
        sentences.append(
            f"the residuals' variance is not the same everywhere (Breusch-Pagan p = "
            f"{p['breusch_pagan']:.2g}): use robust errors (HC3)."
        )
    if p["shapiro_wilk"] < alpha:
        sentences.append(
            f"the residuals are not normal (Shapiro-Wilk p = {p['shapiro_wilk']:.2g}): look at a "
            "transform of the outcome."
        )
    return sentences

"""The ladder of powers: which transform of a variable is nearest to a normal distribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from bids_qsm.statistics.expressions import counted

Float64 = NDArray[np.float64]

_POSITIVE = float(np.finfo(np.float64).tiny)
LADDER: dict[str, tuple[Callable[[Float64], Float64], str, float]] = {
    "cubic": (lambda x: x**3, "I({}**3)", -np.inf),
    "square": (lambda x: x**2, "I({}**2)", 0.0),
    "identity": (lambda x: x, "{}", -np.inf),
    "sqrt": (np.sqrt, "sqrt({})", 0.0),
    "log": (np.log, "log({})", _POSITIVE),
    "1/sqrt": (lambda x: 1 / np.sqrt(x), "I(1/{}**0.5)", _POSITIVE),
    "inverse": (lambda x: 1 / x, "I(1/{})", _POSITIVE),
    "1/square": (lambda x: x**-2, "I(1/{}**2)", _POSITIVE),
    "1/cubic": (lambda x: x**-3, "I(1/{}**3)", _POSITIVE),
}
"""Each transform with its form in a formula, and the least value for which it keeps the order."""

_FEWEST = 8
_FEWEST_FOR_KURTOSIS = 20


@dataclass(frozen=True, eq=False)
class Ladder:
    """Tests of normality of each transform; see :func:`ladder`.

    Attributes
    ----------
    table : DataFrame
        ``transform, formula, n, skewness, kurtosis, p_skewness, p_kurtosis, chi2, p_chi2, k2,
        p_k2, shapiro_w, p_shapiro, suggested``; NaN where a transform cannot be had.
    suggested : str
        Name of the transform.
    reason : str
        Why, in a sentence.
    boxcox, boxcox_low, boxcox_high : float
        Power of the Box-Cox transform with its 95 % interval; NaN where values are not positive.
    notes : tuple of str
        Sentences on values that are missing, zero or negative, and on small numbers.
    """

    table: pd.DataFrame
    suggested: str
    reason: str
    boxcox: float
    boxcox_low: float
    boxcox_high: float
    notes: tuple[str, ...]


def expression(column: str, transform: str) -> str:
    """Return how a transform of a column is written in a formula.

    Raises
    ------
    ValueError
        If there is no such transform.
    """
    if transform not in LADDER:
        raise ValueError(f"there is no transform {transform!r}; there are: {', '.join(LADDER)}.")
    plain = column.isidentifier()
    if transform == "identity":
        return column if plain else f"`{column}`"
    return LADDER[transform][1].format(column if plain else f"Q({column!r})")


def ladder(values: ArrayLike, name: str = "x", *, alpha: float = 0.05) -> Ladder:
    """Test the normality of each transform of the ladder of powers.

    Parameters
    ----------
    values : array_like, shape (n,)
        Values that are not finite are left out, with a sentence.
    name : str
        What to call the variable in sentences and formulas.
    alpha : float
        The variable stays as it is if its p value is not below.

    Returns
    -------
    Ladder
        Else the transform of the largest p value is suggested.

    Raises
    ------
    ValueError
        If there are fewer than eight values, or all are the same.

    References
    ----------
    Tukey 1977, Exploratory Data Analysis; D'Agostino, Belanger and D'Agostino 1990,
    10.2307/2684359 (``k2``, of skewness and kurtosis); Royston 1991, Stata Technical Bulletin 3,
    23-24 (``chi2``: the same, adjusted, as Stata's ``ladder`` and ``sktest`` give it); Shapiro
    and Wilk 1965, 10.1093/biomet/52.3-4.591; Box and Cox 1964,
    10.1111/j.2517-6161.1964.tb00553.x.
    """
    x, notes = _usable(values, name)
    table = pd.DataFrame([_tests(x, transform) for transform in LADDER])
    table.insert(1, "formula", [expression(name, transform) for transform in LADDER])
    best, reason = _suggestion(table, name, alpha)
    table["suggested"] = table["transform"] == best
    power, low, high = _boxcox(x)
    return Ladder(table, best, reason, power, low, high, notes)


def ladder_quantiles(values: ArrayLike, name: str = "x") -> pd.DataFrame:
    """Return the points of a quantile-normal plot of each transform of the ladder.

    Parameters
    ----------
    values, name
        As for :func:`ladder`.

    Returns
    -------
    DataFrame
        ``transform, order, observed, expected, z``: the sorted values, the normal quantiles of
        i / (n + 1) with the same mean and standard deviation, and the standard normal quantiles.
        A transform that cannot be had is absent.
    """
    x, _ = _usable(values, name)
    z = stats.norm.ppf(np.arange(1, len(x) + 1) / (len(x) + 1))
    parts = []
    for transform, (function, _, least) in LADDER.items():
        if x.min() < least:
            continue
        observed = np.sort(function(x))
        expected = observed.mean() + observed.std(ddof=1) * z
        cells = {"observed": observed, "expected": expected, "z": z}
        order = np.arange(1, len(x) + 1)
        parts.append(pd.DataFrame({"transform": transform, "order": order, **cells}))
    return pd.concat(parts, ignore_index=True)


def _usable(values: ArrayLike, name: str) -> tuple[Float64, tuple[str, ...]]:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    known = np.isfinite(x)
    notes = []
    if not known.all():
        notes.append(f"{counted(int((~known).sum()), 'value')} of {name} missing and left out.")
    x = x[known]
    if len(x) < _FEWEST:
        raise ValueError(
            f"{name} has {counted(len(x), 'value')}: tests of normality need at least {_FEWEST}."
        )
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        raise ValueError(f"{name} is the same ({x[0]:g}) in all rows: there is nothing to test.")
    if len(x) < _FEWEST_FOR_KURTOSIS:
        notes.append(
            f"{name} has {len(x)} values: below {_FEWEST_FOR_KURTOSIS} the test of kurtosis is "
            "rough."
        )
    if x.min() <= 0:
        number = counted(int((x <= 0).sum()), "value")
        lost = [t for t, (_, _, least) in LADDER.items() if x.min() < least]
        notes.append(
            f"{number} of {name} zero or below: {', '.join(lost)} cannot be had; add a constant, "
            "as in log(x + 1), or leave these rows out by a subset."
        )
    return x, tuple(notes)


def _tests(x: Float64, transform: str) -> dict[str, object]:
    function, _, least = LADDER[transform]
    row: dict[str, object] = {"transform": transform, "n": len(x)}
    names = ["skewness", "kurtosis", "p_skewness", "p_kurtosis", "chi2", "p_chi2", "k2", "p_k2"]
    row |= dict.fromkeys([*names, "shapiro_w", "p_shapiro"], np.nan)
    if x.min() < least:
        return row
    # free of the unit: cubes of small numbers would underflow
    y = function(x / np.abs(x).max())
    y = (y - y.mean()) / y.std()
    skew = stats.skewtest(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small numbers are said in a note
        kurtosis = stats.kurtosistest(y)
    k2 = float(skew.statistic**2 + kurtosis.statistic**2)
    chi2 = _adjusted(k2, len(x))
    shapiro = stats.shapiro(y)
    return row | {
        "skewness": float(stats.skew(y)),
        "kurtosis": float(stats.kurtosis(y, fisher=False)),
        "p_skewness": float(skew.pvalue),
        "p_kurtosis": float(kurtosis.pvalue),
        "chi2": chi2,
        "p_chi2": float(np.exp(-chi2 / 2)),
        "k2": k2,
        "p_k2": float(np.exp(-k2 / 2)),
        "shapiro_w": float(shapiro.statistic),
        "p_shapiro": float(shapiro.pvalue),
    }


def _adjusted(k2: float, n: int) -> float:
    """Return the chi2 with 2 degrees of freedom that Royston's adjustment makes of D'Agostino's."""
    z = -special.ndtri_exp(-k2 / 2)
    bend = 0.55 * n**0.2 - 0.21
    log_n = np.log(n)
    slope = 1 + (0.854 - 0.148 * log_n) * np.exp(-0.55 * log_n)
    start = (-5 + 3.46 * log_n) * np.exp(-1.37 * log_n)
    if z >= bend:
        change = 2.13 / (1 - 2.37 * log_n)
        start, slope = start - change * bend, slope + change
    if z >= -1:
        z = start + slope * z
    return float(-2 * stats.norm.logsf(z))


def _suggestion(table: pd.DataFrame, name: str, alpha: float) -> tuple[str, str]:
    by_name = table.set_index("transform")
    plain = by_name.loc["identity"]
    if plain["p_chi2"] >= alpha:
        return "identity", (
            f"{name} can stay as it is: chi2 {plain['chi2']:.2f}, p = {plain['p_chi2']:.3g}."
        )
    best = str(by_name["chi2"].idxmin())
    row = by_name.loc[best]
    first = f"{name} is not normal (chi2 {plain['chi2']:.2f}, p = {plain['p_chi2']:.2g})"
    if best == "identity":
        return best, f"{first}, and no transform that can be had is nearer."
    words = f"{best} is nearest (chi2 {row['chi2']:.2f}, p = {row['p_chi2']:.2g})"
    if row["p_chi2"] < alpha:
        words += ", though not normal either"
    return best, f"{first}; {words}."


def _boxcox(x: Float64) -> tuple[float, float, float]:
    """Return the power of the largest likelihood, within -5 to 5, with its 95 % interval."""
    if x.min() <= 0:
        return np.nan, np.nan, np.nan
    log_x = np.log(x) - np.log(x).mean()  # by the geometric mean: the Jacobian is then one
    powers = np.linspace(-5, 5, 2001)
    variance = []
    for power in powers:
        y = log_x if abs(power) < 1e-9 else np.expm1(power * log_x) / power
        variance.append(np.var(y))
    likelihood = -len(x) / 2 * np.log(variance)
    best = int(likelihood.argmax())
    inside = powers[likelihood >= likelihood[best] - stats.chi2.ppf(0.95, 1) / 2]
    return float(powers[best]), float(inside[0]), float(inside[-1])

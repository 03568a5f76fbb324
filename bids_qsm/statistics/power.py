"""Power, sample size and detectable effect: correlation, two groups, pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

METHODS = ("exact", "fisher_z_corrected", "fisher_z", "regression")
"""Distributions of a correlation; see :func:`correlation_power`."""
DESIGNS = ("correlation", "two_sample", "paired")


def correlation_power(
    n: int, r: float, *, alpha: float = 0.05, two_sided: bool = True, method: str = "exact"
) -> float:
    """Return the power to find a correlation in ``n`` subjects.

    Parameters
    ----------
    n : int
        Number of subjects, 4 or more.
    r : float
        True correlation.
    alpha : float
        Level of the test.
    two_sided : bool
        Whether either sign would count.
    method : str
        One of :data:`METHODS`.  ``exact``: both variables normal, the *t* test of r.
        ``fisher_z_corrected``, ``fisher_z``: Fisher's transform is taken to be normal, with and
        without its bias r / (2 (n - 1)).  ``regression``: noncentral *t*, for fixed values of one
        variable (the test of a slope).

    Notes
    -----
    For r = 0.28, power 0.8 and a two-sided alpha of 0.05 these need 97, 97, 98 and 95 subjects:
    the published 95 is that of a regression on fixed values (or Fisher's formula without its
    "+ 3": 94.8); 98 is the common Fisher formula, which is one more than is needed.

    References
    ----------
    Hotelling 1953, 10.1111/j.2517-6161.1953.tb00135.x; Fisher 1921 (transform, bias).
    """
    _check_alpha(alpha)
    if n < 4:
        raise ValueError(f"the power of a correlation needs four subjects or more, not {n}.")
    if not 0 < abs(r) < 1:
        raise ValueError(f"the correlation must lie between -1 and 1 and not be 0: {r:g}.")
    rho, tail = abs(r), alpha / 2 if two_sided else alpha
    t = stats.t.isf(tail, n - 2)
    if method == "exact":
        critical = np.arctanh(t / np.sqrt(n - 2 + t * t))
        return _beyond(critical, n, rho) + (_beyond(critical, n, -rho) if two_sided else 0.0)
    if method == "regression":
        shift = rho * np.sqrt(n / (1 - rho**2))
        return _noncentral_t(t, n - 2, shift, two_sided)
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; there are: {', '.join(METHODS)}.")
    bias = rho / (2 * (n - 1)) if method == "fisher_z_corrected" else 0.0
    shift, z = (np.arctanh(rho) + bias) * np.sqrt(n - 3), stats.norm.isf(tail)
    return float(stats.norm.sf(z - shift) + (stats.norm.cdf(-z - shift) if two_sided else 0.0))


def correlation_sample_size(r: float, *, power: float = 0.8, **options: Any) -> int:
    """Return the least number of subjects for a power; options of :func:`correlation_power`."""
    correlation_power(10, r, **options)
    _check_power(power, options)
    return least_n(lambda n: correlation_power(n, r, **options), power, 4)


def correlation_detectable(n: int, *, power: float = 0.8, **options: Any) -> float:
    """Return the least correlation that ``n`` subjects find with a power."""
    _check_power(power, options)
    return least_effect(lambda r: correlation_power(n, r, **options), power, 1 - 1e-9)


def two_sample_power(
    n_a: int, effect: float, *, n_b: int | None = None, alpha: float = 0.05, two_sided: bool = True
) -> float:
    """Return the power of a two-sample *t* test (noncentral *t*, equal variances).

    Parameters
    ----------
    n_a, n_b : int
        Subjects in each group; ``n_b`` as many as ``n_a`` if not given.
    effect : float
        Difference of means over the SD within groups.
    alpha, two_sided
        As in :func:`correlation_power`.
    """
    n_b = n_a if n_b is None else n_b
    _check_alpha(alpha)
    _check_effect(effect)
    if min(n_a, n_b) < 1 or n_a + n_b < 3:
        raise ValueError(f"a t test needs three subjects in two groups, not {n_a} and {n_b}.")
    df = n_a + n_b - 2
    t = stats.t.isf(alpha / 2 if two_sided else alpha, df)
    return _noncentral_t(t, df, abs(effect) * np.sqrt(n_a * n_b / (n_a + n_b)), two_sided)


def two_sample_sample_size(
    effect: float, *, power: float = 0.8, ratio: float = 1.0, **options: Any
) -> tuple[int, int]:
    """Return the least group sizes ``n_a`` and ``n_b`` = ``ratio`` * ``n_a`` (rounded up)."""
    _check_effect(effect)
    check_ratio(ratio)
    _check_power(power, options)
    n_a = least_n(lambda n: two_sample_power(n, effect, n_b=scaled(n, ratio), **options), power, 2)
    return n_a, scaled(n_a, ratio)


def two_sample_detectable(
    n_a: int, *, n_b: int | None = None, power: float = 0.8, **options: Any
) -> float:
    """Return the least effect that two groups find with a power."""
    _check_power(power, options)
    return least_effect(lambda d: two_sample_power(n_a, d, n_b=n_b, **options), power, 1e3)


def paired_power(
    n: int,
    effect: float,
    *,
    correlation: float | None = None,
    alpha: float = 0.05,
    two_sided: bool = True,
) -> float:
    """Return the power of a paired *t* test.

    Parameters
    ----------
    n : int
        Number of pairs.
    effect : float
        Mean difference over the SD of differences; with ``correlation`` over the SD of a single
        measurement, which has that correlation within pairs.
    correlation, alpha, two_sided
        As said, and as in :func:`correlation_power`.
    """
    _check_alpha(alpha)
    _check_effect(effect)
    if n < 2:
        raise ValueError(f"a paired test needs two pairs or more, not {n}.")
    t = stats.t.isf(alpha / 2 if two_sided else alpha, n - 1)
    shift = abs(effect) / _sd_of_differences(correlation) * np.sqrt(n)
    return _noncentral_t(t, n - 1, shift, two_sided)


def paired_sample_size(effect: float, *, power: float = 0.8, **options: Any) -> int:
    """Return the least number of pairs for a power; options of :func:`paired_power`."""
    _check_effect(effect)
    _check_power(power, options)
    return least_n(lambda n: paired_power(n, effect, **options), power, 2)


def paired_detectable(n: int, *, power: float = 0.8, **options: Any) -> float:
    """Return the least effect that ``n`` pairs find with a power."""
    _check_power(power, options)
    return least_effect(lambda d: paired_power(n, d, **options), power, 1e3)


def sample_size_table(
    design: str,
    effects: Sequence[float],
    *,
    powers: Sequence[float] = (0.8, 0.9),
    alphas: Sequence[float] = (0.05,),
    two_sided: bool = True,
    ratio: float = 1.0,
    correlation: float | None = None,
) -> pd.DataFrame:
    """Return the sample sizes of a design over grids of effects, levels and powers.

    Parameters
    ----------
    design : str
        One of :data:`DESIGNS`.
    effects : sequence of float
        Correlations, or standardised differences as in :func:`two_sample_power` and
        :func:`paired_power`.
    powers, alphas : sequence of float
    two_sided : bool
    ratio : float
        Subjects of group b for each of group a; two samples only.
    correlation : float, optional
        Within pairs; pairs only.

    Returns
    -------
    DataFrame
        ``design, method, effect, alpha, two_sided, power, n_a, n_b, n_total, power_reached``: for
        a correlation one row for each of :data:`METHODS`; ``n_b`` is 0 with a single group.
    """
    if design not in DESIGNS:
        raise ValueError(f"there is no design {design!r}; there are: {', '.join(DESIGNS)}.")
    methods = METHODS if design == "correlation" else ("noncentral_t",)
    rows = []
    for effect, alpha, power, method in product(effects, alphas, powers, methods):
        options: dict[str, Any] = {"alpha": alpha, "two_sided": two_sided}
        n_b = 0
        if design == "correlation":
            options["method"] = method
            n_a = correlation_sample_size(effect, power=power, **options)
            reached = correlation_power(n_a, effect, **options)
        elif design == "two_sample":
            n_a, n_b = two_sample_sample_size(effect, power=power, ratio=ratio, **options)
            reached = two_sample_power(n_a, effect, n_b=n_b, **options)
        else:
            options["correlation"] = correlation
            n_a = paired_sample_size(effect, power=power, **options)
            reached = paired_power(n_a, effect, **options)
        row = (design, method, effect, alpha, two_sided, power, n_a, n_b, n_a + n_b, reached)
        rows.append(row)
    names = ["design", "method", "effect", "alpha", "two_sided", "power", "n_a", "n_b", "n_total"]
    return pd.DataFrame(rows, columns=[*names, "power_reached"])


def least_n(power_of: Callable[[int], float], target: float, least: int) -> int:
    """Return the least n from ``least`` on whose power, which grows with n, is the target."""
    high = least
    while power_of(high) < target:
        if high > 10**8:
            raise ValueError("the effect is too small: 100 million subjects would not be enough.")
        least, high = high + 1, 2 * high
    while least < high:
        middle = (least + high) // 2
        least, high = (least, middle) if power_of(middle) >= target else (middle + 1, high)
    return high


def least_effect(power_of: Callable[[float], float], target: float, most: float) -> float:
    """Return the effect up to ``most`` at which the power is the target."""
    high = min(0.1, most)
    while power_of(high) < target:
        if high >= most:
            raise ValueError(f"no effect up to {most:g} is found with a power of {target:g}.")
        high = min(2 * high, most)
    found = optimize.brentq(lambda effect: power_of(effect) - target, 1e-9, high, xtol=1e-12)
    return float(found)


def scaled(n: int, ratio: float) -> int:
    """Return the size of group b for that of group a."""
    return int(np.ceil(n * ratio - 1e-9))


def check_ratio(ratio: float) -> None:
    """Refuse groups of no or negative size."""
    if not ratio > 0:
        raise ValueError(f"the ratio of group sizes must be above 0, not {ratio:g}.")


def _noncentral_t(t: float, df: int, shift: float, two_sided: bool) -> float:
    power = stats.nct.sf(t, df, shift)
    if two_sided and shift < 6:  # beyond, the other tail is below 1e-9 and scipy may give NaN
        power += stats.nct.cdf(-t, df, shift)
    return float(power)


def _beyond(critical_z: float, n: int, rho: float) -> float:
    """Return the share of samples of a bivariate normal with artanh r above a limit."""
    top = max(critical_z, np.arctanh(rho)) + 9 / np.sqrt(n - 2) + 30 / (n - 2)
    nodes, weights = _quadrature()
    z = critical_z + (nodes + 1) / 2 * (top - critical_z)
    r = np.tanh(z)
    log = np.log(n - 2) + special.gammaln(n - 1) - special.gammaln(n - 0.5)
    log += (n - 1) / 2 * np.log1p(-(rho**2)) - (n - 2) * np.log(np.cosh(z))
    log -= (n - 1.5) * np.log1p(-rho * r)
    density = np.exp(log) / np.sqrt(2 * np.pi)
    density *= special.hyp2f1(0.5, 0.5, n - 0.5, (1 + rho * r) / 2)
    return min(float(np.sum(weights * density) * (top - critical_z) / 2), 1.0)


@cache
def _quadrature() -> tuple[Any, Any]:
    return np.polynomial.legendre.leggauss(160)


def _sd_of_differences(correlation: float | None) -> float:
    if correlation is None:
        return 1.0
    if not -1 <= correlation < 1:
        raise ValueError(f"the correlation within pairs must be below 1, not {correlation:g}.")
    return float(np.sqrt(2 * (1 - correlation)))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}: give a share between 0 and 1, such as 0.05.")


def _check_effect(effect: float) -> None:
    if effect == 0 or not np.isfinite(effect):
        raise ValueError(f"the effect must be a number other than 0, not {effect:g}.")


def _check_power(power: float, options: dict[str, Any]) -> None:
    alpha = options.get("alpha", 0.05)
    if not alpha < power < 1:
        raise ValueError(f"the power must lie between alpha ({alpha:g}) and 1, not {power:g}.")

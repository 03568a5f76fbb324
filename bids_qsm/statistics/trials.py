"""Trials with repeated measurements: two arms compared by their averages over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from bids_qsm.statistics.power import check_ratio, least_effect, least_n, scaled

ENDPOINTS = ("share", "rate", "mean")
"""Of epochs with an event; of events per year; of a continuous measurement."""


@dataclass(frozen=True)
class Trial:
    """Two arms (a: control, b: treated) in which each patient is measured several times.

    Parameters
    ----------
    measurements : int
        Measurements (or epochs) of each patient during follow-up.
    correlation : float
        Of two measurements of one patient, the same for all pairs.
    alpha, two_sided
        Level of the test.
    ratio : float
        Patients of arm b for each of arm a.
    years : float
        Follow-up; only a rate per year depends on it.
    baselines : int
        Measurements before treatment that the analysis adjusts for (analysis of covariance),
        with the same correlation; 0 if it compares averages alone.  For means only.
    """

    measurements: int = 2
    correlation: float = 0.8
    alpha: float = 0.1
    two_sided: bool = True
    ratio: float = 1.0
    years: float = 2.0
    baselines: int = 0

    def __post_init__(self) -> None:
        least = -1 / (self.measurements - 1) if self.measurements > 1 else -1
        if self.measurements < 1 or self.baselines < 0:
            raise ValueError("a trial needs one measurement or more during follow-up.")
        if not least < self.correlation <= 1:
            raise ValueError(
                f"the within-patient correlation is {self.correlation:g}: with "
                f"{self.measurements} measurements it lies between {least:g} and 1."
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha:g}: give a share such as 0.1.")
        if not self.years > 0:
            raise ValueError(f"the follow-up must be above 0 years, not {self.years:g}.")
        check_ratio(self.ratio)


@dataclass(frozen=True)
class Endpoint:
    """Values of both arms, and the variance of one measurement: pooled, of arm a, of arm b."""

    control: float
    treated: float
    pooled: float
    variance_a: float
    variance_b: float


def endpoint(kind: str, control: float, treated: float, trial: Trial, sd: float = 1.0) -> Endpoint:
    """Return what is to be told apart.

    Parameters
    ----------
    kind : str
        ``share``: of the epochs, those with an event (binomial); ``rate``: events per year
        (Poisson within epochs of ``years / measurements``); ``mean``: a continuous measurement.
    control, treated : float
        Value in each arm.
    trial : Trial
    sd : float
        Of one continuous measurement between patients, within an arm.

    Raises
    ------
    ValueError
        If a share or rate is impossible, or both arms are equal.
    """
    weight = trial.ratio / (1 + trial.ratio)
    both = (1 - weight) * control + weight * treated
    if kind not in ENDPOINTS:
        raise ValueError(f"there is no endpoint {kind!r}; there are: {', '.join(ENDPOINTS)}.")
    if trial.baselines and kind != "mean":
        raise ValueError("only means can be adjusted for baselines, not shares or rates.")
    if kind == "mean":
        if not sd > 0:
            raise ValueError(f"the SD must be above 0, not {sd:g}.")
        variances = (sd**2, sd**2, sd**2)
    elif kind == "share":
        if not (0 <= control <= 1 and 0 <= treated <= 1):
            raise ValueError(f"shares lie between 0 and 1, not {control:g} and {treated:g}.")
        variances = (both * (1 - both), control * (1 - control), treated * (1 - treated))
    else:
        if control < 0 or treated < 0:
            raise ValueError(f"rates are not negative: {control:g} and {treated:g}.")
        epoch_years = trial.years / trial.measurements
        variances = (both / epoch_years, control / epoch_years, treated / epoch_years)
    if control == treated:
        raise ValueError("both arms are equal: there is no effect to find.")
    return Endpoint(control, treated, *variances)


def variance_factor(trial: Trial) -> float:
    """Return the variance of a patient's average over that of one measurement.

    References
    ----------
    Frison & Pocock 1992, 10.1002/sim.4780111304 (with baselines).
    """
    k, b, rho = trial.measurements, trial.baselines, trial.correlation
    factor = (1 + (k - 1) * rho) / k
    return factor - (b * rho**2 / (1 + (b - 1) * rho) if b else 0.0)


def trial_power(n_a: int, of: Endpoint, trial: Trial, *, method: str = "normal") -> float:
    r"""Return the power of a two-arm trial that compares averages over time.

    Parameters
    ----------
    n_a : int
        Patients in arm a; ``n_a * ratio`` (rounded up) in arm b.
    of : Endpoint
    trial : Trial
    method : {"normal", "t"}
        ``normal`` is the published formula; ``t`` allows for the SD being estimated (noncentral
        *t* of the averages; for means only).

    Notes
    -----
    With *f* = (1 + (k - 1) rho) / k, a patient's average of *k* measurements has *f* times the
    variance of one, and so each arm needs
    :math:`n = f (z_\alpha \sqrt{2 V} + z_\beta \sqrt{V_a + V_b})^2 / \delta^2` patients, where *V*
    is the variance with both arms pooled; for a mean :math:`2 f (z_\alpha + z_\beta)^2
    \sigma^2/\delta^2`.  Being significant in the wrong direction does not count.

    References
    ----------
    Diggle, Heagerty, Liang & Zeger 2002, Analysis of longitudinal data, section 2.4; Fitzmaurice,
    Laird & Ware 2011, Applied longitudinal analysis, chapter 20.
    """
    if n_a < 1:
        raise ValueError(f"a trial needs patients: {n_a}.")
    n_b = scaled(n_a, trial.ratio)
    factor, delta = variance_factor(trial), abs(of.treated - of.control)
    tail = trial.alpha / 2 if trial.two_sided else trial.alpha
    null = np.sqrt(factor * of.pooled * (1 / n_a + 1 / n_b))
    error = np.sqrt(factor * (of.variance_a / n_a + of.variance_b / n_b))
    if method == "t":
        df = n_a + n_b - 2 - (1 if trial.baselines else 0)
        if df < 1 or of.variance_a != of.variance_b:
            raise ValueError("the t method is for means, and needs three patients or more.")
        if trial.baselines and df > 1:  # the covariate's means differ by chance
            error *= np.sqrt(1 + 1 / (df - 1))
        return float(stats.nct.sf(stats.t.isf(tail, df), df, delta / error))
    if method != "normal":
        raise ValueError(f"there is no method {method!r}; there are: normal, t.")
    critical = stats.norm.isf(tail) * null
    if error == 0:
        return float(delta > critical)
    return float(stats.norm.sf((critical - delta) / error))


def trial_sample_size(
    of: Endpoint, trial: Trial, *, power: float = 0.9, method: str = "normal"
) -> tuple[int, int]:
    """Return the least numbers of patients in arms a and b; options of :func:`trial_power`."""
    _check_power(power, trial)
    least = 4 if method == "t" else 1
    n_a = least_n(lambda n: trial_power(n, of, trial, method=method), power, least)
    return n_a, scaled(n_a, trial.ratio)


def trial_detectable(
    kind: str,
    n_a: int,
    trial: Trial,
    *,
    control: float,
    sd: float = 1.0,
    power: float = 0.9,
    method: str = "normal",
) -> float:
    """Return the least reduction, as a share of the control's value, found with a power.

    Raises
    ------
    ValueError
        If even an arm without any event (or a mean of 0) would not be told apart.
    """
    _check_power(power, trial)
    return least_effect(
        lambda share: trial_power(
            n_a, endpoint(kind, control, control * (1 - share), trial, sd), trial, method=method
        ),
        power,
        1.0,
    )


def trial_table(
    kind: str,
    *,
    controls: Sequence[float],
    reductions: Sequence[float] = (0.2, 0.3, 0.5),
    powers: Sequence[float] = (0.9,),
    trials: Sequence[Trial] = (Trial(),),
    sd: float = 1.0,
    dropout: float = 0.0,
) -> pd.DataFrame:
    """Return sample sizes of trials over grids of control values, effects and powers.

    Parameters
    ----------
    kind : str
        One of :data:`ENDPOINTS`.
    controls : sequence of float
        Share, rate per year or mean without treatment.
    reductions : sequence of float
        Effects: share of the control's value that treatment takes away.
    powers : sequence of float
    trials : sequence of Trial
    sd : float
        For means.
    dropout : float
        Share of patients lost, who are enrolled in addition.

    Returns
    -------
    DataFrame
        ``endpoint, control, treated, reduction_percent, sd, measurements, correlation, years,
        baselines, alpha, two_sided, power, n_a, n_b, n_total, n_enrolled, power_reached``, and
        ``n_a_t``: arm a if the SD is estimated from the trial (means; else NaN).
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"the share of dropouts must be below 1, not {dropout:g}.")
    rows = []
    for trial, control, reduction, power in product(trials, controls, reductions, powers):
        of = endpoint(kind, control, control * (1 - reduction), trial, sd)
        n_a, n_b = trial_sample_size(of, trial, power=power)
        enrolled = sum(int(np.ceil(n / (1 - dropout) - 1e-9)) for n in (n_a, n_b))
        by_t = trial_sample_size(of, trial, power=power, method="t")[0] if kind == "mean" else None
        rows.append(
            {
                "endpoint": kind,
                "control": control,
                "treated": of.treated,
                "reduction_percent": 100 * reduction,
                "sd": sd if kind == "mean" else np.nan,
                "measurements": trial.measurements,
                "correlation": trial.correlation,
                "years": trial.years,
                "baselines": trial.baselines,
                "alpha": trial.alpha,
                "two_sided": trial.two_sided,
                "power": power,
                "n_a": n_a,
                "n_b": n_b,
                "n_total": n_a + n_b,
                "n_enrolled": enrolled,
                "power_reached": trial_power(n_a, of, trial),
                "n_a_t": np.nan if by_t is None else by_t,
            }
        )
    return pd.DataFrame(rows)


def _check_power(power: float, trial: Trial) -> None:
    if not trial.alpha < power < 1:
        raise ValueError(f"the power must lie between alpha and 1, not {power:g}.")

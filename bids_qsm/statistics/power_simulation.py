"""Monte-Carlo checks of the formulas for power: data are drawn and tested, many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bids_qsm.statistics.power import scaled
from bids_qsm.statistics.trials import Endpoint, Trial, variance_factor

Float64 = NDArray[np.float64]
DRAWS_AT_ONCE = 2_000_000  # 16 MiB


@dataclass(frozen=True)
class SimulatedPower:
    """Share of simulated studies that were significant, with its standard error."""

    power: float
    power_se: float
    simulations: int


def simulate_correlation(
    n: int,
    r: float,
    *,
    alpha: float = 0.05,
    two_sided: bool = True,
    simulations: int = 20_000,
    seed: int = 0,
) -> SimulatedPower:
    """Check :func:`~bids_qsm.statistics.power.correlation_power` (``exact``)."""

    def test(rng: np.random.Generator, many: int) -> Float64:
        x, noise = rng.standard_normal((2, many, n))
        y = r * x + np.sqrt(1 - r**2) * noise
        x -= x.mean(axis=1, keepdims=True)
        y -= y.mean(axis=1, keepdims=True)
        found = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        return found * np.sqrt((n - 2) / (1 - found**2)) * np.sign(r)

    limit = stats.t.isf(alpha / 2 if two_sided else alpha, n - 2)
    return _significant(test, limit, two_sided, 2 * n, simulations, seed)


def simulate_two_sample(
    n_a: int,
    effect: float,
    *,
    n_b: int | None = None,
    alpha: float = 0.05,
    two_sided: bool = True,
    simulations: int = 20_000,
    seed: int = 0,
) -> SimulatedPower:
    """Check :func:`~bids_qsm.statistics.power.two_sample_power`."""
    size = n_a if n_b is None else n_b

    def test(rng: np.random.Generator, many: int) -> Float64:
        a = rng.standard_normal((many, n_a))
        b = rng.standard_normal((many, size)) + abs(effect)
        return _t(a, b, lost=2)

    limit = stats.t.isf(alpha / 2 if two_sided else alpha, n_a + size - 2)
    return _significant(test, limit, two_sided, n_a + size, simulations, seed)


def simulate_paired(
    n: int,
    effect: float,
    *,
    correlation: float | None = None,
    alpha: float = 0.05,
    two_sided: bool = True,
    simulations: int = 20_000,
    seed: int = 0,
) -> SimulatedPower:
    """Check :func:`~bids_qsm.statistics.power.paired_power`; pairs themselves are drawn."""
    rho = 0.5 if correlation is None else correlation  # differences then have an SD of one

    def test(rng: np.random.Generator, many: int) -> Float64:
        first, noise = rng.standard_normal((2, many, n))
        second = rho * first + np.sqrt(1 - rho**2) * noise + abs(effect)
        difference = second - first
        return np.sqrt(n) * difference.mean(axis=1) / difference.std(axis=1, ddof=1)

    limit = stats.t.isf(alpha / 2 if two_sided else alpha, n - 1)
    return _significant(test, limit, two_sided, 2 * n, simulations, seed)


def simulate_trial(
    kind: str,
    n_a: int,
    of: Endpoint,
    trial: Trial,
    *,
    method: str = "normal",
    simulations: int = 20_000,
    seed: int = 0,
) -> SimulatedPower:
    """Check :func:`~bids_qsm.statistics.trials.trial_power`.

    Means are drawn normal; shares from beta-binomial patients and rates from Poisson counts with a
    part in common, both with the trial's correlation between epochs.  The test is that of the
    formula: of the arms' averages, with the pooled variance of the data and the correlation
    known (``normal``), or Student's on patients' averages (``t``), with the baselines' average as
    covariate.

    Raises
    ------
    ValueError
        If shares or rates are to be correlated below zero, or wholly.
    """
    if kind != "mean" and not 0 <= trial.correlation < 1:
        raise ValueError("correlated events are drawn for correlations from 0 to below 1.")
    n_b = scaled(n_a, trial.ratio)
    sign = np.sign(of.treated - of.control)

    def test(rng: np.random.Generator, many: int) -> Float64:
        a = _patients(kind, of.control, of.variance_a, trial, (many, n_a), rng)
        b = _patients(kind, of.treated, of.variance_b, trial, (many, n_b), rng)
        if method == "t":
            return sign * (_ancova(a, b) if trial.baselines else _t(a[0], b[0], lost=2))
        slope = np.sqrt(of.variance_a) * trial.correlation * trial.baselines
        slope /= 1 + (trial.baselines - 1) * trial.correlation
        return sign * _z(kind, a[0] - slope * a[1], b[0] - slope * b[1], of, trial)

    tail = trial.alpha / 2 if trial.two_sided else trial.alpha
    lost = 3 if trial.baselines else 2
    limit = stats.norm.isf(tail) if method == "normal" else stats.t.isf(tail, n_a + n_b - lost)
    size = (n_a + n_b) * (trial.measurements + trial.baselines + 1)
    return _significant(test, float(limit), False, size, simulations, seed)


def _significant(
    test: Callable[[np.random.Generator, int], Float64],
    limit: float,
    two_sided: bool,
    size: int,
    simulations: int,
    seed: int,
) -> SimulatedPower:
    if simulations < 100:
        raise ValueError(f"give 100 simulations or more, not {simulations}.")
    rng, done, hits = np.random.default_rng(seed), 0, 0
    while done < simulations:
        many = min(simulations - done, max(1, DRAWS_AT_ONCE // size))
        statistic = test(rng, many)
        hits += int(np.sum((np.abs(statistic) if two_sided else statistic) > limit))
        done += many
    power = hits / simulations
    return SimulatedPower(power, float(np.sqrt(power * (1 - power) / simulations)), simulations)


def _patients(
    kind: str,
    value: float,
    variance: float,
    trial: Trial,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Float64:
    """Return each patient's average, and that of the baselines (0 if there are none)."""
    k, b, rho = trial.measurements, trial.baselines, trial.correlation
    if kind == "mean":
        covariance = np.full((k + b, k + b), rho) + (1 - rho) * np.eye(k + b)
        root = np.linalg.cholesky(covariance + 1e-14 * np.eye(k + b))
        drawn = np.einsum("spj,ij->spi", rng.standard_normal((*shape, k + b)), root)
        before = drawn[..., k:].mean(axis=2) if b else np.zeros(shape)
        return np.stack([value + np.sqrt(variance) * drawn[..., :k].mean(axis=2), before])
    if kind == "share":
        share: Any = value
        if rho > 0 and 0 < value < 1:
            share = rng.beta(value * (1 - rho) / rho, (1 - value) * (1 - rho) / rho, shape)
        return np.stack([rng.binomial(k, share, shape) / k, np.zeros(shape)])
    expected = value * trial.years / k
    common = rng.poisson(rho * expected, shape)
    own = rng.poisson((1 - rho) * expected * k, shape)
    return np.stack([(common * k + own) / trial.years, np.zeros(shape)])


def _ancova(a: Float64, b: Float64) -> Float64:
    """Return t of the arms' difference, adjusted for the covariate a[1], b[1]."""
    n_a, n_b = a.shape[2], b.shape[2]
    within = [values - values.mean(axis=2, keepdims=True) for values in (a, b)]
    yy, xx, xy = (
        sum((arm[i] * arm[j]).sum(axis=1) for arm in within) for i, j in ((0, 0), (1, 1), (0, 1))
    )
    shift, imbalance = b.mean(axis=2) - a.mean(axis=2)
    residual = (yy - xy**2 / xx) / (n_a + n_b - 3)
    error = np.sqrt(residual * (1 / n_a + 1 / n_b + imbalance**2 / xx))
    return (shift - xy / xx * imbalance) / error


def _t(a: Float64, b: Float64, lost: int) -> Float64:
    """Return Student's t of b - a in each row, for so many estimated parameters."""
    n_a, n_b = a.shape[1], b.shape[1]
    squares = n_a * a.var(axis=1) + n_b * b.var(axis=1)
    error = np.sqrt(squares / (n_a + n_b - lost) * (1 / n_a + 1 / n_b))
    return (b.mean(axis=1) - a.mean(axis=1)) / error


def _z(kind: str, a: Float64, b: Float64, of: Endpoint, trial: Trial) -> Float64:
    n_a, n_b = a.shape[1], b.shape[1]
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    both = (n_a * mean_a + n_b * mean_b) / (n_a + n_b)
    variance: Any = of.pooled
    if kind == "share":
        variance = both * (1 - both)
    elif kind == "rate":
        variance = both * trial.measurements / trial.years
    error = np.sqrt(variance_factor(trial) * variance * (1 / n_a + 1 / n_b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, (mean_b - mean_a) / error, 0.0)

"""Logistic regression of a two-level outcome, and how well it tells the levels apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Float64 = NDArray[np.float64]

_MOST_STEPS = 50
_SEPARATED = 30.0


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Maximum likelihood of a logistic model.

    Attributes
    ----------
    coefficients : ndarray, shape (p,)
    covariance : ndarray, shape (p, p)
        Inverse of the information.
    probability : ndarray, shape (n,)
    log_likelihood : float
    """

    coefficients: Float64
    covariance: Float64
    probability: Float64
    log_likelihood: float


def fit_logistic(matrix: Float64, event: NDArray[np.bool_]) -> LogisticFit:
    """Fit the log odds of an event to a design of full column rank.

    Parameters
    ----------
    matrix : ndarray, shape (n, p)
    event : ndarray of bool, shape (n,)

    Raises
    ------
    ValueError
        If the columns separate the levels, so that no coefficients are the most likely.
    """
    y = event.astype(np.float64)
    scale = np.sqrt(np.einsum("np,np->p", matrix, matrix) / len(matrix))
    x = matrix / scale
    beta = np.zeros(x.shape[1])
    likelihood = _log_likelihood(x, y, beta)
    for _ in range(_MOST_STEPS):
        probability = special.expit(np.einsum("np,p->n", x, beta))
        gradient = np.einsum("np,n->p", x, y - probability)
        step = _solve(_information(x, probability), gradient)
        size, better = 1.0, likelihood
        while size > 1e-6:
            better = _log_likelihood(x, y, beta + size * step)
            if better >= likelihood - 1e-12 * abs(likelihood):
                break
            size /= 2
        beta = beta + size * step
        likelihood = better
        if np.abs(size * step).max() < 1e-10 * (1 + np.abs(beta).max()):
            break
        if np.abs(np.einsum("np,p->n", x, beta)).min() > _SEPARATED:
            break
    probability = special.expit(np.einsum("np,p->n", x, beta))
    covariance = _solve(_information(x, probability), np.eye(len(beta)))
    if np.sqrt(np.diag(covariance)).max() > 1e4 or likelihood > -1e-6:
        raise ValueError(
            "the predictors separate the two levels of the outcome without an error: odds ratios "
            "cannot be had; use fewer predictors or more subjects."
        )
    covariance = covariance / np.outer(scale, scale)
    return LogisticFit(beta / scale, covariance, probability, likelihood)


def _information(x: Float64, probability: Float64) -> Float64:
    return np.einsum("np,n,nr->pr", x, probability * (1 - probability), x)


def _solve(information: Float64, right: Float64) -> Float64:
    # the least ridge keeps the matrix regular where the levels are separated
    ridge = 1e-14 * np.trace(information) + 1e-300
    return np.linalg.solve(information + ridge * np.eye(len(information)), right)


def _log_likelihood(x: Float64, y: Float64, beta: Float64) -> float:
    odds = np.einsum("np,p->n", x, beta)
    return float(np.sum(special.log_expit(np.where(y > 0, odds, -odds))))


def roc_area(scores: Float64, event: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Return the areas under the ROC curves of several scores, and their covariance.

    Parameters
    ----------
    scores : ndarray, shape (k, n)
    event : ndarray of bool, shape (n,)

    Returns
    -------
    areas : ndarray, shape (k,)
    covariance : ndarray, shape (k, k)

    References
    ----------
    DeLong, DeLong and Clarke-Pearson 1988, 10.2307/2531595; by ranks, Sun and Xu 2014,
    10.1109/LSP.2014.2337313.
    """
    m, n = int(event.sum()), int((~event).sum())
    above, below = [], []
    for score in scores:
        ranks = stats.rankdata(score)
        own_events = stats.rankdata(score[event])
        own_others = stats.rankdata(score[~event])
        above.append((ranks[event] - own_events) / n)
        below.append(1 - (ranks[~event] - own_others) / m)
    placed, others = np.array(above), np.array(below)
    covariance = np.atleast_2d(np.cov(placed)) / m + np.atleast_2d(np.cov(others)) / n
    return placed.mean(axis=1), covariance

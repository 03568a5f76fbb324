"""Ordinary least squares of many outcomes on one design, with ordinary or robust errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import solve_triangular

Float64 = NDArray[np.float64]
Robust = Literal["HC0", "HC1", "HC2", "HC3"]


@dataclass(frozen=True, eq=False)
class Fit:
    """Least squares of k outcomes on p columns.

    Attributes
    ----------
    matrix : ndarray, shape (n, p)
    coefficients : ndarray, shape (p, k)
    residuals : ndarray, shape (n, k)
    inverse : ndarray, shape (p, p)
        Of ``matrix.T @ matrix``.
    leverage : ndarray, shape (n,)
        Diagonal of the hat matrix.
    variance : ndarray, shape (k,)
        Of the residuals, with n - p.
    df : int
        n - p.
    """

    matrix: Float64
    coefficients: Float64
    residuals: Float64
    inverse: Float64
    leverage: Float64
    variance: Float64
    df: int


@dataclass(frozen=True, eq=False)
class Estimates:
    """Contrasts of coefficients; every array has shape (q, k)."""

    value: Float64
    se: Float64
    low: Float64
    high: Float64
    t: Float64
    p: Float64


def least_squares(matrix: Float64, outcomes: Float64) -> Fit:
    """Fit outcomes to a design of full column rank.

    Parameters
    ----------
    matrix : ndarray, shape (n, p)
    outcomes : ndarray, shape (n, k) or (n,)

    Returns
    -------
    Fit
        By an orthogonalisation of the columns, twice, in a fixed order of sums: as accurate as
        Householder's, and the same for any number of threads.
    """
    y = outcomes.reshape(len(outcomes), -1)
    q, r = orthogonal(matrix)
    coefficients = solve_triangular(r, np.einsum("np,nk->pk", q, y))
    residuals = y - np.einsum("np,pk->nk", matrix, coefficients)
    inverse_r = solve_triangular(r, np.eye(len(r)))
    df = matrix.shape[0] - matrix.shape[1]
    return Fit(
        matrix,
        coefficients,
        residuals,
        np.einsum("ij,kj->ik", inverse_r, inverse_r),
        np.einsum("np,np->n", q, q),
        np.einsum("nk,nk->k", residuals, residuals) / df,
        df,
    )


def orthogonal(matrix: Float64) -> tuple[Float64, Float64]:
    """Return an orthonormal basis of the columns, and the triangle that gives them back."""
    n, p = matrix.shape
    q, r = np.zeros((n, p)), np.zeros((p, p))
    for column in range(p):
        rest = matrix[:, column].astype(np.float64)
        for _ in range(2):
            along = np.einsum("np,n->p", q[:, :column], rest)
            rest = rest - np.einsum("np,p->n", q[:, :column], along)
            r[:column, column] += along
        r[column, column] = np.sqrt(np.einsum("n,n->", rest, rest))
        q[:, column] = rest / r[column, column]
    return q, r


def estimates(
    fit: Fit, weights: Float64, *, robust: Robust | None = None, level: float = 0.95
) -> Estimates:
    """Estimate contrasts of the coefficients, with intervals and two-sided p values by t.

    Parameters
    ----------
    fit : Fit
    weights : ndarray, shape (q, p)
    robust : {'HC0', 'HC1', 'HC2', 'HC3'}, optional
        Errors that hold when the variance differs between rows (MacKinnon and White 1985,
        10.1016/0304-4076(85)90158-7); the t distribution keeps n - p degrees of freedom.
    level : float
        Of the intervals.
    """
    value = np.einsum("qp,pk->qk", weights, fit.coefficients)
    if robust is None:
        share = np.einsum("qp,pr,qr->q", weights, fit.inverse, weights)
        se = np.sqrt(share[:, None] * fit.variance)
    else:
        influence = np.einsum("qp,pr,nr->qn", weights, fit.inverse, fit.matrix)
        se = np.sqrt(np.einsum("qn,nk->qk", influence**2, _squares(fit, robust)))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = value / se
    half = stats.t.ppf(0.5 + level / 2, fit.df) * se
    return Estimates(value, se, value - half, value + half, t, 2 * stats.t.sf(np.abs(t), fit.df))


def joint_test(
    fit: Fit, weights: Float64, *, robust: Robust | None = None
) -> tuple[Float64, Float64]:
    """Return F of shape (k,), with q and n - p degrees of freedom, and its p value.

    Parameters
    ----------
    fit : Fit
    weights : ndarray, shape (q, p)
        Rows that do not depend on each other.
    robust : optional
        As in :func:`estimates`; then a Wald statistic over q.
    """
    q = len(weights)
    value = np.einsum("qp,pk->qk", weights, fit.coefficients)
    if robust is None:
        share = np.einsum("qp,pr,sr->qs", weights, fit.inverse, weights)
        squares = np.einsum("qk,qk->k", value, np.linalg.solve(share, value))
        with np.errstate(divide="ignore", invalid="ignore"):
            f = squares / (q * fit.variance)
    else:
        influence = np.einsum("qp,pr,nr->qn", weights, fit.inverse, fit.matrix)
        covariance = np.einsum("qn,sn,nk->kqs", influence, influence, _squares(fit, robust))
        solved = np.linalg.solve(covariance, value.T[:, :, None])[:, :, 0]
        f = np.einsum("kq,kq->k", value.T, solved) / q
    return f, stats.f.sf(f, q, fit.df)


def _squares(fit: Fit, robust: Robust) -> Float64:
    """Return the squared residuals that stand for the variance of each row."""
    squares = fit.residuals**2
    n, p = fit.matrix.shape
    free = (1 - fit.leverage)[:, None]
    if robust == "HC0":
        return squares
    if robust == "HC1":
        return squares * n / (n - p)
    if robust == "HC2":
        return squares / free
    if robust == "HC3":
        return squares / free**2
    raise ValueError(f"robust errors are {', '.join(get_args(Robust))}, not {robust!r}.")

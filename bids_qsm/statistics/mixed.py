"""Linear mixed model of repeated measurements: a line in time with deviations of each subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from bids_qsm.statistics.intervals import Float64

SINGULAR = 1e-4
"""Of the residual SD: a smaller SD of subjects' slopes (over the span of time) counts as none."""
STEEP = 1e-2
"""Of -2 log likelihood: no summit was found where it still falls faster (by unit of SD ratios)."""


@dataclass(frozen=True)
class MixedFit:
    """Fixed effects with their covariance, and SDs of random effects and residuals.

    ``freedom`` is for tests of the slope in time.  ``random`` says which deviations of subjects
    were fitted, ``note`` why these.  ``log_likelihood`` is the restricted one.
    """

    beta: Float64
    covariance: Float64
    sd_intercept: float
    sd_slope: float
    sd_residual: float
    log_likelihood: float
    freedom: int
    random: str
    note: str


@dataclass(frozen=True)
class _Profile:
    """The likelihood at a covariance of random effects, with all else at its best."""

    minus_two: float  # times the log likelihood, less a constant
    beta: Float64
    inverse_normal: Float64
    variance: float
    middle: Float64  # W in V^-1 = 1 - Z W Z'
    weighted: Float64  # W Z' data


@dataclass(frozen=True)
class _Sums:
    """What the likelihood needs of the data: sums over each subject's measurements."""

    zz: Float64  # (subjects, q, q)
    zd: Float64  # (subjects, q, p + 1): the design, then the values
    dd: Float64  # (p + 1, p + 1)
    n: int


def fit_mixed(
    values: NDArray[np.floating],
    time: NDArray[np.floating],
    subject: NDArray[np.integer],
    design: NDArray[np.floating] | None = None,
) -> MixedFit:
    """Fit a mixed model by restricted maximum likelihood.

    Subjects deviate in intercept and slope, with a covariance; where the slopes do not vary, or
    the fit does not converge, or there are no more than two measurements for each subject, in
    the intercept alone (``note`` says so).

    Parameters
    ----------
    values, time : ndarray, shape (n,)
        Measurements and when they were made.
    subject : ndarray of int, shape (n,)
        Whose they are.
    design : ndarray, shape (n, p), optional
        Fixed effects; ones and ``time`` if not given.

    Returns
    -------
    MixedFit
        Degrees of freedom of the slope: subjects less one with random slopes, else measurements
        less subjects less one.

    Raises
    ------
    ValueError
        If no subject was measured at two times, the fixed effects are collinear, or they leave
        nothing to explain.

    Notes
    -----
    The likelihood needs only sums over each subject, and is evaluated for all at once.  It is
    maximised over the Cholesky factor of the covariance of random effects over the residual
    variance, as by Bates et al. 2015, 10.18637/jss.v067.i01.

    References
    ----------
    Laird & Ware 1982, 10.2307/2529876.
    """
    y, t = np.asarray(values, np.float64), np.asarray(time, np.float64)
    codes = np.unique(subject, return_inverse=True)[1]
    n_subjects = int(codes.max()) + 1
    span = float(np.ptp(t))
    if y.size <= n_subjects + 1 or span == 0:
        raise ValueError("a mixed model needs subjects that were measured at two times or more.")
    X = np.column_stack([np.ones_like(t), t]) if design is None else np.asarray(design, np.float64)
    size = np.sqrt((X**2).sum(axis=0))
    if np.any(size == 0) or np.linalg.matrix_rank(X / size) < X.shape[1]:
        raise ValueError("the fixed effects of the mixed model are collinear.")
    # what plain least squares explain is taken out first: sums of squares then lose no digits
    plain = np.linalg.lstsq(X / size, y, rcond=None)[0]
    rest = y - (X / size * plain).sum(axis=1)
    scale = float(np.sqrt(np.mean(rest**2)))
    if scale <= 1e-10 * float(np.abs(y).max()):
        raise ValueError("all subjects lie on one line without any noise: no mixed model.")
    data = np.column_stack([X / size, rest / scale])
    random = np.column_stack([np.ones_like(t), t / span])
    factor, sums, note = _random_effects(data, random, codes, n_subjects)
    at = _profile(factor, sums)
    sd, slopes = float(np.sqrt(at.variance)) * scale, len(factor) == 2
    constant = (y.size - X.shape[1]) * (1 + np.log(2 * np.pi) + 2 * np.log(scale))
    constant += 2 * float(np.log(size).sum())
    return MixedFit(
        beta=(at.beta * scale + plain) / size,
        covariance=at.variance * at.inverse_normal * scale**2 / np.outer(size, size),
        sd_intercept=float(factor[0, 0]) * sd,
        sd_slope=_of_slope(factor) * sd / span,
        sd_residual=sd,
        log_likelihood=-(at.minus_two + constant) / 2,
        freedom=n_subjects - 1 if slopes else y.size - n_subjects - 1,
        random="intercept and slope" if slopes else "intercept",
        note=note,
    )


def _random_effects(
    data: Float64, random: Float64, codes: NDArray[np.intp], n_subjects: int
) -> tuple[Float64, _Sums, str]:
    """Return the factor of slopes and intercepts, or of intercepts with the reason why."""
    if len(data) > 2 * n_subjects:
        sums = _sums(data, random, codes, n_subjects)
        factor, found = _maximise(sums, [(1.0, 0.0, 0.5), (10.0, 0.0, 2.0)])
        if found and _of_slope(factor) > SINGULAR:
            singular = factor[1, 1] < SINGULAR
            note = "slopes and intercepts deviate together: singular" if singular else ""
            return factor, sums, note
        note = "slopes do not vary" if found else "random slopes did not converge"
    else:
        note = "two scans of each subject: random slopes cannot be told from noise"
    sums = _sums(data, random[:, :1], codes, n_subjects)
    factor, found = _maximise(sums, [(1.0,), (10.0,)])
    return factor, sums, note if found else f"{note}; the random intercept did not converge"


def _of_slope(factor: Float64) -> float:
    return float(np.hypot(factor[1, 0], factor[1, 1])) if len(factor) == 2 else 0.0


def _sums(data: Float64, Z: Float64, codes: NDArray[np.intp], n_subjects: int) -> _Sums:
    def by_subject(products: Float64) -> Float64:
        flat = products.reshape(len(products), -1)
        columns = [np.bincount(codes, column, n_subjects) for column in flat.T]
        sums: Any = np.stack(columns, axis=1)
        return sums.reshape(n_subjects, *products.shape[1:])

    return _Sums(
        by_subject(Z[:, :, None] * Z[:, None, :]),
        by_subject(Z[:, :, None] * data[:, None, :]),
        np.einsum("ni,nj->ij", data, data),
        len(data),
    )


def _maximise(sums: _Sums, starts: Sequence[Sequence[float]]) -> tuple[Float64, bool]:
    """Return the Cholesky factor of the random effects, and whether it was found."""

    def objective(theta: Any) -> Any:
        return _with_gradient(_factor(theta), sums)

    factor, found = np.zeros((1, 1)), False
    for start in starts:  # a later one only where the likelihood is odd
        # without bounds: a column of the factor may change its sign and mean the same
        best = optimize.minimize(
            objective, np.array(start), jac=True, method="BFGS", options={"gtol": 1e-5}
        )
        factor = _factor(best.x)
        found = bool(np.isfinite(best.fun) and np.abs(best.jac).max() < STEEP)
        if found:
            break
    return factor * np.where(np.diag(factor) < 0, -1.0, 1.0), found


def _factor(theta: Float64) -> Float64:
    if theta.size == 1:
        return np.array([[theta[0]]])
    return np.array([[theta[0], 0.0], [theta[1], theta[2]]])


def _profile(factor: Float64, sums: _Sums) -> _Profile:
    identity = np.eye(len(factor))
    inner = identity + np.einsum("ki,skl,lj->sij", factor, sums.zz, factor)
    if len(factor) == 1:
        determinant, inverse = inner[:, 0, 0], 1 / inner
    else:
        a, b, d = inner[:, 0, 0], inner[:, 0, 1], inner[:, 1, 1]
        determinant = a * d - b * b
        inverse = np.array([[d, -b], [-b, a]]).transpose(2, 0, 1) / determinant[:, None, None]
    middle = np.einsum("ik,skl,jl->sij", factor, inverse, factor)
    weighted = np.einsum("sij,sjq->siq", middle, sums.zd)
    left = sums.dd - np.einsum("sip,siq->pq", sums.zd, weighted)
    normal, right = left[:-1, :-1], left[:-1, -1]
    inverse_normal = np.linalg.inv(normal)
    beta = inverse_normal @ right
    freedom = sums.n - len(beta)
    variance = max(float(left[-1, -1] - (right * beta).sum()), 1e-300) / freedom
    minus_two = freedom * np.log(variance) + float(np.log(determinant).sum())
    minus_two += float(np.linalg.slogdet(normal)[1])
    return _Profile(minus_two, beta, inverse_normal, variance, middle, weighted)


def _with_gradient(factor: Float64, sums: _Sums) -> tuple[float, Float64]:
    """Return -2 log likelihood less a constant, and its gradient by the free elements."""
    at = _profile(factor, sums)
    data = sums.zd - np.einsum("sij,sjq->siq", sums.zz, at.weighted)
    inner = np.einsum("sij,sjk,skl->il", sums.zz, at.middle, sums.zz)
    residual = data[:, :, -1] - np.einsum("sip,p->si", data[:, :, :-1], at.beta)
    slope = sums.zz.sum(axis=0) - inner
    slope -= np.einsum("si,sj->ij", residual, residual) / at.variance
    slope -= np.einsum("sip,pq,sjq->ij", data[:, :, :-1], at.inverse_normal, data[:, :, :-1])
    full = 2 * np.einsum("ij,jk->ik", slope, factor)
    gradient = full.ravel() if len(factor) == 1 else full[[0, 1, 1], [0, 0, 1]]
    return at.minus_two, gradient

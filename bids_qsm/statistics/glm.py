"""Mass-univariate least squares: one linear model in every voxel, t and F contrasts, effect sizes.

Images stand in rows: ``values[i, v]`` is voxel ``v`` of image ``i``.  They are read in blocks of
voxels, and every sum runs over the images in their order within one voxel, so that no result
depends on the number of threads or on the size of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from bids_qsm.statistics.multiplicity import fdr

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_BLOCK_BYTES = 1 << 26
_NO_SPREAD = 1e-6
"""Share of a voxel's size below which float32 values are taken as all the same."""


@dataclass(frozen=True)
class Distribution:
    """What a statistic follows if there is no effect.

    Attributes
    ----------
    kind : {"t", "F"}
    df_numerator, df_denominator : float
        Degrees of freedom; the numerator's is 1 for t.  An infinite denominator stands for a
        normal variable, or for a chi-squared one over its degrees of freedom.
    """

    kind: Literal["t", "F"]
    df_numerator: float
    df_denominator: float


@dataclass(frozen=True, eq=False)
class VoxelFit:
    """A linear model fitted in every voxel.

    Attributes
    ----------
    design : ndarray of float64, shape (n_images, p)
    betas : ndarray of float64, shape (p, n_voxels)
        Coefficients; zero in voxels that are not valid.
    residual_ss : ndarray of float64, shape (n_voxels,)
        Residual sum of squares.
    df_residual : int
    covariance : ndarray of float64, shape (p, p)
        ``inv(design' design)``: times the residual variance, the coefficients' covariance.
    valid : ndarray of bool, shape (n_voxels,)
        False where a value is not finite, or where all values, or all residuals, are the same.
    """

    design: Float64
    betas: Float64
    residual_ss: Float64
    df_residual: int
    covariance: Float64
    valid: Bool


@dataclass(frozen=True, eq=False)
class ContrastMap:
    """A contrast of a fit in every voxel.  Voxels that are not valid hold 0.

    Attributes
    ----------
    statistic : ndarray of float32, shape (n_voxels,)
    distribution : Distribution
    effect, standard_error : ndarray of float32 or None
        ``contrast . beta`` in the values' units, and its standard error; None for F.
    cohen_d : ndarray of float32 or None
        Effect over the residual standard deviation: Cohen's *d*, adjusted for the covariates,
        where the contrast is the difference of two groups; for a continuous regressor, standard
        deviations for each of its units.  None for F.
    partial_eta_squared : ndarray of float32
        ``q F / (q F + df)``, with ``t**2`` for ``q F``: the share of what the other regressors
        leave unexplained.
    valid : ndarray of bool
    """

    statistic: Float32
    distribution: Distribution
    effect: Float32 | None
    standard_error: Float32 | None
    cohen_d: Float32 | None
    partial_eta_squared: Float32
    valid: Bool


def fit_voxels(
    values: NDArray[np.floating], design: ArrayLike, *, names: Sequence[str] | None = None
) -> VoxelFit:
    """Fit a linear model by least squares in every voxel.

    Parameters
    ----------
    values : ndarray or memmap, shape (n_images, n_voxels)
        float32 as a rule.
    design : array_like, shape (n_images, p)
    names : sequence of str, optional
        The regressors' names, for what is said of a design that cannot be fitted.

    Returns
    -------
    VoxelFit
        Memory: the coefficients in float64 and 64 MiB for a block of voxels.

    Raises
    ------
    ValueError
        If the shapes do not agree, the design is not finite or its columns depend on each other,
        or no degree of freedom is left.
    """
    design = _checked_design(values, design, names)
    n_images, n_voxels = values.shape
    orthonormal, triangle = np.linalg.qr(design)
    inverse = np.linalg.inv(triangle)
    projector = np.einsum("ij,kj->ik", inverse, orthonormal)
    betas = np.zeros((design.shape[1], n_voxels))
    residual_ss = np.zeros(n_voxels)
    valid = np.zeros(n_voxels, np.bool_)
    step = max(256, _BLOCK_BYTES // (4 * n_images) // 256 * 256)
    for start in range(0, n_voxels, step):
        stop = min(start + step, n_voxels)
        block = np.ascontiguousarray(values[:, start:stop], np.float32)
        betas[:, start:stop], residual_ss[start:stop], valid[start:stop] = _fit_block(
            block, design, projector
        )
    betas[:, ~valid] = 0
    residual_ss[~valid] = 0
    covariance = np.einsum("ij,kj->ik", inverse, inverse)
    return VoxelFit(design, betas, residual_ss, n_images - design.shape[1], covariance, valid)


def test_contrast(fit: VoxelFit, contrast: ArrayLike) -> ContrastMap:
    """Test a contrast of the coefficients in every voxel.

    Parameters
    ----------
    fit : VoxelFit
    contrast : array_like, shape (p,) or (q, p)
        One row gives t; more rows give F of all of them together, and so does one row within two
        brackets.

    Raises
    ------
    ValueError
        If the contrast has not one weight for each regressor, weighs nothing, or has rows that
        depend on each other.
    """
    rows = _checked_contrast(contrast, fit.design.shape[1])
    one_sided = np.ndim(contrast) == 1
    valid = fit.valid
    variance = np.where(valid, fit.residual_ss, 1) / fit.df_residual
    effects = np.einsum("qp,pv->qv", rows, fit.betas)
    spread = np.einsum("qp,pr,sr->qs", rows, fit.covariance, rows)
    squares = np.einsum("qv,qs,sv->v", effects, np.linalg.inv(spread), effects) / variance
    eta = _masked(squares / (squares + fit.df_residual), valid)
    if not one_sided:
        f = _masked(squares / len(rows), valid)
        kind = Distribution("F", float(len(rows)), float(fit.df_residual))
        return ContrastMap(f, kind, None, None, None, eta, valid)
    error = np.sqrt(variance * spread[0, 0])
    return ContrastMap(
        statistic=_masked(effects[0] / error, valid),
        distribution=Distribution("t", 1.0, float(fit.df_residual)),
        effect=_masked(effects[0], valid),
        standard_error=_masked(error, valid),
        cohen_d=_masked(effects[0] / np.sqrt(variance), valid),
        partial_eta_squared=eta,
        valid=valid,
    )


test_contrast.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def upper_tail(statistic: ArrayLike, distribution: Distribution) -> Float64:
    """Return the probability that a statistic is higher than each value, if there is no effect."""
    values = np.asarray(statistic, np.float64)
    k, df = distribution.df_numerator, distribution.df_denominator
    if distribution.kind == "t":
        return np.asarray(stats.norm.sf(values) if np.isinf(df) else stats.t.sf(values, df))
    if np.isinf(df):
        return np.asarray(stats.chi2.sf(values * k, k))
    return np.asarray(special.fdtrc(k, df, np.maximum(values, 0)))


def upper_quantile(p: float, distribution: Distribution) -> float:
    """Return the value that a statistic exceeds with probability ``p``, if there is no effect."""
    k, df = distribution.df_numerator, distribution.df_denominator
    if distribution.kind == "t":
        return float(stats.norm.isf(p) if np.isinf(df) else stats.t.isf(p, df))
    return float(stats.chi2.isf(p, k) / k if np.isinf(df) else stats.f.isf(p, k, df))


def p_values(result: ContrastMap) -> Float64:
    """Return each voxel's p, two-sided for t; 1 in voxels that are not valid."""
    if result.distribution.kind == "t":
        p = 2 * upper_tail(np.abs(result.statistic), result.distribution)
    else:
        p = upper_tail(result.statistic, result.distribution)
    return np.where(result.valid, p, 1.0)


def false_discovery_q(p: ArrayLike, valid: Bool | None = None) -> Float64:
    """Return the false discovery rates at which voxels become significant; 1 if not ``valid``."""
    p = np.asarray(p, np.float64)
    tested = np.ones(p.shape, np.bool_) if valid is None else valid
    return np.asarray(np.where(tested, fdr(np.where(tested, p, np.nan)), 1.0))


def _masked(values: Float64, valid: Bool) -> Float32:
    return np.where(valid, values, 0).astype(np.float32)


def _checked_design(
    values: NDArray[np.floating], design: ArrayLike, names: Sequence[str] | None
) -> Float64:
    design = np.ascontiguousarray(design, np.float64)
    if values.ndim != 2 or design.ndim != 2 or len(values) != len(design):
        raise ValueError(
            f"the design has the shape {design.shape} and the values {values.shape}: "
            "both must have two dimensions, with one row for each image."
        )
    n_images, p = design.shape
    labels = list(names) if names is not None else [f"column {i + 1}" for i in range(p)]
    finite = np.isfinite(design).all(axis=0)
    if not finite.all():
        bad = ", ".join(label for label, ok in zip(labels, finite, strict=True) if not ok)
        raise ValueError(
            f"the design has values that are missing or not finite ({bad}): "
            "leave those images out, or complete the table."
        )
    dependent = _first_dependent(design)
    if dependent is not None:
        raise ValueError(
            f"the model cannot be fitted: {labels[dependent]} is zero, or the other regressors "
            "add up to it (a constant covariate, or groups and an intercept too many); "
            "leave one of them out."
        )
    if n_images <= p:
        raise ValueError(
            f"{n_images} images cannot fit {p} coefficients and leave an error to test "
            "against: give more images or fewer regressors."
        )
    return design


def _first_dependent(design: Float64) -> int | None:
    """Return the first column that those before it explain, or None."""
    lengths = np.sqrt(np.einsum("ij,ij->j", design, design))
    if not lengths.all():
        return int(np.argmin(lengths))
    for n in range(1, design.shape[1] + 1):
        if np.linalg.matrix_rank(design[:, :n] / lengths[:n], tol=1e-8) < n:
            return n - 1
    return None


def _checked_contrast(contrast: ArrayLike, p: int) -> Float64:
    rows = np.atleast_2d(np.asarray(contrast, np.float64))
    if rows.ndim != 2 or rows.shape[1] != p:
        raise ValueError(
            f"the contrast has {rows.shape[-1]} weights and the model {p} coefficients: "
            "give one weight for each."
        )
    if not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise ValueError("a contrast must have finite weights that are not all zero.")
    if np.linalg.matrix_rank(rows) < len(rows):
        raise ValueError("the rows of an F contrast depend on each other: leave one of them out.")
    return rows


@njit(parallel=True, cache=True)
def _fit_block(block, design, projector):  # type: ignore[no-untyped-def]
    """Return coefficients, residual sum of squares and validity of a block of voxels."""
    n_images, n_voxels = block.shape
    p = design.shape[1]
    betas = np.zeros((p, n_voxels))
    residual_ss = np.zeros(n_voxels)
    valid = np.zeros(n_voxels, np.bool_)
    width = 256
    for chunk in prange((n_voxels + width - 1) // width):
        low = chunk * width
        high = min(low + width, n_voxels)
        sums = np.zeros((p, width))
        squares = np.zeros(width)
        total = np.zeros(width)
        fitted = np.empty(width)
        for i in range(n_images):
            for j in range(p):
                weight = projector[j, i]
                for v in range(high - low):
                    sums[j, v] += weight * block[i, low + v]
        for i in range(n_images):
            fitted[:] = 0.0
            for j in range(p):
                x = design[i, j]
                for v in range(high - low):
                    fitted[v] += x * sums[j, v]
            for v in range(high - low):
                value = np.float64(block[i, low + v])
                squares[v] += (value - fitted[v]) ** 2
                total[v] += value * value
        for v in range(high - low):
            betas[:, low + v] = sums[:, v]
            residual_ss[low + v] = squares[v]
            # A comparison with a value that is not finite is False.
            valid[low + v] = squares[v] > _NO_SPREAD**2 * total[v] and squares[v] < np.inf
    return betas, residual_ss, valid

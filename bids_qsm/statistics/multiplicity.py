"""P values of many tests, corrected for their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fdr(p: ArrayLike) -> NDArray[np.float64]:
    """Return q values: the least false discovery rate at which each test is rejected.

    Parameters
    ----------
    p : array_like, shape (k,)
        P values; NaN stands for a test that was not made, stays NaN and is not counted.

    References
    ----------
    Benjamini and Hochberg 1995, 10.1111/j.2517-6161.1995.tb02031.x.
    """
    values, order, known = _ranked(p)
    ranks = np.arange(1, order.size + 1)
    scaled = values[order] * order.size / ranks
    values[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return _filled(values, known)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p values that keep the familywise error rate, by Holm's step-down procedure.

    Parameters
    ----------
    p : array_like, shape (k,)
        As for :func:`fdr`.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    values, order, known = _ranked(p)
    scaled = values[order] * np.arange(order.size, 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return _filled(values, known)


def _ranked(
    p: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]:
    values = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(values)
    values = values[known]
    return values, np.argsort(values, kind="stable"), known


def _filled(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    result = np.full(known.shape, np.nan)
    result[known] = values
    return result

"""Medians and percentiles of many numbers, as numpy's, but several times as fast.

numpy's look for NaN and for several ranks at once, which keeps them from the vector instructions
that a partition at a single rank is made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def median(values: NDArray[np.floating]) -> float:
    """Return the median of numbers, as ``numpy.median`` does.

    Parameters
    ----------
    values : ndarray
        Of any shape, at least one number, no NaN.  Memory: a copy.
    """
    middle = values.size // 2
    ordered = np.partition(values, middle, axis=None)
    if values.size % 2:
        return float(ordered[middle])
    return float(np.mean([ordered[:middle].max(), ordered[middle]], dtype=values.dtype))


def percentiles(values: NDArray[np.floating], percents: Sequence[float]) -> list[float]:
    """Return percentiles of numbers, as ``numpy.percentile`` does.

    Parameters
    ----------
    values : ndarray
        Of any shape, at least one number, no NaN.  Memory: a copy.
    percents : sequence of float
        Rising, 0 to 100.
    """
    ordered, start, found = values.flatten(), 0, []
    for percent in percents:
        place = percent / 100 * (values.size - 1)
        rank = int(place)
        # what is lower stands on the left already
        ordered[start:].partition(rank - start)
        start, share, low = rank, place - rank, ordered[rank]
        high = ordered[rank + 1 :].min() if share else low
        rise = float(high - low)
        found.append(float(low) + rise * share if share < 0.5 else float(high) - rise * (1 - share))
    return found

"""What a check says: a value, its expected range, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Check:
    """One check of a segmentation or a series.

    Attributes
    ----------
    check : str
        What is looked at: ``volume``, ``volume asymmetry``, ...
    name, hemisphere : str
        The structure; a pair of structures reads ``a - b``.  L, R or B for both.
    value, low, high : float
        What was found and what is expected; a bound may be infinite.
    units : str
    passed : bool or None
        None where it could not be measured.
    sentence : str
        For the report.
    """

    check: str
    name: str
    hemisphere: str
    value: float
    low: float
    high: float
    units: str
    passed: bool | None
    sentence: str


def checked(
    check: str,
    structure: tuple[str, str, str],
    value: float,
    low: float,
    high: float,
    units: str,
    advice: str,
) -> Check:
    """Return a check; ``structure`` is name, side and title.  A value that is NaN fails."""
    name, side, title = structure
    passed = bool(low <= value <= high)
    if np.isfinite(low) and np.isfinite(high):
        expected = f"expected {low:g} to {high:g}"
    else:
        expected = (
            f"expected at least {low:g}" if np.isfinite(low) else f"expected at most {high:g}"
        )
    end = "as expected" if passed else f"{expected}: {advice}"
    sentence = f"{title}: {check} {value:.3g} {units}".rstrip() + f", {end}."
    return Check(check, name, side, float(value), low, high, units, passed, sentence)

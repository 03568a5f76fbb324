"""Numbers as a paper prints them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bids_qsm.report.tables import NONE, decimals

SMALLEST_P = 1e-5


def number_text(value: float, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits, whole ones in full.

    Very large and very small ones are given with a power of ten; what is not finite as a dash.
    """
    if not math.isfinite(value):
        return NONE
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}".replace("-", "−")
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}×10{raised(int(power))}".replace("-", "−")
    before_point = math.floor(math.log10(abs(value))) + 1
    return f"{value:.{max(0, digits - before_point)}f}".replace("-", "−")


def p_text(p: float) -> str:
    """Return a p or q value: three decimals, or the first digit that is not zero."""
    if not math.isfinite(p):
        return NONE
    if p < SMALLEST_P:
        return f"< {SMALLEST_P:.5f}"
    if p >= 0.00095:
        return f"{p:.3f}"
    return np.format_float_positional(float(f"{p:.0e}"), trim="-")


def p_statement(p: float) -> str:
    """Return ``p = 0.012`` or ``p < 0.00001``."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def common_decimals(values: Iterable[float], digits: int = 3) -> int:
    """Return how many decimals give the largest of some values ``digits`` significant digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return 0
    return min(9, max(0, digits - 1 - math.floor(math.log10(largest))))


def interval_text(low: float, high: float, places: int) -> str:
    """Return an interval in brackets, with so many decimals."""
    return f"[{decimals(low, places)}, {decimals(high, places)}]"


def raised(power: int) -> str:
    """Return a power in small raised digits."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))

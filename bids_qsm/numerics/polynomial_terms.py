"""The polynomials that no source in or around a head can make, or only a far one."""

from __future__ import annotations

import numba

TERMS = 5
"""1, x, y, z and x^2 + y^2 + z^2."""


@numba.njit(cache=True)
def set_terms(terms, x, y, z):  # type: ignore[no-untyped-def]
    """Write the polynomials' values at a place."""
    terms[0], terms[1], terms[2], terms[3] = 1.0, x, y, z
    terms[4] = x * x + y * y + z * z

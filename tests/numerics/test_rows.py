from __future__ import annotations

import re

import numba
import numpy as np
import pytest

from bids_qsm.numerics.rows import row_kernel


def _combine(a, b, c, d, e, left, right) -> None:
    for i in range(len(a)):
        left[i] = np.sqrt(a[i] * b[i]) / c[i]
        right[i] = d[i] - e[i] / c[i]


def _caller(row):
    @numba.njit
    def call(a, out):
        row(a[0], a[1], a[2], a[3], a[4], out[0], out[1])

    return call


@pytest.mark.parametrize(("decorate", "is_vectorised"), [(row_kernel(), True), (numba.njit, False)])
def test_rows_are_vectorised_and_plain_loops_of_many_arrays_are_not(
    decorate, is_vectorised
) -> None:
    # where a plain one is, too, numba needs row_kernel no more
    a, b, c, d, e = values = np.arange(1, 5 * 37 + 1, dtype=np.float32).reshape(5, 37)
    call, out = _caller(decorate(_combine)), np.empty((2, 37), np.float32)
    call(values, out)
    code = call.inspect_llvm(call.signatures[0])
    assert bool(re.search(r"= fdiv .*<\d+ x float>", code)) is is_vectorised
    np.testing.assert_allclose(out, [np.sqrt(a * b) / c, d - e / c], rtol=1e-6)


def test_a_division_by_zero_gives_no_number_and_no_error() -> None:
    call, out = _caller(row_kernel()(_combine)), np.empty((2, 4), np.float32)
    call(np.zeros((5, 4), np.float32), out)
    assert np.isnan(out).all()
